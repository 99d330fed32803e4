"""Commands about accepted findings: waive, waivers, vex."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from builder.errors import DefinitionError, Problem, UsageError

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Mapping

    from builder.model.catalogue import Catalogue
    from builder.model.waiver import Waiver, WaiverEntry

_DAYS = 30
_OPENVEX_MAX = 16 << 20  # bytes

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]


def register(app: typer.Typer) -> None:
    """Add this module's commands to the application."""
    app.command()(waive)
    app.command()(waivers)
    app.command()(vex)


_Packages = Annotated[
    list[str] | None, typer.Option("--package", metavar="NAME", help="A binary package; repeatable.")
]
_Justification = Annotated[
    str, typer.Option("--justification", metavar="TERM", help="Why it does not affect the image (OpenVEX).")
]
_Statement = Annotated[
    str, typer.Option("--statement", metavar="TEXT", help="The same in words: what was looked at.")
]
_Owner = Annotated[str, typer.Option("--owner", metavar="WHO", help="Who looks after it.")]
_Approver = Annotated[str, typer.Option("--approver", metavar="WHO", help="Who agreed; not the owner.")]
_Streams = Annotated[
    list[str] | None, typer.Option("--stream", metavar="NAME", help="Only this stream; repeatable.")
]
_Foreign = Annotated[
    Path | None,
    typer.Option("--from-openvex", metavar="FILE", help="Take each 'not affected' of somebody's document."),
]


def waive(
    image: Annotated[str, typer.Argument(metavar="IMAGE", help="The image's name, such as python.")],
    vulnerability: Annotated[str, typer.Argument(metavar="[ID]", help="Such as CVE-2026-1234.")] = "",
    package: _Packages = None,
    justification: _Justification = "",
    statement: _Statement = "",
    owner: _Owner = "",
    approver: _Approver = "",
    days: Annotated[int, typer.Option("--days", min=1, max=3650, help="How long it counts.")] = _DAYS,
    stream: _Streams = None,
    from_openvex: _Foreign = None,
    imported: Annotated[bool, typer.Option("--imported", help="IMAGE was imported.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write a waiver into images/IMAGE/waivers.yaml (or imports/), to be reviewed like any change."""
    import datetime as dt

    from builder.cli.identity import caller
    from builder.cli.wiring import Workshop
    from builder.report import emit, emit_json
    from builder.stages.judge import IMPORTS
    from builder.stages.waive import add
    from registry.access.roles import Permission

    workshop = Workshop.open()
    _check_image(image, imported, workshop.catalogue)
    caller(workshop.settings, workshop.store).require(Permission.WAIVE, image)
    today = workshop.settings.now.date()
    shared = {
        "streams": stream or [],
        "owner": owner,
        "approver": approver,
        "approved": today.isoformat(),
        "expires": (today + dt.timedelta(days=days)).isoformat(),
    }
    left: tuple[str, ...] = ()
    if from_openvex is not None:
        entries, left = _taken(from_openvex, shared)
    else:
        own = {"vulnerability": vulnerability, "packages": package or [], "justification": justification}
        entries = [_entry({**own, "statement": statement, **shared})]
    path = add(workshop.settings.catalogue, image, entries, IMPORTS if imported else "images")
    if as_json:
        written = [e.model_dump(mode="json") for e in entries]
        emit_json({"file": str(path), "written": written, "left_out": list(left)})
        return
    for one in entries:
        emit(f"written: {one.vulnerability} in {', '.join(one.packages)}, until {one.expires}")
    for reason in left:
        emit(f"left out: {reason}")
    emit(f"review it, commit it: git diff {path}")


def waivers(
    image: Annotated[str, typer.Argument(metavar="[IMAGE]", help="Only those of this image.")] = "",
    within: Annotated[
        int | None,
        typer.Option("--within", metavar="DAYS", min=0, help="Only those that end so soon, or have ended."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List what is accepted, by whom, and until when; what ends first comes first."""
    from builder.cli.extending import open_catalogue
    from builder.model.waiver import Waiver
    from builder.report import emit, emit_json, table
    from builder.settings import Settings
    from builder.stages.judge import imported_waivers

    settings = Settings.load()
    catalogue = open_catalogue(settings)
    accepted = {**imported_waivers(settings.catalogue), **catalogue.waivers}
    if image and image not in accepted and image not in catalogue.definitions:
        catalogue.find(image)
    found = [
        Waiver(name, entry, inherited=False)
        for name, definition in accepted.items()
        for entry in definition.waivers
        if image in ("", name)
    ]
    rows = [_row(w, settings.now) for w in sorted(found, key=lambda w: (w.ends_at, w.id))]
    if within is not None:
        rows = [r for r in rows if r["days_left"] <= within]
    if as_json:
        emit_json({"waivers": rows})
        return
    if not rows:
        emit("there are no waivers" if within is None else f"no waiver ends within {within} days")
        return
    columns = ("image", "vulnerability", "packages", "state", "expires", "owner", "approver")
    shown = [
        [
            *(str(r[c]) for c in ("image", "vulnerability")),
            ", ".join(r["packages"]),
            *(str(r[c]) for c in ("state", "expires", "owner", "approver")),
        ]
        for r in rows
    ]
    table("Waivers", columns, shown)


def vex(
    ref: Annotated[str, typer.Argument(metavar="REF", help="python:3.13 (as published here), or HOST/NAME…")],
    trust: Annotated[
        Path | None,
        typer.Option("--trust", metavar="DIR", help="A folder with the public keys. Default: ours."),
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", metavar="FILE", help="Write it there.")] = None,
    accept_sample: Annotated[
        bool, typer.Option("--accept-sample", help="Accept a verdict given with the sample database.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Print the OpenVEX document of a published image, once everything about it is verified.

    For scanners: trivy image --vex FILE HOST/NAME@DIGEST gives the same result as our gate.
    """
    import json

    from builder.cli.evidence import reference_of, surroundings
    from builder.cli.wiring import client_of
    from builder.model.digest import canonical_json
    from builder.policy.vex import document, waiver_ids
    from builder.report import emit, emit_json
    from builder.signing.predicates import VEX_TYPE
    from builder.signing.refusal import refuse
    from builder.signing.verify import verify
    from builder.store import write_atomically

    settings, _, keys = surroundings(trust)
    reference = reference_of(ref, settings)
    client = client_of(settings, reference.host, writes=False)
    found = verify(reference, client, keys, settings.now, accept_sample=accept_sample)
    used = frozenset(found.verdict.waivers)
    reports = [r for kind, r in found.manifests[0].reports if kind == VEX_TYPE and waiver_ids(r) == used]
    if used and not reports:
        refuse(
            "vex-missing",
            "the verdict names waivers, and no OpenVEX document states them",
            context=", ".join(sorted(used)),
            hint="publish the image again: goldsmith run",
        )
    text = canonical_json(reports[-1]) if used else document([], found.verdict.issued_at)
    if output is None:
        emit_json(json.loads(text))
        return
    write_atomically(output, text)
    if as_json:
        emit_json({"written": str(output), "waivers": sorted(used)})
    else:
        emit(f"{output}: {len(used)} waivers")


def _check_image(image: str, imported: bool, catalogue: Catalogue) -> None:
    """Pass when waivers can be written for a name; raises UsageError, which says what is meant."""
    from builder.model.definition import is_name

    if imported:
        if image in catalogue.definitions or not is_name(image):
            raise UsageError(f"{image[:100]!r} is no name of an imported image", hint="leave --imported out")
    elif image not in catalogue.definitions:
        catalogue.find(image)
        raise UsageError(f"{image} is a stream", hint=f"goldsmith waive {image.partition(':')[0]} --stream …")


def _taken(path: Path, shared: Mapping[str, Any]) -> tuple[list[WaiverEntry], tuple[str, ...]]:
    from builder.policy.vex import opinions
    from builder.tools.strict_json import load_object

    document = load_object(path, size_max=_OPENVEX_MAX, what=str(path))
    try:
        found, left = opinions(document)
    except ValueError as error:
        raise UsageError(f"{path} is not an OpenVEX document", context=str(error)) from None
    entries, refused = [], list(left)
    for one in found:
        words = f"Stated by {document.get('author', 'unknown')}: {one.words or one.justification}"[:500]
        value = {
            "vulnerability": one.vulnerability,
            "packages": list(one.packages),
            "justification": one.justification,
            "statement": words,
            **shared,
        }
        try:
            entries.append(_entry(value))
        except DefinitionError as error:
            refused.append(f"{one.vulnerability}: {error.problems[0].message}")
    if not entries:
        raise UsageError(
            f"{path} states nothing that can be taken",
            context="\n".join(refused[:20]),
            hint="--owner and --approver are two people; see `goldsmith waive --help`",
        )
    return entries, tuple(refused)


def _entry(value: Mapping[str, Any]) -> WaiverEntry:
    import json

    from pydantic import ValidationError

    from builder.model.waiver import WaiverEntry

    try:
        return WaiverEntry.model_validate_json(json.dumps(value))
    except ValidationError as error:
        raise DefinitionError(
            [
                Problem(
                    "the waiver",
                    ".".join(map(str, one["loc"])),
                    str(one["msg"]).removeprefix("Value error, "),
                    "see `goldsmith waive --help`",
                )
                for one in error.errors(include_url=False)
            ]
        ) from None


def _row(waiver: Waiver, now: dt.datetime) -> dict[str, Any]:
    entry = waiver.entry
    days = (waiver.ends_at - now).days
    state = "expired" if days < 0 else "not yet" if now < waiver.starts_at else f"{days} days left"
    return {
        "id": waiver.id,
        "image": waiver.image,
        "state": state,
        "days_left": days,
        **entry.model_dump(mode="json"),
    }
