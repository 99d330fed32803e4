"""Which files are looked at, and reading them within limits. What cannot be read is said, not skipped."""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from registry.devcheck.mention import Unreadable

FILE_MAX = 4 << 20  # bytes
_FILES_MAX = 200_000
_SKIPPED = frozenset({".git", ".hg", ".svn", ".venv", ".tox", ".goldsmith", "node_modules", "__pycache__"})
# Also Dockerfile-prod and Dockerfile_3.13; dockerfile-lint.js is a program's name.
_DOCKERFILE = re.compile(r"(.*\.)?(dockerfile|containerfile)(\..*|[-_][^.]*(\.\d[^.]*)*)?", re.IGNORECASE)
_NO_DOCKERFILE = (".dockerignore", ".md", ".txt", ".sh", ".py", ".yaml", ".yml", ".json", ".orig", ".bak")
_COMPOSE = re.compile(r"(docker-|podman-)?compose([.-].*)?\.ya?ml", re.IGNORECASE)
_MAYBE = (".yaml", ".yml", ".json")


class Kind(StrEnum):
    """What a file's name promises; `MAYBE` is decided by its content."""

    DOCKERFILE = "dockerfile"
    COMPOSE = "compose"
    MAYBE = "maybe"


@dataclass(frozen=True, slots=True)
class Source:
    """A file to look at: its path to open, the name to show, what it is; `named` on the command line."""

    path: Path
    shown: str
    kind: Kind
    named: bool = False


def find(paths: Sequence[Path], unreadable: list[tuple[str, str]]) -> Iterator[Source]:
    """The files below `paths`, sorted, each once; what cannot be listed goes to `unreadable`.

    Links below a folder are not followed, so no loop is entered and nothing outside is changed; a
    link that is named itself is. Version control and dependency folders are left out.
    """
    seen = set[tuple[int, int]]()
    for path in paths:
        try:
            found = path.stat()
        except OSError as error:
            unreadable.append((str(path), _reason(error)))
            continue
        if stat.S_ISDIR(found.st_mode):
            sources = _walk(path, unreadable)
        elif stat.S_ISREG(found.st_mode):
            sources = iter([Source(path, str(path), kind_of(path.name) or Kind.MAYBE, named=True)])
        else:
            unreadable.append((str(path), "it is neither a file nor a folder"))
            continue
        for source in sources:
            key = _identity(source.path)
            if key not in seen:
                seen.add(key)
                yield source
            if len(seen) > _FILES_MAX:
                unreadable.append((str(path), f"there are more than {_FILES_MAX} files: name its parts"))
                return


def kind_of(name: str) -> Kind | None:
    """What a file of that name can be; None: nothing for us."""
    lower = name.lower()
    if _COMPOSE.fullmatch(lower):
        return Kind.COMPOSE
    if lower.endswith(_MAYBE):
        return Kind.MAYBE
    if _DOCKERFILE.fullmatch(lower) and not lower.endswith(_NO_DOCKERFILE):
        return Kind.DOCKERFILE
    return None


def read(path: Path) -> bytes:
    """A file's bytes; raises Unreadable when it cannot be had, is no plain file, or is too large."""
    try:
        # Not blocking: a pipe may stand where a file stood before.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as handle:
            if not stat.S_ISREG(os.fstat(handle.fileno()).st_mode):
                raise Unreadable("it is not a plain file")
            data = handle.read(FILE_MAX + 1)
    except OSError as error:
        raise Unreadable(_reason(error)) from None
    if len(data) > FILE_MAX:
        raise Unreadable(f"it is larger than {FILE_MAX >> 20} MiB")
    return data


def _walk(folder: Path, unreadable: list[tuple[str, str]]) -> Iterator[Source]:
    todo = [str(folder)]
    while todo:
        here = todo.pop()
        try:
            with os.scandir(here) as entries:
                listed = sorted(entries, key=lambda e: e.name)
        except OSError as error:
            unreadable.append((here, _reason(error)))
            continue
        todo += [
            e.path for e in reversed(listed) if e.name not in _SKIPPED and e.is_dir(follow_symlinks=False)
        ]
        for entry in listed:
            kind = kind_of(entry.name)
            if kind and entry.is_file(follow_symlinks=False):
                yield Source(Path(entry.path), entry.path, kind)


def _identity(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except OSError:
        return (-1, hash(path))
    return found.st_dev, found.st_ino


def _reason(error: OSError) -> str:
    if error.errno == errno.ELOOP:
        return "its links go in a circle"
    return (error.strerror or str(error)).lower()
