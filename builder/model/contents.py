"""What locked packages hold: whose each path is, and what it has to be."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PackagedFile:
    """A file or link of a package: its time (seconds), mode, and content (SHA-256) or target.

    `package` is empty for what all packages share.
    """

    package: str
    mtime: int
    mode: int = 0o777
    sha256: str = ""
    target: str = ""


@dataclass(frozen=True, slots=True)
class Contents:
    """Files and links by path, directories with their modes; paths without a leading `/`.

    `epoch` is the newest file time, in seconds.
    """

    files: dict[str, PackagedFile]
    directories: dict[str, int]
    epoch: int


def through(paths: Iterable[str], leads_elsewhere: Callable[[str], bool]) -> tuple[str, str] | None:
    """The first path that lies below something else than a directory, and that; None when all is well.

    Whoever unpacks such a path writes through the link, to wherever that leads.
    """
    known: dict[str, str | None] = {"": None}
    for path in paths:
        above, way = posixpath.dirname(path), []
        while above not in known:
            way.append(above)
            above = posixpath.dirname(above)
        found = known[above]
        for step in reversed(way):
            found = known[step] = found or (step if leads_elsewhere(step) else None)
        if found:
            return path, found
    return None
