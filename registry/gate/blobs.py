"""Blobs on their way out: hashed before the last byte leaves, small ones kept in memory.

A whole blob is hashed while it passes, and its last piece is held back until the digest agrees;
otherwise the connection is cut, so that no client ever has a complete wrong blob. Meanwhile the
CRC-32 of each block is noted. For some minutes, what is read of the same blob again is held
against those, a block at a time before it leaves; that is how a part (Range) is checked, and what
a storage that spoils a byte later is found out by. Then the blob is hashed as a whole again.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from array import array
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field

import deflate

from registry.gate.upstream import Source, StorageAway

SMALL = 256 << 10  # bytes: such blobs are read as a whole before the first byte leaves
_MEMORY_MAX = 64 << 20  # bytes of small blobs that are kept
_VERIFIED_MAX = 100_000
VERIFIED_SECONDS = 600
_BLOCK = 2 << 20  # bytes that one checksum is of
_HASH_IN_THREAD = 256 << 10  # bytes from which on another thread does it
_RANGE = re.compile(r"bytes=([0-9]{1,15})?-([0-9]{1,15})?")


class WrongBytes(StorageAway):
    """The storage's bytes have another digest."""


class Unsatisfiable(Exception):
    """A range that the blob does not have."""


@dataclass(slots=True)
class _Blocks:
    """Splits what passes into blocks; `sums` are those of the blocks that have passed, from the first on."""

    at: int
    size: int
    sums: array[int] = field(default_factory=lambda: array("L"))
    _crc: int = 0

    def take(self, chunk: bytes) -> Iterator[tuple[bytes, bool]]:
        """Pieces of a chunk, and whether a block ends with them."""
        while chunk:
            room = _BLOCK - self.at % _BLOCK
            piece, chunk = (chunk, b"") if len(chunk) <= room else (chunk[:room], chunk[room:])
            self._crc = deflate.crc32(piece, self._crc)
            self.at += len(piece)
            ended = self.at % _BLOCK == 0 or self.at == self.size
            if ended:
                self.sums.append(self._crc)
                self._crc = 0
            yield piece, ended


def read_range(header: str | None, size: int) -> tuple[int, int] | None:
    """First and last byte (RFC 9110, section 14.1.2); None for the whole; raises Unsatisfiable.

    Several ranges, or what is no range of bytes, mean the whole, as the RFC allows.
    """
    match = _RANGE.fullmatch(header) if header else None
    if match is None or (match[1] is None and match[2] is None):
        return None
    if match[1] is None:
        length = int(match[2])
        start, end = max(0, size - length), size - 1
        if length == 0:
            raise Unsatisfiable
    else:
        start = int(match[1])
        end = min(int(match[2]), size - 1) if match[2] is not None else size - 1
        if match[2] is not None and int(match[2]) < start:
            return None
    if start >= size:
        raise Unsatisfiable
    return start, end


class Blobs:
    """Reads blobs from a source and lets nothing wrong through; `monotonic` gives seconds."""

    def __init__(self, source: Source, monotonic: Callable[[], float]) -> None:
        self._source = source
        self._monotonic = monotonic
        self._small: OrderedDict[str, bytes] = OrderedDict()
        self._held = 0
        self._verified: OrderedDict[str, tuple[float, array[int]]] = OrderedDict()

    async def open(
        self, repository: str, digest: str, size: int, part: tuple[int, int] | None
    ) -> AsyncIterator[bytes]:
        """The bytes of a blob or a part of it, once the first of them are there.

        Raises StorageAway here, before anything is sent, when the storage has nothing; the
        iterator raises it later.
        """
        start, end = part or (0, size - 1)
        if size <= SMALL:
            data = await self._whole(repository, digest, size)
            return _once(data[start : end + 1])
        if part is not None and self._sums(digest) is None:
            async for _ in self._hashed(repository, digest, size):
                pass
        sums = self._sums(digest)
        if sums is not None:
            chunks = self._checked(repository, digest, start, end, size, sums)
        else:
            chunks = self._hashed(repository, digest, size)
        first = await anext(chunks, None)
        if first is None:
            raise StorageAway("the storage sent nothing")
        return _joined(first, chunks)

    async def _whole(self, repository: str, digest: str, size: int) -> bytes:
        known = self._small.get(digest)
        if known is not None:
            self._small.move_to_end(digest)
            return known
        parts = [c async for c in self._source.read(repository, digest, 0, size - 1, size)] if size else []
        data = b"".join(parts)
        if "sha256:" + hashlib.sha256(data).hexdigest() != digest:
            raise WrongBytes("the storage's bytes have another digest")
        if digest not in self._small:  # another request may have been faster
            self._small[digest] = data
            self._held += len(data)
        while self._held > _MEMORY_MAX:
            self._held -= len(self._small.popitem(last=False)[1])
        return data

    async def _hashed(self, repository: str, digest: str, size: int) -> AsyncIterator[bytes]:
        sha, blocks = hashlib.sha256(), _Blocks(0, size)
        last: bytes | None = None
        async for chunk in self._source.read(repository, digest, 0, size - 1, size):
            if last is not None:
                yield last
            if len(chunk) >= _HASH_IN_THREAD:
                await asyncio.to_thread(sha.update, chunk)
            else:
                sha.update(chunk)
            for _ in blocks.take(chunk):
                pass
            last = chunk
        if sha.hexdigest() != digest[7:]:
            raise WrongBytes("the storage's bytes have another digest")
        self._verified[digest] = (self._monotonic(), blocks.sums)
        if len(self._verified) > _VERIFIED_MAX:
            self._verified.popitem(last=False)
        if last is not None:
            yield last

    async def _checked(
        self, repository: str, digest: str, start: int, end: int, size: int, sums: array[int]
    ) -> AsyncIterator[bytes]:
        """The bytes from `start` to `end`, each block as good as it was when the blob was hashed."""
        first = start // _BLOCK
        position = first * _BLOCK
        stop = min(size, (end // _BLOCK + 1) * _BLOCK)
        blocks, held = _Blocks(position, size), list[bytes]()
        async for chunk in self._source.read(repository, digest, position, stop - 1, size):
            for piece, ended in blocks.take(chunk):
                held.append(piece)
                if not ended:
                    continue
                if blocks.sums[-1] != sums[first + len(blocks.sums) - 1]:
                    self._verified.pop(digest, None)
                    raise WrongBytes("the storage's bytes are not those that were hashed before")
                for one in held:
                    yield one[max(0, start - position) : max(0, end + 1 - position)]
                    position += len(one)
                held.clear()

    def _sums(self, digest: str) -> array[int] | None:
        """The checksums of a blob that was hashed a short while ago."""
        at, sums = self._verified.get(digest, (-VERIFIED_SECONDS, None))
        return sums if self._monotonic() - at < VERIFIED_SECONDS else None

    async def close(self) -> None:
        """Let go of the source."""
        await self._source.close()


async def _once(data: bytes) -> AsyncIterator[bytes]:
    yield data


async def _joined(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for chunk in rest:
        yield chunk
