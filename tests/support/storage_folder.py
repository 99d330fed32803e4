"""Writes what a registry keeps the way Distribution's file system driver does."""

from __future__ import annotations

from pathlib import Path

from builder.model.digest import Digest
from builder.model.release import SignedManifest
from tests.support.memory_registry import MemoryRegistry


class StorageFolder:
    """A data folder that grows; nothing is synced to the disk."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self._root = data / "docker" / "registry" / "v2"

    def copy(self, registry: MemoryRegistry) -> None:
        """Everything that a registry in memory has."""
        for (repo, digest), data in registry.blobs.items():
            self.blob(repo, data, digest)
        for (repo, _), (data, _) in registry.manifests.items():
            self.manifest(repo, data)
        for (repo, tag), digest in registry.tags.items():
            self.tag(repo, tag, digest)

    def carrier(self, repo: str, item: SignedManifest) -> None:
        """A carrier with its blobs, under its tag."""
        for digest, data in item.blobs.items():
            self.blob(repo, data, digest)
        self.manifest(repo, item.manifest, item.tag)

    def blob(self, repo: str, data: bytes, digest: Digest | None = None) -> Digest:
        """A blob of a repository."""
        found = digest or Digest.of(data)
        self._write(f"blobs/sha256/{found.hex[:2]}/{found.hex}/data", data)
        self._write(f"repositories/{repo}/_layers/sha256/{found.hex}/link", found.encode())
        return found

    def manifest(self, repo: str, data: bytes, tag: str | None = None) -> Digest:
        """A manifest of a repository, and the tag that points to it."""
        digest = Digest.of(data)
        self._write(f"blobs/sha256/{digest.hex[:2]}/{digest.hex}/data", data)
        self._write(f"repositories/{repo}/_manifests/revisions/sha256/{digest.hex}/link", digest.encode())
        if tag:
            self.tag(repo, tag, digest)
        return digest

    def tag(self, repo: str, tag: str, digest: Digest) -> None:
        """Let a tag point to a manifest."""
        self._write(f"repositories/{repo}/_manifests/tags/{tag}/current/link", digest.encode())

    def _write(self, name: str, data: bytes) -> None:
        path = self._root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
