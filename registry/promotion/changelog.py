"""The change record: what is new in an image against the one before it, signed, on the image's index.

It is written once, when an image is promoted first, before its tag moves; the verdict's key signs it.
A record leads to the one of the image before it (`previous`): the changelog of an image is that chain.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from builder.errors import RegistryError
from builder.model.change import ChangeRecord
from builder.model.digest import Digest
from builder.model.reference import Reference
from builder.model.release import SignedManifest
from builder.oci.faults import RegistryRefused, Temporary
from builder.signing import changerecords
from builder.signing.attested import carriers, read_carrier
from builder.signing.collect import Registry
from builder.signing.cosign_formats import SignedStatement, bundle_referrer
from builder.signing.keys import VERDICT
from builder.signing.predicates import CHANGE_TYPE, timestamp
from builder.signing.refusal import EvidenceRefused, refuse
from builder.signing.statements import PAYLOAD_TYPE, STATEMENT_V1, pae, statement
from builder.signing.trust import Trust
from builder.signing.verification import Verification
from registry.approvals.needs import Change
from registry.approvals.procedure import Matter
from registry.audit.ledger import Entry
from registry.diff.compare import ImageDiff, compare
from registry.diff.facts import ImageFacts, nothing_of, read_image, verified_image
from registry.promotion.closure import Closure
from registry.promotion.office import Office, State, Subject

_RECORD_MAX = 16 << 20  # bytes of a bundle with a change record
_CARRIERS_MAX = 16  # of one image
# What the provenance says is new, when the run that built it kept no reasons.
_REASONS = {
    Change.FIRST: "new: the first image of its stream",
    Change.DEFINITION: "definition: what is written of it changed",
    Change.TEMPLATE: "template: its template changed",
    Change.LOCK: "package: the locked packages changed",
    Change.IMPORT: "new: brought in from elsewhere",
}


@dataclass(frozen=True, slots=True)
class News:
    """What will be told of an image, before there is an entry in the ledger."""

    previous: Digest | None
    diff: ImageDiff
    unknown: str
    reasons: tuple[str, ...]


def news_of(
    office: Office,
    matter: Matter,
    state: State,
    found: Verification,
    arrived: Closure,
    points_to: Digest | None,
) -> News | None:
    """What is new in an image that was verified at its destination; None when that is told already.

    It is compared with the image that its floating tag points to. When nothing can be believed of
    that one, everything is told as new, with the reason: a bad image does not keep its successor out.
    Raises RegistryError when the registry cannot be reached.
    """
    subject = matter.subject
    previous = _before(subject, state, points_to)
    was_promoted = state.record is not None and bool(state.record.immutable_tag)
    if found.change is not None and (was_promoted or found.change.previous == previous):
        return None
    after = verified_image(arrived, found)
    before, unknown = nothing_of(after), ""
    if previous is not None:
        where = office.client.reference(subject.repo, digest=previous)
        listing_in_folder = not office.client.supports_referrers(subject.repo)
        registry = office.near if office.near is not None and listing_in_folder else office.client
        try:
            before = _as_known(office, read_image(registry, where, office.trust))
        except Temporary:
            raise
        except (EvidenceRefused, RegistryError) as error:
            unknown = error.message
    reasons = office.reasons(subject.digest) or tuple(_REASONS[c] for c in sorted(matter.changes))
    # A platform that came is told like a first image.
    whole = replace(before, platforms={**nothing_of(after).platforms, **before.platforms})
    added = tuple(p for p in after.platforms if p not in before.platforms) if previous else ()
    return News(previous, replace(compare(whole, after), added=added), unknown, reasons)


def _as_known(office: Office, image: ImageFacts) -> ImageFacts:
    """An image with the findings of today, where they are known."""
    known = office.known(image.digest) or {}
    platforms = {n: replace(p, findings=known.get(n, p.findings)) for n, p in image.platforms.items()}
    return replace(image, platforms=platforms)


def signed_news(
    office: Office, subject: Subject, news: News | None, entry: Entry, arrived: Closure
) -> tuple[SignedManifest, ...]:
    """The referrer of the index that tells what is new; nothing where there is nothing to tell."""
    if news is None:
        return ()
    record = changerecords.bounded(
        ChangeRecord(
            digest=subject.digest,
            ref=subject.ref,
            previous=news.previous,
            sequence=entry.sequence,
            at=entry.at,
            why=entry.fact.why,
            reasons=news.reasons,
            platforms=news.diff.platforms,
            added=news.diff.added,
            removed=news.diff.removed,
            waived=news.diff.waived,
            no_longer_waived=news.diff.no_longer_waived,
            unknown=news.unknown,
        )
    )
    payload = statement(STATEMENT_V1, subject.digest, CHANGE_TYPE, changerecords.encode(record))
    key = office.keys.verdict
    signed = SignedStatement(CHANGE_TYPE, payload, key.sign(pae(PAYLOAD_TYPE, payload)))
    carrier = arrived.descriptor(subject.digest)
    return (bundle_referrer(carrier, signed, key.public.hint, timestamp(record.at)),)


def read_change(registry: Registry, where: Reference, trust: Trust) -> ChangeRecord | None:
    """The newest change record of an image (`where` has its index digest); None when there is none.

    Raises EvidenceRefused for one that is not by a verdict's key, of another image, or malformed.
    """
    found = []
    for number, carrier in enumerate(carriers(registry, where, CHANGE_TYPE)):
        if number >= _CARRIERS_MAX:
            refuse("too-many", f"more than {_CARRIERS_MAX} change records on one image", context=str(where))
        key = None

        def believes(signature: bytes, data: bytes) -> bool:
            nonlocal key
            key = trust.find(VERDICT, signature, data)
            return key is not None

        said = read_carrier(registry, where, carrier, CHANGE_TYPE, _RECORD_MAX, believes).statement
        record = changerecords.decode(said.predicate)
        if record.digest != where.digest or record.ref.partition(":")[0] != where.name.rpartition("/")[2]:
            refuse("subject-mismatch", "a change record is of another image", context=str(record.digest))
        if key is not None and not key.flaw(record.at):
            found.append(record)
    return changerecords.newest(found)


def changelog(registry: Registry, where: Reference, trust: Trust) -> Iterator[ChangeRecord]:
    """The change records of an image and of those before it, the newest first, as far as they are there.

    `where` has the digest to begin with. Raises as `read_change` does.
    """
    seen: set[Digest] = set()
    digest = where.digest
    while digest is not None and digest not in seen:
        seen.add(digest)
        try:
            record = read_change(registry, where.with_digest(digest), trust)
        except RegistryRefused as error:
            if error.status != 404 or len(seen) == 1:
                raise
            return  # an image that was removed, or never came to this registry
        if record is None:
            return
        yield record
        digest = record.previous


def _before(subject: Subject, state: State, points_to: Digest | None) -> Digest | None:
    """The image before; when the tag points to this one already, the ledger knows where it pointed."""
    if points_to != subject.digest:
        return points_to
    for entry in reversed(state.history):
        fact = entry.fact
        if (fact.ref, fact.digest) == (subject.ref, subject.digest) and "tagDigest" in fact.after:
            told = fact.before.get("tagDigest", subject.digest)
            if told != subject.digest:
                return Digest(told)
    return None
