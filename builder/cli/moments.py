"""Dates and times as people give them to options."""

from __future__ import annotations

import datetime as dt

from builder.errors import UsageError


def moment(text: str) -> dt.datetime | None:
    """A date or time of ISO 8601, in UTC where it names no zone; None for nothing. Raises UsageError."""
    if not text:
        return None
    try:
        found = dt.datetime.fromisoformat(text)
        return (found if found.tzinfo else found.replace(tzinfo=dt.UTC)).astimezone(dt.UTC)
    except (ValueError, OverflowError):
        raise UsageError(
            f"no date or time: {text[:50]!r}", hint="write 2026-03-01, or 2026-03-01T12:00:00Z"
        ) from None
