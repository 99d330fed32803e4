"""The signed bytes: vectors of the specifications, and strict reading."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from builder.model.digest import Digest, canonical_json
from builder.signing.refusal import EvidenceRefused, strict_json
from builder.signing.statements import (
    PAYLOAD_TYPE,
    STATEMENT_V01,
    STATEMENT_V1,
    canonical,
    envelope,
    pae,
    parse_envelope,
    parse_simple_signing,
    parse_statement,
    simple_signing,
    statement,
)

D = Digest("sha256:" + "ab" * 32)


def test_pae_is_the_vector_of_the_dsse_protocol() -> None:
    assert pae("http://example.com/HelloWorld", b"hello world") == (
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    )
    assert pae("", b"") == b"DSSEv1 0  0 "
    assert pae("é", "é".encode()) == b"DSSEv1 2 \xc3\xa9 2 \xc3\xa9"


def test_a_statement_is_the_canonical_json_of_the_whole() -> None:
    predicate = {"b": [1, "é"], "a": {"z": None}}
    for kind, subject in (
        (STATEMENT_V01, {"name": "host/name", "digest": {"sha256": D.hex}}),
        (STATEMENT_V1, {"digest": {"sha256": D.hex}}),
    ):
        payload = statement(kind, D, "https://example.org/p", canonical_json(predicate), "host/name")
        assert payload == canonical_json(
            {
                "_type": kind,
                "subject": [subject],
                "predicateType": "https://example.org/p",
                "predicate": predicate,
            }
        )
        parsed = parse_statement(payload)
        assert (parsed.type, parsed.subject, parsed.predicate) == (kind, D, predicate)


def test_the_simple_signing_payload_byte_for_byte() -> None:
    payload = simple_signing("127.0.0.1:5000/candidate/python", D)
    assert payload == (
        b'{"critical":{"identity":{"docker-reference":"127.0.0.1:5000/candidate/python"},'
        b'"image":{"docker-manifest-digest":"sha256:' + b"ab" * 32 + b'"},'
        b'"type":"cosign container image signature"},"optional":null}'
    )
    parsed = parse_simple_signing(payload)
    assert (parsed.repository, parsed.digest) == ("127.0.0.1:5000/candidate/python", D)


def test_an_envelope_byte_for_byte() -> None:
    assert canonical_json(envelope(b"{}", b"\x30", keyid=True)) == (
        b'{"payload":"e30=","payloadType":"application/vnd.in-toto+json",'
        b'"signatures":[{"keyid":"","sig":"MA=="}]}'
    )
    assert b"keyid" not in canonical_json(envelope(b"{}", b"\x30", keyid=False))
    parsed = parse_envelope(envelope(b"{}", b"\x30", keyid=True))
    assert (parsed.payload, parsed.signature) == (b"{}", b"\x30")
    assert parsed.signed_bytes == pae(PAYLOAD_TYPE, b"{}")


def _envelope(**changes: Any) -> dict[str, Any]:
    return {**envelope(b"{}", b"\x30", keyid=True), **changes}


@pytest.mark.parametrize(
    ("value", "reference"),
    [
        (None, "unparsable"),
        ({}, "unparsable"),
        (_envelope(payloadType="text/plain"), "unparsable"),
        (_envelope(extra=1), "unparsable"),
        (_envelope(payload="!!!"), "unparsable"),
        (_envelope(payload=7), "unparsable"),
        (_envelope(signatures=[]), "signature-count"),
        (_envelope(signatures=[{"sig": "MA=="}] * 2), "signature-count"),
        (_envelope(signatures="MA=="), "signature-count"),
        (_envelope(signatures=["MA=="]), "unparsable"),
        (_envelope(signatures=[{"keyid": ""}]), "unparsable"),
        (_envelope(signatures=[{"sig": "MA==", "cert": "x"}]), "unparsable"),
        (_envelope(signatures=[{"sig": base64.b64encode(b"x" * 5000).decode()}]), "unparsable"),
    ],
)
def test_bad_envelopes_are_refused(value: Any, reference: str) -> None:
    with pytest.raises(EvidenceRefused) as raised:
        parse_envelope(value)
    assert raised.value.reference == reference


def _statement(**changes: Any) -> bytes:
    good = {
        "_type": STATEMENT_V1,
        "subject": [{"digest": {"sha256": D.hex}}],
        "predicateType": "https://example.org/p",
        "predicate": {},
    }
    return json.dumps({**good, **changes}).encode()


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"[]",
        b"{}",
        _statement()[:-1],
        _statement() + b"{}",
        b"\xff" + _statement(),
        _statement(_type="https://in-toto.io/Statement/v2"),
        _statement(extra=1),
        _statement(predicate=[]),
        _statement(predicateType=None),
        _statement(subject=[]),
        _statement(subject=[{"digest": {"sha256": D.hex}}] * 2),
        _statement(subject=[{"digest": {"sha512": "ab" * 64}}]),
        _statement(subject=[{"digest": {"sha256": D.hex, "sha512": "ab" * 64}}]),
        _statement(subject=[{"digest": {"sha256": D.hex.upper()}}]),
        _statement(subject=[{"digest": {"sha256": {}}}]),
        _statement(predicate={"n": float("nan")}),
        _statement().replace(b'"predicate": {}', b'"predicate": {"a":1,"a":2}'),
        _statement().replace(b'"predicate": {}', b'"predicate": ' + b'{"a":' * 20000 + b"1" + b"}" * 20000),
    ],
)
def test_bad_statements_are_refused(payload: bytes) -> None:
    with pytest.raises(EvidenceRefused):
        parse_statement(payload)


@pytest.mark.parametrize(
    ("change", "reference"),
    [
        ({"critical": {"type": "x", "image": {}, "identity": {}}}, "not-a-signature"),
        ({"_type": STATEMENT_V1}, "not-a-signature"),
        ({"critical": None}, "not-a-signature"),
        ({"optional": {"creator": "x"}}, None),
    ],
)
def test_only_image_signatures_are_read_as_such(change: dict[str, Any], reference: str | None) -> None:
    payload = json.dumps({**json.loads(simple_signing("host/name", D)), **change}).encode()
    if reference is None:
        assert parse_simple_signing(payload).digest == D
        return
    with pytest.raises(EvidenceRefused) as raised:
        parse_simple_signing(payload)
    assert raised.value.reference == reference


def test_a_statement_is_never_read_as_a_signature() -> None:
    with pytest.raises(EvidenceRefused) as raised:
        parse_simple_signing(statement(STATEMENT_V01, D, "https://cyclonedx.org/bom", b"{}"))
    assert raised.value.reference == "not-a-signature"


def test_json_has_a_size_limit() -> None:
    with pytest.raises(EvidenceRefused) as raised:
        strict_json(b'{"a":"' + b"x" * 100 + b'"}', "document", 50)
    assert raised.value.reference == "too-large"


def test_canonical_keeps_large_integers_and_refuses_overflowing_numbers() -> None:
    assert (
        canonical(b'{"n": 123456789012345678, "a": 1.5}', "document") == b'{"a":1.5,"n":123456789012345678}'
    )
    with pytest.raises(EvidenceRefused):
        canonical(b'{"n": 1e999}', "document")
