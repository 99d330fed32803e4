"""The clock of a state directory: what is new is remembered, and all remediations follow from the facts.

It reads one generation of the index, the ledger's entries and its own journal; it asks no registry,
and when nothing is new it writes nothing.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from builder.model.evidence import Finding
from builder.model.rebuild import RebuildRequest
from builder.model.waiver import Waiver
from builder.policy.schema import Policy
from builder.policy.waivers import Terms, decide
from registry.audit.ledger import Entry
from registry.clock.facts import Indexed, first_verdicts, read_index, stable_images, time_of
from registry.clock.journal import Journal, Memory, Mended, ended_lines, image_line, said_line
from registry.clock.remediation import (
    NO_IMAGE,
    Build,
    Move,
    Remediation,
    State,
    Stream,
    Taken,
    order,
    remediations,
)
from registry.clock.sightings import Package, Sighting, learn, news
from registry.inventory.kept import Look

SHOWN_DAYS = 30  # for how long a remediation is shown after its end


@dataclass(frozen=True)
class Rules:
    """By what is decided: deadlines, what is known to be exploited, and the waivers of each image line."""

    policy: Policy
    waivers: Callable[[str], tuple[Waiver, ...]] = lambda ref: ()
    requests: tuple[RebuildRequest, ...] = ()

    @property
    def exploited(self) -> frozenset[str]:
        """What is known to be exploited."""
        return self.policy.exploited.ids if self.policy.exploited else frozenset()


@dataclass(frozen=True)
class Clock:
    """All remediations, the late ones first, and those of the past that took time.

    `unverified` images of the index and `unreadable` lines of the journal are in none of them.
    `adopted` are the times at which everybody had taken a mended one.
    """

    now: dt.datetime
    remediations: tuple[Remediation, ...]
    mended: tuple[Mended, ...]
    adopted: Mapping[tuple[str, str, str, dt.datetime], dt.datetime]
    unverified: int = 0
    unreadable: int = 0

    @property
    def late(self) -> tuple[Remediation, ...]:
        """Those whose deadline has passed."""
        return tuple(r for r in self.remediations if r.late(self.now))


def clock_of(
    index: Path,
    folder: Path,
    entries: Iterable[Entry],
    rules: Rules,
    now: dt.datetime,
    *,
    looks: Iterable[Look] = (),
) -> Clock:
    """The clock by the index in a file, the ledger's `entries`, and the journal in `folder`.

    `looks` are what ran somewhere, beside what was pulled. Raises ToolError when the journal can
    neither be read nor written.
    """
    journal = Journal(folder)
    memory = journal.read()
    asked: dict[tuple[str, str], dt.datetime] = {}
    for request in rules.requests:
        key = (request.vulnerability, request.package)
        asked[key] = min(asked.get(key, request.requested_at), request.requested_at)
    found = read_index(index, now, rules.exploited.__contains__, asked)
    decided = tuple(entries)
    _remember(journal, memory, found, first_verdicts(decided), now)
    sightings: dict[Package, list[Sighting]] = {}
    for one in memory.sightings.values():
        if _recent(one, now):
            sightings.setdefault(one.spot.where, []).append(one)
    everything: list[Remediation] = []
    for stream in streams_of(found, memory, sightings, stable_images(decided), looks):
        everything += remediations(stream, sightings, rules.policy.data.deadlines, _waived(rules, now), now)
    lines = [line for end in everything for line in ended_lines(end, memory)]
    journal.append(lines)
    for line in lines:
        memory.take(line)
    since = now - dt.timedelta(days=SHOWN_DAYS)
    shown = (
        r for r in everything if r.state is not State.ADOPTED or (r.adopted or r.promoted or now) >= since
    )
    return Clock(
        now,
        order(shown, now),
        tuple(memory.mended.values()),
        memory.adopted,
        found.unverified,
        memory.unreadable,
    )


def _remember(
    journal: Journal, memory: Memory, found: Indexed, verdicts: Mapping[str, dt.datetime], now: dt.datetime
) -> None:
    """Write down what is new: images, and what scans said."""
    new = []
    for image in found.images:
        known, issued = memory.images.get(image.digest), time_of(image.issued_at)
        at = min(issued, verdicts.get(image.digest, issued))
        if known is None or at < known:
            new.append(image_line(image.digest, image.ref, at))
            memory.images[image.digest] = at
    for said in news(memory.sightings, found.said, found.compared, now):
        new.append(said_line(said))
        memory.sightings[said.spot] = learn(memory.sightings.get(said.spot), said)
    journal.append(new)


def _recent(sighting: Sighting, now: dt.datetime) -> bool:
    at = sighting.retracted
    return at is None or at >= now - dt.timedelta(days=SHOWN_DAYS)


def streams_of(
    found: Indexed,
    memory: Memory,
    sightings: Mapping[Package, object],
    promoted: Mapping[str, tuple[Move, ...]],
    looks: Iterable[Look],
) -> Iterable[Stream]:
    """What is known of each image line that a tag still points to."""
    seen_in = {n: package for n, package in found.packages.items() if package in sightings}
    # An index of one platform is pulled by either digest.
    image_of = {
        str(d): str(i.digest) for i in found.images for d in (i.digest, *(p.digest for p in i.platforms))
    }
    taken: dict[str, list[Taken]] = {}
    for one in found.taken:
        if digest := image_of.get(one.digest):
            taken.setdefault(digest, []).append(Taken(one.who, digest, one.at))
    stable, ran, looked = {**found.stable, **promoted}, _by_ref(found, image_of), tuple(looks)
    builds: dict[str, list[Build]] = {}
    for image in found.images:
        numbers = {n for platform in image.platforms for n in platform.packages}
        builds.setdefault(image.ref, []).append(
            Build(
                str(image.digest),
                memory.images[image.digest],
                image.current,
                frozenset(seen_in[n] for n in numbers if n in seen_in),
                image.waivers,
            )
        )
    for ref, of_ref in sorted(builds.items()):
        if any(b.current for b in of_ref):  # what no tag points to any more is nobody's to mend
            took = [t for b in of_ref for t in taken.get(b.digest, ())]
            took += _run(looked, ran[ref])
            yield Stream(ref, tuple(of_ref), stable.get(ref, ()), tuple(took))


def _by_ref(found: Indexed, image_of: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """By what digests the images of each line may run: their own, or those of their platforms."""
    ref_of = {str(i.digest): i.ref for i in found.images}
    refs: dict[str, dict[str, str]] = {i.ref: {} for i in found.images}
    for digest, image in image_of.items():
        refs[ref_of[image]][digest] = image
    return refs


def _run(looks: Iterable[Look], image_of: Mapping[str, str]) -> Iterator[Taken]:
    """What the places ran of one line: a place that runs none of its images any more has left it."""
    known: set[str] = set()
    for look in looks:
        who = f"what runs in {look.place}"
        digests = {image_of[d] for d in look.digests if d in image_of}
        if digests:
            known.add(who)
        elif who in known:
            digests = {NO_IMAGE}
        yield from (Taken(who, digest, look.at) for digest in sorted(digests))


def _waived(rules: Rules, now: dt.datetime) -> Callable[[str, Build, Sighting], dt.datetime | None]:
    terms = Terms((), rules.exploited, rules.policy.data.waivers.days_max, now)
    known: dict[str, tuple[Waiver, ...]] = {}

    def until(ref: str, build: Build, sighting: Sighting) -> dt.datetime | None:
        """Until when a waiver counts for the finding, as at a rescan; None when none does."""
        if ref not in known:
            known[ref] = rules.waivers(ref)
        # A parent's counts only where the verdict used it: which packages came with it was known then.
        usable = (w for w in known[ref] if not w.inherited or w.id in build.waivers)
        spot = sighting.spot
        status = "fixed" if sighting.fixed_version else "affected"
        finding = Finding(
            spot.vulnerability,
            spot.package,
            spot.version,
            sighting.fixed_version,
            sighting.rating.severity,
            status,
            "",
        )
        waiver = decide(finding, usable, terms).waiver
        return waiver.ends_at if waiver else None

    return until
