"""The command that closes the loop, unattended: nightly."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from builder.cli.releasing import ReleaseTools
    from builder.model.outcome import ImageEnd
    from builder.model.plan import PlannedImage
    from builder.nightly import Night, Promoted, Step
    from builder.pipeline.guard import Limits
    from builder.report import Reporter
    from builder.settings import Settings

AsJson = Annotated[bool, typer.Option("--json", help="Print the report as JSON.")]
_WHY = "nightly: what the policy lets through by itself"


def register(app: typer.Typer) -> None:
    """Add this module's commands to the application."""
    app.command()(nightly)


def nightly(
    engine: Annotated[
        list[str] | None, typer.Option("--engine", help="As for `goldsmith run`. Default: direct.")
    ] = None,
    policy: Annotated[str | None, typer.Option(help="The policy that judges. Default: baseline.")] = None,
    jobs: Annotated[int, typer.Option("--jobs", min=1, max=256, help="Images built at once.")] = 1,
    lock: Annotated[
        bool,
        typer.Option("--lock/--no-lock", help="Whether to write the locks anew, or take them as they are."),
    ] = True,
    promote: Annotated[
        bool, typer.Option("--promote/--no-promote", help="Whether to promote what the policy lets through.")
    ] = True,
    everything: Annotated[
        bool, typer.Option("--all", help="Hold nothing back; see `goldsmith plan`.")
    ] = False,
    most: Annotated[int, typer.Option("--most", min=1, help="The most builds in 24 hours.")] = 1000,
    wait: Annotated[
        float, typer.Option(metavar="SECONDS", help="Wait so long for another night to end.")
    ] = 0.0,
    report: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Where the report goes. Default: nightly/ in the state."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Sync the database, lock, plan, run, rescan, promote; then say what happened and what is blocked.

    Exit code 4 when something is blocked, that of the first error when something failed.
    """
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


@dataclass
class Doing:
    """What the steps of a night do, and what they found for those after them."""

    settings: Settings
    engines: Sequence[str]
    policy: str
    jobs: int
    limits: Limits
    reporter: Reporter
    planned: tuple[PlannedImage, ...] = ()
    ends: tuple[ImageEnd, ...] = ()
    promoted: list[Promoted] = field(default_factory=list)

    def tools(self) -> ReleaseTools:
        """The tools over the catalogue as it is now: a step before may have written locks."""
        from dataclasses import replace

        from builder.cli.releasing import ReleaseTools
        from builder.cli.wiring import Workshop

        workshop = replace(Workshop.open(), settings=self.settings)
        return ReleaseTools(workshop, self.policy, self.settings.trivy_db)

    def sync(self) -> str:
        """Mirror the vulnerability database."""
        from builder.cli.databases import mirror

        tools = self.tools()
        with tools.workshop.store.exclusive("goldsmith nightly"):
            pin, changed = mirror(tools, self.settings.trivy_db)
        return f"{'new' if changed else 'unchanged'}, updated {pin.updated_at}"

    def lock(self) -> str:
        """Resolve the packages in today's archive."""
        from builder.cli.catalogue import relock

        workshop = self.tools().workshop
        with workshop.store.exclusive("goldsmith nightly"):
            _, written = relock(workshop.catalogue, self.settings, workshop.store, [], check=False)
        return f"written: {', '.join(written)}" if written else "unchanged"

    def plan(self) -> str:
        """Say what is due, and what is held back."""
        from builder.cli.planning import make_plan

        plan = make_plan(self.tools(), self.engines, self.limits)
        self.planned = plan.images
        return ", ".join(f"{count} {action.value}" for action, count in plan.counts.items() if count)

    def run(self) -> str:
        """Take what is not held to the registry."""
        from collections import Counter

        from builder.cli.releasing import note_publication, runner

        tools = self.tools()
        held = {i.ref: i.held for i in self.planned if i.held}
        with tools.workshop.store.exclusive("goldsmith nightly"):
            self.ends = runner(tools, self.engines, self.reporter, self.jobs).run_all([], held)
        if any(e.outcome is not None and e.outcome.outcome != "unchanged" for e in self.ends):
            note_publication(tools.workshop.store)
        counts = Counter(end.state.value for end in self.ends)
        return ", ".join(f"{count} {state}" for state, count in sorted(counts.items()))

    def rescan(self) -> str:
        """Compare what is served with today's vulnerabilities."""
        from builder.cli.rescanning import perform
        from builder.errors import PolicyDenied

        done = perform(policy=self.policy)
        if not done.complete:
            raise PolicyDenied(
                f"the rescan is not complete: coverage {done.coverage:.3f}, {len(done.failed)} failed",
                hint="goldsmith rescan says which, and why",
                reference="rescan-incomplete",
            )
        if done.unchanged:
            return "unchanged"
        return f"{done.scanned} of {done.served} scanned, {done.renewed} renewed, {len(done.asked)} asked for"

    def promote(self) -> str:
        """Promote what was approved and is not in place, if the policy lets it through by itself."""
        from builder.cli.office import open_office
        from builder.errors import GoldsmithError
        from builder.model.digest import Digest
        from builder.nightly import Promoted
        from registry.access.roles import Permission
        from registry.promotion import promote as promotion

        due = [e.ref for e in self.ends if e.outcome is not None and e.outcome.approved]
        with open_office(self.policy) as (workshop, office, who):
            for end in self.ends:
                if end.ref not in due or end.outcome is None:
                    continue
                target = workshop.catalogue.find(end.ref)
                name = target.definition.name
                there = office.client.head_manifest(office.client.reference(name, target.tag))
                published = "publish" in end.outcome.stages
                if there is not None and there.digest == end.outcome.digest and not published:
                    continue
                where = office.client.reference(f"candidate/{name}", digest=Digest(end.outcome.digest))
                try:
                    who.require(Permission.PROMOTE, name)
                    done = promotion.promote(office, where, target, _WHY)
                    state = "promoted" if done.changed else "in place"
                    self.promoted.append(Promoted(end.ref, state, str(done.reference)))
                except GoldsmithError as error:
                    self.promoted.append(Promoted(end.ref, "refused", error.message, error))
        moved = sum(p.state == "promoted" for p in self.promoted)
        refused = sum(p.error is not None for p in self.promoted)
        return f"{moved} promoted, {refused} refused" if self.promoted else "unchanged"


def _night(doing: Doing, folder: Path, lock: bool, promote: bool) -> Night:
    """Go through the steps; the report's data."""
    from builder.nightly import Night, Step, go_through, obstacles, since_when

    began = time.monotonic()
    steps: list[Step] = [Step("sync", doing.sync)]
    steps += [Step("lock", doing.lock)] if lock else []
    steps += [Step("plan", doing.plan), Step("run", doing.run, ("plan",)), Step("rescan", doing.rescan)]
    steps += [Step("promote", doing.promote, ("run",))] if promote else []
    ends, cut = go_through(steps, folder, doing.reporter)
    found = obstacles(ends, doing.planned, doing.ends, doing.promoted)
    now = doing.settings.now
    return Night(
        now,
        ends,
        doing.ends,
        tuple(doing.promoted),
        since_when(found, folder, now),
        cut,
        time.monotonic() - began,
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
