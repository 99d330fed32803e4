"""YAML files that people write, read into strict models: every mistake at once, each with a hint."""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from builder.errors import Problem
from builder.model.digest import Digest
from builder.store import read_file
from builder.tools import strict_yaml

_Model = TypeVar("_Model", bound=BaseModel)


def read_model(
    root: Path,
    file: str,
    model: type[_Model],
    problems: list[Problem],
    written_out: Callable[[str, Mapping[str, Any], list[Problem]], dict[str, Any]] | None = None,
    read: dict[str, Digest] | None = None,
) -> _Model | None:
    """The file `root/file` as `model`; None, with every mistake of it in `problems`, when it is not one.

    `written_out` puts what the file says in short into the model's form, before that is looked at.
    The digest of the bytes goes to `read`.
    Keys that are unknown come with the one that was meant; links must stay inside `root`.
    """
    path = root / file
    try:
        if not is_within(path, root):
            raise ValueError("a link that leads out of the catalogue")
        data = read_file(path, strict_yaml.SIZE_MAX)
        if read is not None:
            read[file] = Digest.of(data)
        value = strict_yaml.parse(data)
        if not isinstance(value, dict):
            raise ValueError("not a mapping of keys to values")
    except FileNotFoundError:
        hint = f"every image has its {path.name}" if file.startswith("images/") else "put the file there"
        problems.append(Problem(file, "", "the file is missing", hint))
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
    if written_out:
        before = len(problems)
        value = written_out(file, value, problems)
        if len(problems) > before:  # what was not written out has mistakes of its own
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


def read_value(
    value: object, file: str, where: str, model: type[_Model], problems: list[Problem]
) -> _Model | None:
    """A part of a file, at the path `where`, as `model`; None, with its mistakes in `problems`."""
    try:
        return model.model_validate_json(json.dumps(value))
    except ValidationError as error:
        found = [_problem(file, model, dict(e)) for e in error.errors(include_url=False)]
        problems += [replace(p, path=".".join(x for x in (where, p.path) if x)) for p in found]
    return None


def is_within(path: Path, root: Path) -> bool:
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
    elif error["type"] in ("literal_error", "enum"):
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
