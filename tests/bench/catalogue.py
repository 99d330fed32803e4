"""`catalogue_cold`: images from nothing, on all of their platforms, two at once; the peer is one image at a time.

One at a time is `goldsmith build IMAGE` for one after the other in one state directory: parents that are
finished are used again, everything else begins anew with each image, packages unpacked for the one
before included. The start of the interpreter, which it would cost besides, is not counted. Both must come
to the same digests. Packages are downloaded before, and kept for the next time; only the direct engine builds.

`catalogue_cold runtime` is every runtime image, `catalogue_cold all` has the dev variants as well: six times as
much, and only measured when `catalogue_cold_all` is asked for.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace

from builder.cli.wiring import Workshop
from builder.model.catalogue import Catalogue
from builder.model.image import BuiltImage, Target
from builder.model.lock import LockedPackage
from builder.pipeline.every import build_every
from builder.pipeline.prepare import Prepared, prepare
from builder.report import Silent, emit
from builder.settings import Settings
from builder.stages.define import load_catalogue
from builder.store import Store
from tests.bench.scene import ENGINES, Scene, Stopwatch

_JOBS = 2


def measure(scene: Scene) -> Iterator[tuple[str, float, str, float]]:
    """Seconds of each for the runtime images; packages that the archive no longer has end it with their names."""
    yield from _measure(scene, "runtime")


def measure_all(scene: Scene) -> Iterator[tuple[str, float, str, float]]:
    """The same for all variants."""
    yield from _measure(scene, "all")


def _measure(scene: Scene, which: str) -> Iterator[tuple[str, float, str, float]]:
    catalogue = load_catalogue(Settings.load().catalogue)
    targets = [t for t in catalogue.targets() if which in ("all", t.variant)]
    packages = locked_packages(catalogue, targets)
    kept = kept_workshop(catalogue)
    kept.pool.fetch(packages)
    together, alone = (
        fresh_workshop(scene, kept, packages, f"{which}-{name}") for name in ("together", "alone")
    )
    with Stopwatch() as ours:
        built = build_every(catalogue, targets, together.builder(ENGINES), Silent(), _JOBS)
    emit(f"catalogue_cold {which}: {len(targets)} images in {ours.seconds:.0f} s; now one at a time")
    single: dict[str, BuiltImage] = {}
    with Stopwatch() as peer:
        for target in targets:
            fresh = replace(alone)  # tools of its own, and with them what is unpacked
            single |= build_every(catalogue, [target], fresh.builder(ENGINES), Silent())
    if {ref: image.digest for ref, image in built.items()} != {
        ref: image.digest for ref, image in single.items()
    }:
        raise AssertionError("side by side other images were built than one at a time")
    yield f"catalogue_cold {which}", ours.seconds, "s", peer.seconds


def kept_workshop(catalogue: Catalogue) -> Workshop:
    """Tools whose downloads are kept for the next time."""
    here = Settings.load()
    return Workshop(here, catalogue, Store(here.state).create())


def locked_packages(catalogue: Catalogue, targets: Sequence[Target]) -> tuple[LockedPackage, ...]:
    """What the images are made of on all of their platforms, each package once."""
    known: dict[str, Prepared] = {}
    contexts = [c for t in targets for c in prepare(catalogue, t, known).contexts.values()]
    return tuple({p.sha256: p for c in contexts for p in c.lock.packages}.values())


def fresh_workshop(scene: Scene, kept: Workshop, packages: Sequence[LockedPackage], name: str) -> Workshop:
    """A new state directory that has the packages, and nothing else."""
    store = Store(scene.state / name).create()
    for package in {p.sha256: p for p in packages}.values():
        file = kept.pool.path(package)
        os.link(file, store.pool / file.name)
    # With the engine that is there: one that it started itself would outlive the measurement.
    settings = replace(kept.settings, state=store.root, child_environment=scene.environment())
    return Workshop(settings, kept.catalogue, store)
