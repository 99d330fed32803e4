"""`nightly_unchanged`: a whole night of the real catalogue in which nothing changed, without downloads.

All images, variants and platforms of this repository, out of a copy of it. The first night locks, builds and
promotes everything, and the second settles what follows from that; neither is timed. The third one is:
the archive is asked whether its signed content changed, and database, locks, plan, registry, rescan, ledger
and outbox are all looked at. Interpreter start included. The goal stands in for a peer that there is not.

The first night takes as long as the catalogue does, an hour perhaps. What it made stays in `.goldsmith/nights`,
so that the next measurement begins where this one ended; after a change of the catalogue it builds what changed.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from builder.settings import Settings
from builder.signing.keys import create_keys
from builder.store import Store
from builder.tools import process
from registry.storage import service
from tests.bench.scene import Scene, Stopwatch
from tests.support.ports import free_address

_GOAL = 15.0  # s
_RUNS = 3
_FIRST_SECONDS = 4 * 3600  # all images, on all platforms
_PARTS = ("images", "templates", "policies")


def measure(scene: Scene) -> Iterator[tuple[str, float, str, float]]:
    """The median of three nights."""
    here = Settings.load()
    yield "nightly_unchanged", unchanged(scene, here.catalogue, here.state / "nights"), "s", _GOAL


def unchanged(scene: Scene, source: Path, folder: Path) -> float:
    """Seconds of an unchanged night of a catalogue, whose images are kept in `folder`."""
    ours = _environment(scene, source, folder)
    settings = Settings.load(ours)
    store = Store(settings.state).create()
    if not any(store.keys.iterdir()):
        create_keys(store.keys, settings.key_uris, settings.passphrase)
    environment = {
        **scene.environment(),
        "PYTHONPATH": str(Path(__file__).parents[2]),
        **ours,
    }
    service.up(settings)
    try:
        for _ in range(2):
            night(environment, _FIRST_SECONDS)
        took = []
        for _ in range(_RUNS):
            with Stopwatch() as watch:
                found = night(environment, 600)
            took.append(watch.seconds)
            changed = [f"{i['ref']} {i['state']}" for i in found["images"] if i["state"] != "unchanged"]
            if changed or found["promotions"]:
                raise AssertionError(f"something changed: {changed or found['promotions']}")
        return sorted(took)[_RUNS // 2]
    finally:
        service.down(settings)


def _environment(scene: Scene, source: Path, folder: Path) -> dict[str, str]:
    """A fresh copy of the catalogue, the state of earlier measurements, and their registry's address."""
    catalogue, address = folder / "catalogue", folder / "address"
    shutil.rmtree(catalogue, ignore_errors=True)
    for part in _PARTS:
        if (source / part).is_dir():
            shutil.copytree(source / part, catalogue / part)
    if not address.is_file():
        address.write_text(free_address())
    return {
        **os.environ,
        "GOLDSMITH_CATALOGUE": str(catalogue),
        "GOLDSMITH_STATE": str(folder / "state"),
        "GOLDSMITH_REGISTRY": address.read_text(),
        "GOLDSMITH_TRIVY_DB": str(scene.database),
        "GOLDSMITH_POLICY": "demo",
    }


def night(environment: Mapping[str, str], seconds: float) -> dict[str, Any]:
    """One night; its report. What it blocks is not the benchmark's business."""
    done = process.run(
        [sys.executable, "-m", "builder", "nightly", "--json", "--jobs", "2"],
        environment=environment,
        timeout_seconds=seconds,
        ok=(0, 4),
    )
    found = json.loads(done.text)
    if "images" not in found:
        raise AssertionError(str(found)[:500])
    return dict(found)
