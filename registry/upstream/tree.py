"""The root file system that foreign layers give, and the proof that every reader sees the same one.

Sizes are bounded before anything is held; content stays where it is, but for the files asked for.
Sources: OCI image specification 1.1, layer.md (whiteouts, change types); RFC 1952 (gzip); RFC 8878 (zstd).
"""

from __future__ import annotations

import hashlib
import posixpath
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from builder.model.digest import Digest
from builder.model.image import Descriptor, Layer
from builder.oci.filesystem import Entry, FileSystem
from builder.oci.layout import verified_chunks
from registry.upstream import zstd
from registry.upstream.refusal import quoted, refuse
from registry.upstream.tar import Content, Member, clean, members

PLAIN, GZIP, ZSTD = "plain", "gzip", "zstd"
# What a layer may be, and how it is packed. Layers that are fetched from elsewhere are no layers to us.
LAYER_TYPES = {
    "application/vnd.oci.image.layer.v1.tar": PLAIN,
    "application/vnd.oci.image.layer.v1.tar+gzip": GZIP,
    "application/vnd.oci.image.layer.v1.tar+zstd": ZSTD,
    "application/vnd.docker.image.rootfs.diff.tar": PLAIN,
    "application/vnd.docker.image.rootfs.diff.tar.gzip": GZIP,
}
_CHUNK = 1 << 18  # bytes
_GZIP_MEMBERS_MAX = 100_000
_WHITEOUT, _OPAQUE = ".wh.", ".wh..wh..opq"


@dataclass(frozen=True, slots=True)
class TreeLimits:
    """How much is read: entries and bytes of one image, and how far a layer may unpack.

    A layer may have `ratio_max` times its compressed size and `slack` bytes more. Deflate reaches
    1032, zstd 32,000; what people ship stays far below 100.
    """

    entries_max: int = 400_000
    total_max: int = 16 << 30
    ratio_max: int = 200
    slack: int = 16 << 20
    content_max: int = 64 << 20  # rpm's database is the largest file that is wanted


DEFAULT = TreeLimits()


def read_tree(
    layout: Path,
    layers: tuple[Layer, ...],
    wanted: tuple[str, ...] = (),
    limits: TreeLimits = DEFAULT,
) -> FileSystem:
    """The merged view of the layers; `wanted` files (or all below a folder, with `/` at the end).

    Raises ImportRefused for damaged, hostile or ambiguous layers and for another diff_id, and
    RegistryError when a blob is not what its digest says.
    """
    tree = _Tree(wanted, limits)
    for number, layer in enumerate(layers, 1):
        where = f"layer {number} ({layer.blob.digest.short})"
        plain = _Plain(layout, layer.blob, where, limits)
        tree.begin()
        for member, content in members(plain, where, limits.entries_max - tree.entries_read):
            tree.add(member, content, where)
        if plain.diff_id() != layer.diff_id:
            refuse("diff-id", f"{where} has other content than its diff_id says", context=layer.diff_id)
    return FileSystem(tree.entries, tree.contents)


class _Plain:
    """A layer's tar as a stream: unpacked, counted and hashed."""

    def __init__(self, layout: Path, blob: Descriptor, where: str, limits: TreeLimits) -> None:
        packed = LAYER_TYPES.get(blob.media_type)
        if packed is None:
            refuse("layer-type", f"{where} is of a type that is not taken", context=blob.media_type)
        chunks = verified_chunks(layout, blob)
        self._chunks = {PLAIN: _as_is, GZIP: _inflated, ZSTD: zstd.unpacked}[packed](chunks, where)
        self._piece, self._at, self._sha, self._where = b"", 0, hashlib.sha256(), where
        self._left = min(limits.total_max, blob.size * limits.ratio_max + limits.slack)

    def read(self, size: int) -> bytes:
        """At most `size` bytes; none at the end only."""
        if self._at == len(self._piece):
            self._piece, self._at = next(self._chunks, b""), 0
            self._left -= len(self._piece)
            if self._left < 0:
                refuse("unpacks-too-far", f"{self._where} unpacks to more than any honest layer")
            self._sha.update(self._piece)
        data = self._piece[self._at : self._at + size]
        self._at += len(data)
        return data

    def diff_id(self) -> Digest:
        """The digest of all that was read; the end was reached, as the tar reader sees to."""
        return Digest("sha256:" + self._sha.hexdigest())


def _as_is(chunks: Iterator[bytes], where: str) -> Iterator[bytes]:
    return chunks


def _inflated(chunks: Iterator[bytes], where: str) -> Iterator[bytes]:
    """Gzip members one after the other, in pieces of bounded size."""
    machine = zlib.decompressobj(31)
    fresh, count = True, 0
    for chunk in chunks:
        data = chunk
        while data or not fresh:
            try:
                out = machine.decompress(data, _CHUNK)
            except zlib.error as error:
                refuse("damaged-layer", f"{where} is no proper gzip", context=str(error)[:200])
            fresh = False
            if out:
                yield out
            if machine.eof:
                data, machine, fresh, count = machine.unused_data, zlib.decompressobj(31), True, count + 1
                if count > _GZIP_MEMBERS_MAX:
                    refuse("damaged-layer", f"{where} consists of more than {count - 1} gzip members")
            else:
                data = machine.unconsumed_tail
                if not data and len(out) < _CHUNK:
                    break
    if not fresh:
        refuse("damaged-layer", f"{where} is cut off")


class _Tree:
    def __init__(self, wanted: tuple[str, ...], limits: TreeLimits) -> None:
        self.entries: dict[str, Entry] = {}
        self.contents: dict[str, bytes] = {}
        self.entries_read = 0
        self._limits = limits
        self._files = frozenset(w for w in wanted if not w.endswith("/"))
        self._folders = tuple(w for w in wanted if w.endswith("/"))
        self._children: dict[str, set[str]] = {}
        self._above: set[str] = set()
        self._hidden: set[str] = set()
        self._bytes = self._kept = 0

    def begin(self) -> None:
        """A new layer starts: what it brings is not hidden by its own whiteouts."""
        self._above, self._hidden = set(), set()

    def add(self, member: Member, content: Content, where: str) -> None:
        """Put one entry into the tree."""
        self.entries_read += 1
        self._bytes += member.size
        if self._bytes > self._limits.total_max:
            refuse("unpacks-too-far", f"the image unpacks to more than {self._limits.total_max} bytes")
        path = member.name
        folder, name = posixpath.split(path)
        if path:
            self._check_way(folder, path, where)
        if name.startswith(_WHITEOUT):
            self._whiteout(folder, name, where)
            return
        if not path:
            return
        if path in self._above and not (
            member.kind == "directory" and self.entries[path].kind == "directory"
        ):
            refuse("ambiguous-layer", f"{where} holds an entry twice", context=quoted(path))
        target = member.link
        if member.kind == "hard link":
            target = self._hard_link(member, where)
        if member.kind != "directory" and self._children.get(path):
            if any(p in self._above for p in self._below(path)):
                refuse("ambiguous-layer", f"{where} puts a file in a folder's place", context=quoted(path))
            self._remove(path)
        self.contents.pop(path, None)
        self.entries[path] = Entry(
            member.kind, member.mode, member.uid, member.gid, member.size, target, member.xattrs
        )
        self._above.add(path)
        self._know(path)
        if member.kind == "file" and self._is_wanted(path):
            self._keep(path, member, content)

    def _check_way(self, folder: str, path: str, where: str) -> None:
        """No entry lies behind a link: readers put it to different places."""
        here = folder
        while here:
            entry = self.entries.get(here)
            if entry is not None and entry.kind != "directory":
                refuse("writes-through-link", f"{where} writes through a {entry.kind}", context=quoted(path))
            here = posixpath.dirname(here)

    def _whiteout(self, folder: str, name: str, where: str) -> None:
        if f"{folder}/{name}" in self._hidden:
            refuse("ambiguous-layer", f"{where} holds an entry twice", context=quoted(f"{folder}/{name}"))
        self._hidden.add(f"{folder}/{name}")
        if name == _OPAQUE:
            self._remove_below(folder)
            return
        hidden = name.removeprefix(_WHITEOUT)
        if hidden in ("", ".", "..") or hidden.startswith(_WHITEOUT):
            refuse("unsafe-name", f"{where} holds a whiteout of nothing in its folder", context=quoted(name))
        path = posixpath.join(folder, hidden)
        if path in self._above:
            refuse("ambiguous-layer", f"{where} brings and hides the same entry", context=quoted(path))
        if path in self.entries or self._children.get(path):
            self._remove(path)

    def _hard_link(self, member: Member, where: str) -> str:
        target = clean(member.link.removeprefix("/"), where)
        entry = self.entries.get(target)
        if entry is None or entry.kind not in ("file", "hard link", "link"):
            refuse("unsafe-link", f"{where} holds a hard link to nothing", context=quoted(member.link))
        self._check_way(posixpath.dirname(target), target, where)
        return entry.target if entry.kind == "hard link" else target

    def _keep(self, path: str, member: Member, content: Content) -> None:
        if self._kept + member.size > self._limits.content_max:
            return
        pieces = []
        while content.left:
            pieces.append(content.read(content.left))
        self.contents[path] = b"".join(pieces)
        self._kept += member.size

    def _is_wanted(self, path: str) -> bool:
        return path in self._files or path.startswith(self._folders)

    def _know(self, path: str) -> None:
        while path:
            folder = posixpath.dirname(path)
            known = self._children.setdefault(folder, set())
            if path in known:
                return
            known.add(path)
            path = folder

    def _below(self, folder: str) -> list[str]:
        found, waiting = [], list(self._children.get(folder, ()))
        while waiting:
            path = waiting.pop()
            found.append(path)
            waiting += self._children.get(path, ())
        return found

    def _remove(self, path: str) -> None:
        self._remove_below(path)
        if path not in self._above:
            self._forget(path)

    def _remove_below(self, folder: str) -> None:
        for path in reversed(self._below(folder)):
            if path not in self._above:
                self._forget(path)

    def _forget(self, path: str) -> None:
        self.entries.pop(path, None)
        self.contents.pop(path, None)
        if not self._children.get(path):
            self._children.get(posixpath.dirname(path), set()).discard(path)
            self._children.pop(path, None)
