"""Tar headers to the byte: what a layer is written with, independent of any library's version.

Source: POSIX.1-2017 pax(1), "ustar Interchange Format" and "pax Header Block".
"""

from __future__ import annotations

import tarfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

BLOCK = 512  # bytes
_SIZE_MAX = 8**11 - 1
HEADER_MAX = 1 << 20  # bytes of one long name or pax header that is read
_HELD = (
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
)
_PREFIX_MAX, _NAME_MAX, _LINK_MAX = 155, 100, 100


@dataclass(frozen=True, slots=True)
class TarEntry:
    """One entry of a root file system: `path` without a leading `/`, times in seconds."""

    path: str
    kind: str  # "0" file, "1" hard link, "2" symbolic link, "5" directory
    mode: int
    uid: int
    gid: int
    size: int
    mtime: int
    link: str = ""
    xattrs: Mapping[str, bytes] = field(default_factory=dict)


def header(entry: TarEntry) -> bytes:
    """The header block of an entry, after a pax header when it needs one."""
    name = entry.path + "/" if entry.kind == "5" else entry.path
    raw_name, raw_link = _bytes(name), _bytes(entry.link)
    records: list[tuple[bytes, bytes]] = []
    short_name, prefix = _split(raw_name)
    if short_name is None:
        records.append((b"path", raw_name))
        short_name, prefix = raw_name[:_NAME_MAX], b""
    if len(raw_link) > _LINK_MAX:
        records.append((b"linkpath", raw_link))
    if entry.size > _SIZE_MAX:
        records.append((b"size", str(entry.size).encode()))
    for key, value in sorted(entry.xattrs.items()):
        records.append((b"SCHILY.xattr." + _bytes(key), value))
    block = _ustar(
        entry, short_name, prefix, raw_link[:_LINK_MAX], entry.kind.encode(), min(entry.size, _SIZE_MAX)
    )
    return _pax(entry, records) + block if records else block


def padding(size: int) -> bytes:
    """The zero bytes that follow `size` bytes of content."""
    return bytes(-size % BLOCK)


END = bytes(2 * BLOCK)


def _pax(entry: TarEntry, records: list[tuple[bytes, bytes]]) -> bytes:
    body = b"".join(_record(key, value) for key, value in records)
    block = _ustar(entry, b"pax/" + _bytes(entry.path)[:90], b"", b"", b"x", len(body))
    return block + body + padding(len(body))


def _record(key: bytes, value: bytes) -> bytes:
    # The length counts its own digits (pax Header Block: "%d %s=%s\n").
    length = len(key) + len(value) + 3
    digits = len(str(length))
    while len(str(length + digits)) != digits:
        digits += 1
    return b"%d %s=%s\n" % (length + digits, key, value)


def _ustar(entry: TarEntry, name: bytes, prefix: bytes, link: bytes, kind: bytes, size: int) -> bytes:
    fields = b"".join(
        (
            name.ljust(100, b"\0"),
            b"%07o\0" % (entry.mode & 0o7777),
            b"%07o\0" % entry.uid,
            b"%07o\0" % entry.gid,
            b"%011o\0" % size,
            b"%011o\0" % entry.mtime,
            b"        ",
            kind,
            link.ljust(100, b"\0"),
            b"ustar\x0000",
            bytes(32),
            bytes(32),
            bytes(16),
            prefix.ljust(155, b"\0"),
            bytes(12),
        )
    )
    return fields[:148] + b"%06o\0 " % sum(fields) + fields[156:]


def _split(name: bytes) -> tuple[bytes | None, bytes]:
    if len(name) <= _NAME_MAX:
        return name, b""
    at = (
        name.rfind(b"/", 0, _PREFIX_MAX + 1)
        if len(name) > _PREFIX_MAX
        else name.rfind(b"/", 0, len(name) - 1)
    )
    while at > 0:
        if at <= _PREFIX_MAX and 0 < len(name) - at - 1 <= _NAME_MAX:
            return name[at + 1 :], name[:at]
        at = name.rfind(b"/", 0, at)
    return None, b""


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


class BoundedTarInfo(tarfile.TarInfo):
    """Headers of hostile archives: what Python would read into memory whole has a limit.

    A long name and a pax header are read at once, however long they say they are, and the map of a
    sparse file grows without end; give this class as `tarinfo` to `tarfile.open`.
    """

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        """The header in a block; raises tarfile.ReadError for one that would fill the memory."""
        found = super().frombuf(buf, encoding, errors)
        if found.type in _HELD and not 0 <= found.size <= HEADER_MAX:
            raise tarfile.ReadError(f"a header of {found.size} bytes")
        if found.type == tarfile.GNUTYPE_SPARSE:
            raise tarfile.ReadError("a sparse file")
        return found
