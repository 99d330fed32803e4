"""The root file system that a tar or an image's layers describe, as an index in memory.

Only headers are held: content stays in the file and is read where it is needed.
Source: OCI image specification 1.1, layer.md (whiteouts, change types).
"""

from __future__ import annotations

import gzip
import hashlib
import posixpath
import re
import tarfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, BinaryIO

from builder.errors import NotReproducible
from builder.model.image import Layer, PlatformImage
from builder.oci.layout import blob_path, verified_chunks
from builder.oci.tarformat import END, TarEntry, header, padding

_CHUNK = 1 << 20  # bytes
_READ = 1 << 16  # bytes that are taken from a layer at a time
_ENTRIES_MAX = 1_000_000
_TOTAL_MAX = 16 << 30  # bytes of content in one root file system
_READ_MAX = 64 << 20  # bytes of one file that is held in memory
_CONTROL = re.compile(r"[\x00-\x1f]")
_WHITEOUT = ".wh."
_KINDS = {
    tarfile.REGTYPE: "0",
    tarfile.AREGTYPE: "0",
    tarfile.LNKTYPE: "1",
    tarfile.SYMTYPE: "2",
    tarfile.DIRTYPE: "5",
}


@dataclass(frozen=True, slots=True)
class Node:
    """One path of a root file system. `offset` is where the content starts in its tar."""

    kind: str
    mode: int
    uid: int
    gid: int
    size: int = 0
    link: str = ""
    offset: int = 0
    sha256: str = ""
    xattrs: Mapping[str, bytes] = field(default_factory=dict)

    def same(self, other: Node) -> bool:
        """Whether both are the same but for place and time; regular files by their content."""
        return replace(self, offset=0) == replace(other, offset=0)


def read_tree(tar: Path) -> dict[str, Node]:
    """The index of an uncompressed tar file; a later entry replaces an earlier one.

    Raises NotReproducible when the tar holds something that no root file system of ours may
    (devices, names outside the tree, more than the limits).
    """
    tree: dict[str, Node] = {}
    total = 0
    with open(tar, "rb") as handle, tarfile.open(fileobj=handle, mode="r:") as source:
        for member in source:
            name, node = _node(member)
            total += member.size
            if len(tree) >= _ENTRIES_MAX or total > _TOTAL_MAX:
                raise NotReproducible("the root file system is larger than the limits", context=str(tar))
            if name:
                tree[name] = replace(node, offset=member.offset_data)
    return tree


def image_tree(image: PlatformImage) -> dict[str, Node]:
    """The merged index of an image's layers, files with the SHA-256 of their content."""
    tree: dict[str, Node] = {}
    for _, name, node, content in _layer_entries(image):
        tree[name] = node if content is None else replace(node, sha256=_hash(content))
    return tree


def read_files(image: PlatformImage, group: str, wanted: Callable[[str], bool]) -> dict[str, bytes]:
    """The regular files at paths that are `wanted`, from the image's layers of one group."""
    found: dict[str, bytes] = {}
    for layer in image.layers:
        if layer.group == group:
            for member, content in layer_members(image, layer):
                name, node = _node(member)
                if content is not None and node.size <= _READ_MAX and wanted(name):
                    found[name] = content.read()
    return found


def flatten(image: PlatformImage, out: BinaryIO) -> None:
    """Write the root file system of an image of ours as one tar, layer after layer.

    Our layers have no whiteouts, so the concatenation is the merged tree for any tar reader.
    """
    for member, name, node, content in _layer_entries(image):
        out.write(
            header(
                TarEntry(
                    name,
                    node.kind,
                    node.mode,
                    node.uid,
                    node.gid,
                    node.size,
                    int(member.mtime),
                    node.link,
                    node.xattrs,
                )
            )
        )
        if content is not None:
            while chunk := content.read(_CHUNK):
                out.write(chunk)
            out.write(padding(node.size))
    out.write(END)


def content_hash(tar: BinaryIO, node: Node) -> str:
    """The SHA-256 of a file's content in its tar."""
    tar.seek(node.offset)
    sha, left = hashlib.sha256(), node.size
    while left:
        chunk = tar.read(min(left, _CHUNK))
        if not chunk:
            raise NotReproducible("the root file system's tar is cut short")
        sha.update(chunk)
        left -= len(chunk)
    return sha.hexdigest()


def _layer_entries(image: PlatformImage) -> Iterator[tuple[tarfile.TarInfo, str, Node, IO[bytes] | None]]:
    for layer in image.layers:
        for member, content in layer_members(image, layer):
            name, node = _node(member)
            if posixpath.basename(name).startswith(_WHITEOUT):
                raise NotReproducible(f"the layer {layer.blob.digest} holds a whiteout: /{name}")
            if name:
                yield member, name, node, content


def layer_members(image: PlatformImage, layer: Layer) -> Iterator[tuple[tarfile.TarInfo, IO[bytes] | None]]:
    """The entries of a layer, its blob checked first; raises RegistryError when it is damaged."""
    for _ in verified_chunks(image.layout, layer.blob):
        pass
    # Not "r|gz" of tarfile, which ends with the first member.
    with (
        gzip.open(blob_path(image.layout, layer.blob.digest)) as plain,
        tarfile.open(fileobj=plain, mode="r|", bufsize=_READ) as source,
    ):
        for member in source:
            yield member, source.extractfile(member) if member.isreg() else None


def _node(member: tarfile.TarInfo) -> tuple[str, Node]:
    kind = _KINDS.get(member.type)
    name = _clean(member.name)
    if kind is None:
        raise NotReproducible(f"/{name[:200]} is a device, a fifo or of an unknown type")
    link = _clean(member.linkname) if kind == "1" else member.linkname if kind == "2" else ""
    prefix = "SCHILY.xattr."
    xattrs = {
        key.removeprefix(prefix): value.encode("utf-8", "surrogateescape")
        for key, value in member.pax_headers.items()
        if key.startswith(prefix + "security.")
    }
    mode = 0o777 if kind == "2" else member.mode & 0o7777
    size = member.size if kind == "0" else 0
    return name, Node(kind, mode, member.uid, member.gid, size, link, xattrs=xattrs)


def _clean(name: str) -> str:
    steps = [s for s in name.split("/") if s not in ("", ".")]
    if ".." in steps or _CONTROL.search(name):
        raise NotReproducible(f"{name[:200]!r} is not a path inside the root file system")
    return "/".join(steps)


def _hash(content: IO[bytes]) -> str:
    sha = hashlib.sha256()
    while chunk := content.read(_CHUNK):
        sha.update(chunk)
    return sha.hexdigest()
