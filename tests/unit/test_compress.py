"""The compressor: one gzip member, always the same bytes, memory that does not grow."""

from __future__ import annotations

import gzip
import hashlib
import tracemalloc
from pathlib import Path

from builder.oci.compress import compress

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
    blob, _, _ = compress([DATA], tmp_path / "x")
    assert blob.hex == "89e5fa0e2b71309b96e896090b2ec1bcecb493d151ea2e7a7fa1a07c70871cd6"


def test_memory_does_not_grow_with_the_content(tmp_path: Path) -> None:
    tracemalloc.start()
    compress((DATA for _ in range(30)), tmp_path / "x")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 16 << 20
