"""Both of cosign's formats, read back as if by an enemy: the counterpart of `cosign_formats`.

Pure: manifests and blobs in, payloads and signatures out. Nothing is believed here yet: keys and
digests are compared in `verify`. Raises EvidenceRefused for what we would never have written.
"""

from __future__ import annotations

from dataclasses import dataclass

from builder.model.digest import Digest
from builder.model.image import MANIFEST_TYPE, Descriptor
from builder.oci.manifest import Manifest
from builder.signing.cosign_formats import (
    BUNDLE_PREDICATE_ANNOTATION,
    BUNDLE_TYPE,
    DSSE_TYPE,
    EMPTY,
    EMPTY_TYPE,
    PREDICATE_ANNOTATION,
    SIGNATURE_ANNOTATION,
    SIMPLE_SIGNING_TYPE,
)
from builder.signing.refusal import quoted, refuse, strict_json
from builder.signing.statements import (
    ENVELOPE_MAX,
    SIGNATURE_MAX,
    SIMPLE_SIGNING_MAX,
    Envelope,
    decode_base64,
    parse_envelope,
)

SIGNATURES_MAX = 16  # layers of a `.sig`
ATTESTATIONS_MAX = 64  # layers of an `.att`
REFERRERS_MAX = 512  # of one subject
_LAYER_OVERHEAD = 4096  # bytes that a bundle has around its envelope


@dataclass(frozen=True, slots=True)
class SignatureLayer:
    """A layer of a `.sig`: its payload's blob, and the signature over it (DER)."""

    blob: Descriptor
    signature: bytes


@dataclass(frozen=True, slots=True)
class StatementBlob:
    """A blob that holds an envelope or a bundle, and the predicate type that its carrier promises."""

    blob: Descriptor
    predicate_type: str | None


def signature_layers(manifest: Manifest) -> tuple[SignatureLayer, ...]:
    """The layers of a `.sig` manifest: at least one, each a simple-signing payload."""
    _check_carrier(manifest, "signature", SIMPLE_SIGNING_TYPE, SIGNATURES_MAX, SIMPLE_SIGNING_MAX)
    return tuple(
        SignatureLayer(
            layer,
            decode_base64(layer.annotations.get(SIGNATURE_ANNOTATION), "signature", SIGNATURE_MAX),
        )
        for layer in manifest.layers
    )


def attestation_layers(manifest: Manifest) -> tuple[StatementBlob, ...]:
    """The layers of an `.att` manifest: at least one, each a DSSE envelope."""
    _check_carrier(manifest, "attestation", DSSE_TYPE, ATTESTATIONS_MAX, ENVELOPE_MAX)
    return tuple(StatementBlob(x, x.annotations.get(PREDICATE_ANNOTATION)) for x in manifest.layers)


def bundle_layer(manifest: Manifest, subject: Digest) -> StatementBlob:
    """The one bundle of a referrer; its subject has to be the one we asked about."""
    if manifest.subject is None or manifest.subject.digest != subject:
        refuse(
            "subject-mismatch",
            "a referrer belongs to another manifest",
            context=quoted(str(manifest.subject and manifest.subject.digest)),
        )
    if manifest.artifact_type != BUNDLE_TYPE or manifest.config is None:
        refuse("unparsable", "a referrer is no Sigstore bundle", context=quoted(manifest.artifact_type))
    if (manifest.config.media_type, manifest.config.digest) != (EMPTY_TYPE, Digest.of(EMPTY)):
        refuse("unparsable", "a bundle's referrer has a configuration")
    limit = ENVELOPE_MAX + _LAYER_OVERHEAD
    _check_carrier(manifest, "bundle", BUNDLE_TYPE, 1, limit)
    return StatementBlob(manifest.layers[0], manifest.annotations.get(BUNDLE_PREDICATE_ANNOTATION))


def parse_attestation(data: bytes) -> Envelope:
    """The envelope in a layer of an `.att`."""
    return parse_envelope(strict_json(data, "attestation", ENVELOPE_MAX))


def parse_bundle(data: bytes) -> Envelope:
    """The envelope in a Sigstore bundle v0.3 that was signed with a key.

    The hint is not compared with anything: which key is tried follows from the predicate type.
    """
    value = strict_json(data, "bundle", ENVELOPE_MAX + _LAYER_OVERHEAD)
    if set(value) != {"mediaType", "verificationMaterial", "dsseEnvelope"}:
        refuse("unparsable", "the bundle has missing or unknown fields", context=quoted(sorted(value)))
    if value["mediaType"] != BUNDLE_TYPE:
        refuse("unparsable", "not a Sigstore bundle v0.3", context=quoted(value["mediaType"]))
    material = value["verificationMaterial"]
    # cosign writes an empty list of log entries; an entry would be a claim that nobody checked.
    if (
        not isinstance(material, dict)
        or not isinstance(material.get("publicKey"), dict)
        or not set(material) <= {"publicKey", "tlogEntries"}
        or material.get("tlogEntries", []) != []
    ):
        refuse("unparsable", "the bundle is not signed with a key", context=quoted(material))
    return parse_envelope(value["dsseEnvelope"])


def _check_carrier(manifest: Manifest, what: str, layer_type: str, count_max: int, size_max: int) -> None:
    if manifest.media_type != MANIFEST_TYPE:
        refuse("unparsable", f"the {what} manifest is no image manifest", context=manifest.media_type)
    if not manifest.layers:
        refuse("unparsable", f"the {what} manifest has no layer")
    if len(manifest.layers) > count_max:
        refuse(
            "too-many",
            f"more than {count_max} {what}s on one manifest",
            context=f"{len(manifest.layers)} of them",
            hint="somebody else writes to this repository; publish the image anew into an empty one",
        )
    for layer in manifest.layers:
        if layer.media_type != layer_type:
            refuse(
                "not-a-signature" if layer_type == SIMPLE_SIGNING_TYPE else "unparsable",
                f"a layer of the {what} manifest is something else",
                context=quoted(layer.media_type),
            )
        if layer.size > size_max:
            refuse("too-large", f"a layer of the {what} manifest is larger than {size_max} bytes")
