"""The command that lists what every image has to show: rules of the policy, and checks."""

from __future__ import annotations

from typing import Annotated

import typer

from builder.errors import UsageError
from builder.model.extension import ExtensionIdentity

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]


def register(app: typer.Typer) -> None:
    """Add this module's commands to the application."""
    app.command()(rules)


def rules(
    rule: Annotated[
        str, typer.Argument(metavar="[ID]", help="One rule or check, with its reason. Default: all.")
    ] = "",
    as_json: AsJson = False,
) -> None:
    """List the rules of the policy and the checks for all images, with what they are for."""
    from builder.checks.declared import declared
    from builder.checks.listing import CHECKS, as_dict, cis
    from builder.cli.extending import common_checks, installed
    from builder.policy.rules import IMPORT_RULES, PROMOTION_RULES, RULES
    from builder.report import emit, emit_json, table
    from builder.settings import Settings

    settings = Settings.load(needs_catalogue=False)
    extensions = installed(settings)
    added = {(who.kind, who.id): who for who in extensions.identities()}
    everything = dict.fromkeys((*RULES, *IMPORT_RULES, *PROMOTION_RULES, *extensions.rules))
    policy = [r for r in everything if rule in ("", r.id)]
    ours = declared(common_checks(settings))
    checks = [c for c in (*CHECKS, *ours, *extensions.checks) if rule in ("", c.id)]
    if not policy and not checks:
        raise UsageError(f"there is no rule or check {rule[:60]!r}", hint="goldsmith rules lists them")
    if as_json:
        listed = [
            {
                **{"id": r.id, "title": r.title, "solution": r.solution, "needs": r.needs or None},
                "extension": _who(added.get(("rule", r.id))),
            }
            for r in policy
        ]
        listed_checks = [{**as_dict(c), "extension": _who(added.get(("check", c.id)))} for c in checks]
        whole = {} if rule else {"cis_docker_section_4": cis()}
        emit_json({"policy": listed, "checks": listed_checks, **whole})
        return
    if rule:
        for p in policy:
            emit(f"{p.id}: {p.title}\n  a rule of the policy\n  what to do: {p.solution}")
        for c in checks:
            emit(
                f"{c.id}: {c.title}\n  why: {c.rationale}\n  source: {c.source}\n"
                f"  level {c.level}, looks at {c.looks_at}, for {' and '.join(c.variants)} images"
            )
        return
    table("rules of the policy", ("id", "demands", "needs"), [(r.id, r.title, r.needs or "") for r in policy])
    table(
        "checks for all images",
        ("id", "demands", "level", "looks at", "variants", "source"),
        [(c.id, c.title, str(c.level), c.looks_at, ", ".join(c.variants), c.source) for c in checks],
    )
    if ours:
        emit(f"of the catalogue's checks/: {', '.join(c.id for c in ours)}")
    for who in added.values():
        emit(f"{who.kind} {who.id} is of the extension {who.package} {who.version}, {who.digest}")


def _who(identity: ExtensionIdentity | None) -> dict[str, str] | None:
    return identity.as_dict() if identity else None
