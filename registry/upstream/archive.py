"""A tar file on disk that holds an image: listed once, read by place, never unpacked by its names."""

from __future__ import annotations

import hashlib
import os
import posixpath
from collections.abc import Iterator
from pathlib import Path

from builder.errors import UsageError
from builder.model.digest import Digest
from builder.model.image import INDEX_TYPE, Descriptor
from builder.oci.layout import replacing
from builder.oci.manifest import MANIFEST_MAX, parse_json, parse_manifest
from registry.upstream.refusal import quoted, refuse
from registry.upstream.tar import Member, clean, members

_ENTRIES_MAX = 50_000
_CHUNK = 1 << 20  # bytes
_GZIP = b"\x1f\x8b"


class Archive:
    """The members of a tar file by name; raises UsageError when it is no tar, ImportRefused when unsafe."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._members: dict[str, Member] = {}
        try:
            if not path.is_file():
                raise UsageError(f"there is no file {path}", hint="HOST/NAME@sha256:… or a file or folder")
            with open(path, "rb") as handle:
                if handle.read(2) == _GZIP:
                    raise UsageError(f"{path} is compressed", hint="unpack it first: gunzip")
                handle.seek(0)

                def skip(size: int) -> object:
                    return handle.seek(size, os.SEEK_CUR)

                for member, _ in members(handle, path.name, _ENTRIES_MAX, skip):
                    self._add(member)
        except OSError as error:
            raise UsageError(f"cannot read {path}", context=str(error)) from None

    def _add(self, member: Member) -> None:
        if member.kind not in ("file", "directory", "link", "hard link"):
            refuse("malformed-tar", f"{self.path.name} holds a {member.kind}", context=quoted(member.name))
        if member.kind == "directory":
            return
        if member.name in self._members:
            refuse("malformed-tar", f"{self.path.name} holds a name twice", context=quoted(member.name))
        self._members[member.name] = member

    def has(self, name: str) -> bool:
        """Whether there is a file of that name."""
        return name in self._members

    def small(self, name: str, limit: int = MANIFEST_MAX) -> bytes:
        """A small file's bytes."""
        member = self._find(name)
        if member.size > limit:
            refuse("too-large", f"{quoted(name)} is larger than {limit} bytes")
        return b"".join(self._chunks(member))

    def chunks(self, name: str) -> Iterator[bytes]:
        """A file's bytes in pieces."""
        return self._chunks(self._find(name))

    def layout_index(self) -> tuple[Descriptor, ...]:
        """What the `index.json` of a layout points to."""
        marker = parse_json(self.small("oci-layout"), "oci-layout file")
        if marker.get("imageLayoutVersion") != "1.0.0":
            refuse("malformed-layout", f"{self.path.name} is not an OCI layout of version 1.0.0")
        return parse_manifest(self.small("index.json"), INDEX_TYPE, default=INDEX_TYPE).manifests

    def blob(self, descriptor: Descriptor, limit: int) -> bytes:
        """A small blob's bytes, with size and digest checked."""
        data = self.small(_blob(descriptor), limit)
        if len(data) != descriptor.size or Digest.of(data) != descriptor.digest:
            self._other(descriptor)
        return data

    def size(self, name: str) -> int | None:
        """A file's size; None when it is not there."""
        member = self._members.get(name)
        return None if member is None or member.kind != "file" else member.size

    def blobs(self) -> frozenset[Digest]:
        """The digests of all blobs, by their names."""
        folder = "blobs/sha256/"
        names = (n.removeprefix(folder) for n in self._members if n.startswith(folder))
        return frozenset(Digest(f"sha256:{n}") for n in names if len(n) == 64)

    def verified(self, descriptor: Descriptor) -> Iterator[bytes]:
        """A blob's bytes in pieces; raises ImportRefused at the end unless size and digest agreed."""
        sha, size = hashlib.sha256(), 0
        for chunk in self.chunks(_blob(descriptor)):
            sha.update(chunk)
            size += len(chunk)
            yield chunk
        if size != descriptor.size or sha.hexdigest() != descriptor.digest.hex:
            self._other(descriptor)

    def copy_blob(self, descriptor: Descriptor, to: Path) -> None:
        """Write a blob to `to`, which appears only when size and digest agree."""
        with replacing(to) as out:
            for chunk in self.verified(descriptor):
                out.write(chunk)

    def _find(self, name: str) -> Member:
        member = self._members.get(name)
        if member is not None and member.kind != "file":
            # Older `docker save` links a layer that comes twice; one step, inside the archive.
            base = posixpath.dirname(name) if member.kind == "link" else ""
            member = self._members.get(
                clean(posixpath.normpath(posixpath.join("/", base, member.link))[1:], name)
            )
        if member is None or member.kind != "file":
            refuse("incomplete", f"{self.path.name} lacks a part of the image", context=quoted(name))
        return member

    def _chunks(self, member: Member) -> Iterator[bytes]:
        with open(self.path, "rb") as handle:
            handle.seek(member.offset)
            left = member.size
            while left:
                chunk = handle.read(min(left, _CHUNK))
                if not chunk:
                    refuse("malformed-tar", f"{self.path.name} was cut off meanwhile")
                left -= len(chunk)
                yield chunk

    def _other(self, descriptor: Descriptor) -> None:
        refuse(
            "other-content",
            f"{self.path.name} holds other content than its digest says",
            context=descriptor.digest,
        )


def _blob(descriptor: Descriptor) -> str:
    return f"blobs/sha256/{descriptor.digest.hex}"
