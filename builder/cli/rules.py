"""The command that lists what every image has to show: rules of the policy, and checks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from builder.errors import UsageError

if TYPE_CHECKING:
    from builder.extensions import Extension

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]


def register(app: typer.Typer) -> None:
    """Add this module's commands to the application."""
    app.command()(rules)


def installed_rules() -> tuple[Extension, ...]:
    """The rules of installed extensions; raises ToolError when one cannot be used."""
    from builder import extensions
    from builder.policy.rules import IMPORT_RULES, PROMOTION_RULES, RULES

    return extensions.rules({r.id for r in (*RULES, *IMPORT_RULES, *PROMOTION_RULES)})


def extension_versions() -> dict[str, str]:
    """The installed extensions as the provenance names them."""
    return {f"rule {e.rule.id}": f"{e.package} {e.version} {e.digest}" for e in installed_rules()}


def rules(
    rule: Annotated[
        str, typer.Argument(metavar="[ID]", help="One rule or check, with its reason. Default: all.")
    ] = "",
    as_json: AsJson = False,
) -> None:
    """List the rules of the policy and the checks for all images, with what they are for."""
    from builder.checks.listing import CHECKS, as_dict, cis
    from builder.policy.rules import IMPORT_RULES, PROMOTION_RULES, RULES
    from builder.report import emit, emit_json, table

    added = {e.rule.id: e for e in installed_rules()}
    ours = (*RULES, *IMPORT_RULES, *PROMOTION_RULES)
    everything = dict.fromkeys((*ours, *(e.rule for e in added.values())))
    policy = [r for r in everything if rule in ("", r.id)]
    checks = [c for c in CHECKS if rule in ("", c.id)]
    if not policy and not checks:
        raise UsageError(f"there is no rule or check {rule[:60]!r}", hint="goldsmith rules lists them")
    if as_json:
        listed = [
            {
                **{"id": r.id, "title": r.title, "solution": r.solution, "needs": r.needs or None},
                "extension": added[r.id].identity if r.id in added else None,
            }
            for r in policy
        ]
        whole = {} if rule else {"cis_docker_section_4": cis()}
        emit_json({"policy": listed, "checks": [as_dict(c) for c in checks], **whole})
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
    for e in added.values():
        emit(f"{e.rule.id} is of the extension {e.package} {e.version}, {e.digest}")
    table(
        "checks for all images",
        ("id", "demands", "level", "looks at", "variants", "source"),
        [(c.id, c.title, str(c.level), c.looks_at, ", ".join(c.variants), c.source) for c in checks],
    )
