"""The command that tries a policy out: rehearse."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from builder.policy.schema import Policy
    from builder.settings import Settings
    from registry.promotion.rehearse import Rehearsed

_DAYS = 30
_BREAKS = 4
_SHOWN = 3  # people in one line

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]


def register(app: typer.Typer) -> None:
    """Add this module's commands to the application."""
    app.command()(rehearse)


def rehearse(
    policy: Annotated[
        str, typer.Argument(metavar="POLICY", help="A policy's name, or a file: the changed one.")
    ],
    as_json: AsJson = False,
) -> None:
    """Apply a changed policy to the whole catalogue without effect: what would fail, and who pulls it.

    Ends with 4 when it would refuse an image that passes today.
    """
    import datetime as dt

    from builder.cli.identity import pulls_folder
    from builder.cli.releasing import ReleaseTools
    from builder.cli.wiring import Workshop
    from builder.report import emit_json
    from builder.signing.rebuilds import witnesses
    from builder.signing.verify import verify
    from registry.promotion.rehearse import Rehearsal
    from registry.promotion.rehearse import rehearse as apply
    from registry.pulls import pulls

    workshop = Workshop.open()
    settings = workshop.settings
    tools = ReleaseTools(workshop, settings.policy, settings.trivy_db)
    then = _changed(policy, settings)
    accept = "accept" in (tools.policy.data.database.sample, then.data.database.sample)
    since = settings.now - dt.timedelta(days=_DAYS)
    found = apply(
        workshop.catalogue.targets(),
        Rehearsal(
            registry=tools.client,
            verify=lambda reference: verify(
                reference, tools.client, tools.trust, settings.now, accept_sample=accept
            ),
            host=settings.registry,
            today=tools.policy,
            then=then,
            now=settings.now,
            pulls=tuple(pulls(pulls_folder(workshop.store), since)),
            witnesses=lambda where: witnesses(tools.client, where, tools.trust, settings.now),
        ),
    )
    if as_json:
        emit_json({"policy": then.name, "digest": then.digest, "images": [_as_dict(one) for one in found]})
    else:
        _show(found, then)
    if any(one.breaks for one in found):
        raise typer.Exit(_BREAKS)


def _changed(text: str, settings: Settings) -> Policy:
    from dataclasses import replace

    from builder.cli.extending import extended, find_policy_of, installed
    from builder.stages.judge import load_policy

    if not text.endswith((".yaml", ".yml")):
        return find_policy_of(settings, text)
    # A file anywhere, with the list that lies beside today's policy.
    found = installed(settings)
    changed = load_policy(Path(text), found.rules)
    return extended(replace(changed, exploited=find_policy_of(settings, settings.policy).exploited), found)


def _as_dict(one: Rehearsed) -> dict[str, Any]:
    return {
        "ref": one.ref,
        "digest": one.digest,
        "where": one.where,
        "today": {rule: list(failures) for rule, failures in one.today.items()},
        "then": {rule: list(failures) for rule, failures in one.then.items()},
        "announced": list(one.announced),
        "unreadable": one.unreadable,
        "breaks": one.breaks,
        "pulled_by": [{"who": who, "count": count} for who, count in one.pulled_by],
    }


def _show(found: tuple[Rehearsed, ...], then: Policy) -> None:
    from builder.report import emit, table

    rows = [[one.ref, _state(one.today, one), _state(one.then, one), _pulled(one)] for one in found]
    table(f"Rehearsal of {then.name}", ("image", "today", "then", f"pulled in {_DAYS} days by"), rows)
    for one in found:
        for rule, failures in one.then.items():
            if rule not in one.today:
                emit("\n".join([f"{one.ref} would fail {rule}:", *(f"  {text}" for text in failures)]))
        for text in one.announced:
            emit(f"{one.ref}: {text}")
        if one.unreadable:
            emit(f"{one.ref} cannot be judged: {one.unreadable}")
    broken = sum(one.breaks for one in found)
    emit(f"{len(found)} images; {broken} that pass today would be refused; nothing was changed")


def _state(failures: Any, one: Rehearsed) -> str:
    if one.unreadable:
        return "cannot be judged"
    return f"refused: {', '.join(failures)}" if failures else "passes"


def _pulled(one: Rehearsed) -> str:
    shown = [f"{who} ({count})" for who, count in one.pulled_by[:_SHOWN]]
    more = len(one.pulled_by) - _SHOWN
    return ", ".join(shown) + (f" and {more} more" if more > 0 else "") if shown else "nobody"
