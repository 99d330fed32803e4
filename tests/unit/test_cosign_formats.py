"""The carriers in both of cosign's formats, byte for byte where bytes matter."""

from __future__ import annotations

import base64
import json

from builder.model.digest import Digest, canonical_json
from builder.model.image import INDEX_TYPE, Descriptor
from builder.signing.cosign_formats import (
    SignedStatement,
    attestation_manifest,
    bundle,
    bundle_referrer,
    signature_manifest,
)

D = Digest("sha256:" + "ab" * 32)
ONE = SignedStatement("https://example.org/p", b'{"one":1}', b"\x30\x01")
TWO = SignedStatement("https://example.org/q", b'{"two":2}', b"\x30\x02")


def test_the_signature_manifest() -> None:
    carrier = signature_manifest(D, b"payload", b"\x30\x00")
    assert carrier.tag == f"sha256-{D.hex}.sig"
    assert carrier.subject is None
    manifest = json.loads(carrier.manifest)
    (layer,) = manifest["layers"]
    assert layer == {
        "mediaType": "application/vnd.dev.cosign.simplesigning.v1+json",
        "digest": str(Digest.of(b"payload")),
        "size": 7,
        "annotations": {"dev.cosignproject.cosign/signature": "MAA="},
    }
    assert carrier.blobs[Digest.of(b"payload")] == b"payload"
    config = json.loads(carrier.blobs[Digest(manifest["config"]["digest"])])
    assert config == {
        "architecture": "",
        "os": "",
        "config": {},
        "created": "0001-01-01T00:00:00Z",
        "rootfs": {"type": "layers", "diff_ids": [str(Digest.of(b"payload"))]},
        "history": [{"created": "0001-01-01T00:00:00Z"}],
    }
    assert carrier.manifest == canonical_json(manifest)


def test_all_attestations_are_in_one_manifest() -> None:
    carrier = attestation_manifest(D, [ONE, TWO])
    assert carrier.tag == f"sha256-{D.hex}.att"
    layers = json.loads(carrier.manifest)["layers"]
    assert [x["annotations"] for x in layers] == [
        {"dev.cosignproject.cosign/signature": "", "predicateType": s.predicate_type} for s in (ONE, TWO)
    ]
    first = json.loads(carrier.blobs[Digest(layers[0]["digest"])])
    assert first == {
        "payload": base64.b64encode(ONE.payload).decode(),
        "payloadType": "application/vnd.in-toto+json",
        "signatures": [{"keyid": "", "sig": "MAE="}],
    }


def test_a_bundle_byte_for_byte() -> None:
    assert bundle(ONE, "hint") == (
        b'{"dsseEnvelope":{"payload":"eyJvbmUiOjF9","payloadType":"application/vnd.in-toto+json",'
        b'"signatures":[{"sig":"MAE="}]},'
        b'"mediaType":"application/vnd.dev.sigstore.bundle.v0.3+json",'
        b'"verificationMaterial":{"publicKey":{"hint":"hint"}}}'
    )


def test_a_referrer_states_its_type_and_its_bare_subject() -> None:
    carrier = bundle_referrer(Descriptor(INDEX_TYPE, D, 99, {"a": "b"}), ONE, "hint", "2026-03-01T12:00:00Z")
    manifest = json.loads(carrier.manifest)
    assert (
        manifest["artifactType"] == carrier.artifact_type == "application/vnd.dev.sigstore.bundle.v0.3+json"
    )
    assert manifest["subject"] == {"mediaType": INDEX_TYPE, "digest": str(D), "size": 99}
    assert manifest["config"] == {
        "mediaType": "application/vnd.oci.empty.v1+json",
        "digest": "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a",
        "size": 2,
    }
    assert manifest["annotations"] == {
        "dev.sigstore.bundle.content": "dsse-envelope",
        "dev.sigstore.bundle.predicateType": "https://example.org/p",
        "org.opencontainers.image.created": "2026-03-01T12:00:00Z",
    }
    assert carrier.annotations == manifest["annotations"]
    assert carrier.tag is None
    assert set(carrier.blobs) == {Digest.of(b"{}"), Digest(manifest["layers"][0]["digest"])}
