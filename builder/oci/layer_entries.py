"""What a layer says of each of its paths, read as if by an enemy: within limits, whatever it claims.

The stream is read to its end, all members of it (RFC 1952, section 2.2), as those do that unpack it.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

from builder.errors import RegistryError
from builder.model.digest import Digest
from builder.model.image import Descriptor
from builder.oci.filesystem import Counted
from builder.oci.layout import blob_path, verified_chunks
from builder.oci.tarformat import BoundedTarInfo

_CHUNK = 1 << 16  # bytes
_CONTENT_MAX = 16 << 30  # bytes of one layer, unpacked
_ENTRIES_MAX = 250_000
_HELD_MAX = 256 << 20  # bytes of names, links and attributes, which are held in memory


class LayerRefused(RegistryError):
    """A layer cannot be read, or is larger than the limits."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What a layer says of one path; `sha256` is that of a file's content.

    `header` is kind, mode, owner, time, link and attributes.
    """

    header: tuple[object, ...]
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class LayerEntries:
    """A layer's entries by path, in their order; `repeated` are the paths that are there more than once.

    `diff_id` is that of the content, not what a configuration says.
    """

    diff_id: Digest
    entries: Mapping[str, Entry]
    repeated: frozenset[str]


def read_entries(layout: Path, blob: Descriptor) -> LayerEntries:
    """Read a layer, its blob checked first.

    Raises LayerRefused for what is no layer or beyond the limits, RegistryError when the blob is damaged.
    """
    for _ in verified_chunks(layout, blob):
        pass
    entries: dict[str, Entry] = {}
    repeated: set[str] = set()
    total = held = 0
    try:
        with gzip.open(blob_path(layout, blob.digest)) as plain:
            source = Counted(cast(io.BufferedIOBase, plain), _CONTENT_MAX)
            with tarfile.open(fileobj=source, mode="r|", bufsize=_CHUNK, tarinfo=BoundedTarInfo) as tar:
                for member in tar:
                    total += member.size  # a sparse file is longer than what is stored of it
                    held += _held(member)
                    if member.size < 0 or total > _CONTENT_MAX:
                        raise LayerRefused(f"it is larger than {_CONTENT_MAX} bytes, unpacked")
                    if len(entries) >= _ENTRIES_MAX or held > _HELD_MAX:
                        raise LayerRefused(f"it has more than {_ENTRIES_MAX} entries, or they are larger")
                    if member.name in entries:
                        repeated.add(member.name)
                    entries[member.name] = _entry(member, tar.extractfile(member) if member.isreg() else None)
            source.drain()
    except (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError, ValueError, OverflowError) as error:
        raise LayerRefused(f"it is no layer that can be read: {error}"[:200]) from None
    return LayerEntries(Digest(f"sha256:{source.hexdigest()}"), entries, frozenset(repeated))


def _held(member: tarfile.TarInfo) -> int:
    return (
        len(member.name) + len(member.linkname) + sum(len(k) + len(v) for k, v in member.pax_headers.items())
    )


def _entry(member: tarfile.TarInfo, content: IO[bytes] | None) -> Entry:
    pax = {k: v for k, v in member.pax_headers.items() if "xattr" in k}
    owner = (member.uid, member.gid, member.uname, member.gname)
    header = (member.type, member.mode, owner, member.mtime, member.linkname, tuple(sorted(pax.items())))
    return Entry(header, member.size, _hash(content) if content else "")


def _hash(content: IO[bytes]) -> str:
    sha = hashlib.sha256()
    while chunk := content.read(_CHUNK):
        sha.update(chunk)
    return sha.hexdigest()
