"""Approvals in the registry: signed by the approver's key, one bundle each, on the image's index.

Raises as its client does. An approval counts only with its entry in the ledger, whose time is the
one at which the key has to hold.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Any

from builder.model.digest import Digest, canonical_json
from builder.model.image import Descriptor
from builder.model.reference import Reference
from builder.oci.client import RegistryClient
from builder.oci.faults import RegistryRefused
from builder.signing.attested import read_carrier
from builder.signing.collect import Registry
from builder.signing.cosign_formats import SignedStatement, bundle_referrer
from builder.signing.keys import APPROVER, RoleSigner
from builder.signing.predicates import APPROVAL_TYPE, text, timestamp
from builder.signing.refusal import EvidenceRefused, quoted, refuse
from builder.signing.statements import PAYLOAD_TYPE, STATEMENT_V1, pae, statement
from builder.signing.trust import Trust
from registry.approvals.needs import Approval, Made
from registry.audit.ledger import Entry
from registry.promotion.records import put_content

_SIZE_MAX = 64 << 10  # bytes of a bundle with an approval
_PARTS = ("definition", "template", "lock")
_FIELDS = {"ref", *_PARTS, "who", "at", "why", "policy"}
_TEXT_MAX = 1000  # characters
_WHAT = "approval"


def encode(approval: Approval) -> bytes:
    """The predicate of an approval, as canonical JSON; the time is RFC 3339 UTC to the second."""
    made = {part: str(getattr(approval.made, part)) for part in _PARTS}
    said = {"ref": approval.ref, "who": approval.who, "at": timestamp(approval.at), "why": approval.why}
    return canonical_json({**made, **said, "policy": approval.policy})


def decode(predicate: Mapping[str, Any], subject: Digest) -> Approval:
    """Read an approval of `subject` back; raises EvidenceRefused for any field that is not as written."""
    if set(predicate) != _FIELDS:
        unknown = quoted(sorted(set(predicate) ^ _FIELDS))
        refuse("predicate-malformed", "the approval has missing or unknown fields", context=unknown)
    if not all(isinstance(value, str) and len(value) <= _TEXT_MAX for value in predicate.values()):
        refuse("predicate-malformed", "the approval's texts are malformed")
    try:
        at = dt.datetime.strptime(predicate["at"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=dt.UTC)
        made = Made(*(Digest(predicate[part]) for part in _PARTS))
    except ValueError as error:
        refuse("predicate-malformed", "the approval is malformed", context=quoted(str(error)))
    ref, who = text(predicate, "ref", _WHAT), text(predicate, "who", _WHAT)
    return Approval(subject, ref, made, who, at, predicate["why"], predicate["policy"])


def put_approval(
    client: RegistryClient, repo: str, approval: Approval, subject: Descriptor, key: RoleSigner
) -> Digest:
    """Attach an approval to an image's index beside those that are there; returns the carrier's digest."""
    payload = statement(STATEMENT_V1, subject.digest, APPROVAL_TYPE, encode(approval))
    signed = SignedStatement(APPROVAL_TYPE, payload, key.sign(pae(PAYLOAD_TYPE, payload)))
    item = bundle_referrer(subject, signed, key.public.hint, timestamp(approval.at))
    put_content(client, repo, item)
    if not client.put_referrer(repo, item.manifest, item.media_type):
        client.put_referrers_fallback(repo, subject.digest, [item.entry])
    return item.digest


def read_approval(registry: Registry, where: Reference, entry: Entry, trust: Trust) -> Approval | None:
    """The approval that an entry of the ledger tells of, from the repository of `where`; None if not there.

    Raises EvidenceRefused when it is not by a key that held then, or says something else than the
    entry.
    """
    fact = entry.fact
    carrier = fact.after.get("approval")
    if carrier is None:
        return None

    def believes(signature: bytes, data: bytes) -> bool:
        return trust.verifies(APPROVER, signature, data, entry.at)

    place = where.with_digest(fact.digest)
    try:
        found = read_carrier(registry, place, Digest(carrier), APPROVAL_TYPE, _SIZE_MAX, believes)
    except RegistryRefused as error:
        if error.status == 404:
            return None
        raise
    approval = decode(found.statement.predicate, fact.digest)
    told = {part: str(getattr(approval.made, part)) for part in _PARTS}
    if (approval.ref, approval.who) != (fact.ref, fact.who) or told.items() - fact.after.items():
        raise EvidenceRefused(
            "an approval says something else than the ledger",
            context=f"entry {entry.sequence}: {fact.ref} by {fact.who}",
            reference="approval-mismatch",
        )
    if approval.at > entry.at:
        refuse(
            "approval-mismatch", "an approval is younger than its entry in the ledger", context=approval.who
        )
    return approval
