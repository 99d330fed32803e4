"""`catalogue_cold`: every image, variant and platform, two at once; the peer is one image at a time.

One at a time is what `goldsmith build IMAGE` for each of them costs: nothing is shared but finished
parents. `catalogue_unchanged` is `goldsmith facts --check` when everything is built, interpreter start included.
Packages are downloaded before; only the direct engine builds.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from builder.cli.wiring import Workshop
from builder.model.catalogue import Catalogue
from builder.pipeline.every import build_every
from builder.pipeline.prepare import Prepared, prepare
from builder.report import Silent
from builder.settings import Settings
from builder.stages.define import load_catalogue
from builder.store import Store
from builder.tools import process
from tests.bench.scene import Scene, Stopwatch

_JOBS = 2
_UNCHANGED_SECONDS = 120


def measure(scene: Scene) -> Iterator[tuple[str, float, str, float]]:
    """Seconds of each; locked packages that the archive no longer has end the measurement with their names."""
    here = Settings.load()
    catalogue = load_catalogue(here.catalogue)
    first = _workshop(scene, here, catalogue, "together")
    known: dict[str, Prepared] = {}
    for target in catalogue.targets():
        for context in prepare(catalogue, target, known).contexts.values():
            first.pool.fetch(context.lock.packages)
    second = _workshop(scene, here, catalogue, "alone")
    second.store.pool.rmdir()
    shutil.copytree(first.store.pool, second.store.pool, copy_function=os.link)
    with Stopwatch() as ours:
        build_every(catalogue, catalogue.targets(), first.builder(["direct"]), Silent(), _JOBS)
    with Stopwatch() as alone:
        for target in catalogue.targets():
            fresh = replace(second)
            build_every(catalogue, [target], fresh.builder(["direct"]), Silent())
    yield "catalogue_cold", ours.seconds, "s", alone.seconds
    environment = {
        **scene.environment(),
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "GOLDSMITH_CATALOGUE": str(here.catalogue),
        "GOLDSMITH_STATE": str(first.store.root),
    }
    command = [sys.executable, "-m", "builder", "facts", "--check", "--json"]
    with Stopwatch() as unchanged:
        process.run(command, environment=environment, timeout_seconds=_UNCHANGED_SECONDS)
    yield "catalogue_unchanged", unchanged.seconds, "s", ours.seconds


def _workshop(scene: Scene, here: Settings, catalogue: Catalogue, name: str) -> Workshop:
    store = Store(scene.state / name).create()
    return Workshop(replace(here, state=store.root), catalogue, store)
