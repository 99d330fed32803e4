"""The order of the stages, and the only module that knows it.

    define → lock → render → build (unpack, engine, normalise, finish)
           → check, scan, lint → judge → sign → publish

Each step is keyed by the content of its inputs: what was done before is reused, and an input
that did not change makes no new digest, no new tag and no noise.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from builder.errors import GoldsmithError, NotReproducible
from builder.model import layers as layering
from builder.model.assembly import ASSEMBLY_VERSION
from builder.model.catalogue import Catalogue
from builder.model.digest import Digest
from builder.model.image import BuildContext, BuiltImage, PlatformImage, RawImage, Target
from builder.model.lock import LockedPackage, LockSection
from builder.model.platform import Platform
from builder.oci.compress import COMPRESSOR
from builder.report import Reporter
from builder.stages import normalise as normaliser
from builder.stages.compare import differences
from builder.stages.finish import finish, reread
from builder.stages.lock import locked_section
from builder.stages.render import image_config, render
from builder.stages.unpack import unpack
from builder.store import Store


class Pool(Protocol):
    """Where verified packages are."""

    def fetch(self, packages: Sequence[LockedPackage]) -> None:
        """Bring packages into the pool."""

    def path(self, package: LockedPackage) -> Path:
        """A package's file, checked."""


class Engine(Protocol):
    """One way from a context to a root file system."""

    @property
    def name(self) -> str:
        """The engine's name."""

    def build(self, context: BuildContext, pool: Any, work: Path) -> RawImage:
        """Build below `work`."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A target that is ready to be built: its rendered contexts and its content key."""

    target: Target
    contexts: Mapping[Platform, BuildContext]
    packages: Mapping[Platform, tuple[LockedPackage, ...]]
    input_hash: Digest
    version: str

    @property
    def locks(self) -> dict[Platform, LockSection]:
        """The lock's sections by platform."""
        return {platform: context.lock for platform, context in self.contexts.items()}


@dataclass(slots=True)
class Stages:
    """Seconds by stage of one image; reported as they end."""

    image: str
    reporter: Reporter
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str, detail: str = "") -> Iterator[None]:
        """Time one stage."""
        began = time.monotonic()
        with self.reporter.stage(self.image, name, detail):
            yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - began


def prepare(catalogue: Catalogue, target: Target) -> Prepared:
    """Read the lock and render: everything that decides the digest, before anything is built.

    Raises LockError when the lock is stale, DefinitionError when a template cannot be rendered.
    """
    parent = catalogue.parent(target)
    above = prepare(catalogue, parent) if parent else None
    inherited = _environment(catalogue, parent) if parent else {}
    depth = len(catalogue.ancestors(target))
    contexts: dict[Platform, BuildContext] = {}
    packages: dict[Platform, tuple[LockedPackage, ...]] = {}
    for platform in target.platforms:
        lock = locked_section(catalogue, target, platform)
        contexts[platform] = render(target, platform, lock, catalogue.root / "templates", inherited, depth)
        packages[platform] = tuple(sorted((*(above.packages[platform] if above else ()), *lock.packages)))
    key = {
        "parent": above.input_hash if above else None,
        "versions": [ASSEMBLY_VERSION, layering.LAYERING_VERSION, normaliser.NORMALISE_VERSION, COMPRESSOR],
        "platforms": {str(p): _context_key(c) for p, c in contexts.items()},
    }
    return Prepared(target, contexts, packages, Digest.of_json(key), _version(target, packages))


def _context_key(context: BuildContext) -> dict[str, Any]:
    return {
        "files": {path: Digest.of(content) for path, content in context.files.items()},
        "entries": [[e.path, e.kind, e.mode, e.owner, e.target] for e in context.entries],
        "lock": context.lock.digest,
    }


def _environment(catalogue: Catalogue, target: Target) -> Mapping[str, str]:
    parent = catalogue.parent(target)
    return image_config(target, _environment(catalogue, parent) if parent else {}).environment


def _version(target: Target, packages: Mapping[Platform, tuple[LockedPackage, ...]]) -> str:
    """The upstream version of the stream's first package (deb-version(7)), for the immutable tag."""
    first = target.stream.packages[0]
    version = next((p.version for p in next(iter(packages.values())) if p.name == first), target.stream_name)
    upstream = version.partition(":")[2] or version
    upstream = upstream.rpartition("-")[0] or upstream
    return "".join(c if c.isalnum() or c in ".-_" else "." for c in upstream)


class Builder:
    """Builds prepared targets, each on one engine or on several that must agree."""

    def __init__(self, store: Store, pool: Pool, engines: Sequence[Engine]) -> None:
        self._store, self._pool, self._engines = store, pool, tuple(engines)

    def reuse(self, prepared: Prepared) -> BuiltImage | None:
        """The finished image of the same input, when it is here and was built by these engines."""
        record = self._store.record("built", prepared.input_hash)
        if record is None or not {e.name for e in self._engines} <= set(record.get("engines", [])):
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

    def build(self, prepared: Prepared, parent: BuiltImage | None, stages: Stages) -> BuiltImage:
        """Build `prepared` on every engine, compare, and keep the result in the state directory.

        Raises NotReproducible when two engines disagree, with the first difference.
        """
        with stages.stage("fetch"):
            for context in prepared.contexts.values():
                self._pool.fetch(context.lock.packages)
        with self._store.scratch("build") as work:
            layout = work / "layout"
            images = tuple(
                self._build_platform(context, parent, layout, work, stages)
                for context in prepared.contexts.values()
            )
            built = finish(prepared.target, images, prepared.input_hash, prepared.version)
            kept = self._keep(built)
        self._store.remember(
            "built",
            prepared.input_hash,
            {"digest": built.digest, "ref": prepared.target.ref, "engines": [e.name for e in self._engines]},
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
            contents = unpack(context.lock.packages, self._pool.path)
        context = replace(context, parent=below, epoch=contents.epoch)
        first: PlatformImage | None = None
        for number, engine in enumerate(self._engines):
            place = work / f"{engine.name}-{context.platform.architecture}"
            place.mkdir()
            with stages.stage("build", engine.name):
                raw = engine.build(context, self._pool, place)
            with stages.stage("normalise", engine.name):
                image = normaliser.normalise(raw, contents, layout if number == 0 else place / "layout")
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

    def _keep(self, built: BuiltImage) -> Path:
        final = self._store.images / built.digest.hex
        if not final.exists():
            self._store.images.mkdir(parents=True, exist_ok=True)
            os.replace(built.layout, final)
        return final


def build_all(
    builder: Builder,
    prepared: Sequence[Prepared],
    parents: Callable[[Target], Target | None],
    stages: Callable[[str], Stages],
) -> Iterator[tuple[Prepared, BuiltImage, bool]]:
    """Build in the given order (parents first); yields each image and whether it was built anew."""
    done: dict[str, BuiltImage] = {}
    for item in prepared:
        found = builder.reuse(item)
        parent = parents(item.target)
        image = found or builder.build(item, done[parent.ref] if parent else None, stages(item.target.ref))
        done[item.target.ref] = image
        yield item, image, found is None
