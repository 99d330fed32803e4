"""A signed image, ready to publish: every byte that goes to the registry, and where."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from builder.model.digest import Digest
from builder.model.image import BuiltImage, Descriptor
from builder.model.kit import PackedKit
from builder.model.verdict import Verdict


@dataclass(frozen=True, slots=True)
class SignedManifest:
    """A manifest that carries signatures, the small blobs it names, and its tag or subject.

    Exactly one of `tag` (cosign's `sha256-HEX.sig` and `.att`) and `subject` (a referrer) is set.
    """

    manifest: bytes
    media_type: str
    blobs: Mapping[Digest, bytes]
    tag: str | None = None
    subject: Descriptor | None = None
    artifact_type: str | None = None
    annotations: Mapping[str, str] | None = None

    @property
    def digest(self) -> Digest:
        """The digest of the manifest."""
        return Digest.of(self.manifest)

    @property
    def entry(self) -> Descriptor:
        """The manifest as a list of referrers describes it."""
        return Descriptor(
            self.media_type,
            self.digest,
            len(self.manifest),
            annotations=dict(self.annotations or {}),
            artifact_type=self.artifact_type,
        )


@dataclass(frozen=True, slots=True)
class SignedImage:
    """The image, its verdict, and all signatures and attestations of its index and platforms.

    `kit` is what it was built of, to be published with it.
    """

    image: BuiltImage
    verdict: Verdict
    signatures: tuple[SignedManifest, ...]
    kit: PackedKit | None = None


@dataclass(frozen=True, slots=True)
class PublishedImage:
    """Where an image went: the repository reference by digest, and the tags that point to it."""

    reference: str
    digest: Digest
    tags: tuple[str, ...]
    uploaded_bytes: int
