"""Command of the platform team for documentation: facts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from builder.cli.images import AsJson, Jobs

if TYPE_CHECKING:
    from builder.model.catalogue import Catalogue
    from builder.model.facts import ImageFacts

_NOT_REPRODUCIBLE = 7


def register(app: typer.Typer) -> None:
    """Add this module's command to the application."""
    app.command()(facts)


def facts(
    images: Annotated[
        list[str] | None, typer.Argument(metavar="[IMAGE]...", help="NAME or NAME:TAG. Default: all.")
    ] = None,
    check: Annotated[
        bool,
        typer.Option("--check", help="Change nothing; exit code 7 when the same input gives another digest."),
    ] = False,
    jobs: Jobs = 2,
    as_json: AsJson = False,
) -> None:
    """Build images with the direct engine, and record their digests and sizes beside their definitions."""
    from builder.cli.locking import wanted
    from builder.cli.wiring import Workshop
    from builder.model.facts import ImageFacts
    from builder.pipeline.every import build_every
    from builder.report import Silent, emit, emit_json, for_people

    workshop = Workshop.open()
    catalogue = workshop.catalogue
    targets = wanted(catalogue, images or [])
    reporter = Silent() if as_json else for_people()
    with workshop.store.exclusive("goldsmith facts"):
        built = build_every(catalogue, targets, workshop.builder(["direct"]), reporter, jobs)
    found = {t.ref: ImageFacts.of(built[t.ref]) for t in targets}
    before = {
        ref: known for name in catalogue.definitions for ref, known in recorded(catalogue, name).items()
    }
    other = [ref for ref, one in found.items() if differs(before.get(ref), one)]
    written = [] if check else _write(catalogue, found)
    if as_json:
        emit_json({"images": sorted(found), "written": written, "not_reproduced": other})
    else:
        for ref in other:
            emit(f"{ref}: the recorded input gave {before[ref].digest}, and gives {found[ref].digest} now")
        emit(f"{len(found)} images; written: {', '.join(written) or 'nothing'}")
    if other:
        raise typer.Exit(_NOT_REPRODUCIBLE)


def differs(before: ImageFacts | None, now: ImageFacts) -> bool:
    """Whether the same input gave something else than it gives now."""
    return before is not None and before.input == now.input and before != now


def recorded(catalogue: Catalogue, name: str) -> dict[str, ImageFacts]:
    """The recorded facts of an image's targets, by their names; none when nothing was recorded."""
    from builder.model.facts import parse_facts

    file = catalogue.directory(name) / "facts.json"
    if not file.is_file():
        return {}
    found = parse_facts(file.read_bytes(), f"images/{name}/facts.json")
    return {f"{name}:{tag}": one for tag, one in found.items()}


def readme(catalogue: Catalogue, name: str) -> str:
    """The README of an image with its table as it has to be; raises OSError without a README."""
    from builder.model.facts import replaced, table
    from builder.pipeline.prepare import configuration

    known = recorded(catalogue, name)
    mine = [t for t in catalogue.targets() if t.definition.name == name]
    rows = [(t, configuration(catalogue, t), known.get(t.ref)) for t in mine]
    return replaced((catalogue.directory(name) / "README.md").read_text(), table(rows))


def _write(catalogue: Catalogue, found: dict[str, ImageFacts]) -> list[str]:
    """Write what changed; returns the files, relative to the catalogue."""
    from builder.model.facts import render_facts

    written = []
    for name in sorted({ref.partition(":")[0] for ref in found}):
        folder = catalogue.directory(name)
        both = {**recorded(catalogue, name), **found}
        tags = {
            t.tag: both[t.ref] for t in catalogue.targets() if t.definition.name == name and t.ref in both
        }
        written += _changed(catalogue, folder / "facts.json", render_facts(tags))
        if (folder / "README.md").is_file():
            written += _changed(catalogue, folder / "README.md", readme(catalogue, name).encode())
    return written


def _changed(catalogue: Catalogue, file: Path, data: bytes) -> list[str]:
    from builder.store import write_atomically

    if file.is_file() and file.read_bytes() == data:
        return []
    write_atomically(file, data)
    return [str(file.relative_to(catalogue.root))]
