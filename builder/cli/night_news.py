"""What a night has to tell: from what it did and found to events."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from builder.cli.wiring import Workshop
    from builder.model.outcome import ImageEnd
    from builder.nightly import Blocked
    from builder.store import Store
    from registry.clock.remediation import Remediation
    from registry.notify.events import Event


def rebuilt(
    ends: Sequence[ImageEnd], reasons: Mapping[str, str], store: Store, told: int | None
) -> list[Event]:
    """What was built this night, and since the last one that told of it (`told`, seconds of the epoch)."""
    from builder.pipeline.history import history_of
    from registry.notify.events import of_rebuild

    found = []
    for end in ends:
        if end.outcome is None or not end.outcome.approved:
            continue
        built = history_of(store, end.ref).built_at
        anew = told is not None and built is not None and built.timestamp() > told
        if anew or end.outcome.outcome != "unchanged":
            found.append(of_rebuild(end.ref, end.outcome.digest, reasons.get(end.ref, "")))
    return found


def ending_waivers(workshop: Workshop) -> list[Event]:
    """The waivers that end soon."""
    from builder.model.waiver import Waiver
    from builder.stages.judge import imported_waivers
    from registry.notify.events import of_waiver

    now = workshop.settings.now
    accepted = {**imported_waivers(workshop.settings.catalogue), **workshop.catalogue.waivers}
    listed = (Waiver(n, e, inherited=False) for n, d in accepted.items() for e in d.waivers)
    return [found for one in listed if (found := of_waiver(one, now)) is not None]


def obstacles_of(blocked: Sequence[Blocked], failed: frozenset[str]) -> list[Event]:
    """What is blocked; `failed` are those of them that are errors."""
    from registry.notify.events import of_obstacle

    return [of_obstacle(b.what, b.by, b.since, b.hint, failed=b.what in failed) for b in blocked]


def lateness_of(
    blocked: Sequence[Blocked], overdue: Sequence[Remediation], workshop: Workshop
) -> list[Event]:
    """What should have moved by now: what is blocked for long, and findings past their deadline."""
    from builder.cli.watchdog import HOURS
    from registry.clock.telling import obstacle
    from registry.notify.events import of_lateness

    limit, now = dt.timedelta(hours=HOURS), workshop.settings.now
    ours = frozenset(target.ref for target in workshop.catalogue.targets())
    found = [of_lateness(b.what, b.since + limit, b.by, b.hint) for b in blocked if b.since + limit < now]
    waits = {b.what: (b.by, b.hint) for b in blocked}
    for one in overdue:
        why = obstacle(one, waits, ours)
        what = f"{one.ref} ({one.vulnerability} in {one.package})"
        found.append(of_lateness(what, one.due or now, why.by, why.hint, one.severity))
    return found
