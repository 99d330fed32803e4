"""waive: an accepted finding becomes reviewed text, `images/NAME/waivers.yaml`.

The text is appended, so that what people wrote there (comments, order) stays as it is. Nothing
is written unless the whole file is sound afterwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import yaml

from builder.errors import DefinitionError, Problem, UsageError
from builder.model.waiver import WaiverEntry, WaiversDefinition
from builder.store import read_file, write_atomically
from builder.tools import strict_yaml
from builder.tools.strict_model import read_model

_START = b"schema: 1\nwaivers:\n"


def add(root: Path, image: str, entries: Sequence[WaiverEntry], folder: str = "images") -> Path:
    """Append waivers to an image of the catalogue at `root`; returns the file.

    `folder` is `images`, or `imports` for what others made.

    Raises DefinitionError when the file is or would become unsound (an overlap, an unknown key),
    and leaves it as it was.
    """
    file = f"{folder}/{image}/waivers.yaml"
    path = root / file
    before = read_file(path, strict_yaml.SIZE_MAX) if path.exists() else None
    known = _read(root, file) if before is not None else ()
    text = (before if before is not None else _START).rstrip(b"\n") + b"\n" + _block(entries)
    try:
        write_atomically(path, text)
        if _read(root, file) != (*known, *entries):
            raise UsageError(
                f"{file} does not end with its list of waivers",
                hint="put `waivers:` last, one waiver below the other, or write this one by hand",
            )
    except BaseException:
        path.unlink() if before is None else write_atomically(path, before)
        raise
    return path


def _read(root: Path, file: str) -> tuple[WaiverEntry, ...]:
    problems: list[Problem] = []
    found = read_model(root, file, WaiversDefinition, problems)
    if found is None or problems:
        raise DefinitionError(problems)
    return found.waivers


def _block(entries: Sequence[WaiverEntry]) -> bytes:
    values = [
        {k: v for k, v in one.model_dump(mode="json").items() if v not in ([], None)} for one in entries
    ]
    text = yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=100)
    return "".join(f"  {line}\n" for line in text.splitlines()).encode()
