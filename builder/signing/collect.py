"""Fetches what is attached to a manifest, in both of cosign's formats. The only I/O of verification."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from builder.model.digest import Digest
from builder.model.image import Descriptor
from builder.model.reference import Reference
from builder.oci.manifest import Manifest, parse_manifest
from builder.signing import cosign_parse
from builder.signing.cosign_formats import BUNDLE_TYPE, attestation_tag, signature_tag
from builder.signing.memo import Memo
from builder.signing.refusal import refuse
from builder.signing.statements import ENVELOPE_MAX, SIMPLE_SIGNING_MAX, Envelope

BUNDLES, TAGS = "bundles", "tags"
_BUNDLE_MAX = ENVELOPE_MAX + 4096  # bytes
_TOTAL_MAX = 128 << 20  # bytes of all that is attached to one manifest in one form


class Registry(Protocol):
    """What verification asks of a registry; all raise RegistryError when it cannot be had."""

    def head_manifest(self, ref: Reference) -> Descriptor | None:
        """What the reference points to; None when there is no such tag or digest."""

    def get_manifest(self, ref: Reference) -> tuple[bytes, str, Digest]:
        """A manifest's bytes, media type and digest."""

    def get_blob_bytes(self, repo: str, descriptor: Descriptor, limit: int) -> bytes:
        """A small blob's bytes, with its size and digest checked."""

    def has_blob(self, repo: str, digest: Digest, size: int | None = None) -> bool:
        """Whether the blob is there, with that size."""

    def referrers(
        self, repo: str, subject: Digest, artifact_type: str | None = None
    ) -> tuple[Descriptor, ...]:
        """What refers to a manifest."""


@dataclass(frozen=True, slots=True)
class SignedPayload:
    """A simple-signing payload and the signature over it (DER)."""

    payload: bytes
    signature: bytes


@dataclass(frozen=True, slots=True)
class PromisedEnvelope:
    """An envelope, and the predicate type that its carrier promises (None: it promises nothing)."""

    envelope: Envelope
    predicate_type: str | None


@dataclass(frozen=True, slots=True)
class Attached:
    """What is attached to one manifest in one form; nothing of it is believed yet."""

    form: str
    signatures: tuple[SignedPayload, ...]
    envelopes: tuple[PromisedEnvelope, ...]


def manifest_at(
    registry: Registry, where: Reference, memo: Memo | None = None
) -> tuple[Manifest, Digest, int]:
    """A manifest by digest, its bytes hashed here once more; returns it with digest and size."""
    data, media_type, _ = registry.get_manifest(where)
    digest = Digest.of(data)
    if where.digest is not None and digest != where.digest:
        refuse("digest-mismatch", "the manifest's bytes have another digest", context=f"{where}: {digest}")
    return (memo or Memo()).of(parse_manifest, data, media_type), digest, len(data)


def collect(
    registry: Registry, repository: Reference, subject: Digest, memo: Memo | None = None
) -> tuple[Attached, ...]:
    """All that is attached to `subject`: the bundles first, then the tags, each only when there.

    `memo` has what this run read before. Raises RegistryError when something listed cannot be had,
    EvidenceRefused when it is malformed.
    """
    memo = memo or Memo()
    found = (_bundles(registry, repository, subject, memo), _tags(registry, repository, subject, memo))
    return tuple(x for x in found if x.signatures or x.envelopes)


def _bundles(registry: Registry, repository: Reference, subject: Digest, memo: Memo) -> Attached:
    listed = registry.referrers(repository.name, subject)
    if len(listed) > cosign_parse.REFERRERS_MAX:
        refuse(
            "too-many",
            f"more than {cosign_parse.REFERRERS_MAX} referrers on one manifest",
            context=f"{len(listed)} of them",
            hint="somebody else writes to this repository; publish the image anew into an empty one",
        )
    envelopes, total = [], 0
    for digest in dict.fromkeys(d.digest for d in listed if d.artifact_type == BUNDLE_TYPE):
        manifest, _, _ = manifest_at(registry, repository.with_digest(digest), memo)
        part = cosign_parse.bundle_layer(manifest, subject)
        total = _within_total(total + part.blob.size)
        data = registry.get_blob_bytes(repository.name, part.blob, _BUNDLE_MAX)
        envelopes.append(PromisedEnvelope(memo.of(cosign_parse.parse_bundle, data), part.predicate_type))
    return Attached(BUNDLES, (), tuple(envelopes))


def _tags(registry: Registry, repository: Reference, subject: Digest, memo: Memo) -> Attached:
    signatures: list[SignedPayload] = []
    envelopes: list[PromisedEnvelope] = []
    if carrier := _tagged(registry, repository, signature_tag(subject), memo):
        for layer in cosign_parse.signature_layers(carrier):
            data = registry.get_blob_bytes(repository.name, layer.blob, SIMPLE_SIGNING_MAX)
            signatures.append(SignedPayload(data, layer.signature))
    if carrier := _tagged(registry, repository, attestation_tag(subject), memo):
        parts = cosign_parse.attestation_layers(carrier)
        _within_total(sum(part.blob.size for part in parts))
        for part in parts:
            data = registry.get_blob_bytes(repository.name, part.blob, ENVELOPE_MAX)
            envelope = memo.of(cosign_parse.parse_attestation, data)
            envelopes.append(PromisedEnvelope(envelope, part.predicate_type))
    return Attached(TAGS, tuple(signatures), tuple(envelopes))


def _within_total(size: int) -> int:
    if size > _TOTAL_MAX:
        refuse("too-large", f"more than {_TOTAL_MAX} bytes are attached to one manifest")
    return size


def _tagged(registry: Registry, repository: Reference, tag: str, memo: Memo) -> Manifest | None:
    found = registry.head_manifest(repository.with_tag(tag))
    if found is None:
        return None
    return manifest_at(registry, repository.with_digest(found.digest), memo)[0]
