"""The storage's own folder, read as a registry: for work on everything that is in it, on the same machine.

Distribution keeps each blob under its digest and, for each repository, links that say which manifests,
tags and blobs it has (its "filesystem" storage driver, `registry/storage/paths.go`, version 2). Every
byte is hashed when it is read, as over the network. Nothing is written.
"""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path

from builder.errors import RegistryError
from builder.model.digest import Digest
from builder.model.image import Descriptor
from builder.model.reference import Reference
from builder.oci.faults import RegistryRefused
from builder.oci.manifest import MANIFEST_MAX, parse_manifest, stated_type
from builder.store import read_file

_LINK_MAX = 200  # bytes
_DEPTH_MAX = 16  # parts of a repository's name


class FolderRegistry:
    """The registry in Distribution's data folder; all operations raise RegistryError."""

    def __init__(self, host: str, data: Path) -> None:
        root = data / "docker" / "registry" / "v2"
        self.host = host
        self._repositories = root / "repositories"
        self._links = str(self._repositories)
        self._blobs = str(root / "blobs" / "sha256")

    def repositories(self) -> tuple[str, ...]:
        """The names of all repositories, sorted."""
        if not self._repositories.is_dir():
            raise RegistryError("the storage's folder is missing", context=str(self._repositories))
        found: list[str] = []
        for folder, below, _ in os.walk(self._repositories):
            name = Path(folder).relative_to(self._repositories)
            if "_manifests" in below:
                found.append(name.as_posix())
            below[:] = [n for n in below if not n.startswith("_") and len(name.parts) < _DEPTH_MAX]
        return tuple(sorted(found))

    def tags(self, repo: str) -> tuple[str, ...]:
        """All tags of a repository, sorted; empty when there is no such repository."""
        folder = self._repository(repo) / "_manifests" / "tags"
        try:
            return tuple(sorted(e.name for e in os.scandir(folder) if e.is_dir()))
        except FileNotFoundError:
            return ()
        except OSError as error:
            raise _unreadable(error) from None

    def points_to(self, ref: Reference) -> Digest | None:
        """The digest that a tag has; what lies there is not looked at. None when there is no such tag."""
        return self._digest(ref)

    def head_manifest(self, ref: Reference) -> Descriptor | None:
        """What the reference points to; None when there is no such tag or digest."""
        if self._digest(ref) is None:
            return None
        data, media_type, digest = self.get_manifest(ref)
        return Descriptor(media_type, digest, len(data))

    def get_manifest(self, ref: Reference) -> tuple[bytes, str, Digest]:
        """A manifest's bytes, media type and digest."""
        digest = self._digest(ref)
        if digest is None:
            raise RegistryRefused(404, f"{ref} is not in the registry", "", "")
        data = self._read(digest, MANIFEST_MAX)
        return data, stated_type(data), digest

    def get_blob_bytes(self, repo: str, descriptor: Descriptor, limit: int) -> bytes:
        """A small blob's bytes, with its size and digest checked."""
        if descriptor.size > limit or not self._holds(repo, descriptor.digest):
            raise RegistryError(
                f"the blob {descriptor.digest.short} is missing or too large", context=f"{repo}: {limit}"
            )
        data = self._read(descriptor.digest, limit)
        if len(data) != descriptor.size:
            raise RegistryError("a blob has another size", context=descriptor.digest)
        return data

    def has_blob(self, repo: str, digest: Digest, size: int | None = None) -> bool:
        """Whether the blob is there, with that size."""
        try:
            there = Path(self._data(digest)).stat().st_size
        except OSError:
            return False
        return self._holds(repo, digest) and size in (None, there)

    def referrers(
        self, repo: str, subject: Digest, artifact_type: str | None = None
    ) -> tuple[Descriptor, ...]:
        """What refers to a manifest, by the fallback tag."""
        ref = Reference(self.host, repo, f"sha256-{subject.hex}")
        if self._digest(ref) is None:
            return ()
        data, media_type, _ = self.get_manifest(ref)
        listed = parse_manifest(data, media_type).manifests
        return tuple(d for d in listed if artifact_type in (None, d.artifact_type))

    def _digest(self, ref: Reference) -> Digest | None:
        """What the repository's links say; a digest counts when the repository has it."""
        digest = ref.digest
        if digest is None:
            digest = self._linked(self._link(ref.name, "_manifests/tags", ref.tag or "", "current"))
        if digest is None:
            return None
        return self._linked(self._link(ref.name, "_manifests/revisions/sha256", digest.hex))

    def _holds(self, repo: str, digest: Digest) -> bool:
        return Path(self._link(repo, "_layers/sha256", digest.hex)).is_file()

    def _linked(self, path: str) -> Digest | None:
        try:
            return Digest(read_file(path, _LINK_MAX).decode("ascii").strip())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise _unreadable(error) from None

    def _read(self, digest: Digest, limit: int) -> bytes:
        try:
            data = read_file(self._data(digest), limit)
        except OSError as error:
            raise _unreadable(error) from None
        if Digest.of(data) != digest:
            raise RegistryError("the storage holds other bytes than the digest says", context=digest)
        return data

    def _repository(self, name: str) -> Path:
        return self._repositories / _checked(name)

    # Text, not Path: these are made dozens of times for each image.
    def _link(self, repo: str, *parts: str) -> str:
        return "/".join((self._links, _checked(repo), *parts, "link"))

    def _data(self, digest: Digest) -> str:
        return f"{self._blobs}/{digest.hex[:2]}/{digest.hex}/data"


@lru_cache(maxsize=1024)
def _checked(name: str) -> str:
    """The name of a repository; raises ValueError for anything else, which may lead elsewhere."""
    return Reference("localhost", name).name


def _unreadable(error: Exception) -> RegistryError:
    return RegistryError("the storage's folder cannot be read", context=str(error)[:300])
