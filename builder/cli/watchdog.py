"""The command for monitoring: watchdog."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from builder.errors import ToolError
    from builder.store import Store

_LATE = 4
HOURS = 26

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]


def register(app: typer.Typer) -> None:
    """Add this module's commands to the application."""
    app.command()(watchdog)


def watchdog(
    hours: Annotated[
        int, typer.Option(min=1, max=24 * 365, help="How long after a night the next one is due.")
    ] = HOURS,
    as_json: AsJson = False,
) -> None:
    """Say what should have moved by now and has not, and what is in its way; for monitoring.

    Ends with 0 when nothing is late, and with 4 when something is.
    """
    import datetime as dt

    from builder import watchdog as rules
    from builder.cli.extending import find_policy_of
    from builder.rebuilds import waiting_rebuilds
    from builder.report import emit, emit_json
    from builder.settings import Settings
    from builder.store import Store

    settings = Settings.load()
    store, now = Store(settings.state), settings.now
    deadlines = find_policy_of(settings, settings.policy).data.deadlines
    night = last_night(store)
    try:
        found = rules.late(night, waiting_rebuilds(store), now, dt.timedelta(hours=hours), deadlines)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise unreadable(store, error) from None
    if as_json:
        late = [
            {
                "what": o.what,
                "due": o.by.isoformat(),
                "hours": o.hours(now),
                "blocked_by": o.blocked_by,
                "hint": o.hint,
            }
            for o in found
        ]
        emit_json({"late": late})
    else:
        for one in found:
            emit(f"{one.sentence(now)}\n  what to do: {one.hint}")
        emit(f"{len(found)} late" if found else "nothing is late")
    if found:
        raise typer.Exit(_LATE)


def last_night(store: Store) -> Mapping[str, Any] | None:
    """The report of the last night; None when there was none. Raises ToolError when it cannot be read."""
    import json

    try:
        found = json.loads((store.root / "nightly" / "report.json").read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise unreadable(store, error) from None
    if not isinstance(found, dict):
        raise unreadable(store, TypeError("it is no object"))
    return found


def unreadable(store: Store, error: Exception) -> ToolError:
    """What is said of a report that is none."""
    from builder.errors import ToolError

    return ToolError(
        "the report of the last night cannot be read",
        context=f"{store.root / 'nightly' / 'report.json'}: {error!r}"[:300],
        hint="run one: goldsmith nightly",
    )
