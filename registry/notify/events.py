"""What happened, as somebody can be told of it. Pure.

Texts come from people and images: they are cut, and hold no control characters.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from enum import StrEnum

from builder.model.evidence import Severity
from builder.model.waiver import Waiver
from registry.audit.ledger import Action, Entry

_TITLE_MAX, _BODY_MAX = 200, 2000  # characters
_SOON = dt.timedelta(days=7)  # before and after a waiver's end, in which somebody is told of it


class Kind(StrEnum):
    """What can be told."""

    REBUILT = "rebuilt"
    PROMOTED = "promoted"
    ROLLED_BACK = "rolled-back"
    DEPRECATED = "deprecated"
    WITHDRAWN = "withdrawn"
    QUARANTINED = "quarantined"
    RELEASED = "released"
    IMPORTED = "imported"
    BLOCKED = "blocked"
    FAILED = "failed"
    LATE = "late"
    WAIVER_ENDS = "waiver-ends"


# What those are told who pulled the digest before.
TURNED_BAD = frozenset({Kind.DEPRECATED, Kind.WITHDRAWN, Kind.QUARANTINED})

_KINDS = {
    Action.PROMOTE: Kind.PROMOTED,
    Action.ROLLBACK: Kind.ROLLED_BACK,
    Action.DEPRECATE: Kind.DEPRECATED,
    Action.REVOKE: Kind.WITHDRAWN,
    Action.QUARANTINE: Kind.QUARANTINED,
    Action.RELEASE: Kind.RELEASED,
    Action.IMPORT: Kind.IMPORTED,
}


@dataclass(frozen=True, slots=True)
class Event:
    """One thing to tell. `key` is the same however often the event is met, and no other event's."""

    key: str
    kind: Kind
    ref: str
    digest: str
    title: str
    body: str
    severity: Severity | None = None

    @property
    def image(self) -> str:
        """The image's name."""
        return self.ref.partition(":")[0]


def of_entry(entry: Entry) -> Event | None:
    """The event of a decision on an image; None when the entry is of something else."""
    kind, fact = _KINDS.get(entry.fact.what), entry.fact
    if kind is None:
        return None
    lines = [f"{fact.ref}@{fact.digest}", f"by {fact.who} at {entry.at:%Y-%m-%d %H:%M} UTC"]
    if fact.why:
        lines.append(f"why: {fact.why}")
    if replacement := fact.after.get("replacement"):
        lines.append(f"use instead: {replacement}")
    return event(
        f"ledger/{entry.hash}",  # not its number: a ledger that was put back gives that again
        kind,
        fact.ref,
        str(fact.digest),
        f"{fact.ref} was {kind}",
        "\n".join(lines),
    )


def of_rebuild(ref: str, digest: str, why: str) -> Event:
    """A new image of a stream was built and approved, and is a candidate."""
    body = f"{ref}@{digest}\nwhy: {why or 'not known'}"
    return event(f"rebuilt/{digest}", Kind.REBUILT, ref, digest, f"{ref} was rebuilt", body)


def of_obstacle(what: str, by: str, since: dt.datetime, hint: str, *, failed: bool = False) -> Event:
    """Something waits for somebody: told once, however long it lasts. `what` is an image, its
    promotion, or a step of the night."""
    kind = Kind.FAILED if failed else Kind.BLOCKED
    ref = what.removeprefix("promotion of ")
    title = f"{what} {'failed' if failed else 'is blocked'}"
    body = f"by: {by}\nsince: {since:%Y-%m-%d %H:%M} UTC\nwhat to do: {hint or 'see the report'}"
    return event(f"{kind}/{what}/{since.isoformat()}", kind, ref, "", title, body)


def of_lateness(what: str, due: dt.datetime, by: str, hint: str, severity: Severity | None = None) -> Event:
    """Something should have moved by now, and has not; told once."""
    ref = what.partition(" (")[0].removeprefix("promotion of ")
    body = f"due: {due:%Y-%m-%d %H:%M} UTC\nblocked by: {by}\nwhat to do: {hint}"
    return event(f"late/{what}/{due.isoformat()}", Kind.LATE, ref, "", f"{what} is late", body, severity)


def of_waiver(waiver: Waiver, now: dt.datetime) -> Event | None:
    """The end of a waiver, when it is near or was lately; None otherwise. Told once."""
    entry, ends = waiver.entry, waiver.ends_at
    if abs(ends - now) > _SOON:
        return None
    says = "ends" if ends > now else "ended"
    body = (
        f"{', '.join(entry.packages)}: {entry.statement}\n{says}: {ends:%Y-%m-%d %H:%M} UTC\n"
        f"owner: {entry.owner}\nwhat to do: goldsmith waivers {waiver.image}"
    )
    title = f"the waiver of {entry.vulnerability} in {waiver.image} {says}"
    return event(f"waiver-ends/{waiver.id}", Kind.WAIVER_ENDS, waiver.image, "", title, body)


def event(
    key: str, kind: Kind, ref: str, digest: str, title: str, body: str, severity: Severity | None = None
) -> Event:
    """An event whose texts can be sent anywhere."""
    return Event(key, kind, ref, digest, _plain(title, _TITLE_MAX), _plain(body, _BODY_MAX), severity)


def _plain(text: str, length: int) -> str:
    return "".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in text)[:length]
