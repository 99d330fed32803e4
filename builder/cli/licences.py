"""The command that shows under which licences an image's packages are, and the notice."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from builder.errors import UsageError

Ref = Annotated[
    str,
    typer.Argument(metavar="REF", help="python:3.13 (as published here), or HOST/NAME[:TAG][@DIGEST]"),
]


def register(app: typer.Typer) -> None:
    """Add this module's commands to the application."""
    app.command()(licences)


def licences(
    ref: Ref,
    trust: Annotated[
        Path | None,
        typer.Option("--trust", metavar="DIR", help="A folder with the public keys. Default: ours."),
    ] = None,
    notice: Annotated[
        bool, typer.Option("--notice", help="Print the notice: every copyright file, each text once.")
    ] = False,
    platform: Annotated[
        str,
        typer.Option(
            "--platform",
            metavar="OS/ARCH",
            help="Only of this platform; for --notice the default is the first.",
        ),
    ] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False,
) -> None:
    """The licence of each package of a published image, from its attested SPDX document."""
    from builder.checks.licences import licences_of
    from builder.checks.licences import notice as notice_of
    from builder.cli.evidence import reference_of, surroundings
    from builder.cli.wiring import client_of
    from builder.model.licence import categories
    from builder.report import emit, emit_json, table
    from builder.signing.predicates import SPDX_TYPE
    from builder.signing.reports import platform_reports
    from builder.signing.verify import resolve

    settings, _, keys = surroundings(trust)
    reference = reference_of(ref, settings)
    client = client_of(settings, reference.host, writes=False)
    where = reference.with_digest(resolve(reference, client))
    documents = platform_reports(where, client, keys, SPDX_TYPE)
    if platform:
        documents = {name: d for name, d in documents.items() if name == platform}
    if not documents:
        raise UsageError(f"{reference} has no platform {platform[:60]!r}")
    found = {name: licences_of(document) for name, document in documents.items()}
    texts = {name: notice_of(document) for name, document in documents.items()} if notice else {}
    if as_json:
        told = {name: list(packages) for name, packages in found.items()}
        emit_json({"reference": str(where), "platforms": told, **({"notices": texts} if notice else {})})
        return
    if notice:
        emit(next(iter(texts.values())))
        return
    for name, packages in found.items():
        rows = [
            (p["package"], p["version"], p["licence"], ", ".join(categories(p["licence"])), p["how"])
            for p in packages
        ]
        table(f"{reference} on {name}", ("package", "version", "licence", "categories", "from"), rows)
