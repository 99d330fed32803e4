"""What the clock tells: plain data, percentiles by week, and metrics in Prometheus' text format."""

from __future__ import annotations

import datetime as dt
import math
from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from prometheus_client import CollectorRegistry, Gauge, generate_latest

from builder.model.evidence import Severity
from registry.clock.journal import Mended
from registry.clock.remediation import OPEN, Remediation, State
from registry.clock.run import Clock

KNOWN_EXPLOITED = "known exploited"
_DAYS = 30  # that the exported percentiles cover


@dataclass(frozen=True, slots=True)
class Row:
    """How long remediations took that were promoted in a week, in hours.

    `week` is its Monday (UTC), or empty for the last days; promoted and adopted are counted from the fix.
    """

    week: str
    severity: str
    count: int
    p50: float
    p95: float
    adopted: int = 0
    adopted_p50: float = 0.0
    adopted_p95: float = 0.0


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least this share of all is not above (nearest rank); 0 of none."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else 0.0


def by_week(clock: Clock) -> tuple[Row, ...]:
    """One row for each week and severity, the newest week first."""
    groups: dict[str, list[Mended]] = {}
    for one in clock.mended:
        day = one.promoted.date()
        groups.setdefault((day - dt.timedelta(days=day.weekday())).isoformat(), []).append(one)
    return tuple(
        row for week in sorted(groups, reverse=True) for row in _rows(week, groups[week], clock.adopted)
    )


def lately(clock: Clock) -> tuple[Row, ...]:
    """One row for each severity, of the last 30 days."""
    since = clock.now - dt.timedelta(days=_DAYS)
    return _rows("", [one for one in clock.mended if one.promoted >= since], clock.adopted)


def _rows(
    week: str, found: Iterable[Mended], adopted: Mapping[tuple[str, str, str, dt.datetime], dt.datetime]
) -> tuple[Row, ...]:
    groups: dict[str, list[Mended]] = {}
    for one in found:
        groups.setdefault(urgency(one.severity, one.known_exploited), []).append(one)
    rows = []
    for name in _URGENCIES:
        if of_name := groups.get(name):
            hours = [_hours(m.fix, m.promoted) for m in of_name]
            taken = [_hours(m.fix, adopted[m.key]) for m in of_name if m.key in adopted]
            rows.append(
                Row(
                    week,
                    name,
                    len(hours),
                    percentile(hours, 0.5),
                    percentile(hours, 0.95),
                    len(taken),
                    percentile(taken, 0.5),
                    percentile(taken, 0.95),
                )
            )
    return tuple(rows)


_URGENCIES = (KNOWN_EXPLOITED, *(s.value.lower() for s in Severity))


def urgency(severity: Severity, known_exploited: bool) -> str:
    """What a finding is counted as."""
    return KNOWN_EXPLOITED if known_exploited else severity.value.lower()


def _hours(start: dt.datetime, end: dt.datetime) -> float:
    return round(max(0.0, (end - start).total_seconds()) / 3600, 2)


@dataclass(frozen=True, slots=True)
class Obstacle:
    """What is in the way of a remediation, and what to do."""

    by: str
    hint: str


def obstacle(one: Remediation, blocked: Mapping[str, tuple[str, str]], ours: Container[str]) -> Obstacle:
    """What a remediation waits for; `blocked` is what the last night said: image → cause and hint.

    `ours` are the images of the catalogue; the others were imported.
    """
    imported = one.ref not in ours
    if one.state is State.PROMOTED:
        left = one.takers - one.movers
        return Obstacle(
            f"{left} of {one.takers} have not pulled it yet", f"goldsmith affected {one.vulnerability}"
        )
    if one.state is State.NO_FIX:
        waive = f"goldsmith waive {one.ref.partition(':')[0]} {one.vulnerability}"
        hint = f"{waive}{' --imported' if imported else ''}, if the image is not affected"
        return Obstacle("there is no fix", hint)
    if one.state is not State.RUNNING:
        return Obstacle("", "")
    if one.rebuilt is None:
        cause = (
            ("no newer image was imported", f"goldsmith import SOURCE --as {one.ref}")
            if imported
            else ("no image without it was built", f"goldsmith run {one.ref}")
        )
        cause = blocked.get(one.ref, cause)
    else:
        cause = blocked.get(
            f"promotion of {one.ref}", ("it is built and not promoted", f"goldsmith promote {one.ref}")
        )
    return Obstacle(*cause)


def as_dict(clock: Clock, blocked: Mapping[str, tuple[str, str]], ours: Container[str]) -> dict[str, Any]:
    """The clock as plain data for `--json`; `blocked` and `ours` as in `obstacle`."""
    return {
        "late": len(clock.late),
        "remediations": [_one(r, clock.now, obstacle(r, blocked, ours)) for r in clock.remediations],
        "weeks": [_row(row) for row in by_week(clock)],
        "last_30_days": [_row(row) for row in lately(clock)],
        "unverified": clock.unverified,
        "unreadable": clock.unreadable,
    }


def _one(one: Remediation, now: dt.datetime, why: Obstacle) -> dict[str, Any]:
    def told(at: dt.datetime | None) -> str | None:
        return at.isoformat() if at else None

    return {
        "ref": one.ref,
        "vulnerability": one.vulnerability,
        "package": one.package,
        "state": one.state.value,
        "late": one.late(now),
        "severity": one.severity.value,
        "known_exploited": one.known_exploited,
        "fixed_version": one.fixed_version,
        **{name: told(getattr(one, name)) for name in ("seen", "fix", "rebuilt", "promoted", "adopted")},
        "due": told(one.due),
        "waived_until": told(one.waived_until),
        "retracted": told(one.retracted),
        "adoption": {"moved": one.movers, "of": one.takers},
        "blocked_by": why.by,
        "hint": why.hint,
        "doubts": list(one.doubts),
    }


def _row(row: Row) -> dict[str, Any]:
    return {
        "week": row.week or None,
        "severity": row.severity,
        "count": row.count,
        "p50_hours": row.p50,
        "p95_hours": row.p95,
        "adopted": row.adopted,
        "adopted_p50_hours": row.adopted_p50,
        "adopted_p95_hours": row.adopted_p95,
    }


def exposition(clock: Clock) -> bytes:
    """The clock as metrics, for a collector that reads files."""
    registry = CollectorRegistry()

    def gauge(name: str, text: str, *labels: str) -> Gauge:
        return Gauge(f"goldsmith_clock_{name}", text, labels, registry=registry)

    states = gauge("remediations", "Findings in image lines by state", "state", "severity")
    late = gauge("late", "Findings whose deadline has passed", "severity")
    oldest = gauge("oldest_seconds", "Age of the oldest fix that is not promoted", "severity")
    counted = Counter((r.state, urgency(r.severity, r.known_exploited)) for r in clock.remediations)
    overdue = Counter(urgency(r.severity, r.known_exploited) for r in clock.late)
    for name in _URGENCIES:
        for state in State:
            states.labels(state.value, name).set(counted[state, name])
        late.labels(name).set(overdue[name])
        ages = [
            (clock.now - r.fix).total_seconds()
            for r in clock.remediations
            if r.fix and r.state in OPEN and urgency(r.severity, r.known_exploited) == name
        ]
        oldest.labels(name).set(max(ages, default=0.0))
    hours = gauge(
        "fix_hours",
        "Hours from a fix to its promotion and to its adoption, of the last 30 days",
        "stage",
        "severity",
        "quantile",
    )
    ended = gauge("mended", "Fixes that were promoted in the last 30 days", "severity")
    for row in lately(clock):
        ended.labels(row.severity).set(row.count)
        for stage, p50, p95, count in (
            ("promoted", row.p50, row.p95, row.count),
            ("adopted", row.adopted_p50, row.adopted_p95, row.adopted),
        ):
            if count:
                hours.labels(stage, row.severity, "0.5").set(p50)
                hours.labels(stage, row.severity, "0.95").set(p95)
    gauge("doubtful", "Findings whose times contradict each other").set(
        sum(bool(r.doubts) for r in clock.remediations)
    )
    gauge("unverified", "Images that could not be verified, and are not counted").set(clock.unverified)
    gauge("timestamp_seconds", "When the clock was read").set(clock.now.timestamp())
    return bytes(generate_latest(registry))
