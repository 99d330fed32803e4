"""What locked packages hold: whose each path is, and what it has to be."""

from __future__ import annotations

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
