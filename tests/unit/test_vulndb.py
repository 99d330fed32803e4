"""The sample database: always the same bytes, marked as a sample, and a proper bbolt file."""

from __future__ import annotations

import json
import struct
import tarfile
from pathlib import Path
from typing import Any

from tests.support.vulndb import sample_data, sample_database
from tests.support.vulndb.bolt import fnv64a, write_bolt
from tests.support.vulndb.make import buckets

PAGE = 4096


def read_bolt(path: Path) -> dict[str, Any]:
    """Read a bbolt file back, by nothing that wrote it."""
    data = path.read_bytes()
    metas = []
    for start in (16, PAGE + 16):
        meta = data[start : start + 64]
        assert struct.unpack_from("<III", meta) == (0xED0CDAED, 2, PAGE)
        assert struct.unpack_from("<Q", meta, 56)[0] == fnv64a(meta[:56])
        metas.append((struct.unpack_from("<Q", meta, 48)[0], struct.unpack_from("<Q", meta, 16)[0]))

    def page(buffer: bytes, base: int) -> list[tuple[str, Any]]:
        _, flags, count, _ = struct.unpack_from("<QHHI", buffer, base)
        found: list[tuple[str, Any]] = []
        for index in range(count):
            at = base + 16 + index * 16
            if flags & 1:
                found += page(data, struct.unpack_from("<IIQ", buffer, at)[2] * PAGE)
                continue
            kind, position, key_size, size = struct.unpack_from("<IIII", buffer, at)
            key = buffer[at + position : at + position + key_size]
            value = buffer[at + position + key_size : at + position + key_size + size]
            found.append((key.decode(), bucket(value) if kind else value))
        assert [k for k, _ in found] == sorted((k for k, _ in found), key=str.encode)
        return found

    def bucket(value: bytes) -> dict[str, Any]:
        root = struct.unpack_from("<Q", value)[0]
        return dict(page(data, root * PAGE) if root else page(value, 16))

    return dict(page(data, max(metas)[1] * PAGE))


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    root = {
        "empty": {},
        "small": {"a": b"1", "b": b""},
        "long": {"key": b"x" * 20_000},
        "nested": {"sub": {"subsub": {"k": b"v"}}, "plain": b"p"},
        "many": {f"{n:05}": str(n).encode() * 20 for n in range(5000)},
    }
    write_bolt(tmp_path / "x.db", root)
    assert read_bolt(tmp_path / "x.db") == root


def test_the_sample_is_the_same_each_time_and_says_what_it_is(tmp_path: Path) -> None:
    one, two = sample_database(tmp_path / "one"), sample_database(tmp_path / "two")
    assert one.read_bytes() == two.read_bytes()
    with tarfile.open(one) as tar:
        assert tar.getnames() == ["metadata.json", "trivy.db"]
        member = tar.extractfile("metadata.json")
        assert member is not None
        metadata = json.load(member)
    assert metadata["Sample"] is True
    assert metadata["UpdatedAt"] == sample_data()["updated"] == "2026-08-22T00:00:00Z"
    assert read_bolt(tmp_path / "one" / "sample-db" / "trivy.db") == buckets(sample_data())


def test_every_advisory_of_the_sample_has_details() -> None:
    root = buckets(sample_data())
    for release in ("debian 12", "debian 13"):
        assert {name for advisories in root[release].values() for name in advisories} <= set(
            root["vulnerability"]
        )
