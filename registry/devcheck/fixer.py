"""Rewrites references in a file and nothing else: pure edits of bytes, proven by reading the result."""

from __future__ import annotations

import contextlib
import difflib
import os
import stat
from collections.abc import Mapping
from pathlib import Path

from builder.errors import ToolError
from builder.store import write_atomically
from registry.devcheck.mention import Span


def apply(data: bytes, edits: Mapping[Span, str]) -> bytes:
    """The bytes with each span replaced; raises ValueError when spans overlap."""
    out, at = [], 0
    for span in sorted(edits, key=lambda s: s.start):
        if span.start < at or span.end > len(data) or span.end < span.start:
            raise ValueError("two changes overlap")
        out += [data[at : span.start], edits[span].encode()]
        at = span.end
    return b"".join([*out, data[at:]])


def difference(old: bytes, new: bytes, name: str) -> str:
    """A unified diff for people."""
    before, after = (d.decode("utf-8", "replace").replace("\r\n", "\n").split("\n") for d in (old, new))
    return "\n".join(difflib.unified_diff(before, after, f"a/{name}", f"b/{name}", lineterm=""))


def write(path: Path, old: bytes, new: bytes) -> None:
    """Replace the content of a file, whole or not at all; mode and owner stay.

    A named link stays a link: its target is written. Raises ToolError when the file is not `old`
    any more, or cannot be written.
    """
    target = Path(os.path.realpath(path))
    try:
        found = target.stat()
        with open(target, "rb") as handle:
            same = handle.read(len(old) + 1) == old
    except OSError as error:
        raise ToolError(f"cannot read {path} again", context=str(error)) from None
    if not same:
        raise ToolError(
            f"{path} was changed while it was checked", hint="nothing was written to it; run the check again"
        )
    if not os.access(target, os.W_OK):
        raise ToolError(f"{path} may not be written", hint="make it writable, or leave --fix away")
    write_atomically(target, new, mode=stat.S_IMODE(found.st_mode))
    with contextlib.suppress(OSError):  # only root can give a file to somebody else
        os.chown(target, found.st_uid, found.st_gid)
