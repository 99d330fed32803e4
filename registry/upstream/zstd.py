"""Zstandard frames, unpacked block by block: no step gives more than 128 KiB, whatever the frame says.

The decoder of the library gives all that its input unpacks to, and says nothing of an input that is
cut off. So frames are read here down to their blocks, and the library gets one block at a time.
Source: RFC 8878, sections 3.1.1 (frames, blocks) and 3.1.2 (skippable frames, which hold nothing).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from registry.upstream.refusal import refuse

if TYPE_CHECKING:
    from zstandard import ZstdDecompressor

WINDOW_MAX = 32 << 20  # bytes that a decoder holds; `zstd -19` takes 8 MiB, `--long` 128 MiB
_BLOCK_MAX = 128 << 10  # bytes, packed and unpacked (RFC 8878, 3.1.1.2.4)
_MAGIC, _SKIPPABLE = 0xFD2FB528, range(0x184D2A50, 0x184D2A60)
_DICTIONARY_BYTES, _SIZE_BYTES = (0, 1, 2, 4), (0, 2, 4, 8)
_RAW, _RLE, _RESERVED = 0, 1, 3
_BLOCKS_FREE, _BYTES_PER_BLOCK = 100_000, 256  # blocks that give less than that are counted


def unpacked(chunks: Iterator[bytes], where: str) -> Iterator[bytes]:
    """What the frames of a stream unpack to, in pieces; raises ImportRefused."""
    from zstandard import ZstdDecompressor

    reader, counter = _Reader(chunks, where), _Counter(where)
    library = ZstdDecompressor(max_window_size=WINDOW_MAX)
    while (magic := reader.at_most(4)) != b"":
        number = int.from_bytes(magic, "little")
        if len(magic) == 4 and number in _SKIPPABLE:
            reader.skip(int.from_bytes(reader.exactly(4), "little"))
            counter.block(0)
        elif number == _MAGIC:
            yield from _frame(reader, counter, library, where)
        else:
            refuse("damaged-layer", f"{where} is no proper zstd", context=f"it goes on with {magic.hex()}")


def _frame(reader: _Reader, counter: _Counter, library: ZstdDecompressor, where: str) -> Iterator[bytes]:
    """One frame after its magic number."""
    start = reader.exactly(1)
    flags = start[0]
    single = flags >> 5 & 1
    size = _SIZE_BYTES[flags >> 6] or single
    rest = reader.exactly((1 - single) + _DICTIONARY_BYTES[flags & 3] + size)
    machine: Any = library.decompressobj()
    yield from _step(machine, _MAGIC.to_bytes(4, "little") + start + rest, counter, where)
    last = False
    while not last:
        head = reader.exactly(3)
        block = int.from_bytes(head, "little")
        last, kind, size = bool(block & 1), block >> 1 & 3, block >> 3
        if kind == _RESERVED or size > _BLOCK_MAX:
            refuse("damaged-layer", f"{where} is no proper zstd", context="a block is malformed")
        data = reader.exactly(1 if kind == _RLE else size)
        yield from _step(machine, head + data, counter, where)
    if flags >> 2 & 1:  # a checksum, which the library compares
        yield from _step(machine, reader.exactly(4), counter, where)
    if not machine.eof:
        refuse("damaged-layer", f"{where} is no proper zstd", context="a frame has no end")


def _step(machine: Any, data: bytes, counter: _Counter, where: str) -> Iterator[bytes]:
    from zstandard import ZstdError

    try:
        out: bytes = machine.decompress(data)
    except ZstdError as error:
        refuse("damaged-layer", f"{where} is no proper zstd", context=str(error)[:200])
    counter.block(len(out))
    if out:
        yield out


class _Counter:
    """Bounds the time that blocks which hold nothing may take."""

    def __init__(self, where: str) -> None:
        self._left, self._where = _BLOCKS_FREE * _BYTES_PER_BLOCK, where

    def block(self, size: int) -> None:
        """One more block that gave `size` bytes."""
        self._left += size - _BYTES_PER_BLOCK
        if self._left < 0:
            refuse("damaged-layer", f"{self._where} consists of too many empty zstd blocks")


class _Reader:
    """Pieces of any size, read in pieces of the wanted size."""

    def __init__(self, chunks: Iterator[bytes], where: str) -> None:
        self._chunks, self._where = chunks, where
        self._piece, self._at = b"", 0

    def at_most(self, size: int) -> bytes:
        """Less than `size` bytes at the end only."""
        out = self._piece[self._at : self._at + size]
        self._at += len(out)
        while len(out) < size:
            chunk = next(self._chunks, None)
            if chunk is None:
                return out
            self._piece, self._at = chunk, min(size - len(out), len(chunk))
            out += chunk[: self._at]
        return out

    def exactly(self, size: int) -> bytes:
        """So many bytes, or a refusal."""
        out = self.at_most(size)
        if len(out) < size:
            refuse("damaged-layer", f"{self._where} is cut off")
        return out

    def skip(self, size: int) -> None:
        """Pass over so many bytes."""
        while size:
            size -= len(self.exactly(min(size, _BLOCK_MAX)))
