"""`clock_10000`: the clock over 100 lines of 100 images, 30,000 findings, from an index's facts; CPU seconds.

The peer is the same over a tenth of the lines: the ratio says how it grows (10 is linear).
"""

from __future__ import annotations

import datetime as dt
import time
from array import array
from collections.abc import Iterator
from pathlib import Path

import registry
from builder.model.channel import Channel
from builder.model.digest import Digest
from builder.model.evidence import Severity
from builder.stages.judge import load_policy
from registry.clock.facts import Indexed
from registry.clock.journal import Memory
from registry.clock.remediation import Move, Taken, remediations
from registry.clock.run import Rules, streams_of
from registry.clock.sightings import Package, Said, Sighting, Spot, learn
from registry.rescan.inventory import Image, Platform
from tests.bench.scene import Scene

_LINES, _IMAGES, _PACKAGES, _VERSIONS, _PULLERS = 100, 100, 100, 3, 3
_START = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
_HOUR = dt.timedelta(hours=1)


def measure(scene: Scene) -> Iterator[tuple[str, float, str, float]]:
    """The whole, and a tenth of it."""
    small, large = _seconds(_LINES // 10), _seconds(_LINES)
    yield "clock_10000", large, "s of CPU", small


def _seconds(lines: int) -> float:
    rules = Rules(load_policy(Path(registry.__file__).parent / "policies" / "baseline.yaml"))
    found, memory, sightings = _facts(lines)
    now = _START + (_IMAGES + 24) * _HOUR
    began = time.process_time()
    count = 0
    for stream in streams_of(found, memory, sightings, found.stable, ()):
        count += len(remediations(stream, sightings, rules.policy.data.deadlines, lambda *about: None, now))
    if count != lines * (_PACKAGES * _VERSIONS):
        raise AssertionError(f"{count} findings")
    return time.process_time() - began


def _facts(lines: int) -> tuple[Indexed, Memory, dict[Package, list[Sighting]]]:
    """Each line has a new image an hour; each of its packages moves on twice, with one finding a version."""
    packages: dict[int, Package] = {}
    sightings: dict[Package, list[Sighting]] = {}
    images, stable, taken = [], {}, []
    memory = Memory()
    for line in range(lines):
        ref, moves = f"line{line}:1", []
        first = len(packages)
        for one in range(_PACKAGES * _VERSIONS):
            number, version = divmod(one, _VERSIONS)
            packages[first + one] = where = ("debian 13", f"p{line}-{number}", str(version))
            said = Said(Spot(*where, f"CVE-2026-{one}"), _START, "2026", Severity.HIGH, str(version + 1))
            sightings[where] = [learn(None, said)]
        for number in range(_IMAGES):
            at, digest = _START + number * _HOUR, Digest.of(f"{line} {number}".encode())
            version = number * _VERSIONS // _IMAGES
            held = array("q", range(first + version, first + _PACKAGES * _VERSIONS, _VERSIONS))
            platform = Platform(Digest.of(b"p" + digest.encode()), "debian 13", "13.1", held)
            images.append(
                Image(
                    ref,
                    digest,
                    Channel.STABLE,
                    (),
                    "",
                    "",
                    "",
                    "",
                    "",
                    frozenset(),
                    number == _IMAGES - 1,
                    (platform,),
                )
            )
            memory.images[digest] = at
            moves.append(Move(at, str(digest)))
            taken += [Taken(f"u{n}", str(digest), at) for n in range(_PULLERS)]
        stable[ref] = tuple(moves)
    return Indexed(tuple(images), packages, {}, (), tuple(taken), stable, 0), memory, sightings
