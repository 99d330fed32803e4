"""What a refusal says: one line with the cause, since when, what to use instead, and a link. Pure.

The body is the distribution specification's error JSON ("Error codes"); of the statuses, clients
show the message of 403 with the code DENIED.
"""

from __future__ import annotations

import datetime as dt
import json

from registry.gate.approved import Refusal
from registry.gate.decision import Denied, Reason

_MESSAGE_MAX = 700  # characters
_CAUSE_MAX = 240
RETRY_SECONDS = 5

HELP = {
    Reason.POLICY: "The image was scanned and judged, and the policy refused it.\n"
    "What to do: use the replacement that the message names. `goldsmith why NAME:TAG` lists each rule\n"
    "that failed, with its solution; the image's owner rebuilds it, or asks for a waiver.",
    Reason.NOT_CURATED: "Nobody whom this registry trusts has signed and approved this content.\n"
    "What to do: use an image of the catalogue (/v2/_catalog), or ask the platform team to import it.",
    Reason.WITHDRAWN: "The image was approved once, and was taken back.\n"
    "What to do: use the replacement that the message names, and rebuild what was built on it.",
    Reason.EXPIRED: "The image's verdict is too old: nobody has looked at it since.\n"
    "What to do: use the replacement that the message names; the image's owner runs its pipeline again.",
    Reason.UNVERIFIABLE: "The evidence cannot be checked at the moment, so nothing is handed out.\n"
    "What to do: try again in a minute; if it stays so, tell the operator the request's id.",
}


def error_body(code: str, message: str, detail: dict[str, str | None] | None = None) -> bytes:
    """One error as a registry says it."""
    error: dict[str, object] = {"code": code, "message": _line(message, _MESSAGE_MAX)}
    if detail:
        error["detail"] = {k: v for k, v in detail.items() if v is not None}
    return json.dumps({"errors": [error]}, ensure_ascii=True).encode()


def sentence(name: str, reference: str, refusal: Refusal, link: str) -> str:
    """The one line of a refusal."""
    denied = refusal.denied
    joint = "@" if reference.startswith("sha256:") else ":"
    digest = f" ({refusal.digest})" if joint == ":" else ""
    instead = f"use {refusal.replacement}" if refusal.replacement else "there is no approved replacement"
    cause = _line(denied.cause, _CAUSE_MAX)
    return (
        f"{name}{joint}{reference}{digest} is denied ({denied.reason}): {cause}, "
        f"since {stamp(denied.since)}; {instead}; see {link}/help/{denied.reason}"
    )


def detail(refusal: Refusal) -> dict[str, str | None]:
    """The same for machines."""
    denied = refusal.denied
    return {
        "reason": str(denied.reason),
        "name": denied.name or None,
        "since": stamp(denied.since),
        "digest": refusal.digest,
        "replacement": refusal.replacement,
    }


def not_approved(now: dt.datetime) -> Denied:
    """The refusal of what is in the storage, but no approved image has."""
    return Denied(Reason.NOT_CURATED, "nobody whom this registry trusts has approved it", now, "not-approved")


def not_looked_at(now: dt.datetime) -> Denied:
    """The refusal of a tag that came a moment ago."""
    return Denied(Reason.UNVERIFIABLE, "it is new, and being verified", now, "not-looked-at")


def stamp(when: dt.datetime) -> str:
    """RFC 3339 in UTC, to the second."""
    return when.astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def warning(text: str) -> bytes:
    """A `Warning` header (RFC 7234, section 5.5: code 299, "miscellaneous persistent warning")."""
    quoted = _line(text, _MESSAGE_MAX).replace("\\", "").replace('"', "'")
    return f'299 - "{quoted}"'.encode("ascii", "replace")


def _line(text: str, limit: int) -> str:
    """Hostile text as one printable line."""
    flat = "".join(c if c.isascii() and c.isprintable() else " " for c in text)
    return " ".join(flat.split())[:limit]
