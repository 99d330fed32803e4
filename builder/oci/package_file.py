"""Packages in one file: a tar by our own headers, so the same packages give the same bytes.

Where dozens of packages go together, one blob is sent, linked and looked for, and not dozens. What
comes out of such a file is believed by nobody: its reader knows which packages there have to be.
"""

from __future__ import annotations

import hashlib
import io
import shutil
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO

from builder.errors import LockError, ToolError
from builder.model.digest import Digest
from builder.model.kit import Content
from builder.model.lock import LockedPackage
from builder.oci.tarformat import BLOCK, END, BoundedTarInfo, TarEntry, header, padding

_CHUNK = 1 << 20  # bytes


def parts(files: Mapping[LockedPackage, Path]) -> tuple[bytes | Path, ...]:
    """The tar as headers and files in their order; nothing is read or written."""
    found: list[bytes | Path] = []
    for package in sorted(files):
        entry = TarEntry(_name(package), "0", 0o644, 0, 0, package.size, 0)
        found += [header(entry), files[package], padding(package.size)]
    return (*found, END)


def measure(content: Content) -> tuple[Digest, int]:
    """The digest and the size in bytes of a blob that may be in parts; raises ToolError."""
    sha, size = hashlib.sha256(), 0
    for part in content if isinstance(content, tuple) else (content,):
        try:
            with io.BytesIO(part) if isinstance(part, bytes) else open(part, "rb") as handle:
                while chunk := handle.read(_CHUNK):
                    sha.update(chunk)
                    size += len(chunk)
        except OSError as error:
            raise ToolError(f"cannot read {part!r}", context=str(error)) from None
    return Digest(f"sha256:{sha.hexdigest()}"), size


def size_max(packages: Mapping[str, LockedPackage], files: int) -> int:
    """The bytes that so many such files may have together, when each may hold all these packages."""
    return files * (len(END) + sum(2 * BLOCK + p.size for p in packages.values()))


def unpack(path: Path, wanted: Mapping[str, LockedPackage], folder: Path) -> frozenset[str]:
    """Write the packages of a file to `folder`, each as SHA256.deb; returns their SHA-256.

    `wanted` are those that may be in it, by SHA-256 in hexadecimal. Raises LockError when there is
    anything else, or other bytes under a package's name, or when the file is malformed.
    """
    found: set[str] = set()
    try:
        with tarfile.open(path, mode="r:", tarinfo=BoundedTarInfo) as source:
            for member in source:
                package = wanted.get(member.name.removesuffix(".deb"))
                content = source.extractfile(member) if member.isreg() else None
                if package is None or content is None or member.name != _name(package):
                    raise _strange(f"{member.name[:100]!r}: no lock names that")
                if package.sha256 in found or member.size != package.size:
                    raise _strange(f"{package.name}: it is there twice, or has another size")
                _write(content, package, folder)
                found.add(package.sha256)
    except (tarfile.TarError, EOFError, ValueError) as error:
        raise _strange(f"no proper tar: {error}"[:200]) from None
    return frozenset(found)


def _write(content: IO[bytes], package: LockedPackage, folder: Path) -> None:
    to = folder / _name(package)
    with open(to, "wb") as out:
        shutil.copyfileobj(content, out, _CHUNK)
    with open(to, "rb") as written:
        if hashlib.file_digest(written, "sha256").hexdigest() != package.sha256:
            to.unlink()
            raise _strange(f"{package.name}: other bytes than the lock says")


def _strange(context: str) -> LockError:
    return LockError(
        "a file of packages is not what its lock says",
        context=context,
        hint="do not use it: it was not made by this tool, or was changed",
        reference="packages-refused",
    )


def _name(package: LockedPackage) -> str:
    return f"{package.sha256}.deb"
