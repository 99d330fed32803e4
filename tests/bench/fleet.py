"""`dag_overhead`: what the graph costs for each image, with tasks that do nothing.

The peer is the bare executor: as many submissions, without a graph.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from builder.fleet import Task, run_graph
from tests.bench.scene import Scene, Stopwatch

_IMAGES, _RUNS = 1000, 5
_Start = Callable[[Callable[[str], str], str], "Future[Any]"]


def measure(scene: Scene) -> Iterator[tuple[str, float, str, float]]:
    """Milliseconds for each image, a build and a release; threads."""
    with ThreadPoolExecutor(2) as pool:
        yield ("dag_overhead", *per_image(pool.submit))


def per_image(start: _Start) -> tuple[float, str, float]:
    """Milliseconds for each image over one way of submitting, and the peer's; medians of five."""
    tasks = list(_catalogue())
    ours, bare = [], []
    for _ in range(_RUNS):
        with Stopwatch() as watch:
            ended = run_graph(tasks, lambda task, inputs: start(_nothing, task.name), width=32)
        ours.append(watch.seconds)
        if len(ended) != 2 * _IMAGES:
            raise AssertionError("tasks are missing")
        with Stopwatch() as watch:
            for future in [start(_nothing, task.name) for task in tasks]:
                future.result()
        bare.append(watch.seconds)
    median = _RUNS // 2
    return sorted(ours)[median] / _IMAGES * 1000, "ms", sorted(bare)[median] / _IMAGES * 1000


def _catalogue() -> Iterator[Task]:
    """Ten bases with 99 children each; each image is built, then released after its parent."""
    for number in range(_IMAGES):
        parent = number % 10
        child = number >= 10
        yield Task(f"build {number}", (f"build {parent}",) if child else ())
        yield Task(f"release {number}", (f"build {number}", *((f"release {parent}",) if child else ())))


def _nothing(name: str) -> str:
    return name
