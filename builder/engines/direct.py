"""The direct engine: assembles the root file system in pure Python, without container tools.

It shares no step with the Docker engine but the data of `model/assembly.py`, which makes it
an independent witness of the digest. It needs no rights and no network.
"""

from __future__ import annotations

import platform as host
from pathlib import Path
from typing import BinaryIO, Protocol

from builder.errors import DefinitionError, LockError, Problem
from builder.model import assembly
from builder.model.image import BuildContext, RawImage
from builder.model.lock import LockedPackage
from builder.oci.tarformat import END, TarEntry, header, padding
from builder.tools.deb import DebEntry
from builder.tools.package import PackageReader

_CHUNK = 1 << 20  # bytes
_KINDS = {"file": "0", "directory": "5", "link": "2"}


class Pool(Protocol):
    """Where verified packages are."""

    def plain(self, package: LockedPackage) -> Path:
        """A package as a .deb with plain tar files, made of the locked one."""


class DirectEngine:
    """Python's own reader of packages and writer of tar files."""

    name = "direct"

    def build(self, context: BuildContext, pool: Pool, work: Path) -> RawImage:
        """Assemble what `context` describes; the tar is written below `work`.

        Raises LockError when a package is malformed or not the locked one, and DefinitionError when
        a program of the image would have to run.
        """
        if context.runs:
            file = f"images/{context.ref.partition(':')[0]}/image.yaml"
            hint = "build with --engine docker, or do without `run`"
            raise DefinitionError(
                [Problem(file, "run", "the engine direct runs no program of an image", hint)]
            )
        rootfs = work / "rootfs.tar"
        with open(rootfs, "wb") as out:
            writer = _Writer(out, context)
            for package in context.lock.packages:
                writer.package(package, pool.plain(package))
            writer.shared()
            for entry in context.entries:
                writer.entry(
                    TarEntry(
                        entry.path.lstrip("/"),
                        _KINDS[entry.kind],
                        entry.mode,
                        entry.owner,
                        entry.owner,
                        len(entry.content),
                        0,
                        entry.target,
                    ),
                    entry.content,
                )
            out.write(END)
        return RawImage(context, rootfs, False, self.name, f"python {host.python_version()}")


class _Writer:
    def __init__(self, out: BinaryIO, context: BuildContext) -> None:
        self._out, self._context = out, context
        self._directories: set[str] = set()
        self._shared: dict[str, bytes] = {}

    def package(self, package: LockedPackage, path: Path) -> None:
        reader = PackageReader(package.name, path, self._context.lock.variant, self._context.left_out)
        for entry, content in reader.files():
            self._copy(package, entry, content)
        unpacked = reader.unpacked()
        for derived, mode, data in assembly.derived(unpacked):
            self._file(derived, data, mode)
        for shared, data in assembly.appended(unpacked):
            known = self._shared.get(shared, self._context.database.get(shared, b""))
            self._shared[shared] = known + data

    def shared(self) -> None:
        for path, data in self._shared.items():
            self._file(path, data)

    def entry(self, entry: TarEntry, content: bytes = b"") -> None:
        self._out.write(header(entry) + content + padding(len(content)))

    def _file(self, path: str, content: bytes, mode: int = 0o644) -> None:
        self.entry(TarEntry(path, "0", mode, 0, 0, len(content), 0), content)

    def _copy(self, package: LockedPackage, entry: DebEntry, content: BinaryIO | None) -> None:
        if entry.kind == "5":
            # The first package that ships a directory decides its mode, as with tar.
            if entry.path in self._directories:
                return
            self._directories.add(entry.path)
        size = entry.size if content is not None else 0
        mode = 0o777 if entry.kind == "2" else assembly.mode_of(entry.path, entry.mode)
        self._out.write(header(TarEntry(entry.path, entry.kind, mode, 0, 0, size, entry.mtime, entry.link)))
        if content is None:
            return
        left = size
        while left:
            chunk = content.read(min(left, _CHUNK))
            if not chunk:
                raise LockError(f"{package.name} is cut short at /{entry.path}")
            self._out.write(chunk)
            left -= len(chunk)
        self._out.write(padding(size))
