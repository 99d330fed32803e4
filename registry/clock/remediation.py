"""The clock of each finding in an image stream: seen, fix available, rebuilt, promoted, adopted. Pure.

seen       the first scan that found it in an image of the stream
fix        the first such scan that named a fixed version
rebuilt    the verdict of the first image without it, after the last one with it
promoted   the ledger's entry of the first stable image without it, after the last stable one with it
adopted    each who pulled (or ran) an affected digest in the last days has taken one without it since

A stage is never before the one it follows: what was mended before anybody knew took no time. Where
the told times contradict each other (a clock was set back), that is a doubt, and what is in doubt
counts in no statistics.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cache, cached_property, partial, reduce
from operator import or_

from builder.model.evidence import Severity
from builder.policy.schema import Deadlines
from registry.clock.sightings import Package, Rating, Sighting


class State(StrEnum):
    """Where a remediation stands."""

    RUNNING = "running"
    NO_FIX = "no fix"
    WAIVED = "waived"
    PROMOTED = "promoted"
    ADOPTED = "adopted"
    RETRACTED = "retracted"


# A set of a stream's images: bit n stands for `builds[n]`. Findings by images are many; a union is one step.
Images = int
NO_IMAGE = ""  # the digest of who runs no image of the line any more
OPEN = frozenset({State.RUNNING, State.NO_FIX, State.WAIVED})


@dataclass(frozen=True, slots=True)
class Build:
    """An image of a stream: when its first verdict was, and its packages in which something was seen.

    `current`: a tag of the stream points to it.
    """

    digest: str
    published: dt.datetime
    current: bool
    packages: frozenset[Package]
    waivers: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Move:
    """That an image became the stable one of its stream."""

    at: dt.datetime
    digest: str


@dataclass(frozen=True, slots=True)
class Taken:
    """That somebody pulled an image, or runs it."""

    who: str
    digest: str
    at: dt.datetime


@dataclass(frozen=True)
class Stream:
    """All that is known of one image line: its images, its stable ones in order, who took which."""

    ref: str
    builds: tuple[Build, ...]
    stable: tuple[Move, ...] = ()
    taken: tuple[Taken, ...] = ()

    @cached_property
    def by_digest(self) -> dict[str, Build]:
        """The images by their digests."""
        return {b.digest: b for b in self.builds}

    @cached_property
    def number(self) -> dict[str, int]:
        """Each image's place in `builds`, by its digest."""
        return {b.digest: n for n, b in enumerate(self.builds)}

    @cached_property
    def having(self) -> dict[Package, Images]:
        """Which images have a package."""
        found: dict[Package, Images] = {}
        for number, build in enumerate(self.builds):
            one = 1 << number
            for package in build.packages:
                found[package] = found.get(package, 0) | one
        return found

    def those(self, images: Images) -> list[Build]:
        """The images of a set."""
        return [b for n, b in enumerate(self.builds) if images >> n & 1]

    def among(self, digest: str, images: Images) -> bool:
        """Whether the stream has an image, and it is in the set."""
        number = self.number.get(digest)
        return number is not None and bool(images >> number & 1)


@dataclass(frozen=True, slots=True)
class Remediation:
    """One vulnerability in one package of a stream; times are UTC, None where it has not come to that.

    `takers` are those who took an affected digest in the last days, `movers` those of them who have
    taken one without it since. `due` is None as long as there is no fix.
    """

    ref: str
    vulnerability: str
    package: str
    state: State
    severity: Severity
    known_exploited: bool
    fixed_version: str
    seen: dt.datetime
    fix: dt.datetime | None = None
    rebuilt: dt.datetime | None = None
    promoted: dt.datetime | None = None
    adopted: dt.datetime | None = None
    due: dt.datetime | None = None
    waived_until: dt.datetime | None = None
    retracted: dt.datetime | None = None
    movers: int = 0
    takers: int = 0
    measured: bool = False
    doubts: tuple[str, ...] = field(default=())

    @property
    def stages(self) -> tuple[tuple[str, dt.datetime], ...]:
        """The stages that it has come to, in their order."""
        names = ("seen", "fix", "rebuilt", "promoted", "adopted")
        return tuple((n, at) for n in names if (at := getattr(self, n)) is not None)

    @property
    def key(self) -> tuple[str, str, str]:
        """What tells it from others."""
        return self.ref, self.vulnerability, self.package

    def late(self, now: dt.datetime) -> bool:
        """Whether its deadline runs, and has passed."""
        return self.state is State.RUNNING and self.due is not None and self.due < now


WaivedUntil = Callable[[str, Build, Sighting], dt.datetime | None]


def remediations(
    stream: Stream,
    sightings: Mapping[Package, Sequence[Sighting]],
    deadlines: Deadlines,
    waived: WaivedUntil,
    now: dt.datetime,
) -> tuple[Remediation, ...]:
    """Every finding that is or was in an image of the stream, by what was seen in each package."""
    found: dict[tuple[str, str], list[_Seen]] = {}
    for package, images in stream.having.items():
        for sighting in sightings.get(package, ()):
            spot = sighting.spot
            found.setdefault((spot.vulnerability, spot.package), []).append((sighting, images))
    line = _Line(stream)
    return tuple(_one(line, seen, deadlines, waived, now) for _, seen in sorted(found.items()))


_Seen = tuple[Sighting, Images]  # and the images that have that version of the package


class _Line:
    """A stream with what follows from a set of affected images: many findings have the same."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.newest = cache(partial(_newest, stream))
        self.mended = cache(partial(_mended, stream))
        self.adoption = cache(partial(_adoption, stream))
        self.first = cache(partial(_first, stream))


def _one(
    line: _Line, seen_in: Sequence[_Seen], deadlines: Deadlines, waived: WaivedUntil, now: dt.datetime
) -> Remediation:
    stream, builds = line.stream, line.stream.by_digest
    affected = reduce(or_, (images for s, images in seen_in if s.retracted is None), 0)
    ever = reduce(or_, (images for _, images in seen_in), 0)
    newest = line.newest(affected or ever)
    there = [s for s, images in seen_in if stream.among(newest.digest, images)]
    said = max(there, key=lambda s: (s.retracted is None, s.last_at))
    told = _Told(now)
    seen = told.at("seen", max(min(s.seen for s, _ in seen_in), line.first(ever)))
    if said.fix is not None and said.fix < said.seen:
        told.doubts.append("the fix was known before the finding")
    fix = told.at("fix", max(said.fix, seen)) if said.fix else None
    base = Remediation(
        stream.ref,
        said.spot.vulnerability,
        said.spot.package,
        State.RUNNING,
        said.rating.severity,
        said.rating.known_exploited,
        said.fixed_version,
        seen,
        fix,
    )
    if not affected:
        at = told.at("retracted", said.retracted or now)
        return replace(base, state=State.RETRACTED, retracted=at, doubts=tuple(told.doubts))
    rebuilt, promoted = line.mended(affected)
    measured = promoted is not None and fix is not None and promoted.at > fix
    if promoted is not None and promoted.at < builds[promoted.digest].published:
        told.doubts.append("it was promoted before it was there")
    rebuilt_at = told.at("rebuilt", rebuilt.published) if rebuilt else None
    promoted_at = told.at("promoted", promoted.at) if promoted else None
    takers, moved = line.adoption(affected)
    until = waived(stream.ref, newest, said)
    state = State.RUNNING
    if promoted_at is not None:
        state = State.ADOPTED if len(moved) == len(takers) else State.PROMOTED
    elif until is not None:
        state = State.WAIVED
    elif fix is None:
        state = State.NO_FIX
    all_moved = state is State.ADOPTED and moved
    return replace(
        base,
        state=state,
        rebuilt=rebuilt_at,
        promoted=promoted_at,
        adopted=told.at("adopted", max(moved.values())) if all_moved else None,
        due=due(fix, said.ratings, deadlines) if fix and state is not State.WAIVED else None,
        waived_until=until if state is State.WAIVED else None,
        movers=len(moved),
        takers=len(takers),
        measured=measured and not told.doubts,
        doubts=tuple(told.doubts),
    )


class _Told:
    """Brings told times into the order of the stages, none of them after `now`."""

    def __init__(self, now: dt.datetime) -> None:
        self._now, self._last = now, dt.datetime.min.replace(tzinfo=dt.UTC)
        self.doubts: list[str] = []

    def at(self, stage: str, told: dt.datetime) -> dt.datetime:
        if told > self._now:
            self.doubts.append(f"{stage} lies in the future")
        self._last = max(min(told, self._now), self._last)
        return self._last


def _newest(stream: Stream, images: Images) -> Build:
    return max(stream.those(images), key=lambda b: (b.published, b.digest))


def _first(stream: Stream, images: Images) -> dt.datetime:
    return min(b.published for b in stream.those(images))


def _mended(stream: Stream, affected: Images) -> tuple[Build | None, Move | None]:
    """The first image without it after the last with it: built, and stable. What is unknown has it."""
    builds = stream.by_digest
    trailing: list[Move] = []
    for move in stream.stable:
        if move.digest in builds and not stream.among(move.digest, affected):
            trailing.append(move)
        else:
            trailing.clear()
    promoted = trailing[0] if trailing else None
    having = stream.those(affected)
    last = max(b.published for b in having)
    after = [b for b in stream.those(~affected) if b.published > last]
    if promoted is not None:
        stable = builds[trailing[-1].digest]
        if any(b.current and b.published > stable.published for b in having):
            return None, None  # a newer image of the stream has it again
        after.append(builds[promoted.digest])
    return min(after, key=lambda b: (b.published, b.digest), default=None), promoted


def _adoption(stream: Stream, affected: Images) -> tuple[frozenset[str], dict[str, dt.datetime]]:
    """Who took an affected image, and who of them took one without it afterwards, and when."""
    builds = stream.by_digest
    last: dict[str, dt.datetime] = {}
    for one in stream.taken:
        if stream.among(one.digest, affected):
            last[one.who] = max(last.get(one.who, one.at), one.at)
    moved: dict[str, dt.datetime] = {}
    for one in stream.taken:
        clean = one.digest == NO_IMAGE or (one.digest in builds and not stream.among(one.digest, affected))
        if clean and one.who in last and one.at > last[one.who]:
            moved[one.who] = min(moved.get(one.who, one.at), one.at)
    return frozenset(last), moved


def due(fix: dt.datetime, ratings: Sequence[Rating], deadlines: Deadlines) -> dt.datetime:
    """By when it has to be promoted: the deadline runs from the fix, or from when it became so urgent.

    A harsher rating gives its own time from the moment when it was given, and never more than
    was left before; a milder one gives its own time from the fix.
    """
    limits = [(r.at, deadlines.of(r.severity, r.known_exploited)) for r in ratings]
    now = limits[-1][1]
    since = {limit: min(at for at, other in limits if other <= limit) for _, limit in limits if limit >= now}
    return min(max(fix, at) + limit for limit, at in since.items())


def order(found: Iterable[Remediation], now: dt.datetime) -> tuple[Remediation, ...]:
    """The late ones first, then what is due next, then what waits for others."""
    states = list(State)
    far = dt.datetime.max.replace(tzinfo=dt.UTC)
    return tuple(sorted(found, key=lambda r: (not r.late(now), states.index(r.state), r.due or far, r.key)))
