"""The files that definitions put into images: read once, and what they have to be.

A stage never reads them again, so what was checked is what gets into the image.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

from builder.errors import Problem
from builder.model.assembly import DOC_TREE, STATUS_DIRECTORY, is_below
from builder.model.definition import ImageDefinition, Stream
from builder.store import read_file
from builder.tools.strict_model import is_within

_FILE_MAX = 1 << 20  # bytes; programs come in packages


def read_sources(root: Path, definition: ImageDefinition, problems: list[Problem]) -> dict[str, bytes]:
    """The contents that an image's `files` name, by path in its folder; mistakes go to `problems`."""
    shown = f"images/{definition.name}"
    found: dict[str, bytes] = {}
    for name, stream in definition.streams.items():
        for path, step in stream.files.items():
            where = f"streams.{name}.files.{path}"
            file = root / shown / step.source
            try:
                if not is_within(file, root / shown):
                    raise ValueError("a link that leads out of the image's folder")
                content = read_file(file, _FILE_MAX)
            except FileNotFoundError:
                problems.append(
                    Problem(f"{shown}/image.yaml", f"{where}.source", f"there is no {shown}/{step.source}")
                )
                continue
            except (OSError, ValueError) as error:
                hint = "it must be a regular file that you may read, of at most 1 MiB"
                problems.append(Problem(f"{shown}/{step.source}", "", str(error), hint))
                continue
            actual = hashlib.sha256(content).hexdigest()
            if actual != step.sha256:
                problems.append(
                    Problem(
                        f"{shown}/image.yaml",
                        f"{where}.sha256",
                        f"{shown}/{step.source} is another file: {actual}",
                        "review the file, then write its sha256 here",
                    )
                )
            found[step.source] = content
    return found


def step_problems(file: str, path: str, stream: Stream, has_parent: bool) -> Iterator[Problem]:
    """What is wrong with a stream's typed steps, without looking at any file."""
    made = [*stream.links, *stream.files, *stream.directories]
    if stream.java_trust_store:
        made.append(stream.java_trust_store)
        if not has_parent:
            hint = "certificate authorities come from the image below: say `from:`"
            yield Problem(file, f"{path}.java_trust_store", "the image has no parent", hint)
    for twice in sorted({p for p in made if made.count(p) > 1}):
        yield Problem(file, path, f"{twice} is made by two steps", "keep one of them")
    leaves = {*stream.links, *stream.files, *([stream.java_trust_store] if stream.java_trust_store else ())}
    for one in sorted(made):
        for leaf in sorted(leaves):
            if one != leaf and is_below(one, leaf):
                yield Problem(file, path, f"{one} lies in {leaf}, which is no directory")
    for number, left_out in enumerate(stream.without):
        where = f"{path}.without.{number}"
        for kept, why in (
            (f"/{DOC_TREE}", "copyright files are the licence evidence"),
            (f"/{STATUS_DIRECTORY}", "scanners find packages by it"),
        ):
            if is_below(left_out, kept) or is_below(kept, left_out):
                yield Problem(file, where, f"{kept} cannot be left out", why)
