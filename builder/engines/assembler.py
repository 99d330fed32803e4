"""The assembler: a small Debian root in which the Docker engine unpacks packages.

It is made in pure Python from the packages of `templates/builder.lock`, and kept by the
content of that lock. Nothing of it gets into an image. The same root lends its shell and its
tools to the checks, which bring them into a container as read-only mounts.
"""

from __future__ import annotations

import os
import platform as host
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from builder.errors import LockError, ToolError
from builder.model.lock import LockedPackage, LockSection
from builder.model.platform import Platform
from builder.oci.tarformat import END, TarEntry, header, padding
from builder.store import Store, own_mark
from builder.tools.deb import DebEntry, read_data

_VERSION = 1  # moves when the same lock gives other bytes
_CHUNK = 1 << 20  # bytes
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_DROPPED = ("usr/share/doc/", "usr/share/man/", "usr/share/locale/", "usr/share/info/", "usr/share/lintian/")


class Pool(Protocol):
    """Where verified packages are."""

    def fetch(self, packages: Sequence[LockedPackage]) -> Any:
        """Bring packages into the pool."""

    def path(self, package: LockedPackage) -> Path:
        """A package's file, its size and SHA-256 just checked."""


def host_platform() -> Platform:
    """The platform of this machine, whose programs the assembler runs; raises ToolError."""
    architecture = _ARCHITECTURES.get(host.machine())
    if architecture is None:
        raise ToolError(
            f"images cannot be assembled with Docker on {host.machine()}", hint="use --engine direct"
        )
    return Platform("linux", architecture)


def assembler_tar(section: LockSection, pool: Pool, store: Store) -> Path:
    """The root file system as an uncompressed tar; made when it is not there yet.

    Raises LockError when a package is not the locked one or malformed.
    """
    path = _path(section, store)
    if path.is_file():
        return path
    pool.fetch(section.packages)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{own_mark()}.tmp")
    try:
        with open(temporary, "wb") as out:
            for package in section.packages:
                for entry, content in read_data(pool.path(package)):
                    _copy(out, entry, content, package)
            out.write(END)
        os.replace(temporary, path)
    except OSError as error:
        raise ToolError("the assembler's root cannot be written", context=str(error)) from None
    finally:
        temporary.unlink(missing_ok=True)
    return path


def narrowed(section: LockSection, names: Collection[str], store: Store) -> LockSection:
    """The section with the packages of these names alone; all of it where its root was made already."""
    if _path(section, store).is_file():
        return section
    return replace(section, packages=tuple(p for p in section.packages if p.name in names))


def _path(section: LockSection, store: Store) -> Path:
    return store.root / "assembler" / f"{section.digest.hex}-{_VERSION}.tar"


def _copy(out: BinaryIO, entry: DebEntry, content: BinaryIO | None, package: LockedPackage) -> None:
    if entry.path.startswith(_DROPPED):
        return
    left = entry.size if content is not None else 0
    mode = 0o777 if entry.kind == "2" else entry.mode & 0o1777
    out.write(header(TarEntry(entry.path, entry.kind, mode, 0, 0, left, entry.mtime, entry.link)))
    if content is None:
        return
    out_padding = padding(left)
    while left:
        chunk = content.read(min(left, _CHUNK))
        if not chunk:
            raise LockError(f"{package.name} is cut short at /{entry.path}")
        out.write(chunk)
        left -= len(chunk)
    out.write(out_padding)
