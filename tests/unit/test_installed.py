"""What a foreign image's own package database says: rpm's here, which is a program's file and not a text."""

from __future__ import annotations

import sqlite3
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from builder.checks.installed import installed
from builder.oci.filesystem import Entry, FileSystem

PATH = "usr/lib/sysimage/rpm/rpmdb.sqlite"
NAME, VERSION, RELEASE, EPOCH, LICENCE = 1000, 1001, 1002, 1003, 1014


def header(*facts: tuple[int, str | int]) -> bytes:
    """A header of rpm: texts and numbers by tag, in a store behind their list."""
    entries, store = b"", b""
    for tag, value in facts:
        text = isinstance(value, str)
        entries += struct.pack(">IIII", tag, 6 if text else 4, len(store), 1)
        store += str(value).encode() + b"\0" if text else struct.pack(">I", value)
    return struct.pack(">II", len(facts), len(store)) + entries + store


BASH = header((NAME, "bash"), (VERSION, "5.1.8"), (RELEASE, "9.el9"), (LICENCE, "GPLv3+"))
SSL = header((NAME, "openssl-libs"), (VERSION, "3.0.7"), (RELEASE, "27.el9"), (EPOCH, 1))


def database(folder: Path, *headers: object, sql: str = "") -> bytes:
    path = folder / "rpmdb.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA journal_mode = WAL")  # as rpm writes it
        connection.execute(
            "CREATE TABLE 'Packages' (hnum INTEGER PRIMARY KEY AUTOINCREMENT, blob BLOB NOT NULL)"
        )
        connection.executemany("INSERT INTO Packages (blob) VALUES (?)", [(h,) for h in headers])
        connection.executescript(sql)
    connection.close()
    return path.read_bytes()


def image(data: bytes, **more: int) -> FileSystem:
    """An image with the database, and empty files beside it of the sizes given by their endings."""
    sizes = {PATH: len(data)} | {PATH + ending.replace("_", "-"): size for ending, size in more.items()}
    entries = {path: Entry("file", 0o644, 0, 0, size, "", ()) for path, size in sizes.items()}
    return FileSystem(entries, {PATH: data})


def test_packages_of_rpm_are_named_as_the_scanner_names_them(tmp_path: Path) -> None:
    found = installed(image(database(tmp_path, BASH, SSL), _wal=0, _shm=32768))
    assert found.packages == ("bash=5.1.8-9.el9", "openssl-libs=1:3.0.7-27.el9")
    assert not found.problem


VIEW = """
DROP TABLE Packages;
CREATE VIEW Packages AS WITH RECURSIVE n(hnum, blob) AS (SELECT 1, x'00' UNION ALL SELECT hnum + 1, blob FROM n)
SELECT * FROM n;
"""
DAMAGED: dict[str, tuple[Callable[[Path], bytes], str]] = {
    "another file": (lambda _: b"SQLite", "no SQLite file"),
    "cut off": (lambda p: database(p, BASH)[:4096], "SQLite says"),
    "no package": (database, "names no package"),
    "no table": (lambda p: database(p, sql="DROP TABLE Packages"), "no plain table"),
    "a view without an end": (lambda p: database(p, sql=VIEW), "no plain table"),
    "no header": (lambda p: database(p, "text"), "without a header"),
    "header cut off": (lambda p: database(p, BASH[:40]), "malformed"),
    "a million entries": (lambda p: database(p, struct.pack(">II", 1 << 20, 0)), "malformed"),
    "name out of the store": (
        lambda p: database(p, struct.pack(">IIIIII", 1, 0, NAME, 6, 9999, 1)),
        "malformed",
    ),
    "no version": (lambda p: database(p, header((NAME, "x"), (RELEASE, "1"))), "without name, version"),
    "two names": (
        lambda p: database(p, header((NAME, "x"), (NAME, "y"), (VERSION, "1"), (RELEASE, "1"))),
        "twice",
    ),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_database_of_rpm_is_a_problem_and_not_an_empty_list(name: str, tmp_path: Path) -> None:
    made, message = DAMAGED[name]
    found = installed(image(made(tmp_path)))
    assert found.packages == ()
    assert message in found.problem


def test_packages_in_a_log_that_was_not_written_back_are_not_overlooked(tmp_path: Path) -> None:
    found = installed(image(database(tmp_path, BASH), _wal=4152))
    assert found.packages == ()
    assert "write-ahead log" in found.problem
