"""A new image's folder, written after a model: its definition with comments that help, checks, README.

In: the model's own files, and what is different. Out: the new files' bytes by path in the folder.
The model's text is kept, comments too; only the keys that name the image are written anew.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from builder.errors import DefinitionError, Problem, UsageError
from builder.model.catalogue import Catalogue
from builder.model.definition import ChecksDefinition, ImageDefinition
from builder.store import read_file
from builder.tools import strict_yaml

_KEY = re.compile(r"([a-z_]+):")
_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9 .,()/_-]*")
_HEAD = (
    "# The intent of this image, for people to write; `goldsmith lint` checks it. All keys:\n"
    "# docs/reference/definitions.md, and `goldsmith schema` for editors.\n"
)
_HELP = {
    "name": "# The folder's name, and what people write after FROM.\n",
    "title": "# Shown in the catalogue and in the image's labels: say what it is for.\n",
    "owner": "# Who answers for it.\n",
    "from": "# The image of this catalogue that it is built on; what is in there is not listed again.\n",
    "streams": "# One entry a version line: the floating tag. The first package gives the version, and\n"
    "# `goldsmith lock` finds the dependencies: run it after a change, and review the difference.\n",
    "variants": "# runtime: no shell and no package manager; dev: both.\n",
}
_CHECKS_HEAD = (
    "# What the finished image has to show, at least one thing that works and one that must not.\n"
    "# Commands run without a shell, in a read-only container without network. The hardening rules, and\n"
    "# that the scanner sees exactly the locked packages, are checked in every image anyway.\n"
)
TO_FILL_IN = "**To fill in:**"


@dataclass(frozen=True, slots=True)
class Wish:
    """What is wanted. Without a title, it is the model's, with the new name."""

    name: str
    model: str
    owner: str
    title: str | None = None


def scaffold(catalogue: Catalogue, wish: Wish) -> dict[str, bytes]:
    """The files of the new image's folder, without its lock.

    Raises DefinitionError when the model is not written so that it can be followed.
    """
    model = catalogue.definitions[wish.model]
    folder = catalogue.directory(wish.model)
    title = wish.title or f"{model.title} ({wish.name})"
    source = read_file(folder / "image.yaml", strict_yaml.SIZE_MAX).decode()
    definition = _definition(source, {"name": wish.name, "title": title, "owner": wish.owner})
    _same(definition, model, {"name": wish.name, "title": title, "owner": wish.owner}, wish.model)
    checks = read_file(folder / "checks.yaml", strict_yaml.SIZE_MAX).decode()
    return {
        "image.yaml": definition.encode(),
        "checks.yaml": (checks if checks.startswith(_CHECKS_HEAD) else _CHECKS_HEAD + checks).encode(),
        "README.md": _readme(wish, title).encode(),
        **catalogue.files.get(wish.model, {}),
    }


def lacking(checks: ChecksDefinition) -> tuple[str, ...]:
    """What an image's checks do not hold: something that has to work, something that must not."""
    works = any(c.exit_code == 0 for c in checks.commands) or any(f.present for f in checks.files)
    fails = any(c.exit_code != 0 for c in checks.commands) or any(not f.present for f in checks.files)
    found = [] if works else ["checks.yaml has nothing that has to work: add a command, or a file"]
    return (*found, *([] if fails else ["checks.yaml has nothing that must fail: add `present: false`"]))


def write_folder(images: Path, name: str, files: Mapping[str, bytes]) -> Path:
    """Write the folder `images/NAME` at once, or not at all; returns it.

    Raises UsageError when there is something of that name.
    """
    final = images / name
    work = Path(tempfile.mkdtemp(prefix=".new-", dir=images))  # the catalogue skips names with a dot
    try:
        for path, content in files.items():
            target = work / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
        work.chmod(0o755)  # as any other folder: mkdtemp makes it for the owner only
        if os.path.lexists(final):
            raise UsageError(f"images/{name} is there already", hint="choose another name, or edit that one")
        work.rename(final)
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise
    return final


def _definition(source: str, changed: Mapping[str, str]) -> str:
    """The model's text with other values for some keys of the first level, and comments above others."""
    parts = []
    for key, text in _blocks(source):
        comments, body = _leading_comments(text) if key else ("", text)
        if key in changed:
            body = f"{key}: {_scalar(changed[key])}\n"
        wanted = _HELP.get(key, "")
        parts.append(comments + ("" if wanted in comments else wanted) + body)
    text = "".join(parts)
    return text if text.startswith(_HEAD) else _HEAD + text


def _blocks(source: str) -> Iterator[tuple[str, str]]:
    """The keys of the first level with their lines and the comments above; "" for what is above all."""
    key, lines, waiting = "", list[str](), list[str]()
    for line in (f"{bare}\n" for bare in source.splitlines()):
        if found := _KEY.match(line):
            yield key, "".join(lines)
            key, lines, waiting = found[1], [*waiting, line], []
        elif line.startswith("#") or not line.strip():
            waiting.append(line)
        else:
            lines += [*waiting, line]
            waiting = []
    yield key, "".join([*lines, *waiting])


def _leading_comments(text: str) -> tuple[str, str]:
    lines = text.splitlines(keepends=True)
    count = next((n for n, line in enumerate(lines) if _KEY.match(line)), 0)
    return "".join(lines[:count]), "".join(lines[count:])


def _scalar(value: str) -> str:
    """The text as YAML: plain when that reads as the same text, else in quotes."""
    if _PLAIN.fullmatch(value) and strict_yaml.parse(f"x: {value}\n".encode()) == {"x": value}:
        return value
    return json.dumps(value, ensure_ascii=False)


def _same(text: str, model: ImageDefinition, changed: Mapping[str, Any], name: str) -> None:
    """The new text means the model with other values, and nothing else; raises DefinitionError."""
    shown = f"images/{name}/image.yaml"
    hint = "write its keys one below the other, as in the other images"
    try:
        made = ImageDefinition.model_validate_json(json.dumps(strict_yaml.parse(text.encode())))
    except ValueError as error:
        problem = Problem(shown, "(whole file)", f"it cannot serve as a model: {str(error)[:300]}", hint)
        raise DefinitionError([problem]) from None
    if made != model.model_copy(update=dict(changed)):
        raise DefinitionError([Problem(shown, "(whole file)", "it cannot serve as a model", hint)])


def _readme(wish: Wish, title: str) -> str:
    return (
        f"# {wish.name}: {title}\n\n"
        f"{TO_FILL_IN} who needs this image, and how it differs from `{wish.model}`.\n\n"
        "`image.yaml` says what is wanted, `checks.yaml` what the finished image has to show, and\n"
        "`image.lock` (written by `goldsmith lock`, reviewed as a difference) what is in it.\n\n"
        "```\n"
        f"goldsmith lock {wish.name}    # take today's packages\n"
        f"goldsmith try {wish.name}     # build, check and scan it here; nothing is published\n"
        f"goldsmith run {wish.name}     # the same, then sign and publish the candidate\n"
        "```\n"
    )
