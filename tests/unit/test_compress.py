"""The compressor: plain gzip, always the same bytes, memory that does not grow."""

from __future__ import annotations

import gzip
import hashlib
import tracemalloc
from pathlib import Path

import pytest

from builder.oci.compress import compress

MEMBER = 4 << 20  # bytes

DATA = b"".join(hashlib.sha256(bytes([i % 251, i // 251])).digest() * 3 for i in range(20_000))


def test_any_gzip_reader_gets_the_content_back(tmp_path: Path) -> None:
    blob, size, diff_id = compress([DATA], tmp_path / "x")
    packed = (tmp_path / "x").read_bytes()
    assert gzip.decompress(packed) == DATA
    assert (blob.hex, size, diff_id.hex) == (
        hashlib.sha256(packed).hexdigest(),
        len(packed),
        hashlib.sha256(DATA).hexdigest(),
    )


def test_the_bytes_do_not_depend_on_how_the_content_arrives(tmp_path: Path) -> None:
    whole = compress([DATA], tmp_path / "a")
    pieces = compress([DATA[i : i + 777] for i in range(0, len(DATA), 777)], tmp_path / "b")
    assert whole == pieces


def test_the_bytes_are_those_of_the_pinned_compressor(tmp_path: Path) -> None:
    # The same on every CPU: a change means another compressor, and so new digests for every image.
    blob, _, _ = compress([DATA, DATA, DATA], tmp_path / "x")
    assert blob.hex == "484a4a72e1c0cd8fde503d9fcdba455bb86f9e64a435beb0a99bfb65508a4dee"


@pytest.mark.parametrize("size", [0, 1, MEMBER - 1, MEMBER, MEMBER + 1, 2 * MEMBER])
def test_the_ends_of_members_lose_nothing(tmp_path: Path, size: int) -> None:
    data = (DATA * (size // len(DATA) + 1))[:size]
    _, _, diff_id = compress([data[:100], data[100:]], tmp_path / "x")
    assert gzip.decompress((tmp_path / "x").read_bytes()) == data
    assert diff_id.hex == hashlib.sha256(data).hexdigest()


def test_memory_does_not_grow_with_the_content(tmp_path: Path) -> None:
    tracemalloc.start()
    compress((DATA for _ in range(60)), tmp_path / "x")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 24 << 20
