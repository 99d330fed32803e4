"""What is signed, byte for byte: DSSE envelopes, in-toto statements, simple-signing payloads.

Pure. Every document is dumped once, as canonical JSON, and exactly those bytes are signed and
uploaded. Parsing is strict and raises EvidenceRefused.

Sources: DSSE protocol v1.0 (secure-systems-lab/dsse, protocol.md and envelope.md); in-toto
attestation statement v0.1 and v1 (in-toto/attestation, spec/v1/statement.md); simple signing
(containers/image, containers-signature.5.md) as cosign writes it (cosign, SIGNATURE_SPEC.md).
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import Any

from builder.model.digest import Digest, canonical_json
from builder.signing.refusal import quoted, refuse, strict_json

STATEMENT_V01 = "https://in-toto.io/Statement/v0.1"
STATEMENT_V1 = "https://in-toto.io/Statement/v1"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
SIMPLE_SIGNING = "cosign container image signature"

ENVELOPE_MAX = 48 << 20  # bytes; cosign too slows down with each megabyte
PAYLOAD_MAX = 32 << 20  # bytes of a statement
SIMPLE_SIGNING_MAX = 16 << 10  # bytes
SIGNATURE_MAX = 128  # bytes; DER of ECDSA P-256 is at most 72


@dataclass(frozen=True, slots=True)
class Envelope:
    """A DSSE envelope with exactly one signature (DER)."""

    payload: bytes
    signature: bytes

    @property
    def signed_bytes(self) -> bytes:
        """The bytes that the signature covers."""
        return pae(PAYLOAD_TYPE, self.payload)


@dataclass(frozen=True, slots=True)
class Statement:
    """A parsed in-toto statement about exactly one digest."""

    type: str
    subject: Digest
    predicate_type: str
    predicate: dict[str, Any]


@dataclass(frozen=True, slots=True)
class SimpleSigning:
    """A parsed simple-signing payload: the repository it was made for, and the manifest."""

    repository: str
    digest: Digest


def pae(payload_type: str, payload: bytes) -> bytes:
    """The pre-authentication encoding: `DSSEv1 LEN(type) TYPE LEN(payload) PAYLOAD`, lengths in bytes."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def statement(kind: str, subject: Digest, predicate_type: str, predicate: bytes, name: str = "") -> bytes:
    """An in-toto statement around a predicate that is canonical JSON already.

    v0.1 subjects are named (the repository), as cosign's `.att` has them; v1 subjects are not. The
    result is canonical JSON, and the predicate stands in it unchanged.
    """
    whom: dict[str, Any] = {"digest": {"sha256": subject.hex}}
    if kind == STATEMENT_V01:
        whom["name"] = name
    return b'{"_type":%b,"predicate":%b,"predicateType":%b,"subject":%b}' % (
        canonical_json(kind),
        predicate,
        canonical_json(predicate_type),
        canonical_json([whom]),
    )


def parse_statement(payload: bytes) -> Statement:
    """Parse a statement of either version; other fields than the four are refused."""
    value = strict_json(payload, "statement", PAYLOAD_MAX)
    if set(value) != {"_type", "subject", "predicateType", "predicate"}:
        refuse("unparsable", "the statement has other fields than in-toto's", context=quoted(sorted(value)))
    if value["_type"] not in (STATEMENT_V01, STATEMENT_V1):
        refuse("unparsable", "not an in-toto statement", context=quoted(value["_type"]))
    predicate_type, predicate, subjects = value["predicateType"], value["predicate"], value["subject"]
    if not isinstance(predicate_type, str) or not isinstance(predicate, dict):
        refuse("unparsable", "the statement's predicate is malformed")
    if not isinstance(subjects, list) or len(subjects) != 1 or not isinstance(subjects[0], dict):
        refuse("unparsable", "the statement is not about exactly one subject")
    digests = subjects[0].get("digest")
    if not isinstance(digests, dict) or set(digests) != {"sha256"}:
        refuse("unparsable", "the statement's subject has no sha256 digest, or another one beside it")
    return Statement(value["_type"], _digest(f"sha256:{digests['sha256']}"), predicate_type, predicate)


def envelope(payload: bytes, signature: bytes, *, keyid: bool) -> dict[str, Any]:
    """The envelope as JSON data; `keyid` adds the empty key id that cosign's `.att` has."""
    one: dict[str, Any] = {"sig": base64.b64encode(signature).decode()}
    if keyid:
        one["keyid"] = ""
    return {
        "payload": base64.b64encode(payload).decode(),
        "payloadType": PAYLOAD_TYPE,
        "signatures": [one],
    }


def parse_envelope(value: Any) -> Envelope:
    """Parse an envelope: in-toto payload, exactly one signature, nothing else."""
    if not isinstance(value, dict) or set(value) != {"payload", "payloadType", "signatures"}:
        refuse("unparsable", "not a DSSE envelope")
    if value["payloadType"] != PAYLOAD_TYPE:
        refuse("unparsable", "the envelope holds no in-toto statement", context=quoted(value["payloadType"]))
    signatures = value["signatures"]
    if not isinstance(signatures, list) or len(signatures) != 1:
        count = len(signatures) if isinstance(signatures, list) else 0
        refuse("signature-count", f"the envelope has {count} signatures; exactly one is required")
    one = signatures[0]
    if not isinstance(one, dict) or not {"sig"} <= set(one) <= {"sig", "keyid"}:
        refuse("unparsable", "the envelope's signature is malformed")
    return Envelope(
        decode_base64(value["payload"], "payload", PAYLOAD_MAX),
        decode_base64(one["sig"], "signature", SIGNATURE_MAX),
    )


def simple_signing(repository: str, digest: Digest) -> bytes:
    """The payload of a cosign image signature for `repository` (`HOST/NAME`)."""
    return canonical_json(
        {
            "critical": {
                "identity": {"docker-reference": repository},
                "image": {"docker-manifest-digest": str(digest)},
                "type": SIMPLE_SIGNING,
            },
            "optional": None,
        }
    )


def parse_simple_signing(payload: bytes) -> SimpleSigning:
    """Parse a simple-signing payload; an attestation in its place is refused."""
    value = strict_json(payload, "signature payload", SIMPLE_SIGNING_MAX)
    critical = value.get("critical")
    if not {"critical"} <= set(value) <= {"critical", "optional"} or not isinstance(critical, dict):
        refuse("not-a-signature", "the payload is not an image signature", context=quoted(sorted(value)))
    if set(critical) != {"identity", "image", "type"} or critical["type"] != SIMPLE_SIGNING:
        refuse(
            "not-a-signature", "the payload is not an image signature", context=quoted(critical.get("type"))
        )
    identity, image = critical["identity"], critical["image"]
    if not isinstance(identity, dict) or not isinstance(identity.get("docker-reference"), str):
        refuse("unparsable", "the signature's identity is malformed")
    if not isinstance(image, dict) or set(image) != {"docker-manifest-digest"}:
        refuse("unparsable", "the signature names no manifest")
    return SimpleSigning(identity["docker-reference"], _digest(image["docker-manifest-digest"]))


def decode_base64(value: Any, what: str, size_max: int) -> bytes:
    """Standard base64 with padding (RFC 4648, section 4) to at most `size_max` bytes."""
    if not isinstance(value, str) or len(value) > size_max * 4 // 3 + 4:
        refuse("unparsable", f"the {what} is missing or too large")
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        refuse("unparsable", f"the {what} is not base64")


def canonical(document: bytes, what: str) -> bytes:
    """`document` as canonical JSON: the bytes whose digest a verifier can compute again."""
    value = strict_json(document, what, PAYLOAD_MAX)
    try:
        return canonical_json(value)
    except (ValueError, RecursionError) as error:
        refuse("unparsable", f"the {what} is no plain JSON", context=quoted(str(error)))


def _digest(value: Any) -> Digest:
    try:
        return Digest(value if isinstance(value, str) else "")
    except ValueError:
        refuse("unparsable", "malformed digest", context=quoted(value))
