"""The root file system that an image's layers give, read from the layers themselves.

Nothing is left out and nothing refused here: devices, setuid bits, attributes and whiteouts
are what the hardening rules look for. Blobs are verified while they are read, against their
digest and their diff_id. Source: OCI image specification 1.1, layer.md.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import posixpath
import re
import tarfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from builder.errors import ToolError
from builder.model.image import Layer, PlatformImage
from builder.oci.layout import verified_chunks
from builder.oci.tarformat import BoundedTarInfo

_ENTRIES_MAX = 1_000_000
_TOTAL_MAX = 16 << 30  # bytes of one image, unpacked
_RATIO_MAX = 1200  # deflate cannot do better than 1032; 1 MiB is allowed whatever the ratio
_CONTENT_MAX = 4 << 20  # bytes of one file that is kept, or searched
_KEPT_MAX = 128 << 20  # bytes of all files that are kept
_LINKS_MAX = 40
_CHUNK = 1 << 18  # bytes
_WHITEOUT, _OPAQUE = ".wh.", ".wh..wh..opq"
_XATTRS = ("SCHILY.xattr.", "LIBARCHIVE.xattr.")
_KINDS = {
    tarfile.REGTYPE: "file",
    tarfile.AREGTYPE: "file",
    tarfile.LNKTYPE: "hard link",
    tarfile.SYMTYPE: "link",
    tarfile.DIRTYPE: "directory",
    tarfile.CHRTYPE: "character device",
    tarfile.BLKTYPE: "block device",
    tarfile.FIFOTYPE: "fifo",
}


@dataclass(frozen=True, slots=True)
class Entry:
    """One path: its kind, permission bits, owner, size in bytes, link target, attribute names."""

    kind: str
    mode: int
    uid: int
    gid: int
    size: int
    target: str
    xattrs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FileSystem:
    """All entries by path without a leading `/`, and the content of the files asked for.

    `marked` are the regular files in which a pattern was found, each with the patterns' names.
    """

    entries: Mapping[str, Entry]
    contents: Mapping[str, bytes]
    marked: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def resolve(self, path: str) -> str | None:
        """The path of what `path` leads to, links followed inside the image; None when nothing."""
        found = self.follow(path)
        return found if found in self.entries else None

    def follow(self, path: str) -> str | None:
        """As `resolve`, whether or not the layers have an entry there; None for a loop of links."""
        steps = [s for s in path.split("/") if s]
        for _ in range(_LINKS_MAX):
            done = ""
            while steps:
                step = steps.pop(0)
                if step in (".", ".."):
                    done = posixpath.dirname(done) if step == ".." else done
                    continue
                here = f"{done}/{step}".lstrip("/")
                entry = self.entries.get(here)
                if entry is not None and entry.kind == "link":
                    target = [s for s in entry.target.split("/") if s]
                    base = [] if entry.target.startswith("/") else [s for s in done.split("/") if s]
                    steps = [*base, *target, *steps]
                    break
                done = here
            else:
                return done
        return None

    def read(self, path: str) -> bytes | None:
        """The content of a wanted file, links followed; None when it is missing or was not kept."""
        found = self.resolve(path)
        if found is None:
            return None
        entry = self.entries[found]
        return self.contents.get(entry.target if entry.kind == "hard link" else found)


def read_filesystem(
    image: PlatformImage,
    wanted: Iterable[str] | Callable[[str], bool],
    patterns: Mapping[str, re.Pattern[bytes]] | None = None,
) -> FileSystem:
    """The merged view of the image's layers; the files `wanted` (below 4 MiB) with content.

    `wanted` are paths, or says of a path whether it is. `patterns` are searched, by name, in the
    first 4 MiB of every file. Raises RegistryError when a blob is not what its digest says,
    ToolError when a layer is damaged, has another diff_id or unpacks beyond the limits.
    """
    keeps = wanted if callable(wanted) else frozenset(w.lstrip("/") for w in wanted).__contains__
    view = _View({}, {}, {}, keeps, patterns or {})
    total = 0
    for layer in image.layers:
        above: set[str] = set()
        for member, content in _members(image.layout, layer):
            total += member.size
            if len(view.entries) >= _ENTRIES_MAX or total > _TOTAL_MAX or view.kept > _KEPT_MAX:
                raise ToolError("the image unpacks to more than the limits", context=image.manifest.digest)
            path = _clean(member.name)
            folder, name = posixpath.split(path)
            if name == _OPAQUE:
                view.remove(folder, above, itself=False)
            elif name.startswith(_WHITEOUT):
                view.remove(posixpath.join(folder, name.removeprefix(_WHITEOUT)), above, itself=True)
            elif path:
                view.put(path, member, content, above)
    return FileSystem(view.entries, view.contents, view.marked)


@dataclass(slots=True)
class _View:
    """The merged file system as far as the layers are read."""

    entries: dict[str, Entry]
    contents: dict[str, bytes]
    marked: dict[str, tuple[str, ...]]
    keeps: Callable[[str], bool]
    patterns: Mapping[str, re.Pattern[bytes]]
    kept: int = 0  # bytes

    def put(
        self, path: str, member: tarfile.TarInfo, content: io.BufferedIOBase | None, above: set[str]
    ) -> None:
        """Lay an entry over what was there."""
        entry = _entry(member)
        if entry.kind != "directory" and path in self.entries and self.entries[path].kind == "directory":
            self.remove(path, above, itself=True)
        self.entries[path] = entry
        self._forget(path)
        above.add(path)
        if content is None:
            return
        wanted = member.size <= _CONTENT_MAX and self.keeps(path)
        if not wanted and not self.patterns:
            return
        data = content.read(_CONTENT_MAX)
        if wanted:
            self.contents[path] = data
            self.kept += len(data)
        if found := tuple(name for name, pattern in self.patterns.items() if pattern.search(data)):
            self.marked[path] = found

    def remove(self, path: str, above: set[str], *, itself: bool) -> None:
        """Take away what lower layers brought at (or only below) `path`; this layer's own stays."""
        prefix = f"{path}/" if path else ""
        for name in [n for n in self.entries if n.startswith(prefix) or (itself and n == path)]:
            if name not in above:
                del self.entries[name]
                self._forget(name)

    def _forget(self, path: str) -> None:
        self.kept -= len(self.contents.pop(path, b""))
        self.marked.pop(path, None)


def _entry(member: tarfile.TarInfo) -> Entry:
    kind = _KINDS.get(member.type, "unknown")
    target = member.linkname if kind == "link" else _clean(member.linkname) if kind == "hard link" else ""
    xattrs = tuple(
        sorted(key.removeprefix(p) for key in member.pax_headers for p in _XATTRS if key.startswith(p))
    )
    return Entry(kind, member.mode & 0o7777, member.uid, member.gid, member.size, target, xattrs)


def _clean(name: str) -> str:
    return posixpath.normpath("/" + name).lstrip("/")


def _members(layout: Path, layer: Layer) -> Iterator[tuple[tarfile.TarInfo, io.BufferedIOBase | None]]:
    blob = _Chunks(verified_chunks(layout, layer.blob))
    where = f"layer {layer.blob.digest}"
    try:
        with gzip.GzipFile(fileobj=io.BufferedReader(blob, _CHUNK)) as unzipped:
            plain = Counted(cast(io.BufferedIOBase, unzipped), layer.blob.size * _RATIO_MAX + (1 << 20))
            with tarfile.open(fileobj=plain, mode="r|", bufsize=_CHUNK, tarinfo=BoundedTarInfo) as tar:
                for member in tar:
                    content = tar.extractfile(member) if member.isreg() else None
                    yield member, cast("io.BufferedIOBase | None", content)
            plain.drain()
        while blob.read(_CHUNK):
            pass  # whatever follows the compressed stream, so that the digest is checked
    except (tarfile.TarError, zlib.error, EOFError, gzip.BadGzipFile, UnicodeError, ValueError) as error:
        raise ToolError(f"{where} is damaged", context=str(error)[:300]) from None
    if plain.hexdigest() != layer.diff_id.hex:
        raise ToolError(f"{where} has another content than its diff_id says", context=layer.diff_id)


class _Chunks(io.RawIOBase):
    """A readable file over pieces."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks, self._rest = chunks, b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        view = memoryview(cast(bytearray, buffer))
        data = self._rest or next(self._chunks, b"")
        count = min(len(view), len(data))
        view[:count], self._rest = data[:count], data[count:]
        return count


class Counted(io.RawIOBase):
    """A readable file that hashes what is read, and refuses more than `limit` bytes."""

    def __init__(self, source: io.BufferedIOBase, limit: int) -> None:
        self._source, self._limit, self._left = source, limit, limit
        self._sha = hashlib.sha256()

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        data = self._source.read(size)
        self._left -= len(data)
        if self._left < 0:
            raise ValueError(f"it is larger than {self._limit} bytes, unpacked")
        self._sha.update(data)
        return data

    def drain(self) -> None:
        """Read what is left."""
        while self.read(_CHUNK):
            pass

    def hexdigest(self) -> str:
        """The SHA-256 of what was read."""
        return self._sha.hexdigest()
