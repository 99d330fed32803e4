"""Unpack: locked packages → what they hold, without writing a file.

The result says for every path which package brings it and when it was last changed. The
normaliser takes layers and times from it, so neither depends on what an engine did.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from builder.errors import LockError
from builder.model import assembly
from builder.model.contents import Contents
from builder.model.lock import LockedPackage
from builder.tools.deb import read_control, read_data


def unpack(packages: Iterable[LockedPackage], path_of: Callable[[LockedPackage], Path]) -> Contents:
    """What `packages` bring to a root file system; `path_of` gives a package's verified file.

    Raises LockError when two packages bring the same file, or a package is malformed.
    """
    owners: dict[str, str] = {}
    mtimes: dict[str, int] = {}
    directories: set[str] = set()
    epoch = 0
    for package in packages:
        newest = 0
        path = path_of(package)
        for entry, _ in read_data(path):
            if entry.kind != "5":
                newest = max(newest, entry.mtime)
            if entry.kind == "5":
                directories.add(entry.path)
                continue
            if assembly.is_dropped(entry.path):
                continue
            other = owners.setdefault(entry.path, package.name)
            if other != package.name:
                raise LockError(
                    f"{other} and {package.name} both bring /{entry.path}",
                    hint="leave one of them out with `omit:`",
                )
            mtimes[entry.path] = entry.mtime
        for name in _derived(package, path):
            owners[name], mtimes[name] = package.name, newest
        epoch = max(epoch, newest)
    return Contents(owners, mtimes, frozenset(directories), epoch)


def _derived(package: LockedPackage, path: Path) -> list[str]:
    status = f"{assembly.STATUS_DIRECTORY}/{package.name}"
    derived = [status]
    if read_control(path).md5sums:
        derived.append(f"{status}.md5sums")
    if package.name == "ca-certificates":
        derived.append(assembly.CA_BUNDLE)
    return derived
