"""What is installed in a foreign image, by its own package database: to compare the scanner's list with.

A scanner that cannot read a database says "nothing found". So what is installed is read here a
second time, without it. Sources: deb-control(5), dpkg's `status`; apk's installed database (v2);
rpm's databases: `rpm.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from builder.checks import rpm
from builder.oci.filesystem import FileSystem

_DPKG, _DPKG_FOLDER = "var/lib/dpkg/status", "var/lib/dpkg/status.d/"
_APK = ("lib/apk/db/installed", "usr/lib/apk/db/installed")
_RPM = ("var/lib/rpm/rpmdb.sqlite", "usr/lib/sysimage/rpm/rpmdb.sqlite")
_RPM_OTHERS = ("var/lib/rpm/Packages", "var/lib/rpm/Packages.db", "usr/lib/sysimage/rpm/Packages.db")
WANTED = (_DPKG, _DPKG_FOLDER, *_APK, *_RPM)
_PACKAGES_MAX = 50_000
OTHERS = (
    "its package database is rpm's in another form than SQLite, which is not read here, so nothing tells "
    "whether the scanner saw all of it; take an image whose rpm keeps rpmdb.sqlite, or accept the scanner's "
    "word in the policy for imports (imports.not_comparable: accept)"
)


@dataclass(frozen=True, slots=True)
class Installed:
    """NAME=VERSION of every package, sorted; or, with none, why there is nothing to compare with."""

    packages: tuple[str, ...]
    problem: str = ""


def installed(files: FileSystem) -> Installed:
    """What the image's own database names; several databases, or one that cannot be read, is a problem."""
    kinds = [
        ("dpkg", [p for p in files.entries if p == _DPKG or p.startswith(_DPKG_FOLDER)]),
        ("apk", [p for p in _APK if p in files.entries]),
        ("rpm", [p for p in (*_RPM, *_RPM_OTHERS) if p in files.entries]),
    ]
    there = [(kind, paths) for kind, paths in kinds if paths]
    if not there:
        return Installed((), "it has no package database")
    if len(there) > 1:
        return Installed((), f"it has several package databases: {', '.join(kind for kind, _ in there)}")
    kind, paths = there[0]
    if set(paths) & set(_RPM_OTHERS):
        return Installed((), OTHERS)
    try:
        found = sorted({p for path in paths for p in _read(kind, files, path)})
    except ValueError as error:
        return Installed((), f"its {kind} database cannot be read: {error}")
    if not found:
        return Installed((), f"its {kind} database names no package")
    if len(found) > _PACKAGES_MAX:
        return Installed((), f"its {kind} database names more than {_PACKAGES_MAX} packages")
    return Installed(tuple(found))


def _read(kind: str, files: FileSystem, path: str) -> Iterator[str]:
    if files.entries[path].kind == "directory" or path.endswith(".md5sums"):
        return
    data = files.contents.get(path)
    if data is None:
        raise ValueError(f"/{path} is too large, or a link")
    if kind == "rpm":
        yield from _rpm(files, path, data)
        return
    read = _dpkg if kind == "dpkg" else _apk
    for stanza in data.decode("utf-8", "replace").split("\n\n"):
        yield from read(stanza)


def _dpkg(stanza: str) -> Iterator[str]:
    fields = {k: v.strip() for k, colon, v in (line.partition(":") for line in stanza.splitlines()) if colon}
    if "Package" not in fields:
        return
    if {"deinstall", "purge"} & set(fields.get("Status", "").split()):
        return
    if not fields.get("Version"):
        raise ValueError("a package without a version")
    yield f"{fields['Package']}={fields['Version']}"


def _apk(stanza: str) -> Iterator[str]:
    fields = dict(line.split(":", 1) for line in stanza.splitlines() if line[1:2] == ":")
    if not fields:
        return
    if not fields.get("P") or not fields.get("V"):
        raise ValueError("a package without name or version")
    yield f"{fields['P']}={fields['V']}"


def _rpm(files: FileSystem, path: str, data: bytes) -> Iterator[str]:
    # What is only in the write-ahead log would be missing from the list.
    log = files.entries.get(f"{path}-wal")
    if log is not None and log.size:
        raise ValueError("it was not closed, so a part of it lies in its write-ahead log")
    yield from rpm.packages(data)
