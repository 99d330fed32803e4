"""Commands for those who curate the catalogue: schema, images, lint, lock."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from builder.report import emit, emit_json, table

if TYPE_CHECKING:
    from builder.errors import Problem
    from builder.model.catalogue import Catalogue
    from builder.model.image import Target
    from builder.stages.lock import SectionDiff
    from builder.tools.hadolint import Hadolint

_STALE = 1

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]


def register(app: typer.Typer) -> None:
    """Add this module's commands to the application."""
    app.command()(schema)
    app.command()(images)
    app.command()(lint)
    app.command()(lock)


def schema(
    output: Annotated[
        Path | None, typer.Option(help="Write the schemas to this folder instead of printing them.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Print the JSON schemas of the files that people write (image.yaml, access.yaml, …), for editors."""
    from builder.cli.extending import installed
    from builder.settings import Settings
    from builder.stages.define import json_schemas
    from builder.store import write_atomically
    from registry.access.load import json_schemas as of_access

    steps = installed(Settings.load(needs_catalogue=False)).steps
    schemas = {**json_schemas(steps), **of_access()}
    if output is None:
        emit_json(schemas)
        return
    written = []
    for name, value in schemas.items():
        path = output / f"{name.removesuffix('.yaml')}.schema.json"
        write_atomically(path, (json.dumps(value, indent=2, sort_keys=True) + "\n").encode())
        written.append(str(path))
    if as_json:
        emit_json({"written": written})
    else:
        emit("\n".join(written))


def images(as_json: AsJson = False) -> None:
    """List the catalogue: every stream and variant, parents first."""
    from builder.cli.extending import open_catalogue
    from builder.settings import Settings

    settings = Settings.load()
    catalogue = open_catalogue(settings)
    rows = []
    for target in catalogue.targets():
        parent = catalogue.parent(target)
        rows.append(
            {
                "ref": target.ref,
                "title": target.definition.title,
                "owner": target.definition.owner,
                "suite": target.stream.suite,
                "platforms": [str(p) for p in target.platforms],
                "from": parent.ref if parent else None,
                "end_of_life": target.stream.end_of_life.isoformat(),
                "ended": settings.now.date() > target.stream.end_of_life,
                "replacement": target.stream.replacement,
                "runs": [step.reason for step in target.stream.run],
            }
        )
    runs = [f"  {t.ref}: {step.reason}" for t in catalogue.targets() for step in t.stream.run]
    if as_json:
        emit_json({"images": rows})
        return
    columns = ("ref", "title", "owner", "suite", "platforms", "from", "end of life")
    table(
        str(settings.catalogue),
        columns,
        [
            [
                str(r["ref"]),
                str(r["title"]),
                str(r["owner"]),
                str(r["suite"]),
                " ".join(t for t in (r["platforms"] if isinstance(r["platforms"], list) else [])),
                str(r["from"] or "-"),
                str(r["end_of_life"]) + (" (ended)" if r["ended"] else ""),
            ]
            for r in rows
        ],
    )
    if runs:
        emit(f"{len(runs)} programs are run when images are built:")
        emit("\n".join(runs))


def lint(
    accept_blocks: Annotated[
        bool, typer.Option("--accept-blocks", help="First keep what replaced blocks of templates are now.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Check all definitions, locks, templates and rendered Dockerfiles; offline."""
    from builder.cli.extending import open_catalogue
    from builder.errors import DefinitionError
    from builder.settings import Settings
    from builder.stages.define import end_of_life_problem
    from builder.stages.render import accept_replaced_blocks, template_problems
    from builder.tools.hadolint import locate

    settings = Settings.load()
    catalogue = open_catalogue(settings)
    templates = catalogue.root / "templates"
    accepted = accept_replaced_blocks(templates) if accept_blocks else []
    linter = locate(settings.hadolint_binary, settings.child_environment)
    problems = template_problems(templates)
    for target in catalogue.targets():
        ended = end_of_life_problem(target, settings.now.date())
        problems += [ended] if ended else []
        problems += [p for p in _lint_built(catalogue, target, linter) if p not in problems]
    if problems:
        raise DefinitionError(problems)
    if as_json:
        said = {"images": len(catalogue.targets()), "linter": linter.version, "accepted": accepted}
        emit_json({**said, "problems": []})
    else:
        for file in accepted:
            emit(f"accepted: {file}; review it with git, as you would the template")
        emit(f"{len(catalogue.targets())} images, no mistake")


def _lint_built(catalogue: Catalogue, target: Target, linter: Hadolint) -> Iterator[Problem]:
    """What is wrong with the lock of a target, or with the Dockerfiles that it renders to."""
    from builder.errors import DefinitionError, LockError, Problem
    from builder.pipeline.prepare import prepare

    try:
        prepared = prepare(catalogue, target)
    except LockError as error:
        file = f"images/{target.definition.name}/image.lock"
        yield Problem(file, target.ref, error.message.removeprefix(f"{file}: "), error.hint)
        return
    except DefinitionError as error:
        yield from error.problems
        return
    for platform, context in prepared.contexts.items():
        for finding in linter.lint(context.files["Dockerfile"], variant=context.lock.variant).findings:
            yield Problem(
                f"templates/{target.definition.template}.Dockerfile.j2",
                f"{target.ref} for {platform}, line {finding.line} of the rendered file",
                f"{finding.code} ({finding.level}): {finding.message}",
                "`goldsmith render` shows the file",
            )


def lock(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[IMAGE]...", help="NAME for all of it, or NAME:TAG. Default: all."),
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Change nothing; exit code 1 when a lock is stale.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Resolve the packages of images in the signed archive of today, and write their locks."""
    from builder.cli.extending import open_catalogue
    from builder.cli.locking import relock
    from builder.settings import Settings
    from builder.store import Store

    settings = Settings.load()
    catalogue = open_catalogue(settings)
    store = Store(settings.state)
    with store.exclusive("goldsmith lock"):
        differences, written = relock(catalogue, settings, store, names or [], check)
    stale = bool(differences) and check
    if as_json:
        emit_json({"stale": stale, "written": written, "differences": [d.as_dict() for d in differences]})
    else:
        for difference in differences:
            _show(difference)
        emit(
            "the locks are up to date"
            if not differences
            else f"run `{' '.join(['goldsmith', 'lock', *(names or [])])}`, and review the change"
            if check
            else f"written: {', '.join(written) or 'nothing'}"
        )
    if stale:
        raise typer.Exit(_STALE)


def _show(difference: SectionDiff) -> None:
    from builder.stages.lock import GONE

    if difference.reasons == (GONE,):  # a stream or variant that went: its packages say nothing
        emit(f"{difference.file} [{difference.section}] ({GONE}, with {len(difference.removed)} packages)")
        return
    lines = [f"{difference.file} [{difference.section}]" + "".join(f" ({r})" for r in difference.reasons)]
    lines += [f"  + {p}" for p in difference.added]
    lines += [f"  - {p}" for p in difference.removed]
    for name, old, new in difference.changed:
        # What is not in the version: the archive's file has another hash, size or place.
        lines.append(f"  ~ {name} {old} -> {new}" if old != new else f"  ~ {name} {old}: another file")
    emit("\n".join(lines))
