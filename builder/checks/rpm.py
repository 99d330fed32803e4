"""What rpm's database (`rpmdb.sqlite`, rpm 4.16 and newer) in a foreign image names, without rpm.

A table holds one header a package. Sources: rpm 4.18, `docs/manual/format_header.md` (the header, its
tags and types), `lib/backend/sqlite.c`.
"""

from __future__ import annotations

import sqlite3
import struct
from collections.abc import Iterator

_NAME, _VERSION, _RELEASE, _EPOCH = 1000, 1001, 1002, 1003
_STRING, _INT32 = 6, 4
_ENTRY = struct.Struct(">IIII")  # tag, type, offset, count
_ENTRIES_MAX = 4_096
_STEPS, _STEPS_MAX = 10_000, 2_000  # SQLite's instructions between two looks, and how many looks
_HEADER_MAX = 32 << 20  # bytes


def packages(data: bytes) -> Iterator[str]:
    """NAME=[EPOCH:]VERSION-RELEASE of every header in the database `data`.

    Raises ValueError when it is none, is damaged or asks for more work than a real one.
    """
    for header in _headers(data):
        yield _package(header)


def _headers(data: bytes) -> Iterator[bytes]:
    if not data.startswith(b"SQLite format 3\0") or len(data) < 100:
        raise ValueError("it is no SQLite file")
    # A database in memory has no write-ahead log: bytes 18 and 19 say that there is none.
    plain = data[:18] + b"\1\1" + data[20:]
    looks = iter(range(_STEPS_MAX))
    connection = sqlite3.connect(":memory:")
    try:
        connection.deserialize(plain)
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _HEADER_MAX)
        connection.set_progress_handler(lambda: next(looks, None) is None, _STEPS)
        connection.execute("PRAGMA trusted_schema = OFF")
        connection.execute("PRAGMA cell_size_check = ON")
        found = connection.execute("SELECT type, sql FROM sqlite_master WHERE name = 'Packages'").fetchall()
        # A view, or a column that is computed, would be a program of the image's maker.
        if [kind for kind, _ in found] != ["table"] or not _is_plain(found[0][1]):
            raise ValueError("it has no plain table of packages")
        for (blob,) in connection.execute("SELECT blob FROM Packages"):
            if not isinstance(blob, bytes):
                raise ValueError("a package without a header")
            yield blob
    except sqlite3.Error as error:
        raise ValueError(f"SQLite says: {error}") from None
    finally:
        connection.close()


def _is_plain(sql: object) -> bool:
    words = " ".join(str(sql).lower().replace("'", "").replace('"', "").split())
    return words.startswith("create table packages") and " as " not in f" {words} "


def _package(header: bytes) -> str:
    if len(header) < 8:
        raise ValueError("a header is cut off")
    entries, size = struct.unpack_from(">II", header)
    store = 8 + entries * _ENTRY.size
    if entries > _ENTRIES_MAX or store + size > len(header):
        raise ValueError("a header is malformed")
    found: dict[int, str] = {}
    for tag, kind, offset, count in _ENTRY.iter_unpack(header[8:store]):
        if tag in (_NAME, _VERSION, _RELEASE, _EPOCH):
            if tag in found or count != 1:
                raise ValueError("a header says its name or version twice")
            found[tag] = _value(header[store : store + size], kind, offset, tag)
    if not found.get(_NAME) or not found.get(_VERSION) or not found.get(_RELEASE):
        raise ValueError("a package without name, version or release")
    epoch = found.get(_EPOCH, "0")
    full = f"{found[_VERSION]}-{found[_RELEASE]}"
    return f"{found[_NAME]}={full}" if epoch == "0" else f"{found[_NAME]}={epoch}:{full}"


def _value(store: bytes, kind: int, offset: int, tag: int) -> str:
    """A number's digits, or a text of bounded length."""
    if kind == _INT32 and tag == _EPOCH and offset + 4 <= len(store):
        return str(int.from_bytes(store[offset : offset + 4], "big"))
    end = store.find(b"\0", offset, offset + 256)
    if kind != _STRING or tag == _EPOCH or end < 0:
        raise ValueError("a name or version is malformed")
    return store[offset:end].decode("utf-8", "replace")
