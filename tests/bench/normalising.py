"""`normalise`: MB of tar a second through the normaliser, against `gzip -6` of the same tar."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

from builder.tools import process
from tests.bench.scene import Scene, Stopwatch

_RUNS = 3
_SCRIPT = """
import json, resource, sys, time
from dataclasses import replace
from pathlib import Path
from builder.cli.wiring import Workshop
from builder.pipeline.prepare import prepare
from builder.stages.normalise import normalise
from builder.stages.unpack import unpack
workshop, work = Workshop.open(), Path(sys.argv[1])
prepared = prepare(workshop.catalogue, workshop.catalogue.find("python:3.13"))
base = prepare(workshop.catalogue, workshop.catalogue.find("base:13"))
(context,), (below,) = prepared.contexts.values(), base.contexts.values()
# One image of all packages, as a root of its own: the largest tar there is.
packages = tuple(sorted((*below.lock.packages, *context.lock.packages)))
lock = replace(below.lock, packages=packages)
workshop.pool.fetch(packages)
contents = unpack(packages, workshop.pool.path, left_out=below.left_out)
context = replace(below, lock=lock, epoch=contents.epoch)
raw = workshop.engine("direct").build(context, workshop.pool, work)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
times = []
for number in range(int(sys.argv[2])):
    began = time.monotonic()
    normalise(raw, contents, work / f"layout{number}")
    times.append(time.monotonic() - began)
print(json.dumps({"tar": str(raw.rootfs), "seconds": min(times), "rss_kib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}))
"""


def measure(scene: Scene) -> Iterator[tuple[str, float, str, float]]:
    """Throughput of the best of three runs each, and the peak memory of the whole process."""
    with scene.store.scratch("bench") as work:
        root = str(Path(__file__).parents[2])
        environment = {
            **scene.environment(),
            "PYTHONPATH": root,
            "GOLDSMITH_CATALOGUE": str(scene.settings.catalogue),
            "GOLDSMITH_STATE": str(scene.settings.state),
        }
        done = process.run(
            [sys.executable, "-c", _SCRIPT, work, str(_RUNS)], environment=environment, timeout_seconds=600
        )
        ours = json.loads(done.stdout)
        tar = Path(ours["tar"])
        size = tar.stat().st_size / 1e6
        peers = []
        for _ in range(_RUNS):
            with Stopwatch() as watch:
                scene.peer(["gzip", "-6", "--keep", "--force", tar])
            peers.append(watch.seconds)
        yield "normalise", size / ours["seconds"], "MB/s", size / min(peers)
        yield "normalise_memory", ours["rss_kib"] / 1024, "MB", 200
