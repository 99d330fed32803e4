"""Commands for the vulnerability database: db sync, db status."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from builder.cli.releasing import ReleaseTools
    from builder.settings import Settings
    from builder.stages.sync import Pin

AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
PolicyName = Annotated[str | None, typer.Option(help="The policy with the age limit. Default: baseline.")]


def register(app: typer.Typer) -> None:
    """Add this module's commands to the application."""
    group = typer.Typer(help="The vulnerability database in our own registry.", no_args_is_help=True)
    group.command("sync")(sync)
    group.command("status")(status)
    app.add_typer(group, name="db")


def sync(
    source: Annotated[
        str | None,
        typer.Argument(
            metavar="[SOURCE]",
            help="OCI reference, layout, tar or folder. Default: GOLDSMITH_TRIVY_DB, else Trivy's own.",
        ),
    ] = None,
    signed_by: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Take it only with a statement signed by the verdict key in this folder."
        ),
    ] = None,
    policy: PolicyName = None,
    as_json: AsJson = False,
) -> None:
    """Mirror the database into our registry, if it passes; signed, and pinned by its digest."""
    from builder.cli.releasing import ReleaseTools
    from builder.cli.wiring import Workshop
    from builder.report import emit, emit_json

    workshop = Workshop.open()
    settings = workshop.settings
    tools = ReleaseTools(workshop, policy or settings.policy, settings.trivy_db)
    with workshop.store.exclusive("goldsmith db sync"):
        pin, changed = mirror(tools, source or settings.trivy_db, signed_by)
    if as_json:
        emit_json({"outcome": "synced" if changed else "unchanged", **_facts(pin)})
    else:
        emit(f"{'synced' if changed else 'unchanged'}: {pin.reference}\n  updated {pin.updated_at}")


def mirror(tools: ReleaseTools, source: str | None, signed_by: Path | None = None) -> tuple[Pin, bool]:
    """Sync with the tools of a release; whoever calls it holds the state directory."""
    from builder.stages import sync as stage
    from builder.stages.scan import MAJOR_VERSIONS

    workshop = tools.workshop
    if signed_by is not None:
        source = _signed(workshop.settings, source, signed_by)
    suites = {t.stream.suite for t in workshop.catalogue.targets()}
    return stage.sync(
        source,
        store=workshop.store,
        client=tools.client,
        trivy=tools.trivy,
        signer=lambda: tools.keys.verdict,
        releases=[f"debian {MAJOR_VERSIONS[s]}" for s in sorted(suites)],
        now=workshop.settings.now,
        age_days_max=tools.policy.data.database.age_days_max,
    )


def _signed(settings: Settings, source: str | None, folder: Path) -> str:
    """The source by the digest that its mirror signed; raises ToolError or UsageError."""
    from builder.cli.wiring import client_of
    from builder.errors import UsageError
    from builder.model.reference import Reference
    from builder.stages.sync import TAG, signed_database

    try:
        reference = Reference.parse(source or "")
    except ValueError:
        raise UsageError(
            "only a registry can have a signed database",
            hint="name one: HOST/goldsmith/trivy-db; or leave --signed-by out",
        ) from None
    if reference.tag is None and reference.digest is None:
        reference = reference.with_tag(TAG)
    digest, _ = signed_database(
        client_of(settings, reference.host, writes=False), reference, _verifier(folder)
    )
    return str(reference.with_digest(digest))


def _verifier(folder: Path) -> Callable[[bytes, bytes], bool]:
    from builder.signing.keys import VERDICT
    from builder.signing.trust import Trust

    return Trust.load(folder).unrevoked(VERDICT)


def status(policy: PolicyName = None, as_json: AsJson = False) -> None:
    """Say which database is pinned and how old it is; exit code 5 when it is too old for a verdict."""
    import datetime as dt

    from builder.cli.releasing import ReleaseTools
    from builder.cli.wiring import Workshop
    from builder.errors import ToolError
    from builder.report import emit, emit_json
    from builder.stages.sync import read_pin

    workshop = Workshop.open()
    settings = workshop.settings
    limit = ReleaseTools(workshop, policy or settings.policy, None).policy.data.database.age_days_max
    pin = read_pin(workshop.store)
    if pin is None:
        raise ToolError(
            "no vulnerability database is pinned", hint="goldsmith db sync", reference="database-not-pinned"
        )
    age = (settings.now - dt.datetime.fromisoformat(pin.updated_at)) / dt.timedelta(days=1)
    if age > limit:
        raise ToolError(
            f"the pinned vulnerability database is {age:.1f} days old; the policy allows {limit:g}",
            context=f"{pin.reference}\nfrom {pin.source}, updated {pin.updated_at}, synced {pin.synced_at}",
            hint="goldsmith db sync says why no newer one was taken; until then there is no new verdict",
            reference="database-too-old",
        )
    if as_json:
        emit_json({**_facts(pin), "age_days": round(age, 2), "age_days_max": limit})
    else:
        emit(
            f"{pin.reference}\n  from {pin.source}, updated {pin.updated_at}, {age:.1f} of {limit:g} days old"
        )


def _facts(pin: Pin) -> dict[str, object]:
    return {
        "reference": pin.reference,
        "digest": pin.digest,
        "upstream": pin.upstream,
        "source": pin.source,
        "updated_at": pin.updated_at,
        "bytes": pin.size,
        "synced_at": pin.synced_at,
        "sample": pin.sample,
    }
