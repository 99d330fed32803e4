"""How long a catalogue would take on so many workers, from stage times that were measured. Pure.

The model: a worker builds, checks and scans an image, then sends its layers through the registry,
which has one throughput for all; judging, signing and tags are done by the command, some at once. A
child starts when its parent was sent, and is signed after it. No time limit can be better than the
critical path, the work divided by the workers, or what the registry carries.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

# What of a run's stages is done where; names as in `goldsmith run --json`.
ON_WORKERS = frozenset({"fetch", "unpack", "build", "normalise", "check", "scan"})
IN_COMMAND = frozenset({"judge", "sign"})
PUSHING = frozenset({"push", "publish"})


@dataclass(frozen=True, slots=True)
class Costs:
    """Of one image: seconds on a worker, seconds in the command, bytes that go to the registry."""

    worker_seconds: float
    command_seconds: float
    sent_bytes: float


@dataclass(frozen=True, slots=True)
class Site:
    """The catalogue's shape and the rest of the site; `registry_bytes` is a second's throughput."""

    images: int
    fan_out: int = 20
    bases: int = 10
    registry_bytes: float = 100e6
    command_threads: int = 16


@dataclass(frozen=True, slots=True)
class Simulated:
    """Seconds until all is published, and the limits that no number of workers beats."""

    workers: int
    seconds: float
    critical_path: float
    work_per_worker: float
    registry: float
    command: float

    @property
    def limit(self) -> str:
        """Which of the limits is the nearest."""
        limits = {
            "workers": self.work_per_worker,
            "registry": self.registry,
            "command": self.command,
            "critical path": self.critical_path,
        }
        return max(limits, key=lambda name: limits[name])

    def as_dict(self) -> dict[str, object]:
        """The result as JSON data."""
        return {
            "workers": self.workers,
            "seconds": round(self.seconds, 1),
            "critical_path_seconds": round(self.critical_path, 1),
            "work_per_worker_seconds": round(self.work_per_worker, 1),
            "registry_seconds": round(self.registry, 1),
            "command_seconds": round(self.command, 1),
            "limited_by": self.limit,
        }


def costs_of(stages: Sequence[Mapping[str, float]], sent_bytes: Sequence[float]) -> Costs:
    """The mean costs of measured images: seconds by stage, and bytes. Raises ValueError without any."""
    if not stages or not sent_bytes:
        raise ValueError("nothing was measured")
    count = len(stages)
    worker = sum(s for one in stages for name, s in one.items() if name in ON_WORKERS) / count
    command = sum(s for one in stages for name, s in one.items() if name in IN_COMMAND | PUSHING) / count
    return Costs(worker, command, sum(sent_bytes) / len(sent_bytes))


def parents(site: Site) -> list[int | None]:
    """The shape: some bases, and each image with at most `fan_out` children, level by level."""
    return [
        None if number < site.bases else (number - site.bases) // site.fan_out
        for number in range(site.images)
    ]


def simulate(site: Site, costs: Costs, workers: int) -> Simulated:
    """Let the catalogue run on so many workers."""
    above = parents(site)
    children: dict[int, list[int]] = {}
    depth = [1] * site.images
    for number, parent in enumerate(above):
        if parent is not None:
            children.setdefault(parent, []).append(number)
            depth[number] = depth[parent] + 1
    sending = costs.sent_bytes / site.registry_bytes
    ready = [number for number, parent in enumerate(above) if parent is None]
    heapq.heapify(ready)
    running: list[tuple[float, int]] = []
    free, now, registry_free = workers, 0.0, 0.0
    sent = [0.0] * site.images
    order: list[int] = []
    while ready or running:
        while ready and free:
            free -= 1
            heapq.heappush(running, (now + costs.worker_seconds, heapq.heappop(ready)))
        done, number = heapq.heappop(running)
        if sent[number] == 0.0 and sending:
            # Built; now its layers wait for their turn, and the worker with them.
            registry_free = max(done, registry_free) + sending
            sent[number] = registry_free
            heapq.heappush(running, (registry_free, number))
            now = done
            continue
        now, sent[number] = done, done
        free += 1
        order.append(number)
        for child in children.get(number, []):
            heapq.heappush(ready, child)
    seconds = _released(order, above, sent, costs.command_seconds, site.command_threads)
    total = site.images * (costs.worker_seconds + sending)
    longest = max(depth)
    return Simulated(
        workers,
        seconds,
        longest * (costs.worker_seconds + sending) + costs.command_seconds,
        total / workers,
        site.images * sending,
        site.images * costs.command_seconds / site.command_threads,
    )


def _released(
    order: Sequence[int], above: Sequence[int | None], sent: Sequence[float], seconds: float, threads: int
) -> float:
    """When the last image is signed and tagged: after it was sent, and after its parent was."""
    free = [0.0] * threads
    heapq.heapify(free)
    ended = [0.0] * len(sent)
    for number in order:
        parent = above[number]
        begin = max(heapq.heappop(free), sent[number], ended[parent] if parent is not None else 0.0)
        ended[number] = begin + seconds
        heapq.heappush(free, ended[number])
    return max(ended, default=0.0)
