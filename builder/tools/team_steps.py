"""Steps of extensions in definitions: read, asked, and what they make held to what ours may make.

Everything happens when the catalogue is read, so a mistake has its file and path, and what was
checked is what gets into the image.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import fields

from builder.errors import Problem, ToolError
from builder.model.definition import AddedStep, ImageDefinition, Stream, is_absolute
from builder.model.generated import NONROOT
from builder.model.image import GeneratedEntry, Made
from builder.model.platform import Platform
from builder.model.step import Step
from builder.tools.strict_model import read_value

_MODES = {"file": (0o644, 0o755), "directory": (0o755, 0o750, 0o700), "link": (0o777,)}
_CONTENT_MAX = 1 << 20  # bytes; programs come in packages
_PATH_MAX = 1024  # characters
_TYPES = {f.name: type(getattr(GeneratedEntry("/", "file", 0), f.name)) for f in fields(GeneratedEntry)}
_UNKNOWN = "an extension brings it: name its package in GOLDSMITH_EXTENSIONS"


def read_steps(
    definition: ImageDefinition, steps: Mapping[str, Step], problems: list[Problem]
) -> dict[str, Made]:
    """What the steps of teams make of each stream that has some; mistakes go to `problems`."""
    found = {}
    for name, stream in definition.streams.items():
        if stream.steps:
            where = f"streams.{name}"
            found[name] = _of_stream(
                f"images/{definition.name}/image.yaml", where, definition, stream, steps, problems
            )
    return found


def _of_stream(
    file: str,
    where: str,
    definition: ImageDefinition,
    stream: Stream,
    steps: Mapping[str, Step],
    problems: list[Problem],
) -> Made:
    platforms = [Platform.parse(p) for p in definition.platforms]
    made: dict[Platform, list[GeneratedEntry]] = {p: [] for p in platforms}
    by = {}
    for number, said in enumerate(stream.steps):
        place = f"{where}.steps.{number}"
        step = steps.get(said.use)
        if step is None:
            near = difflib.get_close_matches(said.use, steps, 1)
            hint = f"did you mean {near[0]!r}?" if near else _UNKNOWN
            problems.append(Problem(file, f"{place}.use", f"there is no step {said.use!r}", hint))
            continue
        values = read_value(said.with_, file, f"{place}.with", step.schema, problems)
        if values is None:
            continue
        if step.identity is not None:
            by[step.id] = step.identity
        for platform in platforms:
            try:
                entries, again = (tuple(step.make(values, platform)) for _ in range(2))
            except ToolError as error:
                problems.append(Problem(file, place, error.message, error.hint))
                break
            mistakes = [Problem(file, place, m) for m in _mistakes(said, (*entries, *again), stream)]
            if not mistakes and entries != again:
                why = f"{said.use} makes something else when it is asked again"
                mistakes = [Problem(file, place, why, "a step may use only what it is given")]
            problems += dict.fromkeys(mistakes)
            if mistakes:
                break
            made[platform] += entries
    problems += _twice(file, where, made)
    return Made({p: tuple(e) for p, e in made.items()}, tuple(by[i] for i in sorted(by)))


def _mistakes(said: AddedStep, entries: tuple[object, ...], stream: Stream) -> Iterator[str]:
    """What is wrong with what a step makes, by the bounds of our own steps."""
    owners = {0, NONROOT, *(user.id for user in stream.users.values())}
    for entry in entries:
        if not isinstance(entry, GeneratedEntry):
            yield f"{said.use} gives a {type(entry).__name__}, not a file, directory or link"
            continue
        odd = [f.name for f in fields(entry) if type(getattr(entry, f.name)) is not _TYPES[f.name]]
        if odd:
            yield f"{said.use} makes an entry whose {odd[0]} is no {_TYPES[odd[0]].__name__}"
            continue
        shown = f"{said.use} makes {entry.path[:200]!r}"
        if (
            not is_absolute(entry.path)
            or not entry.path.isprintable()
            or not 1 < len(entry.path) <= _PATH_MAX
        ):
            yield f"{shown}: not a plain absolute path"
        elif entry.kind not in _MODES or entry.mode not in _MODES[entry.kind]:
            yield f"{shown}: a {entry.kind[:20]} of mode {entry.mode:#o} cannot be"
        elif entry.owner not in owners or (entry.owner and entry.kind != "directory"):
            yield f"{shown}: it cannot belong to {entry.owner}"
        elif entry.derived or not _is_plain(entry):
            yield f"{shown}: content or target that cannot be, or more than 1 MiB"


def _is_plain(entry: GeneratedEntry) -> bool:
    content, target = entry.content, entry.target
    if len(content) > _CONTENT_MAX or (content and entry.kind != "file"):
        return False
    if entry.kind != "link":
        return not target
    return is_absolute(target) and target.isprintable() and len(target) <= _PATH_MAX


def _twice(file: str, where: str, made: Mapping[Platform, list[GeneratedEntry]]) -> Iterator[Problem]:
    paths = [[e.path for e in entries if isinstance(e, GeneratedEntry)] for entries in made.values()]
    for path in sorted({p for one in paths for p in one if one.count(p) > 1}):
        yield Problem(file, f"{where}.steps", f"{path} is made twice", "keep one of them")
