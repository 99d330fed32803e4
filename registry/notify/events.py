"""What happened, as somebody can be told of it. Pure.

Texts come from people and images: they are cut, and hold no control characters.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from builder.model.evidence import Severity
from registry.audit.ledger import Action, Entry

_TITLE_MAX, _BODY_MAX = 200, 2000  # characters


class Kind(StrEnum):
    """What can be told."""

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
        f"ledger/{entry.sequence}",
        kind,
        fact.ref,
        str(fact.digest),
        f"{fact.ref} was {kind}",
        "\n".join(lines),
    )


def event(
    key: str, kind: Kind, ref: str, digest: str, title: str, body: str, severity: Severity | None = None
) -> Event:
    """An event whose texts can be sent anywhere."""
    return Event(key, kind, ref, digest, _plain(title, _TITLE_MAX), _plain(body, _BODY_MAX), severity)


def _plain(text: str, length: int) -> str:
    return "".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in text)[:length]
