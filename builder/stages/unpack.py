"""Unpack: locked packages → what they hold, without writing a file.

The result says for every path which package brings it, when it was last changed, and the
SHA-256 of its content. The normaliser takes layers and times from it and compares the content,
so none of them depends on what an engine did.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from builder.errors import LockError
from builder.model import assembly
from builder.model.assembly import NOTHING, LeftOut
from builder.model.contents import Contents, PackagedFile, through
from builder.model.lock import LockedPackage
from builder.tools.deb import DebControl, DebEntry
from builder.tools.package import PackageReader

_CHUNK = 1 << 20  # bytes
_SOURCE = re.compile(r"(\S+)(?: \(([^()\s]+)\))?")


def unpack(
    packages: Iterable[LockedPackage],
    path_of: Callable[[LockedPackage], Path],
    variant: str = "runtime",
    left_out: LeftOut = NOTHING,
    database: Mapping[str, bytes] | None = None,
) -> Contents:
    """What `packages` bring to a root file system; `path_of` gives a package's verified file.

    `database` holds the parent's files that packages share, which these continue.
    Raises LockError when two packages bring the same file, a package is malformed or calls
    itself something else than the lock does, or no package brings what is to be left out or kept.
    """
    gathered = _Gathered(variant, left_out, database or {})
    for package in packages:
        gathered.add(package, path_of(package))
    unknown = sorted({*left_out.paths, *left_out.kept} - gathered.named)
    if unknown:
        field = "without" if unknown[0] in left_out.paths else "keep"
        raise LockError(
            f"`{field}:` names /{unknown[0]}, which no package of the image brings",
            hint="the packages have changed: look where it went, or remove it from image.yaml",
        )
    return gathered.contents()


class _Gathered:
    """The contents of the packages so far."""

    def __init__(self, variant: str, left_out: LeftOut, database: Mapping[str, bytes]) -> None:
        self._left_out, self.named = left_out, set[str]()
        self.files: dict[str, PackagedFile] = {}
        self._directories: dict[str, int] = {}
        self._epoch = 0
        self._variant, self._database = variant, database
        self._shared: dict[str, bytes] = {}

    def add(self, package: LockedPackage, path: Path) -> None:
        """Read one package."""
        reader = PackageReader(package.name, path, self._variant, self._left_out)
        _verify_identity(package, reader.control)
        for entry, content in reader.files():
            if entry.kind == "5":
                # The first package that ships a directory decides its mode, as with tar.
                self._directories.setdefault(entry.path, assembly.mode_of(entry.path, entry.mode))
            else:
                self._own(entry.path, self._described(package, entry, content))
        self.named |= reader.named
        unpacked = reader.unpacked()
        for name, mode, data in assembly.derived(unpacked):
            self._own(name, PackagedFile(package.name, reader.newest, mode, hashlib.sha256(data).hexdigest()))
        for name, data in assembly.appended(unpacked):
            self._shared[name] = self._shared.get(name, self._database.get(name, b"")) + data
        self._epoch = max(self._epoch, reader.newest)

    def contents(self) -> Contents:
        """Everything so far; what packages share belongs to none of them.

        Raises LockError when one package would be written through a link of another, or of its own.
        """
        crossed = through([*self.files, *self._directories], self.files.__contains__)
        if crossed:
            path, link = crossed
            who = self.files[path].package if path in self.files else "a package"
            raise LockError(
                f"{who} brings /{path}, but /{link} is no directory: {self.files[link].package} brings that",
                hint="leave one of them out with `omit:`, or lock another version",
            )
        shared = {
            name: PackagedFile("", 0, 0o644, hashlib.sha256(data).hexdigest())
            for name, data in self._shared.items()
        }
        return Contents({**self.files, **shared}, self._directories, self._epoch)

    def _described(self, package: LockedPackage, entry: DebEntry, content: BinaryIO | None) -> PackagedFile:
        if entry.kind == "2":
            return PackagedFile(package.name, entry.mtime, target=entry.link)
        if content is None:
            # A hard link is what it points to.
            if entry.link not in self.files:
                raise LockError(f"{package.name}: /{entry.path} is a link to nothing")
            return replace(self.files[entry.link], package=package.name, mtime=entry.mtime)
        sha = hashlib.sha256()
        while chunk := content.read(_CHUNK):
            sha.update(chunk)
        mode = assembly.mode_of(entry.path, entry.mode)
        return PackagedFile(package.name, entry.mtime, mode, sha.hexdigest())

    def _own(self, path: str, file: PackagedFile) -> None:
        other = self.files.setdefault(path, file)
        if other.package != file.package:
            raise LockError(
                f"{other.package} and {file.package} both bring /{path}",
                hint="leave one of them out with `omit:`",
            )


def _verify_identity(package: LockedPackage, control: DebControl) -> None:
    """The package is, in its own words, the locked one of the locked source.

    Scanners match these words with advisories: under another name nothing is ever found.
    Source: deb-control(5), Source and Version.
    """
    fields: dict[str, str] = {}
    for line in control.control.splitlines():
        name, colon, value = line.partition(":")
        if colon and not line[0].isspace():
            fields.setdefault(name.lower(), value.strip())
    own, version = fields.get("package", ""), fields.get("version", "")
    source = _SOURCE.fullmatch(fields.get("source") or own)
    its_source = (source[1], source[2] or version) if source else ("", "")
    said = (own, version, fields.get("architecture", ""), *its_source)
    locked = (package.name, package.version, package.architecture, package.source, package.source_version)
    if said != locked:
        raise LockError(
            f"package {package.name} {package.version} calls itself something else than the lock does",
            context=f"locked: {' '.join(locked)}\nits own words: {' '.join(said)[:300]}",
            hint="a renamed package matches no advisory; take Debian's own, and run `goldsmith lock`",
        )
