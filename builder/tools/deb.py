"""Debian binary packages: control data and files, read as a stream and trusted in nothing.

Source: deb(5) (ar members, `control.tar.*`, `data.tar.*`), deb-control(5).
A package may hold directories, files, and links that stay inside the tree; anything else
(absolute names, `..`, devices, a file larger than the limits) is refused with its name.
"""

from __future__ import annotations

import contextlib
import io
import lzma
import posixpath
import re
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, BinaryIO, cast

from builder.errors import LockError
from builder.oci.tarformat import BoundedTarInfo

_AR_MAGIC = b"!<arch>\n"
_AR_HEADER = 60  # bytes
_CHUNK = 1 << 20  # bytes
_READ = 1 << 16  # bytes that are taken from an archive at a time
_CONTROL_MAX = 16 << 20  # bytes, unpacked; the largest md5sums list of Debian 13 is below 2 MiB
_DATA_MAX = 4 << 30  # bytes of one package, unpacked
_FILES_MAX = 200_000
_CONTROL = re.compile(r"[\x00-\x1f]")
_USR_MERGED = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
KINDS = {
    tarfile.REGTYPE: "0",
    tarfile.AREGTYPE: "0",
    tarfile.LNKTYPE: "1",
    tarfile.SYMTYPE: "2",
    tarfile.DIRTYPE: "5",
}


@dataclass(frozen=True, slots=True)
class DebEntry:
    """One entry of a package, its path without a leading `/`; `link` is a path for hard links."""

    path: str
    kind: str
    mode: int
    size: int
    mtime: int
    link: str


@dataclass(frozen=True, slots=True)
class DebControl:
    """The control file of a package as it stands in it, and the other files of its control archive."""

    control: str
    members: Mapping[str, bytes]

    @property
    def md5sums(self) -> str:
        """The list of sums; empty when the package has none."""
        return self.members.get("md5sums", b"").decode("utf-8", "replace")


def read_control(path: Path) -> DebControl:
    """The control data of a package; raises LockError when it is malformed."""
    found: dict[str, bytes] = {}
    total = 0
    with _opened(path, "control") as tar:
        for number, member in enumerate(tar):
            total += member.size
            if number > 1000 or total > _CONTROL_MAX:
                raise _refused(path, "its control data is too large")
            if member.isreg():
                name = posixpath.normpath(member.name)
                found[name] = cast(IO[bytes], tar.extractfile(member)).read()
    control = found.pop("control", b"").decode("utf-8", "replace")
    if not control.startswith("Package:"):
        raise _refused(path, "it has no control file that starts with Package:")
    return DebControl(control, found)


def read_data(path: Path, names: list[str] | None = None) -> Iterator[tuple[DebEntry, BinaryIO | None]]:
    """The files of a package in its order, with a stream of the content for regular files.

    `names` collects every name as it stands in the package.

    Paths are those of a merged /usr (`lib/x` becomes `usr/lib/x`; the top-level aliases
    themselves stay). Raises LockError at the first entry that is not allowed.
    """
    total = 0
    with _opened(path, "data") as tar:
        for number, member in enumerate(tar):
            total += member.size
            if number >= _FILES_MAX or total > _DATA_MAX:
                raise _refused(path, "it unpacks to more than the limit")
            entry = _entry(path, member)
            if names is not None:
                names.append(member.name)
            if entry is not None:
                yield entry, cast(BinaryIO, tar.extractfile(member)) if entry.kind == "0" else None


def _entry(path: Path, member: tarfile.TarInfo) -> DebEntry | None:
    kind = KINDS.get(member.type)
    if kind is None:
        raise _refused(path, f"{member.name[:200]!r} is a device, a fifo or of an unknown type")
    name = inside(path, member.name)
    if name in ("", "."):
        return None
    link = member.linkname
    if kind == "1":
        link = merged(inside(path, link))
    elif kind == "2":
        depth = 0 if link.startswith("/") else name.count("/")
        for step in link.split("/"):
            depth += -1 if step == ".." else step not in ("", ".")
            if depth < 0 or _CONTROL.search(step):
                raise _refused(path, f"the link {name[:200]!r} points out of the tree")
    if kind == "2" and name in _USR_MERGED:
        merged_name = name
    else:
        merged_name = merged(name)
        if kind == "5" and name in _USR_MERGED:
            return None
    return DebEntry(merged_name, kind, member.mode & 0o7777, member.size, int(member.mtime), link)


def inside(path: Path, name: str) -> str:
    """A member's name as a clean relative path; raises LockError when it leaves the tree."""
    if name.startswith("/") or ".." in name.split("/") or _CONTROL.search(name):
        raise _refused(path, f"{name[:200]!r} is not a path inside the tree")
    return posixpath.normpath(name)


def merged(name: str) -> str:
    """The path of `name` on a system with a merged /usr."""
    top, slash, _ = name.partition("/")
    return f"usr/{name}" if slash and top in _USR_MERGED else name


def write_plain(source: Path, target: Path) -> None:
    """Write the package `source` to `target` with its archives unpacked; raises LockError."""
    with open(target, "wb") as out:
        out.write(_AR_MAGIC)
        for part, limit in (("control", _CONTROL_MAX), ("data", _DATA_MAX)):
            at, size = out.tell(), 0
            out.write(bytes(_AR_HEADER))
            with _unpacked(source, part) as stream:
                while chunk := stream.read(_CHUNK):
                    size += len(chunk)
                    if size > limit:
                        raise _refused(source, "it unpacks to more than the limit")
                    out.write(chunk)
            out.write(b"\n" * (size % 2))
            out.seek(at)
            out.write(b"%-16s%-12d%-6d%-6d%-8s%-10d`\n" % (f"{part}.tar".encode(), 0, 0, 0, b"100644", size))
            out.seek(0, io.SEEK_END)


@contextlib.contextmanager
def _opened(path: Path, part: str) -> Iterator[tarfile.TarFile]:
    with (
        _unpacked(path, part) as stream,
        tarfile.open(fileobj=stream, mode="r|", bufsize=_READ, tarinfo=BoundedTarInfo) as tar,
    ):
        yield tar


@contextlib.contextmanager
def _unpacked(path: Path, part: str) -> Iterator[IO[bytes]]:
    """The tar archive `control` or `data` of a package, as a stream."""
    try:
        with open(path, "rb") as handle:
            name, stream = _member(path, handle, part)
            yield _decompressed(path, name, stream)
    except (tarfile.TarError, lzma.LZMAError, zlib.error, EOFError, UnicodeError) as error:
        raise _refused(path, f"its {part} archive is damaged ({error})") from None
    except OSError as error:
        raise _refused(path, f"it cannot be read ({error})") from None


def _member(path: Path, handle: BinaryIO, part: str) -> tuple[str, io.RawIOBase]:
    if handle.read(8) != _AR_MAGIC:
        raise _refused(path, "it is not an ar archive")
    while head := handle.read(_AR_HEADER):
        try:
            name, size = head[:16].decode("ascii").strip().rstrip("/"), int(head[48:58])
        except ValueError:
            raise _refused(path, "it has a malformed member header") from None
        if handle.tell() + size > path.stat().st_size:
            raise _refused(path, "it is cut short")
        if name.startswith(f"{part}.tar"):
            return name, _Window(handle, size)
        handle.seek(size + size % 2, io.SEEK_CUR)
    raise _refused(path, f"it has no {part}.tar")


def _decompressed(path: Path, name: str, stream: io.RawIOBase) -> IO[bytes]:
    suffix = name.rpartition(".")[2]
    if suffix == "xz":
        return cast(IO[bytes], io.BufferedReader(_Xz(stream), _READ))
    if suffix == "gz":
        import gzip

        return cast(IO[bytes], gzip.GzipFile(fileobj=cast(IO[bytes], stream)))
    if suffix == "tar":
        return cast(IO[bytes], io.BufferedReader(stream))
    raise _refused(path, f"its archives are compressed with {suffix[:10]!r}, which is not supported")


class _Xz(io.RawIOBase):
    """One xz stream, decompressed in large pieces: other threads run meanwhile, and memory is bounded.

    Raises lzma.LZMAError when it is damaged, cut short, or followed by anything.
    """

    def __init__(self, source: io.RawIOBase) -> None:
        self._source, self._machine = source, lzma.LZMADecompressor(lzma.FORMAT_XZ)
        self._left = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        out = memoryview(buffer)  # type: ignore[arg-type]
        while not self._left and not self._machine.eof:
            packed = self._source.read(_CHUNK) if self._machine.needs_input else b""
            if not packed and self._machine.needs_input:
                raise lzma.LZMAError("it ends in the middle")
            self._left = memoryview(self._machine.decompress(packed, _CHUNK))
        if not self._left and (self._machine.unused_data or self._source.read(1)):
            raise lzma.LZMAError("something follows its end")
        count = min(len(out), len(self._left))
        out[:count] = self._left[:count]
        self._left = self._left[count:]
        return count


class _Window(io.RawIOBase):
    """The bytes of one ar member."""

    def __init__(self, handle: BinaryIO, size: int) -> None:
        self._handle, self._left = handle, size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        view = memoryview(cast(bytearray, buffer))
        data = self._handle.read(min(len(view), self._left))
        self._left -= len(data)
        view[: len(data)] = data
        return len(data)


def _refused(path: Path, why: str) -> LockError:
    return LockError(
        f"the package {path.name} is refused: {why}",
        hint="it is not a package of the archive as we know it; report it and lock another version",
    )
