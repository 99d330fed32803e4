"""A registry that writes down what verification read: those very bytes are what is served later."""

from __future__ import annotations

from builder.model.digest import Digest
from builder.model.image import Descriptor
from builder.model.reference import Reference
from builder.signing.collect import Registry


class Witness:
    """Passes every question on, and keeps the manifests, tags and referrers that came back.

    A manifest is read once: who asks again gets the same bytes.
    """

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self.manifests: dict[Digest, tuple[bytes, str]] = {}
        self.tags: dict[str, Digest] = {}
        self.listed: dict[Digest, tuple[Descriptor, ...]] = {}

    def head_manifest(self, ref: Reference) -> Descriptor | None:
        found = self._registry.head_manifest(ref)
        if found is not None and ref.tag is not None and ref.digest is None:
            self.tags[ref.tag] = found.digest
        return found

    def get_manifest(self, ref: Reference) -> tuple[bytes, str, Digest]:
        if ref.digest is not None and ref.digest in self.manifests:
            return *self.manifests[ref.digest], ref.digest
        data, media_type, _ = self._registry.get_manifest(ref)
        digest = Digest.of(data)
        self.manifests[digest] = (data, media_type)
        return data, media_type, digest

    def get_blob_bytes(self, repo: str, descriptor: Descriptor, limit: int) -> bytes:
        return self._registry.get_blob_bytes(repo, descriptor, limit)

    def has_blob(self, repo: str, digest: Digest, size: int | None = None) -> bool:
        return self._registry.has_blob(repo, digest, size)

    def referrers(
        self, repo: str, subject: Digest, artifact_type: str | None = None
    ) -> tuple[Descriptor, ...]:
        found = self._registry.referrers(repo, subject)
        self.listed[subject] = found
        return tuple(d for d in found if artifact_type in (None, d.artifact_type))
