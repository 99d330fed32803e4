"""Blobs on their way out: hashed before the last byte leaves, small ones kept in memory.

A whole blob is hashed while it passes, and its last piece is held back until the digest agrees;
otherwise the connection is cut, so that no client ever has a complete wrong blob. A part (Range)
is only sent of a blob that was hashed as a whole before. After a while a blob is hashed again.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable

from registry.gate.upstream import Source, StorageAway

SMALL = 256 << 10  # bytes: such blobs are read as a whole before the first byte leaves
_MEMORY_MAX = 64 << 20  # bytes of small blobs that are kept
_VERIFIED_MAX = 100_000
VERIFIED_SECONDS = 600
_HASH_IN_THREAD = 256 << 10  # bytes from which on another thread does it
_RANGE = re.compile(r"bytes=([0-9]{1,15})?-([0-9]{1,15})?")


class WrongBytes(StorageAway):
    """The storage's bytes have another digest."""


class Unsatisfiable(Exception):
    """A range that the blob does not have."""


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
        self._verified: OrderedDict[str, float] = OrderedDict()

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
        if part is not None and not self._is_verified(digest):
            async for _ in self._hashed(repository, digest, size):
                pass
        if self._is_verified(digest):
            chunks = self._source.read(repository, digest, start, end, size)
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
        sha = hashlib.sha256()
        last: bytes | None = None
        async for chunk in self._source.read(repository, digest, 0, size - 1, size):
            if last is not None:
                yield last
            if len(chunk) >= _HASH_IN_THREAD:
                await asyncio.to_thread(sha.update, chunk)
            else:
                sha.update(chunk)
            last = chunk
        if sha.hexdigest() != digest[7:]:
            raise WrongBytes("the storage's bytes have another digest")
        self._verified[digest] = self._monotonic()
        if len(self._verified) > _VERIFIED_MAX:
            self._verified.popitem(last=False)
        if last is not None:
            yield last

    def _is_verified(self, digest: str) -> bool:
        return self._monotonic() - self._verified.get(digest, -VERIFIED_SECONDS) < VERIFIED_SECONDS

    async def close(self) -> None:
        """Let go of the source."""
        await self._source.close()


async def _once(data: bytes) -> AsyncIterator[bytes]:
    yield data


async def _joined(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for chunk in rest:
        yield chunk
