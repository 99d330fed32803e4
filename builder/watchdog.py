"""The watchdog: what should have moved by now and has not, and what is in its way. Pure.

It looks at what a night left behind, so it notices a night that never came. The deadlines of
vulnerabilities are the policy's.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from builder.model.rebuild import RebuildRequest
from builder.policy.schema import Deadlines


@dataclass(frozen=True, slots=True)
class Late:
    """Something that should have moved `by` a time, and what is in its way."""

    what: str
    by: dt.datetime
    blocked_by: str
    hint: str

    def hours(self, now: dt.datetime) -> int:
        """For how many whole hours it has been late."""
        return int((now - self.by).total_seconds() // 3600)

    def sentence(self, now: dt.datetime) -> str:
        """For people, in one line."""
        return f"{self.what} should have moved {self.hours(now)} h ago: blocked by {self.blocked_by}"


def late(
    night: Mapping[str, Any] | None,
    requests: Iterable[RebuildRequest],
    now: dt.datetime,
    within: dt.timedelta,
    deadlines: Deadlines,
) -> tuple[Late, ...]:
    """What is late, the longest first.

    `night` is the report of the last night, None when there was none; `within` is how long after
    a night the next one, or an obstacle's end, is due. Raises ValueError when the report is none.
    """
    found: list[Late] = []
    if night is None:
        return (Late("everything", now, "no night has run here yet", "goldsmith nightly"),)
    began = _time(night.get("began"))
    if began + within < now:
        hint = "see that the schedule runs: systemctl list-timers goldsmith-nightly"
        found.append(Late("everything", began + within, f"no night since {began:%Y-%m-%d %H:%M} UTC", hint))
    blocked = {}
    for one in night.get("blocked") or ():
        what, since = str(one["what"]), _time(one["since"])
        blocked[what] = str(one["by"])
        if since + within < now:
            found.append(Late(what, since + within, str(one["by"]), str(one["hint"])))
    for request in requests:
        due = request.requested_at + deadlines.of(request.severity, request.known_exploited)
        if due < now:
            cause = (
                blocked.get(request.ref) or blocked.get(f"promotion of {request.ref}") or "no night built it"
            )
            what = f"{request.ref} ({request.vulnerability} in {request.package})"
            found.append(Late(what, due, cause, f"goldsmith run {request.ref}"))
    return tuple(sorted(found, key=lambda one: (one.by, one.what)))


def _time(value: object) -> dt.datetime:
    found = dt.datetime.fromisoformat(str(value))
    return found if found.tzinfo else found.replace(tzinfo=dt.UTC)
