"""Layers packed with zstd: the same proofs and bounds as for gzip."""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard
from zstandard import ZstdCompressionParameters, ZstdCompressor

from builder.model.digest import Digest
from builder.model.image import Descriptor, Layer
from builder.oci.filesystem import FileSystem
from builder.oci.layout import create_layout, write_blob
from registry.upstream.refusal import ImportRefused
from registry.upstream.tree import read_tree
from registry.upstream.zstd import unpacked
from tests.support.images import layer_tar

TYPE = "application/vnd.oci.image.layer.v1.tar+zstd"
TAR = layer_tar({"a": b"one" * 100, "b": random.Random(1).randbytes(300_000), "c": bytes(500_000)})
MAGIC = bytes.fromhex("28b52ffd")


def read(folder: Path, packed: bytes, tar: bytes = TAR) -> FileSystem:
    create_layout(folder)
    described = Descriptor(TYPE, write_blob(folder, packed), len(packed))
    return read_tree(folder, (Layer(described, Digest.of(tar), "x"),), ("a",))


def pack(data: bytes, level: int = 3, **options: int | bool) -> bytes:
    return ZstdCompressor(level=level, **options).compress(data)  # type: ignore[arg-type]


def streamed(data: bytes, **parameters: int) -> bytes:
    """One frame that does not say its size; its window is what the parameters say."""
    machine = ZstdCompressor(
        compression_params=ZstdCompressionParameters.from_level(3, write_content_size=False, **parameters)
    ).compressobj()
    return bytes(machine.compress(data) + machine.flush())


def block(kind: int, size: int, data: bytes, last: bool = False) -> bytes:
    return (size << 3 | kind << 1 | last).to_bytes(3, "little") + data


SKIPPED = bytes.fromhex("522a4d18") + (5).to_bytes(4, "little") + b"toc.."
HEADER = MAGIC + b"\x00\x58"  # a window of 2 MiB, nothing else
ZEROS = block(1, 128 << 10, b"\0")  # 4 bytes that unpack to 128 KiB


@pytest.mark.parametrize(
    "packed",
    [
        pack(TAR),
        pack(TAR, 19, write_checksum=True, write_content_size=False),
        pack(TAR[:1000]) + SKIPPED + pack(TAR[1000:]) + SKIPPED,  # a frame a file, as "chunked" images have
        streamed(TAR),
        pack(TAR, 1) + pack(b""),
    ],
    ids=["plain", "with checksum", "frames and tables", "streamed", "an empty frame"],
)
def test_what_people_write_is_read(tmp_path: Path, packed: bytes) -> None:
    tree = read(tmp_path, packed)
    assert set(tree.entries) == {"a", "b", "c"} and tree.contents == {"a": b"one" * 100}


DAMAGED: dict[str, Callable[[], bytes]] = {
    "cut": lambda: pack(TAR)[:-1],
    "cut in a header": lambda: pack(TAR)[:5],
    "cut in a skipped frame": lambda: pack(TAR) + SKIPPED[:-1],
    "half a magic number": lambda: pack(TAR) + MAGIC[:2],
    "other things behind it": lambda: pack(TAR) + b"behind it",
    "gzip": lambda: b"\x1f\x8b" + bytes(30),
    "a wrong checksum": lambda: pack(TAR, write_checksum=True)[:-1] + b"\xff",
    "a flipped byte": lambda: (
        pack(TAR, write_checksum=True)[:2000] + b"\xaa\xbb" + pack(TAR, write_checksum=True)[2002:]
    ),
    "a reserved block": lambda: HEADER + block(3, 1, b"x", last=True),
    "a block that is too large": lambda: (
        HEADER + block(0, (128 << 10) + 1, bytes((128 << 10) + 1), last=True)
    ),
    "a dictionary": lambda: MAGIC + b"\x01\x58\x07" + block(0, 1, b"x", last=True),
    "a window of 1 GiB": lambda: streamed(TAR, window_log=30),
    "empty blocks without end": lambda: HEADER + block(0, 0, b"") * 100_100,
    "a size that is not so": lambda: MAGIC + b"\x20\x05" + block(0, 1, b"x", last=True),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_or_hostile_frame_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ImportRefused) as refused:
        read(tmp_path, DAMAGED[name]())
    assert refused.value.reference == "damaged-layer" and refused.value.hint


def test_a_bomb_is_stopped_early_and_in_little_memory(tmp_path: Path) -> None:
    packed = HEADER + ZEROS * 20_000 + block(0, 0, b"", last=True)  # 80 kB, 2.4 GiB
    tracemalloc.start()
    try:
        with pytest.raises(ImportRefused) as refused:
            read(tmp_path, packed)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert refused.value.reference == "unpacks-too-far"
    assert peak < 8 << 20


def test_no_piece_is_larger_than_a_block_however_the_stream_comes_in() -> None:
    packed = HEADER + ZEROS * 40 + block(0, 0, b"", last=True)
    for size in (1, 7, len(packed)):
        pieces = list(unpacked(iter([packed[i : i + size] for i in range(0, len(packed), size)]), "layer"))
        assert max(map(len, pieces)) <= 128 << 10
        assert sum(map(len, pieces)) == 40 * (128 << 10)


def test_any_bytes_end_in_a_refusal_or_in_what_the_library_reads() -> None:
    source = random.Random(7)
    sound = pack(b"some text " * 500, write_checksum=True)
    for _ in range(300):
        spoilt = bytearray(sound)
        for _ in range(source.randint(1, 4)):
            spoilt[source.randrange(len(spoilt))] = source.randrange(256)
        try:
            ours = b"".join(unpacked(iter([bytes(spoilt)]), "layer"))
        except ImportRefused:
            continue
        assert ours == zstandard.ZstdDecompressor().decompressobj().decompress(bytes(spoilt))
