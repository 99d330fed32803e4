"""Prepare: what decides the digest, before anything is built; and the content key of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from builder.model import layers as layering
from builder.model.assembly import ASSEMBLY_VERSION
from builder.model.catalogue import Catalogue
from builder.model.digest import Digest
from builder.model.image import BuildContext, ImageConfig, Target
from builder.model.lock import ImageLock, LockedPackage, LockSection
from builder.model.platform import Platform
from builder.oci.compress import COMPRESSOR
from builder.stages.derive import DERIVE_VERSION
from builder.stages.lock import locked_section
from builder.stages.normalise import NORMALISE_VERSION
from builder.stages.render import image_config, render


@dataclass(frozen=True, slots=True)
class Prepared:
    """A target that is ready to be built: its rendered contexts and its content key."""

    target: Target
    contexts: Mapping[Platform, BuildContext]
    packages: Mapping[Platform, tuple[LockedPackage, ...]]
    input_hash: Digest
    version: str
    # The input hash of the image below.
    parent: Digest | None = None

    @property
    def immutable_tag(self) -> str:
        """As the finished image's: one tag for each input."""
        return f"{self.version}-{self.input_hash.short}"

    @property
    def locks(self) -> dict[Platform, LockSection]:
        """The lock's sections by platform."""
        return {platform: context.lock for platform, context in self.contexts.items()}


def prepare(
    catalogue: Catalogue,
    target: Target,
    known: dict[str, Prepared] | None = None,
    locks: dict[str, ImageLock] | None = None,
) -> Prepared:
    """Read the lock and render: everything that decides the digest, before anything is built.

    `known` collects what was prepared in this run, so that a parent is prepared once, and `locks`
    the locks that were read.
    Raises LockError when the lock is stale, DefinitionError when a template cannot be rendered.
    """
    known = {} if known is None else known
    if target.ref in known:
        return known[target.ref]
    parent = catalogue.parent(target)
    locks = {} if locks is None else locks
    above = prepare(catalogue, parent, known, locks) if parent else None
    inherited = _inherited(catalogue, target)
    depth = len(catalogue.ancestors(target))
    contexts: dict[Platform, BuildContext] = {}
    packages: dict[Platform, tuple[LockedPackage, ...]] = {}
    for platform in target.platforms:
        lock = locked_section(catalogue, target, platform, locks)
        contexts[platform] = render(target, platform, lock, catalogue.root / "templates", inherited, depth)
        packages[platform] = tuple(sorted((*(above.packages[platform] if above else ()), *lock.packages)))
    key: dict[str, Any] = {
        "parent": above.input_hash if above else None,
        "versions": [*versions().values()],
        "platforms": {str(p): _context_key(c) for p, c in contexts.items()},
    }
    if target.made.by:
        key["steps"] = [identity.as_dict() for identity in target.made.by]
    prepared = Prepared(
        target, contexts, packages, Digest.of_json(key), _version(target, packages), key["parent"]
    )
    known[target.ref] = prepared
    return prepared


def versions() -> dict[str, object]:
    """The versions of the parts that decide an image's bytes, as they are here; the order counts."""
    return {
        "assembly": ASSEMBLY_VERSION,
        "layers": layering.LAYERING_VERSION,
        "normaliser": NORMALISE_VERSION,
        "compressor": COMPRESSOR,
        "derived files": DERIVE_VERSION,
    }


def _context_key(context: BuildContext) -> dict[str, Any]:
    return {
        "files": {path: Digest.of(content) for path, content in context.files.items()},
        "entries": [[e.path, e.kind, e.mode, e.owner, e.target, e.derived] for e in context.entries],
        "lock": context.lock.digest,
    }


def configuration(catalogue: Catalogue, target: Target) -> ImageConfig:
    """What a container of the target starts with; its parents' environment included."""
    return image_config(target, _inherited(catalogue, target))


def _inherited(catalogue: Catalogue, target: Target) -> Mapping[str, str]:
    parent = catalogue.parent(target)
    return configuration(catalogue, parent).environment if parent else {}


def _version(target: Target, packages: Mapping[Platform, tuple[LockedPackage, ...]]) -> str:
    """The upstream version of the stream's first package (deb-version(7)), for the immutable tag."""
    first = target.stream.packages[0]
    version = next((p.version for p in next(iter(packages.values())) if p.name == first), target.stream_name)
    upstream = version.partition(":")[2] or version
    upstream = upstream.rpartition("-")[0] or upstream
    return "".join(c if c.isalnum() or c in ".-_" else "." for c in upstream)
