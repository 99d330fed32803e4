"""Renews a verdict: today's report on each platform and a new approval, signed and attached.

The procedure; the numbers stand in the code:

 1. The image is verified where it is, at today's date; an expired verdict at the time when it still
    held, since all else has to be good.
 2. Today's policy is asked on the attested reports with today's findings.
 3. Report and verdict are signed by their roles for platforms and index, and written in the forms that
    the image has: the bundles everywhere, then the tags everywhere, the index last each time.
 4. It is verified with a consumer's eyes, with nothing of what was read before.
 5. Older reports and verdicts are taken away where the registry lists referrers by itself (`pruning`).

Whenever a run is cut, one of the two forms is whole: the old one or the new one. The next run reads
that one and completes the other. What is attached beside report and verdict stays byte for byte.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor

from builder.errors import PolicyDenied
from builder.model.digest import Digest
from builder.model.extension import ExtensionIdentity
from builder.model.image import Descriptor
from builder.model.reference import Reference
from builder.model.release import SignedManifest
from builder.model.verdict import Verdict
from builder.policy.engine import announce, evaluate
from builder.policy.rule import Case
from builder.policy.vex import openvex
from builder.signing import cosign_parse, predicates, verdicts
from builder.signing.collect import BUNDLES, TAGS, Registry
from builder.signing.cosign_formats import (
    SignedStatement,
    attestation_manifest,
    attestation_tag,
    bundle_referrer,
    signature_tag,
)
from builder.signing.keys import BUILDER, RoleSigner
from builder.signing.predicates import ROLE_OF, VERDICT_TYPE, VEX_TYPE, VULNERABILITY_TYPE, timestamp
from builder.signing.refusal import EvidenceRefused
from builder.signing.statements import (
    ENVELOPE_MAX,
    PAYLOAD_TYPE,
    STATEMENT_V01,
    STATEMENT_V1,
    pae,
    statement,
)
from builder.signing.verification import Verification
from builder.signing.verify import published_verdict, verify
from registry.promotion.closure import Closure
from registry.promotion.office import Office
from registry.promotion.recheck import NOT_ATTESTED, rules_again
from registry.promotion.records import put_content
from registry.rescan.pruning import prune, require_room, superseded

_SECOND = dt.timedelta(seconds=1)
_THREADS = 8


class _OneForm:
    """A registry that shows one of the two forms of what is attached to manifests."""

    def __init__(self, closure: Closure, form: str) -> None:
        self._closure, self._form = closure, form
        self._hidden = {t for s in closure.subjects for t in (signature_tag(s), attestation_tag(s))}

    def head_manifest(self, ref: Reference) -> Descriptor | None:
        hidden = self._form == BUNDLES and ref.tag in self._hidden
        return None if hidden else self._closure.head_manifest(ref)

    def get_manifest(self, ref: Reference) -> tuple[bytes, str, Digest]:
        return self._closure.get_manifest(ref)

    def get_blob_bytes(self, repo: str, descriptor: Descriptor, limit: int) -> bytes:
        return self._closure.get_blob_bytes(repo, descriptor, limit)

    def has_blob(self, repo: str, digest: Digest, size: int | None = None) -> bool:
        return self._closure.has_blob(repo, digest, size)

    def referrers(
        self, repo: str, subject: Digest, artifact_type: str | None = None
    ) -> tuple[Descriptor, ...]:
        return () if self._form == TAGS else self._closure.referrers(repo, subject, artifact_type)


def verified(office: Office, closure: Closure) -> Verification:
    """1. The image in a repository, with everything that holds of it but its age.

    Where a run was cut, the form that is whole counts. Raises EvidenceRefused and RegistryError.
    """
    where = office.client.reference(closure.repo, digest=closure.image)
    try:
        return _at_its_time(office, where, closure)
    except EvidenceRefused as error:
        if error.reference != "verdict-replayed":
            raise
        for form in (BUNDLES, TAGS):
            try:
                return _at_its_time(office, where, _OneForm(closure, form))
            except EvidenceRefused:
                continue
        raise


def _at_its_time(office: Office, where: Reference, registry: Registry) -> Verification:
    verdict = published_verdict(where, registry, office.trust)
    at = min(office.now, verdict.expires_at - _SECOND)
    return verify(where, registry, office.trust, at, accept_sample=office.accept_sample)


def verdict_of_today(office: Office, found: Verification, case: Case) -> Verdict:
    """2. A new approval, no longer than the waivers that it uses; raises PolicyDenied when there is none."""
    rules = rules_again(case, office.policy, found.verdict)
    results = evaluate(case, rules)
    failed = [r for r in results if not r.passed]
    scans = list(case.scans)
    if failed or not scans:
        raise PolicyDenied(
            f"the policy {office.policy.name} does not allow {found.verdict.ref} today",
            context="\n".join(f"{r.id}: {f}" for r in failed for f in r.failures),
            hint=failed[0].solution if failed else "",
            reference="policy-denies-today",
        )
    before = tuple(r for r in found.verdict.rules if r.id in NOT_ATTESTED)
    used = {waiver.id: waiver.ends_at for scan in scans for _, waiver in case.waived(scan)}
    expires_at = office.now + dt.timedelta(days=office.policy.data.verdict_days_valid)
    return Verdict(
        digest=found.digest,
        ref=found.verdict.ref,
        approved=True,
        policy=office.policy.name,
        policy_digest=office.policy.digest,
        issued_at=office.now,
        expires_at=min([expires_at, *used.values()]),
        database=scans[0].database,
        sboms=found.verdict.sboms,
        rules=(*before, *results),
        waivers=tuple(sorted(used)),
        announced=announce(case, rules),
        extensions=_asked(office, found.verdict),
    )


def _asked(office: Office, before: Verdict) -> tuple[ExtensionIdentity, ...]:
    """Who was asked: rules and scanners today, checks when the image was made, perhaps another version."""
    made = {e.id: e for e in before.extensions if e.kind == "check"}
    return tuple(made.get(e.id, e) if e.kind == "check" else e for e in office.policy.extensions)


def renew(office: Office, closure: Closure, case: Case, verdict: Verdict) -> None:
    """3 to 5. Write reports and verdict to the repository of `closure`, and read them back.

    Raises RegistryError when the registry fails or takes no more referrers, EvidenceRefused when it
    holds something else after.
    """
    client, repo = office.client, closure.repo
    documents = _documents(closure, case, verdict)
    require_room(closure, documents)
    subjects = (*closure.subjects[1:], closure.image)  # the index last
    created = timestamp(verdict.issued_at)
    if any(closure.bundles(s) for s in closure.subjects):
        bundles = {s: list(_bundles(office, closure.descriptor(s), documents[s], created)) for s in subjects}
        with ThreadPoolExecutor(_THREADS, thread_name_prefix="renew") as pool:
            list(pool.map(lambda item: put_content(client, repo, item, closure), _all(bundles.values())))
        for subject in subjects:
            _list(office, closure, subject, bundles[subject])
    if any(closure.tags.get(attestation_tag(s)) for s in closure.subjects):
        carriers = [_attestations(office, closure, s, documents[s]) for s in subjects]
        with ThreadPoolExecutor(_THREADS, thread_name_prefix="renew") as pool:
            list(pool.map(lambda item: _put_blobs(office, closure, item), carriers))
        for item in carriers:
            client.put_manifest(client.reference(repo, item.tag), item.manifest, item.media_type)
    where = client.reference(repo, digest=closure.image)
    after = Closure.read(client, repo, closure.image)
    verify(where, after, office.trust, office.now, accept_sample=office.accept_sample)
    prune(client, repo, superseded(closure, documents))


def _documents(closure: Closure, case: Case, verdict: Verdict) -> dict[Digest, dict[str, bytes]]:
    """What is said of each subject; an index of one platform carries the platform's report, too.

    Where waivers were told before and none is used now, it is told that there is none.
    """
    decided = {VERDICT_TYPE: verdicts.encode(verdict)}
    told = any(closure.kinds(s) & {VEX_TYPE} for s in closure.subjects)
    if verdict.waivers or told:
        decided[VEX_TYPE] = openvex(case.image, verdict.waivers)
    reports = {
        scan.digest: {VULNERABILITY_TYPE: predicates.vulnerabilities(scan, verdict.issued_at)}
        for scan in case.scans
    }
    said = {digest: {**report, **decided} for digest, report in reports.items()}
    alone = next(iter(reports.values())) if len(closure.subjects) == 2 else {}
    return {**said, closure.image: {**alone, **decided}}


def _signed(office: Office, kind: str, payload: bytes) -> SignedStatement:
    return SignedStatement(kind, payload, _key(office, kind).sign(pae(PAYLOAD_TYPE, payload)))


def _key(office: Office, kind: str) -> RoleSigner:
    return office.keys.builder if ROLE_OF[kind] == BUILDER else office.keys.verdict


def _bundles(
    office: Office, subject: Descriptor, documents: Mapping[str, bytes], created: str
) -> Iterator[SignedManifest]:
    for kind, predicate in sorted(documents.items()):
        signed = _signed(office, kind, statement(STATEMENT_V1, subject.digest, kind, predicate))
        when = created if kind == VERDICT_TYPE else None
        yield bundle_referrer(subject, signed, _key(office, kind).public.hint, when)


def _list(office: Office, closure: Closure, subject: Digest, items: list[SignedManifest]) -> None:
    """Let bundles be seen: by the registry itself, or in one write of its listing."""
    client, repo = office.client, closure.repo
    unlisted = [i for i in items if not client.put_referrer(repo, i.manifest, i.media_type)]
    if unlisted:
        client.put_referrers_fallback(repo, subject, [i.entry for i in unlisted], replace_same_kind=True)


def _attestations(
    office: Office, closure: Closure, subject: Digest, documents: Mapping[str, bytes]
) -> SignedManifest:
    """The `.att` of a subject: what is there, and the new documents in the place of older ones."""
    name = f"{office.client.host}/{closure.repo}"
    kept = []
    carrier = closure.tags.get(attestation_tag(subject))
    if carrier is not None:
        for part in cosign_parse.attestation_layers(closure.manifest(carrier)):
            if part.predicate_type not in documents:
                data = closure.get_blob_bytes(closure.repo, part.blob, ENVELOPE_MAX)
                envelope = cosign_parse.parse_attestation(data)
                kept.append(SignedStatement(part.predicate_type or "", envelope.payload, envelope.signature))
    new = [
        _signed(office, kind, statement(STATEMENT_V01, subject, kind, predicate, name))
        for kind, predicate in sorted(documents.items())
    ]
    return attestation_manifest(subject, [*kept, *new])


def _put_blobs(office: Office, closure: Closure, item: SignedManifest) -> None:
    for digest, data in item.blobs.items():
        if digest not in closure.blobs:
            office.client.put_blob(closure.repo, data, digest)


def _all(lists: Iterable[list[SignedManifest]]) -> list[SignedManifest]:
    return [item for one in lists for item in one]
