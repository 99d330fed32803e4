"""`unchanged_run`: both images, nothing changed, interpreter start included.

The peer is `docker build` of one rendered context with every step in its cache.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

from builder.tools import process
from tests.bench.scene import Scene, Stopwatch

_RUNS = 5


def measure(scene: Scene) -> Iterator[tuple[str, float, str, float]]:
    """The median of five runs each."""
    scene.run()
    environment = {
        **scene.environment(),
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "GOLDSMITH_CATALOGUE": str(scene.settings.catalogue),
        "GOLDSMITH_STATE": str(scene.settings.state),
        "GOLDSMITH_REGISTRY": scene.settings.registry,
        "GOLDSMITH_TRIVY_DB": str(scene.database),
    }
    ours = []
    for _ in range(_RUNS):
        with Stopwatch() as watch:
            done = process.run(
                [sys.executable, "-m", "builder", "run", "--policy", "demo", "--json"],
                environment=environment,
                timeout_seconds=120,
            )
        ours.append(watch.seconds)
        found = [image["outcome"] for image in json.loads(done.text)["images"]]
        if found != ["unchanged"] * 2:
            raise AssertionError(f"something was built again: {found}")
    yield "unchanged_run", sorted(ours)[_RUNS // 2], "s", _cached_build(scene)


def _cached_build(scene: Scene) -> float:
    from builder.engines.context import materialise
    from builder.pipeline.prepare import prepare
    from builder.tools.docker_client import build_tar

    workshop = scene.workshop()
    (context,) = prepare(workshop.catalogue, workshop.catalogue.find("base:13")).contexts.values()
    with scene.store.scratch("bench") as work:
        folder = materialise(context, workshop.pool, workshop.assembler_section(), scene.store, work)
        times = []
        for number in range(_RUNS + 1):
            with Stopwatch() as watch:
                build_tar(
                    scene.docker,
                    folder,
                    work / f"{number}.tar",
                    epoch=0,
                    environment=scene.settings.child_environment,
                    timeout_seconds=600,
                )
            times.append(watch.seconds)
    return sorted(times[1:])[_RUNS // 2]
