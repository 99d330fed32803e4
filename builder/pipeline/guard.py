"""Order and guards: what comes first, and what is held back so that no loop or storm runs unattended."""

from __future__ import annotations

import datetime as dt
import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from builder.model.digest import Digest
from builder.model.history import History
from builder.model.plan import Action, Reason

_NIGHT = dt.timedelta(days=1)
_NEVER = dt.datetime.max.replace(tzinfo=dt.UTC)


@dataclass(frozen=True, slots=True)
class Limits:
    """When an image is held back: an input failed that often, or the digest changed that often,
    within `window`; and how many images are built in 24 hours. None of it with `everything`."""

    failures_max: int = 3
    changes_max: int = 10
    window: dt.timedelta = dt.timedelta(days=7)
    builds_max: int = 1000
    everything: bool = False


@dataclass(frozen=True, slots=True)
class Need:
    """What one image needs and how urgent it is."""

    ref: str
    parent: str | None
    action: Action
    reasons: tuple[Reason, ...] = ()
    exploited: bool = False
    consumers: int = 0
    since: dt.datetime | None = None
    input_hash: Digest | None = None
    history: History = field(default_factory=lambda: History(""))

    @property
    def due(self) -> bool:
        """Whether a run would take it."""
        return self.action in (Action.BUILD, Action.RELEASE)

    @property
    def urgency(self) -> tuple[bool, bool, int, dt.datetime, str]:
        """Smaller is sooner."""
        idle = self.action is Action.NOTHING
        return idle, not self.exploited, -self.consumers, self.since or _NEVER, self.ref


def arrange(needs: Sequence[Need], consumers: Mapping[str, int]) -> list[Need]:
    """By urgency, parents first; a parent is as urgent as the most urgent image that waits for it.

    `needs` has parents before children. Who consumes a child consumes its parents too.
    """
    found = {n.ref: replace(n, consumers=consumers.get(n.ref, 0)) for n in needs}
    children: dict[str, list[str]] = {}
    for need in reversed(needs):
        mine = found[need.ref]
        above = found.get(need.parent or "")
        if above is None:
            continue
        children.setdefault(above.ref, []).append(mine.ref)
        waits = mine.action is not Action.NOTHING and above.action is not Action.NOTHING
        since = [s for s in (above.since, mine.since if waits else None) if s is not None]
        found[above.ref] = replace(
            above,
            consumers=above.consumers + mine.consumers + 1,
            exploited=above.exploited or (waits and mine.exploited),
            since=min(since, default=None),
        )
    queue = [n.urgency for n in found.values() if n.parent not in found]
    heapq.heapify(queue)
    ordered = []
    while queue:
        need = found[heapq.heappop(queue)[-1]]
        ordered.append(need)
        for ref in children.get(need.ref, []):
            heapq.heappush(queue, found[ref].urgency)
    return ordered


def held_back(ordered: Sequence[Need], limits: Limits, now: dt.datetime) -> dict[str, str]:
    """Why an image is held back though it is due, by name; what is built on it is held as well."""
    held: dict[str, str] = {}
    blocked = {n.ref for n in ordered if n.action is Action.BLOCKED and n.input_hash is None}
    builds = sum(n.history.attempts_since(now - _NIGHT) for n in ordered)
    for need in ordered:
        if not need.due:
            continue
        if need.parent in held or need.parent in blocked:
            held[need.ref] = f"its parent {need.parent} is {'held' if need.parent in held else 'blocked'}"
            continue
        if limits.everything or need.action is not Action.BUILD:
            continue
        reason = _loop(need, limits, now)
        if not reason and builds >= limits.builds_max:
            reason = f"storm: {limits.builds_max} builds in 24 hours is the limit; the next night goes on"
        if reason:
            held[need.ref] = reason
        else:
            builds += 1
    return held


def _loop(need: Need, limits: Limits, now: dt.datetime) -> str:
    since = now - limits.window
    days = f"{limits.window.days} days"
    if need.input_hash is not None:
        failures = need.history.failures(need.input_hash, since)
        if len(failures) >= limits.failures_max:
            return f"loop: this input failed {len(failures)} times in {days}, at last: {failures[-1].error}"
    changes = need.history.changes(since)
    if changes >= limits.changes_max:
        return f"loop: it had {changes} new digests in {days}"
    return ""
