"""Debian packages to the letter of the test: any member, well-formed or hostile."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from builder.model.lock import LockedPackage

TIME = 1_700_000_000


def member(name: str, content: bytes = b"", **fields: object) -> tuple[tarfile.TarInfo, bytes]:
    """One entry of data.tar; `fields` set attributes of its header (type, mode, linkname …)."""
    info = tarfile.TarInfo(name)
    info.size, info.mtime, info.mode = len(content), TIME, 0o644
    for key, value in fields.items():
        setattr(info, key, value)
    return info, content


def directory(name: str, mode: int = 0o755) -> tuple[tarfile.TarInfo, bytes]:
    """A directory entry."""
    return member(name, type=tarfile.DIRTYPE, mode=mode)


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tuple[tarfile.TarInfo, bytes]:
    """A symbolic or hard link."""
    return member(name, type=kind, linkname=target)


def make_deb(
    folder: Path,
    name: str,
    members: Iterable[tuple[tarfile.TarInfo, bytes]],
    *,
    source: str | None = None,
    version: str = "1.0-1",
    control: str | None = None,
    extra: Mapping[str, bytes] | None = None,
) -> tuple[LockedPackage, Path]:
    """Write NAME.deb below `folder`; returns its line of a lock and the file.

    `extra` are further files of its control archive.
    """
    text = control or (
        f"Package: {name}\nSource: {source or name}\nVersion: {version}\nArchitecture: amd64\nDescription: test\n"
    )
    controls = [member("./control", text.encode()), member("./md5sums", b"0 x\n")]
    controls += [member(f"./{title}", data) for title, data in (extra or {}).items()]
    files = [
        (b"debian-binary", b"2.0\n"),
        (b"control.tar.xz", _tar(controls)),
        (b"data.tar.xz", _tar(members)),
    ]
    data = b"!<arch>\n"
    for title, content in files:
        data += b"%-16s%-12d%-6d%-6d%-8s%-10d`\n" % (title, TIME, 0, 0, b"100644", len(content))
        data += content + b"\n" * (len(content) % 2)
    path = folder / f"{name}.deb"
    path.write_bytes(data)
    return locked(name, data, source or name, version), path


def locked(name: str, data: bytes, source: str, version: str = "1.0-1") -> LockedPackage:
    """The locked package of these bytes."""
    sha = hashlib.sha256(data).hexdigest()
    file = f"pool/main/{name[0]}/{source}/{name}_{version}_amd64.deb"
    return LockedPackage(name, version, "amd64", sha, len(data), file, source, version)


class FolderPool:
    """A pool over files made by the test."""

    def __init__(self, files: dict[str, Path]) -> None:
        self._files = files

    def path(self, package: LockedPackage) -> Path:
        """The file of a package."""
        return self._files[package.name]

    def plain(self, package: LockedPackage) -> Path:
        """The same."""
        return self.path(package)

    def fetch(self, packages: object) -> None:
        """Everything is here."""


def _tar(members: Iterable[tuple[tarfile.TarInfo, bytes]]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:xz", format=tarfile.GNU_FORMAT) as tar:
        for info, content in members:
            tar.addfile(info, io.BytesIO(content) if info.isreg() else None)
    return out.getvalue()
