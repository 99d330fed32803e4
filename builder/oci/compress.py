"""The layer compressor: pinned, because its output is part of every layer's digest.

zlib-ng gives the same bytes on every CPU; ISA-L and the host's zlib do not (see
docs/adr/0003). Source: RFC 1952 (gzip), RFC 1951 (deflate).
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterable
from pathlib import Path

from builder.model.digest import Digest

COMPRESSOR = "zlib-ng 1.1.0 level 6"
_LEVEL = 6
# RFC 1952 section 2.3: no name, no time, no extra flags, operating system unknown.
_HEADER = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"
_FEED = 1 << 18  # bytes given to the compressor at a time, always the same


def compress(chunks: Iterable[bytes], out: Path) -> tuple[Digest, int, Digest]:
    """Write `chunks` as one gzip member; returns the blob's digest, its size and the diff_id.

    The memory that is needed does not depend on the size of the content.
    """
    from zlib_ng import zlib_ng

    machine = zlib_ng.compressobj(_LEVEL, zlib_ng.DEFLATED, -15)
    plain, packed, crc, length, size = hashlib.sha256(), hashlib.sha256(), 0, 0, 0
    with open(out, "wb") as handle:

        def put(data: bytes) -> None:
            nonlocal size
            if data:
                packed.update(data)
                size += len(data)
                handle.write(data)

        put(_HEADER)
        for block in _blocks(chunks):
            plain.update(block)
            crc = zlib.crc32(block, crc)
            length += len(block)
            put(machine.compress(block))
        put(machine.flush())
        put(crc.to_bytes(4, "little") + (length & 0xFFFFFFFF).to_bytes(4, "little"))
    return Digest("sha256:" + packed.hexdigest()), size, Digest("sha256:" + plain.hexdigest())


def _blocks(chunks: Iterable[bytes]) -> Iterable[bytes]:
    pending: list[bytes] = []
    held = 0
    for chunk in chunks:
        pending.append(chunk)
        held += len(chunk)
        if held >= _FEED:
            joined = b"".join(pending)
            cut = held - held % _FEED
            view = memoryview(joined)
            for at in range(0, cut, _FEED):
                yield bytes(view[at : at + _FEED])
            pending, held = [joined[cut:]], held - cut
    if held:
        yield b"".join(pending)
