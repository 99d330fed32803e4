"""Commands about what changed: diff and delta of two images, changes of one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from builder.errors import UsageError

if TYPE_CHECKING:
    from builder.model.image import BuiltImage
    from builder.model.kept_evidence import KeptEvidence
    from builder.oci.client import RegistryClient
    from registry.diff.facts import ImageFacts

Before = Annotated[
    str, typer.Argument(metavar="A", help="The image before: python:3.13, or HOST/NAME…@DIGEST.")
]
After = Annotated[str, typer.Argument(metavar="B", help="The image after.")]
TrustFolder = Annotated[
    Path | None, typer.Option("--trust", metavar="DIR", help="A folder with the public keys. Default: ours.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]


def register(app: typer.Typer) -> None:
    """Add this module's commands to the application."""
    app.command()(diff)
    app.command()(delta)
    app.command()(changes)


def diff(
    before: Before,
    after: Annotated[
        str,
        typer.Argument(metavar="[B]", help="The image after; `.` is the working tree's image of A's name."),
    ] = "",
    files: Annotated[
        bool, typer.Option("--files", help="Compare files and users, too: the layers are fetched.")
    ] = False,
    tree: Annotated[
        str,
        typer.Option("--working-tree", metavar="NAME", help="In the place of B: an image as built here."),
    ] = "",
    markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown, for a pull request.")] = False,
    trust: TrustFolder = None,
    as_json: AsJson = False,
) -> None:
    """What changed between two images: packages, findings, configuration, checks, size, files, users."""
    import tempfile

    from builder.report import emit, emit_json
    from registry.diff import output
    from registry.diff.accounts import accounts
    from registry.diff.compare import compare
    from registry.diff.files import trees
    from registry.diff.local import built_accounts, built_image, built_trees

    if markdown and as_json:
        raise UsageError("--markdown and --json are two forms of one result", hint="give one of them")
    if bool(after) == bool(tree):
        raise UsageError("the image after is missing, or named twice", hint="goldsmith diff A B, or diff A .")
    old, old_client, old_repo = _read(before, trust)
    local, kept = _built(tree or old.ref) if tree or after == "." else (None, None)
    if local is None:
        new, new_client, new_repo = _read(after, trust)
    else:
        new, new_client, new_repo = built_image(local, kept), old_client, ""
    found = users = None
    if files:
        with tempfile.TemporaryDirectory() as work:
            first = trees(old_client, old_repo, old, Path(work))
            second = built_trees(local) if local else trees(new_client, new_repo, new, Path(work))
            had = accounts(old, Path(work))
            has = built_accounts(local) if local else accounts(new, Path(work))
        users = {p: (had[p], has[p]) for p in has if p in had}
        found = {p: (first[p], second[p]) for p in second if p in first}
    result = compare(old, new, found, users)
    if as_json:
        emit_json(output.as_dict(result))
    else:
        emit(output.as_markdown(result) if markdown else output.as_text(result))


def _built(name: str) -> tuple[BuiltImage, KeptEvidence | None]:
    """The finished image of what the working tree says now, and what was found of it here.

    Raises UsageError when it was not built.
    """
    from builder.cli.wiring import Workshop
    from builder.pipeline.kept_evidence import kept_evidence
    from builder.pipeline.prepare import prepare

    workshop = Workshop.open()
    target = workshop.catalogue.find(name)
    found = workshop.builder(()).reuse(prepare(workshop.catalogue, target))
    if found is None:
        raise UsageError(
            f"{target.ref} was not built here as the working tree has it now",
            hint=f"goldsmith try {target.ref} (or build, which keeps no findings and checks)",
        )
    return found, kept_evidence(workshop.store, found)


def delta(before: Before, after: After, trust: TrustFolder = None, as_json: AsJson = False) -> None:
    """How many bytes a client that has A pulls for B, by platform."""
    from builder.report import emit, emit_json
    from registry.diff.compare import pulled_bytes

    (old, _, _), (new, _, _) = _read(before, trust), _read(after, trust)
    rows = {p: (pulled_bytes(old, new, p), pulled_bytes(None, new, p)) for p in new.platforms}
    if as_json:
        emit_json({p: {"pulled": pulled, "whole": whole} for p, (pulled, whole) in rows.items()})
        return
    for platform, (pulled, whole) in rows.items():
        share = 100 * pulled / whole if whole else 0
        emit(f"{platform}: {pulled:,} bytes of {whole:,} ({share:.1f} %)")


def changes(
    image: Annotated[str, typer.Argument(metavar="IMAGE", help="python:3.13, or HOST/NAME[:TAG][@DIGEST].")],
    since: Annotated[
        str, typer.Option("--since", metavar="DIGEST", help="Only what is newer than this image.")
    ] = "",
    most: Annotated[int, typer.Option("--most", min=1, max=1000, help="The most records to tell.")] = 20,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown, for a pull request.")] = False,
    trust: TrustFolder = None,
    as_json: AsJson = False,
) -> None:
    """The changelog of a promoted image: what each new digest brought, as it was signed at its promotion."""
    import itertools

    from builder.cli.evidence import reference_of, surroundings
    from builder.cli.wiring import client_of
    from builder.report import emit, emit_json
    from builder.signing.verify import resolve
    from builder.stages.publish import CANDIDATE
    from registry.diff import output
    from registry.promotion.changelog import changelog

    if markdown and as_json:
        raise UsageError("--markdown and --json are two forms of one result", hint="give one of them")
    settings, _, keys = surroundings(trust)
    where = reference_of(image, settings)
    if "/" not in image:  # records are written where images are promoted to
        where = replace(where, name=where.name.removeprefix(f"{CANDIDATE}/"))
    client = client_of(settings, where.host)
    found = changelog(client, where.with_digest(resolve(where, client)), keys)
    newer = itertools.takewhile(lambda r: r.digest != since, found)
    records = list(itertools.islice(newer, most))
    if as_json:
        emit_json([output.record_as_dict(r) for r in records])
    elif markdown:
        emit(output.records_as_markdown(records))
    else:
        emit(
            "\n\n".join(map(output.record_as_text, records))
            or "no change record: promoted before there were any"
        )


def _read(text: str, trust: Path | None) -> tuple[ImageFacts, RegistryClient, str]:
    from builder.cli.evidence import reference_of, surroundings
    from builder.cli.wiring import client_of
    from registry.diff.facts import read_image

    settings, _, keys = surroundings(trust)
    reference = reference_of(text, settings)
    client = client_of(settings, reference.host, writes=False)
    return read_image(client, reference, keys), client, reference.name
