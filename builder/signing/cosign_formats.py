"""Both of cosign's formats, written: tags `.sig` and `.att`, and Sigstore bundles as referrers.

Pure. For each subject (the index, each platform manifest) the image signature and all
attestations go into one `.sig` manifest, one `.att` manifest, and one referrer for each
statement. cosign 2, skopeo and podman read the tags; cosign 3 reads the referrers first.

Sources: cosign, specs/SIGNATURE_SPEC.md, ATTESTATION_SPEC.md and BUNDLE_SPEC.md; Sigstore bundle
v0.3 (sigstore/protobuf-specs, sigstore_bundle.proto); OCI image specification 1.1, manifest.md,
"Guidelines for artifact usage".
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from builder.model.digest import Digest, canonical_json
from builder.model.image import CONFIG_TYPE, MANIFEST_TYPE, Descriptor
from builder.model.release import SignedManifest
from builder.signing.statements import envelope

SIMPLE_SIGNING_TYPE = "application/vnd.dev.cosign.simplesigning.v1+json"
DSSE_TYPE = "application/vnd.dsse.envelope.v1+json"
BUNDLE_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
EMPTY_TYPE = "application/vnd.oci.empty.v1+json"
EMPTY = b"{}"
SIGNATURE_ANNOTATION = "dev.cosignproject.cosign/signature"
PREDICATE_ANNOTATION = "predicateType"
BUNDLE_CONTENT_ANNOTATION = "dev.sigstore.bundle.content"
BUNDLE_PREDICATE_ANNOTATION = "dev.sigstore.bundle.predicateType"
CREATED_ANNOTATION = "org.opencontainers.image.created"

_NO_TIME = "0001-01-01T00:00:00Z"  # what cosign writes: these configurations run nothing


@dataclass(frozen=True, slots=True)
class SignedStatement:
    """An in-toto statement, its signature (DER, over its PAE), and its predicate type."""

    predicate_type: str
    payload: bytes
    signature: bytes


def signature_tag(digest: Digest) -> str:
    """The tag of a manifest's signatures."""
    return f"sha256-{digest.hex}.sig"


def attestation_tag(digest: Digest) -> str:
    """The tag of a manifest's attestations."""
    return f"sha256-{digest.hex}.att"


def signature_manifest(subject: Digest, payload: bytes, signature: bytes) -> SignedManifest:
    """The `.sig` manifest: one simple-signing payload, the signature in an annotation."""
    return signatures_manifest(subject, [(payload, signature)])


def signatures_manifest(subject: Digest, signed: Sequence[tuple[bytes, bytes]]) -> SignedManifest:
    """The `.sig` manifest of several payloads with their signatures: one for each name of the image."""
    layers = [
        (payload, {SIGNATURE_ANNOTATION: base64.b64encode(signature).decode()})
        for payload, signature in signed
    ]
    return _carrier(signature_tag(subject), SIMPLE_SIGNING_TYPE, layers)


def attestation_manifest(subject: Digest, statements: Sequence[SignedStatement]) -> SignedManifest:
    """The `.att` manifest: one DSSE envelope a layer, all of them in this one manifest.

    cosign reads, appends and writes this tag; parallel writers lose layers, so it is written once.
    """
    layers = [
        (
            canonical_json(envelope(s.payload, s.signature, keyid=True)),
            {SIGNATURE_ANNOTATION: "", PREDICATE_ANNOTATION: s.predicate_type},
        )
        for s in statements
    ]
    return _carrier(attestation_tag(subject), DSSE_TYPE, layers)


def bundle(statement: SignedStatement, hint: str) -> bytes:
    """A Sigstore bundle v0.3 of a statement that was signed by a key and logged nowhere."""
    return canonical_json(
        {
            "mediaType": BUNDLE_TYPE,
            "verificationMaterial": {"publicKey": {"hint": hint}},
            "dsseEnvelope": envelope(statement.payload, statement.signature, keyid=False),
        }
    )


def bundle_referrer(
    subject: Descriptor, statement: SignedStatement, hint: str, created: str | None = None
) -> SignedManifest:
    """The referrer that carries one bundle; `created` (RFC 3339) only where time is content."""
    data = bundle(statement, hint)
    annotations = {
        BUNDLE_CONTENT_ANNOTATION: "dsse-envelope",
        BUNDLE_PREDICATE_ANNOTATION: statement.predicate_type,
        **({CREATED_ANNOTATION: created} if created else {}),
    }
    bare = Descriptor(subject.media_type, subject.digest, subject.size)
    manifest = canonical_json(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            # Written in full: where it is missing, readers that filter by type find nothing.
            "artifactType": BUNDLE_TYPE,
            "config": _descriptor(EMPTY_TYPE, EMPTY),
            "layers": [_descriptor(BUNDLE_TYPE, data)],
            "annotations": annotations,
            "subject": bare.as_dict(),
        }
    )
    return SignedManifest(
        manifest=manifest,
        media_type=MANIFEST_TYPE,
        blobs={Digest.of(EMPTY): EMPTY, Digest.of(data): data},
        subject=bare,
        artifact_type=BUNDLE_TYPE,
        annotations=annotations,
    )


def carrier_config(layers: Sequence[Digest]) -> bytes:
    """The configuration of a `.sig` or `.att` manifest with those layers: it says nothing else."""
    return canonical_json(
        {
            "architecture": "",
            "os": "",
            "config": {},
            "created": _NO_TIME,
            "rootfs": {"type": "layers", "diff_ids": [str(digest) for digest in layers]},
            "history": [{"created": _NO_TIME} for _ in layers],
        }
    )


def _carrier(tag: str, layer_type: str, layers: Sequence[tuple[bytes, Mapping[str, str]]]) -> SignedManifest:
    config = carrier_config([Digest.of(data) for data, _ in layers])
    manifest = canonical_json(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "config": _descriptor(CONFIG_TYPE, config),
            "layers": [_descriptor(layer_type, data, annotations) for data, annotations in layers],
        }
    )
    blobs = {Digest.of(data): data for data in (config, *(data for data, _ in layers))}
    return SignedManifest(manifest=manifest, media_type=MANIFEST_TYPE, blobs=blobs, tag=tag)


def _descriptor(media_type: str, data: bytes, annotations: Mapping[str, str] | None = None) -> dict[str, Any]:
    out: dict[str, Any] = {"mediaType": media_type, "digest": str(Digest.of(data)), "size": len(data)}
    if annotations:
        out["annotations"] = dict(annotations)
    return out
