"""Build: prepared targets → finished images, on one engine or on several that must agree."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from builder.errors import GoldsmithError, NotReproducible
from builder.model import layers as layering
from builder.model.assembly import is_appended
from builder.model.digest import Digest
from builder.model.image import BuildContext, BuiltImage, PlatformImage, RawImage
from builder.model.lock import LockedPackage
from builder.oci.rootfs import Node, image_tree, read_files
from builder.pipeline.prepare import Prepared
from builder.pipeline.timing import Stages
from builder.stages import normalise as normaliser
from builder.stages.compare import differences
from builder.stages.derive import derive
from builder.stages.finish import finish, reread
from builder.stages.unpack import unpack
from builder.store import Store, disk_faults


class Pool(Protocol):
    """Where verified packages are."""

    def fetch(self, packages: Sequence[LockedPackage]) -> None:
        """Bring packages into the pool."""

    def path(self, package: LockedPackage) -> Path:
        """A package's file, checked."""

    def plain(self, package: LockedPackage) -> Path:
        """The same with its archives unpacked."""


class Engine(Protocol):
    """One way from a context to a root file system."""

    @property
    def name(self) -> str:
        """The engine's name."""

    def build(self, context: BuildContext, pool: Any, work: Path) -> RawImage:
        """Build below `work`."""


class Builder:
    """Builds prepared targets, each on one engine or on several that must agree."""

    def __init__(self, store: Store, pool: Pool, engines: Sequence[Engine]) -> None:
        self._store, self._pool, self._engines = store, pool, tuple(engines)
        self._trees: dict[Digest, Mapping[str, Node]] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """The engines that agree on every image that this builder gives."""
        return tuple(engine.name for engine in self._engines)

    def reuse(self, prepared: Prepared) -> BuiltImage | None:
        """The finished image of the same input, when it is here and was built by these engines."""
        record = self._store.record("built", prepared.input_hash)
        if record is None or not set(self.names) <= set(record.get("engines", [])):
            return None
        try:
            layout = self._store.images / Digest(record["digest"]).hex
            image = reread(
                prepared.target,
                layout,
                prepared.input_hash,
                prepared.version,
                prepared.locks,
                prepared.packages,
            )
        except (GoldsmithError, KeyError, ValueError, OSError):
            return None
        return image if image.digest == record["digest"] else None

    def chain(self, prepared: Sequence[Prepared], stages: Callable[[str], Stages]) -> tuple[BuiltImage, bool]:
        """Build an image and its parents, the oldest first; returns the last, and whether it is new.

        Raises what `build` raises, and ValueError when nothing is named.
        """
        image: BuiltImage | None = None
        found: BuiltImage | None = None
        for item in prepared:
            found = self.reuse(item)
            image = found or self.build(item, image, stages(item.target.ref))
        if image is None:
            raise ValueError("nothing to build")
        return image, found is None

    def build(self, prepared: Prepared, parent: BuiltImage | None, stages: Stages) -> BuiltImage:
        """Build `prepared` on every engine, compare, and keep the result in the state directory.

        Raises NotReproducible when two engines disagree, with the first difference, and
        ToolError when the disk is full.
        """
        with stages.stage("fetch"):
            for context in prepared.contexts.values():
                self._pool.fetch(context.lock.packages)
        with disk_faults(), self._store.scratch("build") as work:
            layout = work / "layout"
            images = tuple(
                self._build_platform(context, parent, layout, work, stages)
                for context in prepared.contexts.values()
            )
            built = finish(prepared.target, images, prepared.input_hash, prepared.version)
            kept = self._keep(built, work)
        self._store.remember(
            "built",
            prepared.input_hash,
            {"digest": built.digest, "ref": prepared.target.ref, "engines": list(self.names)},
        )
        images = tuple(replace(x, layout=kept) for x in images)
        return replace(built, layout=kept, platforms=images)

    def _build_platform(
        self, context: BuildContext, parent: BuiltImage | None, layout: Path, work: Path, stages: Stages
    ) -> PlatformImage:
        below = None
        if parent:
            below = next(x for x in parent.platforms if x.platform == context.platform)
        with stages.stage("unpack"):
            database = read_files(below, layering.OWN, is_appended) if below else {}
            variant = context.lock.variant
            contents = unpack(context.lock.packages, self._pool.plain, variant, context.left_out, database)
        context = derive(replace(context, parent=below, epoch=contents.epoch, database=database))
        first: PlatformImage | None = None
        for number, engine in enumerate(self._engines):
            place = work / f"{engine.name}-{context.platform.architecture}"
            place.mkdir()
            with stages.stage("build", engine.name):
                raw = engine.build(context, self._pool, place)
            with stages.stage("normalise", engine.name):
                to = layout if number == 0 else place / "layout"
                image = normaliser.normalise(raw, contents, to, self._tree(below))
            if first is not None and (found := differences(first, image)):
                raise NotReproducible(
                    f"{context.ref}: {self._engines[0].name} and {engine.name} give different images",
                    context="\n".join(found),
                    hint="the input is the same, so one of the engines is wrong; please report it",
                )
            first = first or image
            shutil.rmtree(place)
        if first is None:
            raise NotReproducible("no engine was named", hint="use --engine direct")
        return first

    def _tree(self, below: PlatformImage | None) -> Mapping[str, Node] | None:
        """The tree of a parent, read once for all that is built on it."""
        if below is None:
            return None
        digest = below.manifest.digest
        if digest not in self._trees:
            self._trees[digest] = image_tree(below)
        return self._trees[digest]

    def _keep(self, built: BuiltImage, work: Path) -> Path:
        """Move the layout to its place; one that is there already may be damaged, and goes."""
        final = self._store.images / built.digest.hex
        self._store.images.mkdir(parents=True, exist_ok=True)
        if final.exists():
            os.replace(final, work / "replaced")
        os.replace(built.layout, final)
        return final
