"""Promotion: a candidate becomes what consumers pull; rollback: an earlier image does so again.

The procedure; the numbers stand in the code:

 1. The image is verified where it is, with everything that is attached, at today's date.
 2. Today's policy is asked again, on the attested reports, and on what witnesses attested.
 3. Its channel leads to `stable`, by the ledger, which agrees with the registry's records; a rollback
    also leads there from `deprecated`.
 4. Its immutable tag never meant another image: neither in the registry nor in the ledger, which
    remembers tags that are gone (a tombstone).
 5. It has the approvals that the policy asks for what is new in it; going back needs none. Only now
    does an image that others made leave the quarantine that it was imported into.
 6. The closure is copied by digest, with the rebuild kit that its provenance names; blobs are
    linked. The signature is made anew, for the name under which it is pulled from now on.
 7. It is verified at its destination: tags, listings and manifests are read anew, there. A blob whose
    bytes were hashed in step 1 is looked for by its digest, unless the registry linked it just now.
 8. It is compared with the image that the floating tag points to, by what is attested of both.
 9. The decision enters the ledger.
10. The change record, which tells what is new in it, is attached to its index, in front of the next; of
    an image that was promoted before, and of one that is gone back to, there is nothing new to tell.
11. The channel record, with number and hash of that entry, is attached to platforms and index.
12. The immutable tag, then the floating tag.
13. Gates are told to look now.

Before 11 nothing that a consumer accepts has changed but evidence. A run that was cut anywhere is
completed by the next one: what is there is not written again, and a decision is not told twice.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from builder.errors import PolicyDenied, RegistryError, UsageError
from builder.model.channel import Channel
from builder.model.digest import Digest
from builder.model.image import Target
from builder.model.reference import Reference
from builder.signing.cosign_formats import signature_tag, signatures_manifest
from builder.signing.memo import Memo
from builder.signing.predicates import timestamp
from builder.signing.rebuilds import witnesses
from builder.signing.refusal import EvidenceRefused, refuse
from builder.signing.statements import simple_signing
from builder.signing.verification import Verification, named_kits
from registry.approvals.procedure import Matter, demand, matter_of, place_of
from registry.audit.ledger import Action, Entry, Fact
from registry.promotion.callback import change
from registry.promotion.changelog import news_of, signed_news
from registry.promotion.channels import SERVED, back, move
from registry.promotion.closure import Brought, Closure, Copied, copy
from registry.promotion.office import (
    CANDIDATES,
    QUARANTINES,
    Office,
    State,
    Subject,
    decide,
    heed_clock,
    move_tags,
    points_to,
    publish_record,
    read_verified,
    record_of,
    state_of,
    tell_gates,
    verified,
)
from registry.promotion.recheck import recheck

_THREADS = 8


@dataclass(frozen=True, slots=True)
class Promotion:
    """What a promotion or rollback led to; `changed` is False when all of it was in place before.

    `reference` is what consumers pull, by digest; `previous` is where the floating tag pointed.
    """

    reference: Reference
    ref: str
    tags: tuple[str, ...]
    previous: Digest | None
    entry: Entry
    changed: bool


def promote(
    office: Office,
    reference: Reference,
    target: Target | None,
    why: str,
    action: Action = Action.PROMOTE,
) -> Promotion:
    """Carry out the procedure above; `reference` is the candidate, `target` it in the catalogue.

    Others' image, which was imported, is in no catalogue: it has no `target`.

    Raises EvidenceRefused or PolicyDenied when it may not be promoted, RegistryError when the registry
    fails; both leave tags and channel as they were, or as the next run will complete them.
    """
    # 1. where it is
    memo = Memo()
    found, source = read_verified(office, reference, memo)
    digest = found.digest
    # 2. today's policy
    seen = witnesses(source, reference.with_digest(digest), office.trust, office.now)
    recheck(found, target, office.policy, office.now, seen)
    subject = Subject(digest, found.verdict.ref, _immutable_tag(found), place_of(found))
    at_home = reference.name == subject.repo
    # 3. its channel
    known = (source,) if at_home else (office.client, source)
    state = state_of(office, subject, *known)
    heed_clock(office, state)
    waits = _waits(state, digest, action)
    # 4. its immutable tag
    taken = _refuse_taken(office, subject, state)
    # 5. its approvals
    matter, going_back = matter_of(office, subject, found, state.history), action is Action.ROLLBACK
    if not going_back:
        demand(office, matter, state.history)
    if waits:
        change(office, reference.with_digest(digest), Channel.CANDIDATE, why.strip() or "approved")
        state = state_of(office, subject, *known)
    # 6. copy
    copied, signed = _bring(office, source, subject.repo, named_kits(found))
    # 7. the consumer's eyes
    home = office.client.reference(subject.repo, digest=digest)
    brought = Brought(source.blobs, copied.placed, copied.written)
    arrived = Closure.read(office.client, subject.repo, digest, brought, memo=memo)
    there = verified(office, home, arrived, memo)
    # 8. what is new
    previous = points_to(office, subject.repo, subject.tag)
    news = None if going_back else news_of(office, matter, state, there, arrived, previous)
    # 9. the ledger
    entry, is_new = decide(office, state, _fact(office, matter, state, found, previous, why, action))
    # 10. the change record, 11. the channel record
    extra, record = signed_news(office, subject, news, entry, arrived), record_of(subject, entry)
    told = publish_record(office, subject.repo, subject, record, arrived, extra)
    # 12. the tags, the floating one last
    tags = {subject.immutable_tag: taken, subject.tag: previous}
    moved = move_tags(office, home, tags, arrived)
    changed = bool(copied.manifests or signed or is_new or told or moved)
    # 13. the gates
    if changed:
        tell_gates(office, state, (subject.repo,))
    return Promotion(home, subject.ref, tuple(tags), previous, entry, changed)


def rollback(office: Office, ref: str, target: Target | None, why: str) -> Promotion:
    """Let the floating tag of `ref` (`NAME:TAG`) point to the image before the one it points to.

    The ledger knows which that was; it has to be served still, and is stable from then on. It passes
    everything that a promotion asks for, at today's date. Raises UsageError when there is none,
    otherwise as `promote` does.
    """
    repo, _, tag = ref.partition(":")
    now = points_to(office, repo, tag)
    if now is None:
        raise UsageError(f"{ref} was not promoted", hint=f"goldsmith promote {ref}")
    digest = _before(office, ref, now)
    place = QUARANTINES if target is None else CANDIDATES
    candidate = office.client.reference(f"{place}/{repo}", digest=digest)
    home = office.client.reference(repo, digest=digest)
    # The repository that it came into has the newer evidence, if it has the image.
    is_there = office.client.head_manifest(candidate) is not None
    return promote(office, candidate if is_there else home, target, why, Action.ROLLBACK)


def _immutable_tag(found: Verification) -> str:
    tags = {p.immutable_tag for m in found.manifests for p in m.provenances}
    if len(tags) != 1:
        refuse("other-name", "the provenances name several immutable tags", context=", ".join(sorted(tags)))
    return tags.pop()


def _waits(state: State, digest: Digest, action: Action) -> bool:
    """3. Whether an image is in quarantine because it was imported, and for no other reason.

    Raises IllegalMove when its channel does not lead to `stable`.
    """
    last = state.last(digest)
    waits = last is not None and last.fact.what is Action.IMPORT and state.channel is Channel.QUARANTINE
    if waits:
        move(state.channel, Channel.CANDIDATE)
    elif action is Action.ROLLBACK:
        back(state.channel)
    elif state.channel is not Channel.STABLE:
        move(state.channel, Channel.STABLE)
    return waits


def _refuse_taken(office: Office, subject: Subject, state: State) -> Digest | None:
    """4. what the immutable tag points to: the image, or nothing yet."""
    there = points_to(office, subject.repo, subject.immutable_tag)
    owners = {
        e.fact.digest
        for e in state.history
        if e.fact.after.get("immutableTag") == subject.immutable_tag
        and e.fact.ref.partition(":")[0] == subject.repo
    }
    others = (owners | ({there} if there else set())) - {subject.digest}
    if others:
        raise PolicyDenied(
            f"the immutable tag {subject.immutable_tag} belongs to another image",
            context=f"{', '.join(sorted(others))}, not {subject.digest}",
            hint="the same input gave another digest: find out why; the tag is never given again",
            reference="immutable-tag",
        )
    return there


def _bring(office: Office, source: Closure, repo: str, kits: frozenset[Digest]) -> tuple[Copied, int]:
    """6. the closure in the consumers' repository, and how many signatures for its name there are news."""
    is_new = office.client.head_manifest(office.client.reference(repo, digest=source.image)) is None
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="sign") as pool:
        signing = pool.map(lambda one: _sign_name(office, repo, one, is_new), source.subjects)
        copied = Copied() if source.repo == repo else copy(source, repo, office.work, kits, is_new)
        return copied, sum(signing)


def _sign_name(office: Office, repo: str, digest: Digest, is_new: bool) -> bool:
    """6. the signature for the names under which the image is pulled from now on; whether it is news."""
    client, key = office.client, office.keys.builder
    payloads = [simple_signing(f"{host}/{repo}", digest) for host in office.hosts]
    ref = client.reference(repo, signature_tag(digest))
    if not is_new and client.head_manifest(ref) is not None:
        there = Closure.read_signatures(client, ref)
        # Keys in a KMS or HSM never sign the same twice: what is good stays.
        if [p for p, _ in there] == payloads and all(key.public.verifies(s, p) for p, s in there):
            return False
    item = signatures_manifest(digest, [(p, key.sign(p)) for p in payloads])
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="sign") as pool:
        list(pool.map(lambda blob: client.put_blob(repo, blob[1], blob[0]), item.blobs.items()))
    client.put_manifest(ref, item.manifest, item.media_type)
    return True


def _fact(
    office: Office,
    matter: Matter,
    state: State,
    found: Verification,
    previous: Digest | None,
    why: str,
    action: Action,
) -> Fact:
    subject = matter.subject
    before = {"channel": state.channel.value, "tag": subject.tag}
    after = {
        "channel": Channel.STABLE.value,
        "tag": subject.tag,
        "tagDigest": str(subject.digest),
        "immutableTag": subject.immutable_tag,
        "verdict": timestamp(found.verdict.issued_at),
        "policy": f"{office.policy.name}@{office.policy.digest}",
        **matter.fields,
    }
    if office.policy.extensions:
        after["extensions"] = " ".join(sorted({e.release for e in office.policy.extensions}))
    if previous is not None:
        before["tagDigest"] = str(previous)
    return Fact(office.who, action, subject.ref, subject.digest, before, after, why)


def _before(office: Office, ref: str, now: Digest) -> Digest:
    """The image, still served, that the tag pointed to before `now`, by the ledger."""
    history = office.ledger.entries()
    of_tag = [e for e in history if e.fact.ref == ref and "tagDigest" in e.fact.after]
    last = of_tag[-1] if of_tag else None
    if last and last.fact.what is Action.ROLLBACK and last.fact.before.get("tagDigest") == now:
        return Digest(last.fact.after["tagDigest"])  # a rollback that was cut before the tag moved
    stack: list[Digest] = []
    for entry in of_tag:
        digest = Digest(entry.fact.after["tagDigest"])
        if entry.fact.what is Action.ROLLBACK and digest in stack:
            del stack[stack.index(digest) + 1 :]
        elif not stack or stack[-1] != digest:
            stack.append(digest)
    if now not in stack:
        raise RegistryError(
            f"{ref} points to an image that the ledger does not know",
            context=str(now),
            hint=f"see `goldsmith audit --ref {ref}`; promote the image that you want by its digest",
            reference="unknown-tag",
        )
    channels = {e.fact.digest: e.fact.after["channel"] for e in history if "channel" in e.fact.after}
    for digest in reversed(stack[: stack.index(now)]):
        if channels.get(digest) in SERVED:
            return digest
    raise EvidenceRefused(
        f"no image before the one that {ref} points to is still served",
        context=str(now),
        hint="promote another one by its digest, or revoke this one with a replacement",
        reference="nothing-before",
    )
