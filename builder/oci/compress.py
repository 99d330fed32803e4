"""The layer compressor: pinned, because its output is part of every layer's digest.

libdeflate gives the same bytes on every CPU (see docs/adr/0047). It compresses whole pieces, so a
layer is a row of gzip members, which every reader of gzip joins. Source: RFC 1952 (gzip), section
2.2 (members); RFC 1951 (deflate).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from builder.model.digest import Digest

COMPRESSOR = "libdeflate (deflate 0.9.0) level 6, members of 4 MiB"
_LEVEL = 6
# RFC 1952 section 2.3: no name, no time, no extra flags, operating system unknown.
_HEADER = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"
_MEMBER = 4 << 20  # bytes of content


def compress(chunks: Iterable[bytes], out: Path) -> tuple[Digest, int, Digest]:
    """Write `chunks` as gzip; returns the blob's digest, its size and the diff_id.

    The memory that is needed does not depend on the size of the content.
    """
    import deflate

    plain, packed, size = hashlib.sha256(), hashlib.sha256(), 0
    with open(out, "wb") as handle:
        for piece in _pieces(chunks):
            plain.update(piece)
            end = deflate.crc32(piece).to_bytes(4, "little") + len(piece).to_bytes(4, "little")
            for data in (_HEADER, deflate.deflate_compress(piece, _LEVEL), end):
                packed.update(data)
                size += len(data)
                handle.write(data)
    return Digest("sha256:" + packed.hexdigest()), size, Digest("sha256:" + plain.hexdigest())


def _pieces(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The content in pieces of one member each; without content, one empty piece."""
    pending, empty = bytearray(), True
    for chunk in chunks:
        pending += chunk
        while len(pending) >= _MEMBER:
            yield bytes(pending[:_MEMBER])
            del pending[:_MEMBER]
            empty = False
    if pending or empty:
        yield bytes(pending)
