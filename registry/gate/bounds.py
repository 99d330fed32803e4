"""How much of anything one gate takes on: requests, connections, bytes and time."""

from __future__ import annotations

import resource
from dataclasses import dataclass

_SPARE_FILES = 320  # for the storage's connections, files of blobs, logs
_FEWEST = 16


@dataclass(frozen=True, slots=True)
class Bounds:
    """How many requests and connections at a time, and how long each step may take (seconds).

    `head_seconds` is for a request to be told whole; `grace_seconds` for answers that have begun
    when the gate is stopped; `pipelined` counts requests that a client sends before it has the
    answer to its first.
    """

    concurrent: int = 512
    connections: int = 12_000
    pipelined: int = 32
    head_seconds: float = 10
    answer_seconds: float = 30
    stall_seconds: float = 30
    stream_seconds: float = 3600
    grace_seconds: int = 30


def connections_max(bounds: Bounds) -> int:
    """How many connections there may be: what is configured, as far as the process may open files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = bounds.connections + _SPARE_FILES
    if soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return max(_FEWEST, min(bounds.connections, soft - _SPARE_FILES))
