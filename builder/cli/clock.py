"""The command that tells how long fixes take, what runs and what is late: clock."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from builder.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Container, Mapping

    from builder.cli.wiring import Workshop
    from registry.clock.remediation import Remediation
    from registry.clock.run import Clock
    from registry.inventory.kept import Look

_LATE = 4
_ROWS_MAX = 100  # that are shown to people; --json has all of them
_WEEKS = 8  # the same of the weeks' rows


def register(app: typer.Typer) -> None:
    """Add this module's commands to the application."""
    app.command()(clock)


def clock(
    image: Annotated[
        str, typer.Argument(metavar="[IMAGE]", help="Only this image: its name, or NAME:TAG.")
    ] = "",
    late: Annotated[bool, typer.Option("--late", help="Only what is late.")] = False,
    metrics: Annotated[
        Path | None, typer.Option("--metrics", metavar="FILE", help="Write the metrics there, too.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """For each finding: seen, fix available, rebuilt, promoted, adopted; what runs, and what is late.

    Ends with 0 when nothing is late, and with 4 when something is.
    """
    from dataclasses import replace

    from builder.cli.wiring import Workshop
    from builder.report import emit_json
    from registry.clock.telling import as_dict

    workshop = Workshop.open()
    found = perform(workshop, metrics=metrics)
    if image:
        found = _only(found, image, workshop)
    if late:
        found = replace(found, remediations=found.late)
    blocked, behind = _blocked(workshop), _behind(workshop)
    ours = frozenset(target.ref for target in workshop.catalogue.targets())
    if as_json:
        emit_json({**as_dict(found, blocked, ours), "behind": behind})
    else:
        _tell(found, blocked, ours)
        _tell_missing(found, behind)
    if found.late:
        raise typer.Exit(_LATE)


def perform(
    workshop: Workshop | None = None, *, policy: str | None = None, metrics: Path | None = None
) -> Clock:
    """The clock of this state directory by its newest index; what is new is remembered.

    The metrics are written to `metrics/clock.prom` of the state directory, and to a file `metrics`. No
    registry is asked. Raises ToolError without an index, LedgerBroken, and what the catalogue raises.
    """
    from builder.cli.audit import ledger_folder
    from builder.cli.extending import find_policy_of
    from builder.cli.knowledge import index_place
    from builder.cli.trusting import trusted
    from builder.cli.wiring import Workshop
    from builder.errors import ToolError
    from builder.rebuilds import waiting_rebuilds
    from builder.store import write_atomically
    from registry.audit.ledger import Ledger
    from registry.clock.run import Rules, clock_of
    from registry.clock.telling import exposition

    opened = workshop or Workshop.open()
    settings, store = opened.settings, opened.store
    rules = Rules(
        find_policy_of(settings, policy or settings.policy),
        lambda ref: _waivers(opened, ref),
        waiting_rebuilds(store),
    )
    found = clock_of(
        index_place(store).require(),
        store.root / "clock",
        Ledger(ledger_folder(store), trusted(store)).entries(),
        rules,
        settings.now,
        looks=_looks(opened),
    )
    data = exposition(found)
    for path in (store.root / "metrics" / "clock.prom", metrics):
        try:
            if path is not None:
                write_atomically(path, data)
        except OSError as error:
            raise ToolError("the metrics cannot be written", context=f"{path}: {error}") from None
    return found


def _looks(workshop: Workshop) -> tuple[Look, ...]:
    """What `goldsmith inventory --keep` found running in the last days."""
    import datetime as dt

    from builder.cli.inventory import kept_folder
    from registry.index.queries import PULLED_DAYS
    from registry.inventory.kept import looks

    now = workshop.settings.now
    found = looks(kept_folder(workshop.store), now - dt.timedelta(days=PULLED_DAYS))
    return tuple(look for look in found if look.at <= now)


def _waivers(workshop: Workshop, ref: str) -> Any:
    from builder.errors import GoldsmithError

    try:
        return workshop.catalogue.find(ref).waivers
    except GoldsmithError:  # what is no longer in the catalogue has none
        return ()


def _only(found: Clock, image: str, workshop: Workshop) -> Clock:
    from dataclasses import replace

    def meant(ref: str) -> bool:
        return image in (ref, ref.partition(":")[0])

    known = [t.ref for t in workshop.catalogue.targets()] + [r.ref for r in found.remediations]
    if not any(meant(ref) for ref in known):
        raise UsageError(f"there is no image {image[:100]!r}", hint="goldsmith images lists them")
    return replace(
        found,
        remediations=tuple(r for r in found.remediations if meant(r.ref)),
        mended=tuple(m for m in found.mended if meant(m.ref)),
    )


def _blocked(workshop: Workshop) -> Mapping[str, tuple[str, str]]:
    """What the last night said is blocked: the cause and what to do, by image."""
    from builder.cli.watchdog import last_night, unreadable

    night = last_night(workshop.store) or {}
    try:
        return {str(b["what"]): (str(b["by"]), str(b["hint"])) for b in night.get("blocked") or ()}
    except (KeyError, TypeError) as error:
        raise unreadable(workshop.store, error) from None


def _behind(workshop: Workshop) -> str:
    from builder.cli.knowledge import behind, index_place

    place = index_place(workshop.store)
    return behind(place, place.require(), workshop.store)


def _tell(found: Clock, blocked: Mapping[str, tuple[str, str]], ours: Container[str]) -> None:
    from builder.report import emit, table
    from registry.clock.telling import by_week, obstacle

    for one in found.late[:_ROWS_MAX]:
        hours = int((found.now - one.due).total_seconds() // 3600) if one.due else 0
        why = obstacle(one, blocked, ours)
        emit(f"{one.ref} ({one.vulnerability} in {one.package}) is {hours} h late: blocked by {why.by}")
        emit(f"  what to do: {why.hint}")
    rows = [_row(one, found, obstacle(one, blocked, ours).by) for one in found.remediations[:_ROWS_MAX]]
    columns = ("image", "finding", "severity", "state", "fixed in", "seen", "due", "adopted", "waits for")
    if rows:
        table("Clock", columns, rows)
    if len(found.remediations) > _ROWS_MAX:
        emit(f"and {len(found.remediations) - _ROWS_MAX} more: --json")
    weeks = [
        [r.week, r.severity, str(r.count), f"{r.p50:g}", f"{r.p95:g}", f"{r.adopted_p50:g} ({r.adopted})"]
        for r in by_week(found)[:_WEEKS]
    ]
    if weeks:
        names = ("week", "severity", "promoted", "p50 hours", "p95 hours", "p50 hours until adopted")
        table("From the fix to the promotion", names, weeks)
    emit(f"{len(found.remediations)} findings, {len(found.late)} late")


def _row(one: Remediation, found: Clock, waits_for: str) -> list[str]:
    state = "late" if one.late(found.now) else one.state.value
    if one.waived_until is not None:
        state = f"waived until {one.waived_until:%Y-%m-%d}"
    return [
        one.ref,
        f"{one.vulnerability} in {one.package}",
        f"{one.severity.value.lower()}{', exploited' if one.known_exploited else ''}",
        state + (f" (in doubt: {one.doubts[0]})" if one.doubts else ""),
        one.fixed_version,
        f"{one.seen:%Y-%m-%d %H:%M}",
        f"{one.due:%Y-%m-%d %H:%M}" if one.due else "",
        f"{one.movers} of {one.takers}" if one.promoted else "",
        waits_for,
    ]


def _tell_missing(found: Clock, behind: str) -> None:
    from builder.report import emit

    if found.unverified:
        emit(f"{found.unverified} images could not be verified and are not among these: goldsmith reindex")
    if found.unreadable:
        emit(f"{found.unreadable} lines of the clock's journal cannot be read: earlier times may be missing")
    if behind:
        emit(f"the index is behind ({behind}): goldsmith reindex")
