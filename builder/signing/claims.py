"""From attached bytes to claims that are believed: signature, key of the role, subject, predicate.

Pure. The step numbers are those of `verify`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from builder.model.channel import ChannelRecord
from builder.model.digest import Digest, canonical_json
from builder.model.verdict import Verdict
from builder.signing import channels, predicates, verdicts
from builder.signing.collect import BUNDLES, Attached, PromisedEnvelope, SignedPayload
from builder.signing.keys import APPROVER, BUILDER, VERDICT
from builder.signing.predicates import (
    CHANNEL_TYPE,
    ROLE_OF,
    SIGNATURE_TYPE,
    TEST_RESULT_TYPE,
    VERDICT_TYPE,
    VEX_TYPE,
    VULNERABILITY_TYPE,
    Provenance,
)
from builder.signing.refusal import EvidenceRefused, quoted, refuse
from builder.signing.statements import Statement, parse_simple_signing, parse_statement
from builder.signing.trust import Trust

_PARSERS: Mapping[str, Callable[[Mapping[str, Any]], object]] = {
    predicates.PROVENANCE_TYPE: predicates.parse_provenance,
    predicates.CYCLONEDX_TYPE: predicates.parse_cyclonedx,
    predicates.SPDX_TYPE: predicates.parse_spdx,
    predicates.VULNERABILITY_TYPE: predicates.parse_vulnerabilities,
    predicates.TEST_RESULT_TYPE: predicates.parse_test_result,
    VERDICT_TYPE: verdicts.decode,
    CHANNEL_TYPE: channels.decode,
    VEX_TYPE: predicates.parse_openvex,
}
_REPORTS = (VULNERABILITY_TYPE, TEST_RESULT_TYPE, VEX_TYPE)


@dataclass(frozen=True, slots=True)
class Claims:
    """What trusted keys say of one manifest in one form; `ignored` counts statements of no known type.

    `cyclonedx` maps the digest of each SBOM as canonical JSON to what it names (NAME=VERSION).
    `verdict` is the newest one. `channels` are the records of decisions on the image; `reports`
    are the vulnerability and check reports, and OpenVEX documents, with their predicate types.
    """

    form: str
    types: frozenset[str]
    verdict: Verdict
    provenances: tuple[Provenance, ...]
    cyclonedx: Mapping[str, frozenset[str]]
    repositories: frozenset[str]
    ignored: int
    channels: tuple[ChannelRecord, ...] = ()
    reports: tuple[tuple[str, Mapping[str, Any]], ...] = ()


def believe(attached: Attached, subject: Digest, required: frozenset[str], trust: Trust) -> Claims:
    """Steps 3 to 5 for one form of one manifest; raises EvidenceRefused with the first flaw."""
    repositories = frozenset(_check_signature(s, subject, trust) for s in attached.signatures)
    statements = [_check_statement(e, subject, trust) for e in attached.envelopes]
    known = [s for s in statements if s is not None]
    types = {s.predicate_type for s in known}
    # 3. at least one signature of the image itself: an attestation is none
    signed = SIGNATURE_TYPE in types if attached.form == BUNDLES else bool(attached.signatures)
    if not signed:
        refuse("signature-missing", f"there is no signature of {subject} among the {attached.form}")
    # 5. everything that is demanded is there, once or more, and all of it parses
    parsed: dict[str, list[object]] = {t: [] for t in _PARSERS}
    for one in known:
        if one.predicate_type == SIGNATURE_TYPE:
            if one.predicate:
                refuse("predicate-malformed", "a signature statement has a predicate")
            continue
        parsed[one.predicate_type].append(_PARSERS[one.predicate_type](one.predicate))
    if missing := sorted(required - types):
        refuse(
            "attestation-missing",
            f"attestations are missing among the {attached.form} of {subject}",
            context="\n".join(missing),
            hint="publish the image again: its evidence is incomplete",
        )
    return Claims(
        form=attached.form,
        types=frozenset(types - {SIGNATURE_TYPE, CHANNEL_TYPE}),
        verdict=_newest([v for v in parsed[VERDICT_TYPE] if isinstance(v, Verdict)]),
        provenances=tuple(p for p in parsed[predicates.PROVENANCE_TYPE] if isinstance(p, Provenance)),
        cyclonedx={
            str(_digest_of(s)): predicates.parse_cyclonedx(s.predicate)
            for s in known
            if s.predicate_type == predicates.CYCLONEDX_TYPE
        },
        repositories=repositories,
        ignored=len(statements) - len(known),
        channels=tuple(c for c in parsed[CHANNEL_TYPE] if isinstance(c, ChannelRecord)),
        reports=tuple((s.predicate_type, s.predicate) for s in known if s.predicate_type in _REPORTS),
    )


def believed(attached: Attached, subject: Digest, trust: Trust) -> tuple[Statement, ...]:
    """Step 4 alone: the statements of known types about `subject`; raises EvidenceRefused.

    For those who want to know what was said, not whether the image is approved.
    """
    statements = (_check_statement(e, subject, trust) for e in attached.envelopes)
    return tuple(s for s in statements if s is not None)


def _check_signature(signed: SignedPayload, subject: Digest, trust: Trust) -> str:
    """3. an image signature: by the builder's key, over this digest; returns its repository."""
    payload = parse_simple_signing(signed.payload)
    _check_key(BUILDER, signed.signature, signed.payload, trust, "image signature")
    if payload.digest != subject:
        refuse(
            "subject-mismatch",
            "the signature is of another manifest",
            context=f"signed: {payload.digest}\nlooked for: {subject}",
        )
    return payload.repository


def _check_statement(promised: PromisedEnvelope, subject: Digest, trust: Trust) -> Statement | None:
    """4. a statement: one signature by the key of its role, this subject, the promised type."""
    envelope = promised.envelope
    statement = parse_statement(envelope.payload)
    kind = statement.predicate_type
    if promised.predicate_type is not None and promised.predicate_type != kind:
        refuse(
            "wrong-predicate-type",
            "an attestation is not what its carrier promises",
            context=f"promised: {quoted(promised.predicate_type)}\nfound: {quoted(kind)}",
        )
    role = ROLE_OF.get(kind)
    if role is None:
        return None
    _check_key(role, envelope.signature, envelope.signed_bytes, trust, kind)
    if statement.subject != subject:
        refuse(
            "subject-mismatch",
            f"an attestation is of another manifest: {kind}",
            context=f"signed: {statement.subject}\nlooked for: {subject}",
        )
    return statement


def _check_key(role: str, signature: bytes, data: bytes, trust: Trust, what: str) -> None:
    if trust.of(role).verifies(signature, data):
        return
    others = {BUILDER: trust.builder, VERDICT: trust.verdict, APPROVER: trust.approver}
    for other, key in others.items():
        if other != role and key is not None and key.verifies(signature, data):
            refuse("wrong-role", f"the {other} key signed what only the {role} key may sign", context=what)
    refuse(
        "signature-invalid",
        f"a signature is not by the trusted {role} key, or the signed bytes were changed",
        context=what,
        hint="if the key was changed on purpose, give the new public keys with --trust",
    )


def _newest(found: list[Verdict]) -> Verdict:
    if not found:
        refuse("attestation-missing", "there is no verdict")
    newest = max(found, key=lambda v: v.issued_at)
    if any(v.issued_at == newest.issued_at and v != newest for v in found):
        refuse("verdict-contradicts", "two verdicts of the same time differ", context=str(newest.issued_at))
    return newest


def _digest_of(statement: Statement) -> Digest:
    try:
        return Digest.of(canonical_json(statement.predicate))
    except (ValueError, RecursionError) as error:
        raise EvidenceRefused(
            "an SBOM is no plain JSON", context=quoted(str(error)), reference="unparsable"
        ) from None
