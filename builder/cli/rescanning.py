"""The command that compares what is served with today's vulnerabilities: rescan."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from registry.rescan.run import Rescan

_EXIT_DENIED = 4
_ROWS_MAX = 100  # images that are shown to people; --json has all of them

AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


def register(app: typer.Typer) -> None:
    """Add this module's commands to the application."""
    app.command()(rescan)


def rescan(
    quarantine_all: Annotated[
        bool,
        typer.Option(
            "--quarantine-all", help="Also when more images than a fifth would go into quarantine at once."
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Compare all served images with today's vulnerability database, and do what follows from it.

    Exit code 4 when something was not scanned, or could not be carried out.
    """
    from builder.report import emit_json
    from registry.rescan import telling

    done = perform(quarantine_all)
    emit_json(telling.as_dict(done)) if as_json else _tell(done)
    if not done.complete:
        raise typer.Exit(_EXIT_DENIED)


def perform(quarantine_all: bool = False, policy: str | None = None) -> Rescan:
    """Rescan as the command does; raises what stands in the way of all images."""
    from builder.cli.knowledge import index_place, ledger_length, recent_pulls, registry_of
    from builder.cli.office import open_office
    from builder.cli.releasing import ReleaseTools
    from builder.store import write_atomically
    from registry.access.roles import Permission
    from registry.rescan import run, telling

    with open_office(policy) as (workshop, office, who):
        for name in sorted({t.definition.name for t in workshop.catalogue.targets()}):
            who.require(Permission.QUARANTINE, name)
            who.require(Permission.PUBLISH, name)
        settings, store = workshop.settings, workshop.store
        tools = ReleaseTools(workshop, policy or settings.policy, settings.trivy_db)
        with store.exclusive("goldsmith rescan"):
            desk = run.Desk(
                store=store,
                place=index_place(store),
                registry=registry_of(settings),
                database=tools.database,
                trivy=tools.trivy,
                target=workshop.catalogue.find,
                ledger_entries=lambda: ledger_length(store),
                journal=lambda: recent_pulls(store, settings.now),
                scanners=workshop.extensions.scanners,
                policies=(ReleaseTools(workshop, "import", settings.trivy_db).policy,),
            )
            done = run.rescan(office, desk, quarantine_all=quarantine_all)
            metrics = store.root / "metrics" / "rescan.prom"
            write_atomically(metrics, telling.exposition(done, settings.now))
    return done


def _tell(done: Rescan) -> None:
    from builder.report import emit, table
    from registry.rescan.judging import Outcome

    if done.unchanged:
        emit(f"unchanged: {done.images} images, the same database, policy and packages as at the last rescan")
        return
    rows = [
        [j.image.ref, j.image.digest.short, j.image.channel.value, j.outcome.value, j.reason]
        for j in done.judged
        if j.outcome is not Outcome.KEEP
    ]
    if rows:
        columns = ("image", "digest", "channel", "outcome", "why")
        table("What is not kept as it is", columns, rows[:_ROWS_MAX])
    if len(rows) > _ROWS_MAX:
        emit(f"and {len(rows) - _ROWS_MAX} more: --json")
    for problem in done.unverified[:_ROWS_MAX]:
        emit(f"not verified: {problem.repository}@{problem.digest}: {problem.message}")
    for failed in done.failed[:_ROWS_MAX]:
        emit(f"{failed.what} of {failed.ref}@{failed.digest.short} failed: {failed.error.message}")
        if failed.error.hint:
            emit(f"  {failed.error.hint}")
    asked = f", {len(done.asked)} rebuilds asked for" if done.asked else ""
    back = f", {len(done.withdrawn)} requests withdrawn" if done.withdrawn else ""
    emit(
        f"{done.scanned} of {done.served} served images scanned ({done.packages} packages): "
        f"{done.renewed} verdicts renewed{asked}{back}"
    )
