"""A registry that is asked everything once: what is read of an image is of one moment."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from builder.model.digest import Digest
from builder.model.image import Descriptor
from builder.model.reference import Reference
from builder.oci.faults import RegistryRefused
from builder.signing.collect import Registry
from registry.storage.folder import FolderRegistry

_MISSING = 404
T = TypeVar("T")


class Once:
    """The manifests and listings of another registry, each asked for once; blobs are not kept.

    For the time that one image is read: so its mark is the state of the evidence that was read.
    """

    def __init__(self, inner: Registry) -> None:
        self._inner = inner
        # Of a folder, the head is not had for less than the whole.
        self._whole = isinstance(inner, FolderRegistry)
        self._known: dict[tuple[object, ...], Any] = {}

    def head_manifest(self, ref: Reference) -> Descriptor | None:
        """What the reference points to."""
        if not self._whole:
            return self._once(("head", ref), lambda: self._inner.head_manifest(ref))
        found = self._manifest(ref)
        if isinstance(found, RegistryRefused):
            return None
        data, media_type, digest = found
        return Descriptor(media_type, digest, len(data))

    def get_manifest(self, ref: Reference) -> tuple[bytes, str, Digest]:
        """A manifest's bytes, media type and digest."""
        found = self._manifest(ref)
        if isinstance(found, RegistryRefused):
            raise found
        return found

    def get_blob_bytes(self, repo: str, descriptor: Descriptor, limit: int) -> bytes:
        """A small blob's bytes."""
        return self._inner.get_blob_bytes(repo, descriptor, limit)

    def has_blob(self, repo: str, digest: Digest, size: int | None = None) -> bool:
        """Whether the blob is there."""
        return self._inner.has_blob(repo, digest, size)

    def referrers(
        self, repo: str, subject: Digest, artifact_type: str | None = None
    ) -> tuple[Descriptor, ...]:
        """What refers to a manifest."""
        key = ("referrers", repo, subject, artifact_type)
        return self._once(key, lambda: self._inner.referrers(repo, subject, artifact_type))

    def _manifest(self, ref: Reference) -> tuple[bytes, str, Digest] | RegistryRefused:
        def ask() -> tuple[bytes, str, Digest] | RegistryRefused:
            try:
                return self._inner.get_manifest(ref)
            except RegistryRefused as error:
                if error.status != _MISSING:
                    raise
                return error

        return self._once(("manifest", ref), ask)

    def _once(self, key: tuple[object, ...], ask: Callable[[], T]) -> T:
        if key not in self._known:
            self._known[key] = ask()
        found: T = self._known[key]
        return found
