"""`dag_overhead`: what the graph costs for each image, with tasks that do nothing.

The peer is the bare executor: as many submissions, without a graph.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from builder.cluster import connect
from builder.fleet import Task, run_graph
from tests.bench.scene import Scene, Stopwatch
from tests.support.cluster import processes

_RUNS = 5
_Start = Callable[[Callable[[str], str], str], "Future[Any]"]


def measure(scene: Scene) -> Iterator[tuple[str, float, str, float]]:
    """Milliseconds for each image, a build and a release: with threads, and on a cluster of two workers."""
    with ThreadPoolExecutor(2) as pool:
        yield ("dag_overhead", *per_image(pool.submit, 1000))
    with scene.store.scratch("bench") as work, processes(work) as running:
        running.start_worker(resources="build=8")
        running.start_worker(resources="build=8")
        with connect(running.address, None) as cluster:
            yield ("dag_overhead_dask", *per_image(cluster.submit, 100))


def per_image(start: _Start, images: int) -> tuple[float, str, float]:
    """Milliseconds for each image over one way of submitting, and the peer's; medians."""
    tasks = list(_catalogue(images))
    ours, bare = [], []
    for _ in range(_RUNS):
        with Stopwatch() as watch:
            ended = run_graph(tasks, lambda task, inputs: start(_nothing, task.name), width=32)
        ours.append(watch.seconds)
        if len(ended) != 2 * images:
            raise AssertionError("tasks are missing")
        with Stopwatch() as watch:
            for future in [start(_nothing, task.name) for task in tasks]:
                future.result()
        bare.append(watch.seconds)
    median = _RUNS // 2
    return sorted(ours)[median] / images * 1000, "ms", sorted(bare)[median] / images * 1000


def _catalogue(images: int) -> Iterator[Task]:
    """Ten bases and their children; each image is built, then released after its parent."""
    for number in range(images):
        parent = number % 10
        child = number >= 10
        yield Task(f"build {number}", (f"build {parent}",) if child else ())
        yield Task(f"release {number}", (f"build {number}", *((f"release {parent}",) if child else ())))


def _nothing(name: str) -> str:
    return name
