"""From attached bytes to claims that are believed: signature, key of the role, subject, predicate.

Pure. The step numbers are those of `verify`.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from builder.model.change import ChangeRecord
from builder.model.channel import Channel, ChannelRecord
from builder.model.digest import Digest
from builder.model.verdict import Verdict
from builder.signing import changerecords, channels, predicates, verdicts
from builder.signing.collect import BUNDLES, Attached, PromisedEnvelope, SignedPayload
from builder.signing.keys import BUILDER
from builder.signing.memo import Memo
from builder.signing.predicates import (
    CHANGE_TYPE,
    CHANNEL_TYPE,
    DECIDED_TYPES,
    ROLE_OF,
    SIGNATURE_TYPE,
    TEST_RESULT_TYPE,
    VERDICT_TYPE,
    VEX_TYPE,
    VULNERABILITY_TYPE,
    Provenance,
    stated_time,
    timestamp,
)
from builder.signing.refusal import EvidenceRefused, quoted, refuse
from builder.signing.statements import Statement, parse_simple_signing, parse_statement
from builder.signing.trust import REVOKED, Trust, Use, earliest
from builder.signing.trustfile import TrustedKey

_PARSERS: Mapping[str, Callable[[Mapping[str, Any]], object]] = {
    predicates.PROVENANCE_TYPE: predicates.parse_provenance,
    predicates.CYCLONEDX_TYPE: predicates.parse_cyclonedx,
    predicates.SPDX_TYPE: predicates.parse_spdx,
    predicates.VULNERABILITY_TYPE: predicates.parse_vulnerabilities,
    predicates.TEST_RESULT_TYPE: predicates.parse_test_result,
    VERDICT_TYPE: verdicts.decode,
    CHANNEL_TYPE: channels.decode,
    CHANGE_TYPE: changerecords.decode,
    VEX_TYPE: predicates.parse_openvex,
}
_CALLED_BACK = (Channel.WITHDRAWN.value, Channel.QUARANTINE.value)
_EVER = dt.datetime.min.replace(tzinfo=dt.UTC)
_REPORTS = (VULNERABILITY_TYPE, TEST_RESULT_TYPE, VEX_TYPE)


@dataclass(frozen=True, slots=True)
class Claims:
    """What trusted keys say of one manifest in one form; `ignored` counts statements of no known type.

    `cyclonedx` maps the digest of each SBOM as canonical JSON to what it names (NAME=VERSION).
    `verdict` is the newest one. `channels` are the records of decisions on the image,
    `changes` those of what is new in it; `reports`
    are the vulnerability and check reports, and OpenVEX documents, with their predicate types.
    `uses` are the keys that all this rests on.
    """

    form: str
    types: frozenset[str]
    verdict: Verdict
    provenances: tuple[Provenance, ...]
    cyclonedx: Mapping[str, frozenset[str]]
    repositories: frozenset[str]
    ignored: int
    channels: tuple[ChannelRecord, ...] = ()
    changes: tuple[ChangeRecord, ...] = ()
    reports: tuple[tuple[str, Mapping[str, Any]], ...] = ()
    uses: frozenset[Use] = frozenset()


@dataclass(frozen=True)
class _Said:
    """A statement of a type we know, and the key that made it."""

    statement: Statement
    key: TrustedKey

    @cached_property
    def parsed(self) -> object:
        """The predicate as its type; raises EvidenceRefused when it is malformed."""
        return _PARSERS[self.statement.predicate_type](self.statement.predicate)


@dataclass(frozen=True, slots=True)
class _Sifted:
    """What keys said that held at their time, and the flaws of what they said when they did not."""

    repositories: tuple[str, ...]
    said: tuple[_Said, ...]
    uses: frozenset[Use]
    unknown: int
    flaws: tuple[tuple[str, TrustedKey], ...]


def believe(
    attached: Attached, subject: Digest, required: frozenset[str], trust: Trust, memo: Memo | None = None
) -> Claims:
    """Steps 3 to 5 for one form of one manifest; raises EvidenceRefused with the first flaw.

    `memo` has what this run read before.
    """
    sifted = _sift(attached, subject, trust, memo or Memo())
    known = sifted.said
    types = {one.statement.predicate_type for one in known}
    # 3. at least one signature of the image itself: an attestation is none
    signed = SIGNATURE_TYPE in types if attached.form == BUNDLES else bool(sifted.repositories)
    if not signed:
        _refuse_flawed(sifted, subject)
        refuse("signature-missing", f"there is no signature of {subject} among the {attached.form}")
    # 5. everything that is demanded is there, once or more, and all of it parses
    parsed: dict[str, list[object]] = {t: [] for t in _PARSERS}
    for one in known:
        if one.statement.predicate_type == SIGNATURE_TYPE:
            if one.statement.predicate:
                refuse("predicate-malformed", "a signature statement has a predicate")
            continue
        parsed[one.statement.predicate_type].append(one.parsed)
    if missing := sorted(required - types):
        _refuse_flawed(sifted, subject)
        refuse(
            "attestation-missing",
            f"attestations are missing among the {attached.form} of {subject}",
            context="\n".join(missing),
            hint="publish the image again: its evidence is incomplete",
        )
    verdict = _newest([v for v in parsed[VERDICT_TYPE] if isinstance(v, Verdict)])
    named = frozenset(verdict.sboms.values())
    return Claims(
        form=attached.form,
        types=frozenset(types - {SIGNATURE_TYPE} - DECIDED_TYPES),
        verdict=verdict,
        provenances=tuple(p for p in parsed[predicates.PROVENANCE_TYPE] if isinstance(p, Provenance)),
        cyclonedx={
            str(_digest_of(one.statement, named)): one.parsed
            for one in known
            if one.statement.predicate_type == predicates.CYCLONEDX_TYPE and isinstance(one.parsed, frozenset)
        },
        repositories=frozenset(sifted.repositories),
        ignored=sifted.unknown,
        channels=tuple(c for c in parsed[CHANNEL_TYPE] if isinstance(c, ChannelRecord)),
        changes=tuple(c for c in parsed[CHANGE_TYPE] if isinstance(c, ChangeRecord)),
        reports=tuple(
            (s.predicate_type, s.predicate)
            for s in (one.statement for one in known)
            if s.predicate_type in _REPORTS
        ),
        uses=sifted.uses,
    )


def believed(attached: Attached, subject: Digest, trust: Trust) -> tuple[Statement, ...]:
    """Step 4 alone: the statements of known types about `subject`; raises EvidenceRefused.

    For those who want to know what was said, not whether the image is approved.
    """
    return tuple(one.statement for one in _sift(attached, subject, trust, Memo()).said)


def _sift(attached: Attached, subject: Digest, trust: Trust, memo: Memo) -> _Sifted:
    """3. and 4., and of all that the part that was signed by keys which held at its time.

    By a stranger's key, of another subject or of a wrong role: refused. By a key of ours outside of its
    time: left out, so that what newer keys say of the same image governs.
    """
    signatures = [_check_signature(s, subject, trust) for s in attached.signatures]
    envelopes = [memo.of(_check_statement, e, subject, trust) for e in attached.envelopes]
    found = [one for one in envelopes if one is not None]
    uses: set[Use] = set()
    flaws: list[tuple[str, TrustedKey]] = []

    def holds(key: TrustedKey, at: dt.datetime | None, dated: bool) -> bool:
        if at is not None:
            flaw = key.flaw(at, dated=dated)
            uses.update(() if flaw else (Use(key.id, at, dated),))
        else:  # there is no verdict, so nothing says that it is older than the revocation
            flaw = REVOKED if key.revoked_at else ""
        if flaw:
            flaws.append((flaw, key))
        return not flaw

    kept: dict[int, _Said] = {}
    for number, one in enumerate(found):
        at = stated_time(one.statement.predicate_type, one.statement.predicate)
        # What calls an image back counts whenever it was signed: it can only deny.
        if at is not None and (calls_back(one.statement) or holds(one.key, at, True)):
            kept[number] = one
    # What says no time has that of the verdict which rests on it.
    governing = max(
        (
            stated_time(VERDICT_TYPE, one.statement.predicate) or _EVER
            for one in kept.values()
            if one.statement.predicate_type == VERDICT_TYPE
        ),
        default=None,
    )
    for number, one in enumerate(found):
        at = stated_time(one.statement.predicate_type, one.statement.predicate)
        if at is None and holds(one.key, governing, False):
            kept[number] = one
    repositories = tuple(r for r, key in signatures if holds(key, governing, False))
    return _Sifted(
        repositories,
        tuple(kept[n] for n in sorted(kept)),
        earliest(uses),
        len(envelopes) - len(found),
        tuple(flaws),
    )


def calls_back(statement: Statement) -> bool:
    """Whether a channel record takes an image away from consumers."""
    return statement.predicate_type == CHANNEL_TYPE and statement.predicate.get("channel") in _CALLED_BACK


def _refuse_flawed(sifted: _Sifted, subject: Digest) -> None:
    """Refuse for a key that did not hold, where there is one; a revocation says the most."""
    for flaw, key in sorted(sifted.flaws, key=lambda f: f[0] != REVOKED):
        if flaw == REVOKED and key.revoked_at is not None:
            since = timestamp(key.revoked_at)
            refuse(
                REVOKED,
                f"it is signed by a {key.role} key that was revoked, for what it says from {since} on",
                context=f"{key.why}\nkey {key.id}\n{subject}",
                hint="use another image, or run the image's pipeline again, so that good keys sign it",
            )
        refuse(
            flaw,
            f"it is signed by a {key.role} key outside of that key's period",
            context=f"key {key.id}\n{subject}",
            hint="run the image's pipeline again, so that it is signed by a key of today",
        )


def _check_signature(signed: SignedPayload, subject: Digest, trust: Trust) -> tuple[str, TrustedKey]:
    """3. an image signature: by a builder's key, over this digest; returns its repository and key."""
    payload = parse_simple_signing(signed.payload)
    key = _check_key(BUILDER, signed.signature, signed.payload, trust, "image signature")
    if payload.digest != subject:
        refuse(
            "subject-mismatch",
            "the signature is of another manifest",
            context=f"signed: {payload.digest}\nlooked for: {subject}",
        )
    return payload.repository, key


def _check_statement(promised: PromisedEnvelope, subject: Digest, trust: Trust) -> _Said | None:
    """4. a statement: one signature by a key of its role, this subject, the promised type."""
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
    key = _check_key(role, envelope.signature, envelope.signed_bytes, trust, kind)
    if statement.subject != subject:
        refuse(
            "subject-mismatch",
            f"an attestation is of another manifest: {kind}",
            context=f"signed: {statement.subject}\nlooked for: {subject}",
        )
    return _Said(statement, key)


def _check_key(role: str, signature: bytes, data: bytes, trust: Trust, what: str) -> TrustedKey:
    found = trust.find(role, signature, data)
    if found is not None:
        return found
    for other in sorted({k.role for k in trust.keys} - {role}):
        if trust.find(other, signature, data) is not None:
            refuse("wrong-role", f"the {other} key signed what only the {role} key may sign", context=what)
    refuse(
        "signature-invalid",
        f"a signature is not by a trusted {role} key, or the signed bytes were changed",
        context=what,
        hint="if the key was changed on purpose, give the new trust file with --trust",
    )


def _newest(found: list[Verdict]) -> Verdict:
    if not found:
        refuse("attestation-missing", "there is no verdict")
    newest = max(found, key=lambda v: v.issued_at)
    if any(v.issued_at == newest.issued_at and v != newest for v in found):
        refuse("verdict-contradicts", "two verdicts of the same time differ", context=str(newest.issued_at))
    return newest


def _digest_of(statement: Statement, named: frozenset[str]) -> Digest:
    try:
        return Digest.of_json(statement.predicate, named)
    except (ValueError, RecursionError) as error:
        raise EvidenceRefused(
            "an SBOM is no plain JSON", context=quoted(str(error)), reference="unparsable"
        ) from None
