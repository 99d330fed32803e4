"""define: the catalogue's files in, a `Catalogue` out, or every mistake in them at once.

A team changes several files for one image; so nobody should have to run this once per mistake.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import difflib
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

from builder.errors import DefinitionError, Problem
from builder.model.catalogue import Catalogue, parent_stream
from builder.model.definition import (
    BuilderDefinition,
    CatalogueCheck,
    ChecksDefinition,
    DevVariant,
    ImageDefinition,
    Stream,
    is_name,
)
from builder.model.digest import Digest
from builder.model.image import Made, Target
from builder.model.layers import BUDGETS
from builder.model.step import Step
from builder.model.waiver import WaiversDefinition
from builder.store import read_file
from builder.tools.inherit import add_streams_alike, written_out
from builder.tools.inherit_checks import add_changed_checks, checks_written_out
from builder.tools.steps import inherited_problems, read_sources, step_problems
from builder.tools.strict_model import is_within, read_model
from builder.tools.team_steps import read_steps

__all__ = ["Catalogue", "end_of_life_problem", "json_schemas", "load_catalogue"]

_CHAIN_MAX = len(BUDGETS) - 1  # parents above an image: each needs layers
_IMAGES_MAX = 2000
_COMMON_CHECKS_MAX = 200
_TEMPLATE_MAX = 1 << 20  # bytes; those that are rendered are smaller still
NO_STEPS: Mapping[str, Step] = MappingProxyType({})


def load_catalogue(root: Path, steps: Mapping[str, Step] = NO_STEPS) -> Catalogue:
    """Read `images/*/`, `checks/` and `templates/builder.yaml`; one DefinitionError has all mistakes.

    `steps` are those of extensions, by id.
    """
    problems: list[Problem] = []
    definitions: dict[str, ImageDefinition] = {}
    checks: dict[str, ChecksDefinition] = {}
    waivers: dict[str, WaiversDefinition] = {}
    files: dict[str, dict[str, bytes]] = {}
    made: dict[str, dict[str, Made]] = {}
    read = _templates(root)
    for folder in _folders(root, problems):
        shown = f"images/{folder.name}"
        definition = read_model(root, f"{shown}/image.yaml", ImageDefinition, problems, written_out, read)
        own_checks = read_model(
            root,
            f"{shown}/checks.yaml",
            ChecksDefinition,
            problems,
            partial(checks_written_out, definition),
            read,
        )
        if (root / shown / "waivers.yaml").exists():
            own_waivers = read_model(root, f"{shown}/waivers.yaml", WaiversDefinition, problems)
            if own_waivers is not None:
                waivers[folder.name] = own_waivers
                if definition is not None:
                    problems += _waiver_problems(folder.name, definition, own_waivers)
        if definition is None or own_checks is None:
            continue
        made[folder.name] = read_steps(definition, steps, problems)
        problems += _own_problems(root, folder.name, definition, own_checks, made[folder.name])
        if definition.name == folder.name:
            files[folder.name] = read_sources(root, definition, problems)
            read |= {f"{shown}/{path}": Digest.of(data) for path, data in files[folder.name].items()}
        definitions[folder.name], checks[folder.name] = definition, own_checks
    builder = None
    if (root / "templates" / "builder.yaml").exists():
        builder = read_model(root, "templates/builder.yaml", BuilderDefinition, problems, read=read)
    common = read_common_checks(root, problems)
    broken = {p.file.split("/")[1] for p in problems if p.file.startswith("images/")}
    for name, definition in definitions.items():
        problems += _cross_problems(name, definition, definitions, broken)
    if problems:
        raise DefinitionError(sorted(problems, key=lambda p: (p.file, p.path)))
    return Catalogue(root, definitions, checks, builder, waivers, files, common, made, read)


def _templates(root: Path) -> dict[str, Digest]:
    """The digests of all templates, and of what is kept of replaced blocks; what is wrong is told at use."""
    found = {}
    for path in sorted((root / "templates").rglob("*")):
        if path.suffix in (".j2", ".yaml") and path.is_file():
            with contextlib.suppress(OSError):
                found[str(path.relative_to(root))] = Digest.of(read_file(path, _TEMPLATE_MAX))
    return found


def read_common_checks(root: Path, problems: list[Problem]) -> dict[str, CatalogueCheck]:
    """The checks for all images, `checks/ID.yaml`, by id; mistakes go to `problems`."""
    paths = sorted((root / "checks").glob("*.yaml"))
    if len(paths) > _COMMON_CHECKS_MAX:
        problems.append(Problem("checks", "", f"more than {_COMMON_CHECKS_MAX} checks"))
        return {}
    found = {}
    if paths:
        from builder.checks.listing import CHECKS

        taken = {check.id for check in CHECKS}
        for path in paths:
            file = f"checks/{path.name}"
            if not is_name(path.stem) or path.stem in taken:
                why = "is there already" if path.stem in taken else "is no id"
                hint = "lower-case letters, digits and single hyphens; `goldsmith rules` lists what is taken"
                problems.append(Problem(file, "", f"{path.stem[:80]!r} {why}", hint))
            elif check := read_model(root, file, CatalogueCheck, problems):
                found[path.stem] = check
    return found


def end_of_life_problem(target: Target, today: dt.date) -> Problem | None:
    """The mistake of building a stream after its end of life; None while it lives."""
    stream = target.stream
    if today <= stream.end_of_life:
        return None
    return Problem(
        f"images/{target.definition.name}/image.yaml",
        f"streams.{target.stream_name}.end_of_life",
        f"{target.ref} reached its end of life on {stream.end_of_life}",
        f"move to {target.definition.name}:{stream.replacement}"
        if stream.replacement
        else "remove the stream",
    )


def json_schemas(steps: Mapping[str, Step] = NO_STEPS) -> dict[str, dict[str, Any]]:
    """The JSON schemas of the files that people write, by file name; for editors.

    With those of the steps that extensions bring.
    """
    found = {
        name: {"$schema": "https://json-schema.org/draft/2020-12/schema", **model.model_json_schema()}
        for name, model in (
            ("image.yaml", ImageDefinition),
            ("checks.yaml", ChecksDefinition),
            ("check.yaml", CatalogueCheck),
            ("waivers.yaml", WaiversDefinition),
            ("builder.yaml", BuilderDefinition),
        )
    }
    add_streams_alike(found["image.yaml"])
    add_changed_checks(found["checks.yaml"])
    if steps:
        parts = found["image.yaml"]["$defs"]
        parts["AddedStep"] = {"anyOf": [_step_schema(step, parts) for step in steps.values()]}
    return found


def _step_schema(step: Step, parts: dict[str, Any]) -> dict[str, Any]:
    """What a definition may say of one step; the types that it refers to are added to `parts`."""
    schema = step.schema.model_json_schema(ref_template=f"#/$defs/{step.id}.{{model}}")
    parts |= {f"{step.id}.{name}": part for name, part in schema.pop("$defs", {}).items()}
    return {
        "description": step.title,
        "type": "object",
        "properties": {"use": {"const": step.id}, "with": schema},
        "required": ["use", *(["with"] if schema.get("required") else [])],
        "additionalProperties": False,
    }


def _folders(root: Path, problems: list[Problem]) -> list[Path]:
    folders = []
    try:
        paths = sorted((root / "images").iterdir())
    except OSError as error:
        problems.append(Problem("images", "", str(error.strerror), "it must be a folder that you may read"))
        return []
    for path in paths:
        shown = f"images/{path.name}"
        if path.name.startswith(".") or (path.is_file() and not path.is_symlink()):
            continue
        if not is_within(path, root):
            problems.append(Problem(shown, "", "a link that leads out of the catalogue", "put a folder here"))
        elif path.is_dir():
            folders.append(path)
    if len(folders) > _IMAGES_MAX:
        problems.append(Problem("images", "", f"more than {_IMAGES_MAX} images"))
        return []
    if not folders and not problems:
        problems.append(Problem("images", "", "there is no image", "make a folder with an image.yaml in it"))
    return folders


def _own_problems(
    root: Path,
    folder: str,
    definition: ImageDefinition,
    checks: ChecksDefinition,
    made: Mapping[str, Made],
) -> Iterator[Problem]:
    file = f"images/{folder}/image.yaml"
    if definition.name != folder:
        yield Problem(
            file, "name", f"the folder is called {folder!r}", f"call the image {folder!r}, or the folder"
        )
    template = f"templates/{definition.template}.Dockerfile.j2"
    if not (root / template).is_file():
        there = sorted(
            p.name.removesuffix(".Dockerfile.j2") for p in (root / "templates").glob("*.Dockerfile.j2")
        )
        near = difflib.get_close_matches(definition.template, there, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(there) or 'none'}"
        yield Problem(file, "template", f"there is no {template}", hint)
    if not checks.commands and not checks.files:
        yield Problem(f"images/{folder}/checks.yaml", "", "no check at all", "say what the image has to show")
    yield from _check_problems(folder, definition, checks)
    for name, stream in definition.streams.items():
        yield from _stream_problems(file, f"streams.{name}", name, stream)
        has_parent = definition.parent is not None
        yield from step_problems(file, f"streams.{name}", stream, has_parent, made.get(name, Made()))
        if "dev" not in definition.variants and stream.dev != DevVariant():
            yield Problem(file, f"streams.{name}.dev", "the image has no variant dev", "add it to `variants`")


def _waiver_problems(
    folder: str, definition: ImageDefinition, waivers: WaiversDefinition
) -> Iterator[Problem]:
    file = f"images/{folder}/waivers.yaml"
    for number, entry in enumerate(waivers.waivers):
        for field, known in (("streams", [*definition.streams]), ("variants", [*definition.variants])):
            for name in getattr(entry, field):
                if name not in known:
                    hint = f"there are: {', '.join(known)}"
                    yield Problem(file, f"waivers.{number}.{field}", f"the image has no {name!r}", hint)


def _check_problems(folder: str, definition: ImageDefinition, checks: ChecksDefinition) -> Iterator[Problem]:
    """Checks of streams that the image does not have: they would never be made."""
    for kind, entries in (("commands", checks.commands), ("files", checks.files)):
        for number, entry in enumerate(entries):
            for name in sorted(set(entry.streams) - set(definition.streams)):
                hint = f"there are: {', '.join(definition.streams)}"
                where = f"{kind}.{number}.streams"
                yield Problem(
                    f"images/{folder}/checks.yaml", where, f"the image has no stream {name!r}", hint
                )


def _stream_problems(file: str, path: str, name: str, stream: Stream) -> Iterator[Problem]:
    for field, packages in (
        ("packages", stream.packages),
        ("omit", stream.omit),
        ("dev.packages", stream.dev.packages),
    ):
        twice = sorted({p for p in packages if packages.count(p) > 1})
        if twice:
            yield Problem(file, f"{path}.{field}", f"named twice: {', '.join(twice)}")
    both = sorted(set(stream.packages) & set(stream.omit))
    if both:
        yield Problem(file, f"{path}.omit", f"asked for and left out: {', '.join(both)}")
    if stream.replacement == name:
        yield Problem(file, f"{path}.replacement", "a stream cannot replace itself")
    for link, goal in stream.links.items():
        if link == goal:
            yield Problem(file, f"{path}.links.{link}", "a link to itself")


def _cross_problems(
    name: str, definition: ImageDefinition, definitions: Mapping[str, ImageDefinition], broken: set[str]
) -> Iterator[Problem]:
    file, reference = f"images/{name}/image.yaml", definition.parent
    if reference is None:
        return
    parent_name = reference.partition(":")[0]
    if parent_name in broken and parent_name not in definitions:
        return  # its own mistakes are reported already
    chain = _chain(name, definitions)
    if chain[-1] in chain[:-1]:
        yield Problem(file, "from", f"a cycle: {' -> '.join(chain)}", "an image cannot be built on itself")
        return
    if len(chain) - 1 > _CHAIN_MAX:
        yield Problem(file, "from", f"more than {_CHAIN_MAX} parents: {' -> '.join(chain)}")
    for stream_name, stream in definition.streams.items():
        try:
            parent_stream(definitions, reference, stream.suite)
        except ValueError as error:
            known = [*definitions, *(f"{n}:{s}" for n, d in definitions.items() for s in d.streams)]
            near = difflib.get_close_matches(
                reference, [k for k in known if k.partition(":")[0] != name], 1, 0.5
            )
            hint = f"did you mean {near[0]!r}?" if near else "`goldsmith images` lists the catalogue"
            yield Problem(file, "from", f"stream {stream_name}: {error}", hint)
        else:
            below = _streams_below(definitions, reference, stream.suite)
            yield from inherited_problems(file, f"streams.{stream_name}", stream, below)
    if parent_name in definitions:
        parent = definitions[parent_name]
        lacking = sorted(set(definition.platforms) - set(parent.platforms))
        if lacking:
            yield Problem(file, "platforms", f"{parent_name} is not built for {', '.join(lacking)}")
        for variant in sorted(set(definition.variants) - set(parent.variants)):
            why = f"{parent_name} has no variant {variant} to build on"
            yield Problem(file, "variants", why, f"add {variant} to the variants of {parent_name}")


def _streams_below(
    definitions: Mapping[str, ImageDefinition], reference: str | None, suite: str
) -> list[tuple[str, Stream]]:
    """The streams that one is built on, as far as they can be found; a chain that is too long is cut."""
    found: list[tuple[str, Stream]] = []
    while reference and len(found) <= _CHAIN_MAX:
        try:
            name, stream = parent_stream(definitions, reference, suite)
        except ValueError:  # which is a mistake of that image
            break
        found.append((f"{name}:{stream}", definitions[name].streams[stream]))
        reference = definitions[name].parent
    return found


def _chain(name: str, definitions: Mapping[str, ImageDefinition]) -> list[str]:
    """The image and its parents' names; ends early at an unknown one or where it closes a cycle."""
    chain = [name]
    while name in definitions and (reference := definitions[name].parent):
        name = reference.partition(":")[0]
        if name in chain:
            return [*chain, name]
        chain.append(name)
    return chain
