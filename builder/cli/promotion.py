"""Commands that decide what consumers pull: promote, rollback, revoke."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from builder.cli.office import candidate, image_reference, open_office
from builder.errors import UsageError

if TYPE_CHECKING:
    from builder.cli.wiring import Workshop
    from builder.model.image import Target
    from builder.model.reference import Reference
    from registry.promotion.callback import Change
    from registry.promotion.office import Office
    from registry.promotion.promote import Promotion

Ref = Annotated[str, typer.Argument(metavar="REF", help="python:3.13, python@sha256:…, or both")]
Why = Annotated[
    str, typer.Option("--why", metavar="TEXT", help="The reason, for the ledger and for those who pull.")
]
Replacement = Annotated[
    str,
    typer.Option(
        "--replacement", metavar="REF", help="The stable image to use instead; its tag moves there."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


def register(app: typer.Typer) -> None:
    """Add this module's commands to the application."""
    app.command()(promote)
    app.command()(rollback)
    app.command()(revoke)


def promote(
    ref: Ref,
    to: Annotated[
        str,
        typer.Option(
            "--to", metavar="CHANNEL", help="stable, deprecated, quarantine, or candidate (out of it)."
        ),
    ] = "stable",
    why: Why = "",
    replacement: Replacement = "",
    as_json: AsJson = False,
) -> None:
    """Put an image on a channel. To stable: everything is verified and judged anew, today."""
    from builder.model.channel import Channel
    from registry.access.roles import Permission
    from registry.promotion import callback
    from registry.promotion import promote as promotion
    from registry.promotion.office import is_held
    from registry.rescan.judging import BY_RESCAN

    channels = [c.value for c in (Channel.STABLE, *callback.ACTIONS) if c is not Channel.WITHDRAWN]
    if to not in channels:
        hint = "goldsmith revoke withdraws" if to == Channel.WITHDRAWN else ""
        raise UsageError(f"no channel to promote to: {to[:50]!r}", context=", ".join(channels), hint=hint)
    if why.lstrip().startswith(BY_RESCAN.rstrip()):
        raise UsageError(
            f"a reason that begins with {BY_RESCAN!r} is a rescan's: the next would let the image out",
            hint="begin it with another word",
        )
    with open_office() as (workshop, ours, who):
        if to != Channel.STABLE:
            where = image_reference(ref, workshop, "")
            who.require(Permission(callback.ACTIONS[Channel(to)].value), where.name)
            _told(callback.change(ours, where, Channel(to), why, replacement), as_json)
            return
        where, office = candidate(ref, workshop, ours)
        who.require(Permission.PROMOTE, where.name)
        target = None if is_held(where.name) else _target(where, office, workshop)
        done = promotion.promote(office, where, target, why)
        _tell(done, "promoted", as_json)


def rollback(ref: Ref, why: Why = "", as_json: AsJson = False) -> None:
    """Let a tag point to the stable image before, as the ledger knows it; verified and judged anew."""
    from registry.access.roles import Permission
    from registry.promotion import promote as promotion
    from registry.promotion.office import is_held

    with open_office() as (workshop, ours, who):
        where = image_reference(ref, workshop, "")
        if where.tag is None or where.digest is not None:
            raise UsageError("a rollback is of a tag", hint="goldsmith rollback python:3.13")
        who.require(Permission.ROLLBACK, where.name)
        name = f"{where.name}:{where.tag}"
        place, office = candidate(ref, workshop, ours)
        target = None if is_held(place.name) else workshop.catalogue.find(name)
        done = promotion.rollback(office, name, target, why)
        _tell(done, "rolled back", as_json)


def revoke(
    ref: Ref,
    why: Annotated[
        str, typer.Option("--why", metavar="TEXT", help="The reason: it is told to all who pull.")
    ],
    replacement: Replacement = "",
    as_json: AsJson = False,
) -> None:
    """Withdraw an image for good; verification refuses it from now on, everywhere it is."""
    from builder.model.channel import Channel
    from registry.access.roles import Permission
    from registry.promotion import callback

    with open_office() as (workshop, office, who):
        where = image_reference(ref, workshop, "")
        who.require(Permission.REVOKE, where.name)
        _told(callback.change(office, where, Channel.WITHDRAWN, why, replacement), as_json)


def _target(where: Reference, office: Office, workshop: Workshop) -> Target:
    """The image in the catalogue, which knows until when its stream is supported."""
    from builder.signing.verify import published_verdict

    if where.digest is None:
        return workshop.catalogue.find(f"{where.name.rpartition('/')[2]}:{where.tag}")
    return workshop.catalogue.find(published_verdict(where, office.client, office.trust).ref)


def _tell(done: Promotion, what: str, as_json: bool) -> None:
    from builder.report import emit, emit_json

    if as_json:
        emit_json(
            {
                "reference": str(done.reference),
                "ref": done.ref,
                "digest": done.reference.digest,
                "channel": "stable",
                "tags": list(done.tags),
                "previous": done.previous,
                "changed": done.changed,
                "entry": done.entry.as_dict(),
            }
        )
        return
    if not done.changed:
        emit(f"unchanged: {done.ref} is stable already: {done.reference}")
        return
    emit(
        f"{what}: {done.ref} is {done.reference}\n"
        f"tags {', '.join(done.tags)}; before: {done.previous or 'none'}\n"
        f"ledger entry {done.entry.sequence}"
    )


def _told(done: Change, as_json: bool) -> None:
    from builder.report import emit, emit_json

    if as_json:
        value: dict[str, Any] = {
            "ref": done.ref,
            "digest": done.digest,
            "channel": done.channel.value,
            "replacement": done.replacement,
            "repositories": list(done.repositories),
            "tag_moved_to": done.moved,
            "changed": done.changed,
            "entry": done.entry.as_dict(),
        }
        emit_json(value)
        return
    emit(
        f"{'' if done.changed else 'unchanged: '}{done.ref}@{done.digest} is {done.channel}\n"
        f"recorded in {', '.join(done.repositories)}; ledger entry {done.entry.sequence}"
        + (f"\nuse instead: {done.replacement}" if done.replacement else "")
        + (f"\nthe tag points to {done.moved}" if done.moved else "")
    )
