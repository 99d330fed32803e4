"""define: the catalogue's files in, a `Catalogue` out, or every mistake in them at once.

A team changes several files for one image; so nobody should have to run this once per mistake.
"""

from __future__ import annotations

import datetime as dt
import difflib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from builder.errors import DefinitionError, Problem
from builder.model.catalogue import Catalogue, parent_stream
from builder.model.definition import BuilderDefinition, ChecksDefinition, ImageDefinition, Stream
from builder.model.image import Target
from builder.model.layers import BUDGETS
from builder.store import read_file
from builder.tools import strict_yaml

__all__ = ["Catalogue", "end_of_life_problem", "json_schemas", "load_catalogue"]

_CHAIN_MAX = len(BUDGETS) - 1  # parents above an image: each needs layers
_IMAGES_MAX = 2000
_Model = TypeVar("_Model", bound=BaseModel)


def load_catalogue(root: Path) -> Catalogue:
    """Read `images/*/` and `templates/builder.yaml`; raises one DefinitionError with all mistakes."""
    problems: list[Problem] = []
    definitions: dict[str, ImageDefinition] = {}
    checks: dict[str, ChecksDefinition] = {}
    for folder in _folders(root, problems):
        shown = f"images/{folder.name}"
        definition = _read(root, f"{shown}/image.yaml", ImageDefinition, problems)
        own_checks = _read(root, f"{shown}/checks.yaml", ChecksDefinition, problems)
        if definition is None or own_checks is None:
            continue
        problems += _own_problems(root, folder.name, definition, own_checks)
        definitions[folder.name], checks[folder.name] = definition, own_checks
    builder = None
    if (root / "templates" / "builder.yaml").exists():
        builder = _read(root, "templates/builder.yaml", BuilderDefinition, problems)
    broken = {p.file.split("/")[1] for p in problems if p.file.startswith("images/")}
    for name, definition in definitions.items():
        problems += _cross_problems(name, definition, definitions, broken)
    if problems:
        raise DefinitionError(sorted(problems, key=lambda p: (p.file, p.path)))
    return Catalogue(root, definitions, checks, builder)


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


def json_schemas() -> dict[str, dict[str, Any]]:
    """The JSON schemas of the files that people write, by file name; for editors."""
    return {
        name: {"$schema": "https://json-schema.org/draft/2020-12/schema", **model.model_json_schema()}
        for name, model in (
            ("image.yaml", ImageDefinition),
            ("checks.yaml", ChecksDefinition),
            ("builder.yaml", BuilderDefinition),
        )
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
        if not _is_within(path, root):
            problems.append(Problem(shown, "", "a link that leads out of the catalogue", "put a folder here"))
        elif path.is_dir():
            folders.append(path)
    if len(folders) > _IMAGES_MAX:
        problems.append(Problem("images", "", f"more than {_IMAGES_MAX} images"))
        return []
    if not folders and not problems:
        problems.append(Problem("images", "", "there is no image", "make a folder with an image.yaml in it"))
    return folders


def _read(root: Path, file: str, model: type[_Model], problems: list[Problem]) -> _Model | None:
    path = root / file
    try:
        if not _is_within(path, root):
            raise ValueError("a link that leads out of the catalogue")
        value = strict_yaml.parse(read_file(path, strict_yaml.SIZE_MAX))
        if not isinstance(value, dict):
            raise ValueError("not a mapping of keys to values")
    except FileNotFoundError:
        problems.append(Problem(file, "", "the file is missing", f"every image has its {path.name}"))
        return None
    except OSError as error:
        hint = "it must be a regular file that you may read, of reasonable size"
        problems.append(Problem(file, "", str(error.strerror), hint))
        return None
    except ValueError as error:
        problems.append(Problem(file, "", str(error)))
        return None
    # The names inside our types are no second spelling of a key.
    spelled = {f.alias: name for name, f in model.model_fields.items() if f.alias}
    aliased = [(alias, name) for alias, name in spelled.items() if name in value]
    problems += [Problem(file, name, "unknown key", f"did you mean {alias!r}?") for alias, name in aliased]
    if aliased:
        return None
    try:
        return model.model_validate_json(json.dumps(value))
    except ValidationError as error:
        found = error.errors(include_url=False)
        # A list whose entries are wrong is also "too short"; that says nothing new.
        problems += [
            _problem(file, model, dict(e))
            for e in found
            if not (e["type"] == "too_short" and any(_is_below(o["loc"], e["loc"]) for o in found))
        ]
    return None


def _is_within(path: Path, root: Path) -> bool:
    """Whether links lead to a place inside `root`; not for links that lead in a circle."""
    try:
        return path.resolve().is_relative_to(root.resolve())
    except RuntimeError:  # what pathlib makes of such a circle
        return False


def _is_below(inner: Sequence[Any], outer: Sequence[Any]) -> bool:
    return len(inner) > len(outer) and inner[: len(outer)] == outer


def _problem(file: str, model: type[BaseModel], error: Mapping[str, Any]) -> Problem:
    location: Sequence[Any] = error["loc"]
    path = ".".join(str(part) for part in location)[:300]
    message, hint = str(error["msg"]).removeprefix("Value error, "), ""
    if error["type"] == "extra_forbidden":
        known = _keys_at(model, location[:-1])
        near = difflib.get_close_matches(str(location[-1]), known, 1, 0.5)
        message = "unknown key"
        hint = f"did you mean {near[0]!r}?" if near else f"known keys are {', '.join(known)}"
    elif error["type"] == "missing":
        message, hint = "this key is missing", _describe(model, location)
    elif error["type"] == "string_type" and isinstance(error.get("input"), bool | int | float):
        hint = "write it in quotes"
    elif error["type"] == "literal_error":
        near = difflib.get_close_matches(str(error.get("input")), str(error["ctx"]["expected"]).split("'"), 1)
        hint = f"did you mean {near[0]!r}?" if near else ""
    return Problem(file, path, message, hint)


def _model_at(model: type[BaseModel], location: Sequence[Any]) -> type[BaseModel]:
    """The model that describes the place `location`; indexes and free keys are passed over."""
    for part in location:
        for name, field in model.model_fields.items():
            if part == (field.alias or name):
                model = next(_models_in(field.annotation), model)
    return model


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models_in(part)


def _keys_at(model: type[BaseModel], location: Sequence[Any]) -> list[str]:
    return sorted(f.alias or name for name, f in _model_at(model, location).model_fields.items())


def _describe(model: type[BaseModel], location: Sequence[Any]) -> str:
    for name, field in _model_at(model, location[:-1]).model_fields.items():
        if location[-1] == (field.alias or name):
            return field.description or ""
    return ""


def _own_problems(
    root: Path, folder: str, definition: ImageDefinition, checks: ChecksDefinition
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
    for name, stream in definition.streams.items():
        yield from _stream_problems(file, f"streams.{name}", name, stream)
        if "dev" not in definition.variants and stream.dev.packages:
            yield Problem(file, f"streams.{name}.dev", "the image has no variant dev", "add it to `variants`")


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
    if parent_name in definitions:
        parent = definitions[parent_name]
        lacking = sorted(set(definition.platforms) - set(parent.platforms))
        if lacking:
            yield Problem(file, "platforms", f"{parent_name} is not built for {', '.join(lacking)}")
        if "runtime" not in parent.variants and set(definition.variants) - set(parent.variants):
            yield Problem(file, "variants", f"{parent_name} has no variant runtime to build on")


def _chain(name: str, definitions: Mapping[str, ImageDefinition]) -> list[str]:
    """The image and its parents' names; ends early at an unknown one or where it closes a cycle."""
    chain = [name]
    while name in definitions and (reference := definitions[name].parent):
        name = reference.partition(":")[0]
        if name in chain:
            return [*chain, name]
        chain.append(name)
    return chain
