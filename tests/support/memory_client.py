"""A registry in memory on the interface of our client: for tests of what is written, without a network."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from builder.errors import RegistryError
from builder.model.digest import Digest
from builder.model.image import INDEX_TYPE, Descriptor
from builder.model.kit import Content
from builder.model.reference import Reference
from builder.oci.faults import RegistryRefused
from builder.oci.manifest import index_bytes, parse_manifest
from tests.support.memory_registry import HOST, MemoryRegistry


class MemoryClient:
    """Reads and writes; `before_write` is called with what is about to be written, and may raise."""

    def __init__(self, referrers_api: bool = False) -> None:
        self.inner = MemoryRegistry()
        self.host = HOST
        self.referrers_api = referrers_api
        self.deletes = referrers_api
        self.writes = 0
        self.before_write: Callable[[str], None] = lambda what: None
        self._lock = threading.RLock()

    def reference(self, repo: str, tag: str | None = None, digest: Digest | None = None) -> Reference:
        return Reference(self.host, repo, tag, digest)

    def repositories(self) -> tuple[str, ...]:
        self.inner._ask("repositories")
        return tuple(sorted({repo for repo, _ in self.inner.manifests}))

    def tags(self, repo: str) -> tuple[str, ...]:
        return tuple(sorted(tag for name, tag in self.inner.tags if name == repo))

    def supports_referrers(self, repo: str) -> bool:
        return self.referrers_api

    def head_manifest(self, ref: Reference) -> Descriptor | None:
        return self.inner.head_manifest(ref)

    def get_manifest(self, ref: Reference) -> tuple[bytes, str, Digest]:
        try:
            return self.inner.get_manifest(ref)
        except RegistryError as error:
            if self.inner.down:
                raise
            raise RegistryRefused(404, error.message, "", "") from None

    def get_blob_bytes(self, repo: str, descriptor: Descriptor, limit: int) -> bytes:
        return self.inner.get_blob_bytes(repo, descriptor, limit)

    def check_blob(self, repo: str, descriptor: Descriptor) -> None:
        self.inner.get_blob_bytes(repo, descriptor, descriptor.size)

    def get_blob(self, repo: str, descriptor: Descriptor, to: Path) -> None:
        to.write_bytes(self.inner.get_blob_bytes(repo, descriptor, descriptor.size))

    def has_blob(self, repo: str, digest: Digest, size: int | None = None) -> bool:
        return self.inner.has_blob(repo, digest, size)

    def referrers(
        self, repo: str, subject: Digest, artifact_type: str | None = None
    ) -> tuple[Descriptor, ...]:
        if self.referrers_api:
            with self._lock:
                return self.inner.referrers(repo, subject, artifact_type)
        return tuple(d for d in self._listed(repo, subject) if artifact_type in (None, d.artifact_type))

    def put_blob(self, repo: str, source: Content, digest: Digest, mount_from: str | None = None) -> int:
        self._write(f"blob {repo}")
        parts = source if isinstance(source, tuple) else (source,)
        data = b"".join(p if isinstance(p, bytes) else p.read_bytes() for p in parts)
        self.inner.blobs[repo, digest] = data
        return len(data)

    def mount_blob(self, repo: str, digest: Digest, source_repo: str) -> bool:
        self._write(f"blob {repo}")
        self.inner.blobs[repo, digest] = self.inner.blobs[source_repo, digest]
        return True

    def put_manifest(self, ref: Reference, data: bytes, media_type: str) -> Digest:
        self._write(f"manifest {ref.name}")
        with self._lock:
            digest = self.inner.put(ref.name, data, media_type)
            if ref.tag:
                self.inner.tags[ref.name, ref.tag] = digest
        return digest

    def put_referrer(self, repo: str, data: bytes, media_type: str) -> bool:
        self.put_manifest(self.reference(repo, digest=Digest.of(data)), data, media_type)
        return self.referrers_api

    def delete_manifest(self, ref: Reference) -> bool:
        if self.deletes:
            self._write(f"delete {ref.name}")
            with self._lock:
                self.inner.manifests.pop((ref.name, ref.digest or Digest.of(b"")), None)
        return self.deletes

    def put_referrers_fallback(
        self,
        repo: str,
        subject: Digest,
        descriptors: Sequence[Descriptor],
        *,
        replace_same_kind: bool = False,
        listed: tuple[Descriptor, ...] | None = None,
    ) -> None:
        kinds = {self._kind(d) for d in descriptors} if replace_same_kind else set()
        new = {d.digest for d in descriptors}
        old = self._listed(repo, subject) if listed is None else listed
        kept = [d for d in old if d.digest not in new and self._kind(d) not in kinds]
        where = self.reference(repo, f"sha256-{subject.hex}")
        self.put_manifest(where, index_bytes((*kept, *descriptors)), INDEX_TYPE)

    def _listed(self, repo: str, subject: Digest) -> tuple[Descriptor, ...]:
        digest = self.inner.tags.get((repo, f"sha256-{subject.hex}"))
        return parse_manifest(*self.inner.manifests[repo, digest]).manifests if digest else ()

    def _kind(self, one: Descriptor) -> str:
        return json.dumps([one.artifact_type, one.annotations.get("dev.sigstore.bundle.predicateType")])

    def _write(self, what: str) -> None:
        self.before_write(what)
        self.writes += 1
