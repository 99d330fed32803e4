"""Locking anew: the archive of today → the locks of images, and what changed in them."""

from __future__ import annotations

from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from builder.model.catalogue import Catalogue
from builder.model.digest import Digest
from builder.model.image import Target
from builder.model.lock import ImageLock
from builder.model.platform import Platform
from builder.pipeline.resolving import Remembering
from builder.settings import Settings
from builder.stages import lock as stage
from builder.stages.lock import SectionDiff
from builder.store import Store, file_digest
from builder.tools import mirror
from builder.tools.apt import KEYRING, Apt

_UPDATES = 4  # indexes that are fetched at once


def relock(
    catalogue: Catalogue, settings: Settings, store: Store, names: list[str], check: bool
) -> tuple[list[SectionDiff], list[str]]:
    """Resolve the named images (all without names) anew; write what changed unless `check`.

    `NAME` is all of an image, `NAME:TAG` one stream in one variant. Returns the differences, and
    the files that were written, relative to the catalogue.
    """
    targets = wanted(catalogue, names)
    images = {t.definition.name for t in targets}
    apt, state = _archive(catalogue, settings, store, targets, builder=not names)
    archive = Remembering(apt, store)
    refs = sorted(t.ref for t in targets)
    if all(state.values()) and store.record("resolved", _resolution(catalogue, state, images, refs)):
        return [], []
    locks: dict[str, ImageLock] = {}
    work = []
    for name in dict.fromkeys(t.definition.name for t in catalogue.targets()):
        path, shown = stage.lock_path(catalogue, name), f"images/{name}/image.lock"
        if name in images:
            kept = stage.read_if_any(path, shown)
            mine = [t for t in targets if t.definition.name == name]
            locks[name] = stage.resolve_image(catalogue, name, archive, locks, mine, kept)
            work.append((path, locks[name]))
        elif any(name == a.definition.name for t in targets for a in catalogue.ancestors(t)):
            locks[name] = stage.read(path, shown)
    if not names and catalogue.builder:
        resolved = stage.resolve_builder(catalogue.builder, archive, _platforms(catalogue.targets()))
        work.append((stage.builder_lock_path(catalogue.root), resolved))
    differences: list[SectionDiff] = []
    written: list[str] = []
    for path, new in work:
        shown = str(path.relative_to(catalogue.root))
        differences += stage.compare(stage.read_if_any(path, shown), new, shown)
        if not check and stage.write(path, new):
            written.append(shown)
    if not check or not differences:
        store.remember("resolved", _resolution(catalogue, state, images, refs), {"written": written})
    return differences, written


def wanted(catalogue: Catalogue, names: list[str]) -> tuple[Target, ...]:
    """The targets that are named: an image's name stands for all of them."""
    refs = {catalogue.find(n).ref for n in names if n not in catalogue.definitions}
    return tuple(t for t in catalogue.targets() if not names or t.definition.name in names or t.ref in refs)


def _platforms(targets: Collection[Target]) -> list[Platform]:
    return sorted({p for t in targets for p in t.platforms})


def _resolution(catalogue: Catalogue, state: object, wanted: set[str], refs: list[str]) -> Digest:
    """The content key of a finished resolution: the archive, what is asked for, and the locks."""
    files = [catalogue.root / "templates" / f"builder.{kind}" for kind in ("yaml", "lock")]
    files += [catalogue.directory(n) / f"image.{k}" for n in sorted(wanted) for k in ("yaml", "lock")]
    key = {str(f.relative_to(catalogue.root)): file_digest(f) if f.is_file() else None for f in files}
    # The locks of parents that were not asked for decide as well.
    others = sorted(catalogue.root.glob("images/*/image.lock"))
    return Digest.of_json([state, refs, key, [file_digest(f) for f in others]])


def _archive(
    catalogue: Catalogue, settings: Settings, store: Store, targets: Collection[Target], builder: bool
) -> tuple[Apt, dict[str, Digest | None]]:
    """The archive with fresh indexes of every suite and architecture that is needed, and their state."""
    keyring = Path(settings.debian_keyring) if settings.debian_keyring else KEYRING
    archive = Apt(store.apt, mirror.find(settings.debian_mirror), settings.child_environment, keyring)
    needed = {(t.stream.suite, p.debian) for t in targets for p in t.platforms}
    if builder and catalogue.builder:
        needed |= {(catalogue.builder.suite, p.debian) for p in _platforms(catalogue.targets())}
    with ThreadPoolExecutor(_UPDATES, "update") as threads:
        for done in [threads.submit(archive.update, *one) for one in sorted(needed)]:
            done.result()
    return archive, {f"{suite} {part}": archive.state(suite, part) for suite, part in sorted(needed)}
