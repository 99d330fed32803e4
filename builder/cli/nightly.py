"""The command that closes the loop, unattended: nightly."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from builder.cli.clustering import Scheduler, TlsCa, TlsCert, TlsKey

if TYPE_CHECKING:
    from builder.cli.night import Doing
    from builder.nightly import Blocked, Night, StepEnd

AsJson = Annotated[bool, typer.Option("--json", help="Print the report as JSON.")]
Engines = Annotated[
    list[str] | None, typer.Option("--engine", help="As for `goldsmith run`. Default: direct.")
]
PolicyName = Annotated[str | None, typer.Option(help="The policy that judges. Default: baseline.")]
Jobs = Annotated[int, typer.Option("--jobs", min=1, max=256, help="Images built at once.")]
Lock = Annotated[
    bool,
    typer.Option("--lock/--no-lock", help="Whether to write the locks anew, or take them as they are."),
]
Promote = Annotated[
    bool, typer.Option("--promote/--no-promote", help="Whether to promote what the policy lets through.")
]
Everything = Annotated[bool, typer.Option("--all", help="Hold nothing back; see `goldsmith plan`.")]
Most = Annotated[int, typer.Option("--most", min=1, help="The most builds in 24 hours.")]
Wait = Annotated[float, typer.Option(metavar="SECONDS", min=0, help="Wait so long for another night to end.")]
ReportFolder = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Where the report goes. Default: nightly/ in the state.")
]


def register(app: typer.Typer) -> None:
    """Add this module's commands to the application."""
    app.command()(nightly)


def nightly(
    engine: Engines = None,
    policy: PolicyName = None,
    jobs: Jobs = 1,
    lock: Lock = True,
    promote: Promote = True,
    everything: Everything = False,
    most: Most = 1000,
    wait: Wait = 0.0,
    report: ReportFolder = None,
    scheduler: Scheduler = None,
    tls_ca: TlsCa = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    as_json: AsJson = False,
) -> None:
    """Close the loop: sync the database, lock, plan, run, rescan, promote, deprecate, notify.

    A report says what happened, and what is blocked by what, since when.

    Exit code 4 when something is blocked, that of the first error when something failed.
    """
    from builder.cli.clustering import certificates
    from builder.cli.night import Doing
    from builder.night_report import as_dict
    from builder.nightly import only_one
    from builder.pipeline.guard import Limits
    from builder.report import Silent, emit_json, for_people
    from builder.settings import Settings
    from builder.store import Store

    settings = Settings.load()
    folder = Store(settings.state).create().root / "nightly"
    doing = Doing(
        settings,
        tuple(engine or ["direct"]),
        policy or settings.policy,
        jobs,
        Limits(builds_max=most, everything=everything),
        Silent() if as_json else for_people(),
        scheduler,
        certificates(tls_ca, tls_cert, tls_key),
    )
    with only_one(folder, wait):
        night = _night(doing, folder, lock, promote)
        _write(night, report or folder)
    if as_json:
        emit_json(as_dict(night))
    else:
        _tell(night, report or folder)
    if night.exit_code:
        raise typer.Exit(night.exit_code)


def _night(doing: Doing, folder: Path, lock: bool, promote: bool) -> Night:
    """Go through the steps; the report's data."""
    from builder.nightly import Night, Step, go_through, not_looked_at, obstacles, since_when

    began, now = time.monotonic(), doing.settings.now
    doing.ready_to_tell()
    so_far: dict[str, StepEnd] = {}

    def blocked() -> tuple[Blocked, ...]:
        found = obstacles(so_far.values(), doing.planned, doing.ends, doing.promoted)
        return since_when(found, folder, now, not_looked_at(so_far.values()))

    def notify() -> str:
        failed = {f"step {s.name}" for s in so_far.values() if s.error}
        return doing.notify(blocked(), frozenset(failed | {i.ref for i in doing.ends if i.error}))

    steps: list[Step] = [Step("sync", doing.sync)]
    steps += [Step("lock", doing.lock)] if lock else []
    steps += [Step("plan", doing.plan), Step("run", doing.run, ("plan",), doing.expected)]
    steps += [Step("rescan", doing.rescan)]
    if promote:
        steps += [Step("promote", doing.promote, ("run",)), Step("deprecate", doing.deprecate, ("promote",))]
    steps += [Step("clock", doing.clock, ("rescan",)), Step("notify", notify)]
    ends, cut = go_through(steps, folder, doing.reporter, so_far)
    return Night(
        now,
        ends,
        doing.ends,
        tuple(doing.promoted),
        blocked(),
        cut,
        time.monotonic() - began,
        doing.replaced,
    )


def _write(night: Night, folder: Path) -> None:
    from builder.night_report import as_json, as_junit, as_markdown
    from builder.store import write_atomically

    write_atomically(folder / "report.json", as_json(night))
    write_atomically(folder / "report.md", as_markdown(night).encode())
    write_atomically(folder / "report.xml", as_junit(night))


def _tell(night: Night, folder: Path) -> None:
    from builder.report import emit, table

    rows = [(s.name, s.state, f"{s.seconds:.1f}", s.detail) for s in night.steps]
    table("Night", ("step", "", "seconds", "what"), rows)
    if night.blocked:
        blocked = [(b.what, b.by, f"{b.since:%Y-%m-%d %H:%M}", b.hint) for b in night.blocked]
        table("Blocked", ("what", "by", "since", "what to do"), blocked)
    emit(f"{folder / 'report.md'} says all of it")
