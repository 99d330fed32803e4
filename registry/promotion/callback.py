"""Deprecate, withdraw, put into quarantine, release: a decision on an image that is already there.

The order: the ledger, the record on platforms and index wherever the image is (so that nobody
accepts it any more), then the floating tag, where a replacement of the same stream takes it; then
gates are told to look now.
Tags are never removed: the immutable tag goes on pointing to what was withdrawn, whose record says
so, and the ledger remembers whose it was. A decision that was cut is completed by the next run.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from builder.errors import UsageError
from builder.model.channel import Channel
from builder.model.digest import Digest
from builder.model.reference import Reference
from builder.signing.refusal import refuse
from builder.signing.verify import published_verdict, resolve, verify
from registry.audit.ledger import Action, Entry, Fact
from registry.promotion.channels import move
from registry.promotion.closure import Closure
from registry.promotion.office import (
    CANDIDATES,
    QUARANTINES,
    Office,
    State,
    Subject,
    decide,
    fetch,
    heed_clock,
    home_of,
    move_tags,
    points_to,
    publish_record,
    record_of,
    state_of,
    tell_gates,
)

ACTIONS = {
    Channel.DEPRECATED: Action.DEPRECATE,
    Channel.WITHDRAWN: Action.REVOKE,
    Channel.QUARANTINE: Action.QUARANTINE,
    Channel.CANDIDATE: Action.RELEASE,
}


@dataclass(frozen=True, slots=True)
class Change:
    """What was decided of an image; `repositories` hold the record, `moved` is where its tag went."""

    digest: Digest
    ref: str
    channel: Channel
    replacement: str
    repositories: tuple[str, ...]
    moved: Digest | None
    entry: Entry
    changed: bool


def change(office: Office, reference: Reference, wanted: Channel, why: str, replacement: str = "") -> Change:
    """Put an image on another channel; `reference` names it in the consumers' or candidates' repository.

    `replacement` is `NAME:TAG[@DIGEST]` of a stable image, which is verified. Raises IllegalMove,
    UsageError without a reason, and as verification and the registry do; what verification says of
    the image itself does not matter.
    """
    if not why.strip():
        raise UsageError("a reason is missing", hint="--why tells those who pull the image")
    subject, places = _find(office, reference)
    state = state_of(office, subject)
    if state.channel is not wanted:
        move(state.channel, wanted)
    if wanted is Channel.CANDIDATE:  # the one that gives something back
        heed_clock(office, state)
    subject = replace(subject, immutable_tag=_immutable_tag(state, subject))
    instead = _replacement(office, replacement, subject) if replacement else None
    pointed = points_to(office, subject.repo, subject.tag)
    takes_tag = (
        instead is not None
        and wanted in (Channel.WITHDRAWN, Channel.QUARANTINE)
        and instead.ref == subject.ref
        and pointed in (subject.digest, instead.digest)
    )
    after = {"channel": wanted.value}
    if instead is not None:
        after["replacement"] = f"{instead.ref}@{instead.digest}"
    if instead is not None and takes_tag:
        after |= {"tag": subject.tag, "tagDigest": str(instead.digest)}
    before = {"channel": state.channel.value, "tag": subject.tag}
    if pointed is not None:
        before["tagDigest"] = str(pointed)
    fact = Fact(office.who, ACTIONS[wanted], subject.ref, subject.digest, before, after, why)
    entry, is_new = decide(office, state, fact)
    record = record_of(subject, entry)
    told = [publish_record(office, repo, subject, record) for repo in places]
    moved = False
    if instead is not None and takes_tag:
        image = office.client.reference(subject.repo, digest=instead.digest)
        moved = move_tags(office, image, {subject.tag: pointed})
    changed = is_new or any(told) or moved
    if changed:
        tell_gates(office, state, places)
    return Change(
        subject.digest,
        subject.ref,
        wanted,
        record.replacement,
        places,
        instead.digest if instead is not None and takes_tag else None,
        entry,
        changed=changed,
    )


def _find(office: Office, reference: Reference) -> tuple[Subject, tuple[str, ...]]:
    """The image, and the repositories that hold it."""
    repo = home_of(reference.name)
    both = (repo, f"{CANDIDATES}/{repo}", f"{QUARANTINES}/{repo}")
    tries = both if reference.name == repo else (reference.name,)
    where = next((n for n in tries if office.client.head_manifest(_in(reference, n)) is not None), tries[0])
    digest = resolve(_in(reference, where), office.client)
    found = _in(reference, where).with_digest(digest)
    if not fetch(office.client, found).is_index:
        refuse("one-platform", "this is one platform of an image", context=str(found), hint="name the image")
    # What was decided before can be called back whatever has become of its evidence.
    known = [e.fact.ref for e in office.ledger.entries() if e.fact.digest == digest]
    ref = known[-1] if known else published_verdict(found, office.client, office.trust).ref
    places = tuple(n for n in both if office.client.head_manifest(_in(found, n)) is not None)
    return Subject(digest, ref, place=QUARANTINES if both[2] in places else CANDIDATES), places


def _in(reference: Reference, repo: str) -> Reference:
    return Reference(reference.host, repo, reference.tag, reference.digest)


def _immutable_tag(state: State, subject: Subject) -> str:
    """By the ledger; empty when the image was never promoted, for then it has none."""
    of_it = [e.fact.after for e in state.history if e.fact.digest == subject.digest]
    return next((a["immutableTag"] for a in reversed(of_it) if "immutableTag" in a), "")


def _replacement(office: Office, text: str, subject: Subject) -> Subject:
    """The image that is to be used instead: verified as a consumer does, and stable."""
    try:
        reference = Reference.parse(text, default_host=office.client.host)
    except ValueError as error:
        raise UsageError("the replacement is no reference", context=str(error), hint="NAME:TAG") from None
    if reference.digest is not None:
        reference = reference.with_digest(reference.digest)  # its tag may point elsewhere by now
    digest = resolve(reference, office.client)
    closure = Closure.read(office.client, reference.name, digest)
    found = verify(reference, closure, office.trust, office.now, accept_sample=office.accept_sample)
    instead = Subject(found.digest, found.verdict.ref)
    if instead.digest == subject.digest or found.digest != found.verdict.digest:
        raise UsageError("an image cannot replace itself or be replaced by one platform", context=text)
    if state_of(office, instead, closure).channel is not Channel.STABLE:
        raise UsageError(
            f"the replacement {instead.ref}@{instead.digest} is not stable", hint=f"goldsmith promote {text}"
        )
    return instead
