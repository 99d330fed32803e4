"""`nightly_unchanged`: a whole night of the catalogue in which nothing changed, without downloads.

The first night builds and promotes everything, and the second settles what follows from that; neither is
timed. The third one is: database, locks, plan, registry, rescan, ledger and outbox are all looked at.
Locks are taken as they are: resolving them anew is asking the archive. The goal stands in for a peer
that there is not.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from builder.tools import process
from tests.bench.scene import Scene, Stopwatch

_GOAL = 15.0  # s
_RUNS = 3
_FIRST_SECONDS = 4 * 3600  # all images, on all platforms


def measure(scene: Scene) -> Iterator[tuple[str, float, str, float]]:
    """The median of three nights."""
    environment = {
        **scene.environment(),
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "GOLDSMITH_CATALOGUE": str(scene.settings.catalogue),
        "GOLDSMITH_STATE": str(scene.settings.state),
        "GOLDSMITH_REGISTRY": scene.settings.registry,
        "GOLDSMITH_TRIVY_DB": str(scene.database),
        "GOLDSMITH_POLICY": "demo",
    }
    for _ in range(2):
        night(environment, _FIRST_SECONDS)
    ours = []
    for _ in range(_RUNS):
        with Stopwatch() as watch:
            found = night(environment, 600)
        ours.append(watch.seconds)
        if {i["state"] for i in found["images"]} != {"unchanged"} or found["promotions"]:
            raise AssertionError(f"something changed: {found['images']}")
    yield "nightly_unchanged", sorted(ours)[_RUNS // 2], "s", _GOAL


def night(environment: dict[str, str], seconds: float) -> dict[str, Any]:
    """One night; its report. What it blocks is not the benchmark's business."""
    done = process.run(
        [sys.executable, "-m", "builder", "nightly", "--no-lock", "--json", "--jobs", "2"],
        environment=environment,
        timeout_seconds=seconds,
        ok=(0, 4),
    )
    found = json.loads(done.text)
    if "images" not in found:
        raise AssertionError(str(found)[:500])
    return dict(found)
