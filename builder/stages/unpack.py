"""Unpack: locked packages → what they hold, without writing a file.

The result says for every path which package brings it, when it was last changed, and the
SHA-256 of its content. The normaliser takes layers and times from it and compares the content,
so none of them depends on what an engine did.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import BinaryIO

from builder.errors import LockError
from builder.model import assembly
from builder.model.contents import Contents
from builder.model.lock import LockedPackage
from builder.tools.deb import DebEntry, read_control, read_data

_CHUNK = 1 << 20  # bytes


def unpack(packages: Iterable[LockedPackage], path_of: Callable[[LockedPackage], Path]) -> Contents:
    """What `packages` bring to a root file system; `path_of` gives a package's verified file.

    Raises LockError when two packages bring the same file, or a package is malformed.
    """
    gathered = _Gathered()
    for package in packages:
        gathered.add(package, path_of(package))
    return Contents(
        gathered.owners, gathered.mtimes, gathered.hashes, frozenset(gathered.directories), gathered.epoch
    )


class _Gathered:
    """The contents of the packages so far."""

    def __init__(self) -> None:
        self.owners: dict[str, str] = {}
        self.mtimes: dict[str, int] = {}
        self.hashes: dict[str, str] = {}
        self.directories: set[str] = set()
        self.epoch = 0

    def add(self, package: LockedPackage, path: Path) -> None:
        """Read one package."""
        newest = 0
        certificates: dict[str, bytes] = {}
        for entry, content in read_data(path):
            if entry.kind == "5":
                self.directories.add(entry.path)
                continue
            newest = max(newest, entry.mtime)
            if content is not None and entry.path.startswith(assembly.CERTIFICATES + "/"):
                certificates[entry.path] = content.read()
            elif not assembly.is_dropped(entry.path):
                self._own(package, entry.path, entry.mtime)
                self._hash(entry, content)
        for name, data in _derived(package, path, certificates):
            self._own(package, name, newest)
            self.hashes[name] = hashlib.sha256(data).hexdigest()
        self.epoch = max(self.epoch, newest)

    def _own(self, package: LockedPackage, path: str, mtime: int) -> None:
        other = self.owners.setdefault(path, package.name)
        if other != package.name:
            raise LockError(
                f"{other} and {package.name} both bring /{path}", hint="leave one of them out with `omit:`"
            )
        self.mtimes[path] = mtime

    def _hash(self, entry: DebEntry, content: BinaryIO | None) -> None:
        if entry.kind == "1" and entry.link in self.hashes:
            self.hashes[entry.path] = self.hashes[entry.link]
        elif content is not None:
            sha = hashlib.sha256()
            while chunk := content.read(_CHUNK):
                sha.update(chunk)
            self.hashes[entry.path] = sha.hexdigest()


def _derived(
    package: LockedPackage, path: Path, certificates: dict[str, bytes]
) -> Iterable[tuple[str, bytes]]:
    """What is made from a package: its entries of the package database, and the bundle of certificates."""
    control = read_control(path)
    status = f"{assembly.STATUS_DIRECTORY}/{package.name}"
    yield status, assembly.status_text(control.control).encode()
    if control.md5sums:
        yield f"{status}.md5sums", control.md5sums.encode()
    if certificates:
        yield assembly.CA_BUNDLE, assembly.ca_bundle(certificates)
