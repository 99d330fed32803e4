"""What a decision on an image is made with, and what all decisions share: state, records, tags."""

from __future__ import annotations

import contextlib
import datetime as dt
import fcntl
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from builder.errors import PolicyDenied, RegistryError, ToolError
from builder.model.channel import Channel, ChannelRecord
from builder.model.digest import Digest
from builder.model.evidence import Finding
from builder.model.image import Descriptor
from builder.model.reference import Reference
from builder.model.release import SignedManifest
from builder.oci.client import RegistryClient
from builder.oci.manifest import Manifest, parse_manifest
from builder.policy.schema import Policy
from builder.signing.collect import Registry
from builder.signing.keys import Keys
from builder.signing.memo import Memo
from builder.signing.refusal import refuse
from builder.signing.trust import Trust, Use
from builder.signing.verification import Verification
from builder.signing.verify import SKEW, resolve, verify
from builder.store import StateBusy
from registry.approvals.needs import Approvers
from registry.audit.ledger import Action, Entry, Fact, Ledger, LedgerBroken
from registry.changes import announce
from registry.promotion.closure import Closure
from registry.promotion.records import (
    attach,
    enlist,
    put_content,
    read_back,
    read_record,
    signed_record,
)

_THREADS = 8
_RECENT = 8  # decisions that gates are reminded of
CANDIDATES = "candidate"  # the prefix under which images are published
QUARANTINES = "quarantine"  # and the one for images that others made


@dataclass(frozen=True)
class Office:
    """Who decides, with what: the registry, keys, the ledger, the policy, and the time of the run.

    `hosts` are the names under which consumers reach the registry: signatures are made for each.
    `near` reads the registry's own folder, where that is on this machine.
    `reasons` are why an image (its index digest) was built, as far as its run kept that.
    `known` is what the newest scans say of an image, by platform, where that is known here: what was
    attested of it may be older than the vulnerability that its successor mends.
    """

    client: RegistryClient
    keys: Keys
    trust: Trust
    ledger: Ledger
    policy: Policy
    who: str
    now: dt.datetime
    hosts: tuple[str, ...]
    work: Path
    approvers: Approvers = field(default_factory=Approvers)
    near: Registry | None = None
    reasons: Callable[[Digest], tuple[str, ...]] = lambda digest: ()
    known: Callable[[Digest], Mapping[str, tuple[Finding, ...]] | None] = lambda digest: None

    @property
    def accept_sample(self) -> bool:
        """Whether the policy accepts the sample vulnerability database."""
        return self.policy.data.database.sample == "accept"


@dataclass(frozen=True, slots=True)
class Subject:
    """An image that is decided on: its index digest, `NAME:TAG`, and its immutable tag (or empty).

    `place` is the prefix under which it came into the registry.
    """

    digest: Digest
    ref: str
    immutable_tag: str = ""
    place: str = CANDIDATES

    @property
    def repo(self) -> str:
        """The repository that consumers pull from."""
        return self.ref.partition(":")[0]

    @property
    def tag(self) -> str:
        """The floating tag."""
        return self.ref.partition(":")[2]

    @property
    def repos(self) -> tuple[str, str]:
        """Where the image may be: the consumers' repository, and the one it came into."""
        return self.repo, f"{self.place}/{self.repo}"


@dataclass(frozen=True)
class State:
    """Where an image stands, what the ledger says of it and of its tag, and the registry's record."""

    channel: Channel
    record: ChannelRecord | None
    history: tuple[Entry, ...] = field(repr=False)

    def last(self, digest: Digest) -> Entry | None:
        """The newest decision on an image."""
        of_it = (e for e in reversed(self.history) if e.fact.digest == digest)
        return next((e for e in of_it if "channel" in e.fact.after), None)

    def last_of_tag(self, ref: str) -> Entry | None:
        """The newest decision on where a floating tag points."""
        return next(
            (e for e in reversed(self.history) if e.fact.ref == ref and "tagDigest" in e.fact.after), None
        )


@contextlib.contextmanager
def deciding(folder: Path) -> Iterator[None]:
    """One decision at a time; raises StateBusy when another one is being carried out."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder / "deciding", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise ToolError(f"cannot write {folder}", context=str(error)) from None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise StateBusy(
            "another promotion or revocation is being carried out",
            context=str(folder),
            hint="wait for it to end, then run the command again",
        ) from None
    else:
        yield
    finally:
        os.close(handle)


def read_verified(
    office: Office, reference: Reference, memo: Memo | None = None
) -> tuple[Verification, Closure]:
    """An image where it is, read with everything that is attached, and verified; raises as `verified`."""
    digest = resolve(reference, office.near or office.client)
    closure = Closure.read(office.client, reference.name, digest, near=office.near, memo=memo)
    return verified(office, reference, closure, memo), closure


def verified(
    office: Office, reference: Reference, closure: Closure, memo: Memo | None = None
) -> Verification:
    """What was read of an image, verified whole at today's date; raises EvidenceRefused, RegistryError.

    `memo` has what this run read of it before, elsewhere.
    """
    found = verify(
        reference,
        closure,
        office.trust,
        office.now,
        accept_sample=office.accept_sample,
        held=is_held(reference.name),
        memo=memo,
    )
    if found.digest != found.verdict.digest:
        refuse(
            "one-platform",
            "this is one platform of an image; decisions are on whole images",
            context=str(reference),
            hint=f"name the image: {found.verdict.ref}@{found.verdict.digest}",
        )
    return found


def state_of(office: Office, subject: Subject, *registries: Registry) -> State:
    """Where an image stands, by the ledger; what the registry says has to agree with it.

    `registries` answer for the subject's repositories in their order, in the place of the client.
    Raises LedgerBroken when the registry holds a decision that the ledger does not know.
    """
    history = office.ledger.entries()
    records = []
    for number, repo in enumerate(subject.repos):
        registry = registries[number] if number < len(registries) else office.client
        where = office.client.reference(repo, digest=subject.digest)
        record = read_record(registry, where, subject.digest, office.trust)
        if record is not None:
            _check_known(record, history)
            records.append(record)
    newest = max(records, key=lambda r: r.sequence, default=None)
    decided = [e for e in history if e.fact.digest == subject.digest and "channel" in e.fact.after]
    channel = Channel(decided[-1].fact.after["channel"]) if decided else Channel.CANDIDATE
    return State(channel, newest, history)


def heed_clock(office: Office, state: State) -> None:
    """Refuse to approve by a clock that is behind an earlier decision: an expired verdict might pass.

    Decisions that take something back are not held up. Raises PolicyDenied.
    """
    decided = [e.at for e in state.history if "channel" in e.fact.after]
    newest = max(decided, default=office.now)
    if newest > office.now + SKEW:
        raise PolicyDenied(
            "this machine's clock is behind the ledger",
            context=f"it says {office.now.isoformat()}; the newest decision is of {newest.isoformat()}",
            hint="set the clock, then run the command again",
            reference="clock-behind",
        )


def _check_known(record: ChannelRecord, history: tuple[Entry, ...]) -> None:
    known = record.sequence <= len(history) and history[record.sequence - 1].hash == record.entry
    if not known:
        raise LedgerBroken(
            "the registry holds a decision that the ledger does not know",
            context=f"{record.ref}: {record.channel}, entry {record.sequence}, {record.entry}; the ledger "
            f"has {len(history)}",
            hint="the ledger is of another registry, or an older state of it: put the right one back",
            reference="ledger-behind",
        )


def decide(office: Office, state: State, fact: Fact) -> tuple[Entry, bool]:
    """The ledger's entry of a decision, and whether it is new.

    A decision that was cut before it took effect is the newest one on the image and on its tag,
    and says the same: then it is taken up again and not told twice. One from before today's verdict
    key is told anew, since no record of it could be signed any more.
    """
    last = state.last(fact.digest)
    signer = Use(office.keys.verdict.public.id, last.at if last else office.now, dated=True)
    if last is not None and last.fact.after == fact.after and not office.trust.flaw(signer):
        of_tag = state.last_of_tag(fact.ref)
        if "tagDigest" not in fact.after or of_tag == last:
            return last, False
    _note_policy(office, state, fact)
    return office.ledger.append(fact, office.keys.verdict, office.now), True


def _note_policy(office: Office, state: State, fact: Fact) -> None:
    """When the policy of that name was another one at the last decision by it, say so first."""
    now = fact.after.get("policy")
    name = f"{office.policy.name}@"
    earlier = (e.fact.after.get("policy", "") for e in reversed(state.history))
    before = next((p for p in earlier if p.startswith(name)), now)
    if now is not None and before is not None and before != now:
        ref, states = f"policy:{office.policy.name}", ({"policy": before}, {"policy": now})
        why = "another text of the policy is in use"
        change = Fact(office.who, Action.CHANGE_POLICY, ref, office.policy.digest, *states, why)
        office.ledger.append(change, office.keys.verdict, office.now)


def record_of(subject: Subject, entry: Entry) -> ChannelRecord:
    """The record that tells a decision to those who see the registry alone."""
    return ChannelRecord(
        subject.digest,
        subject.ref,
        subject.immutable_tag,
        Channel(entry.fact.after["channel"]),
        entry.sequence,
        entry.hash,
        entry.at,
        entry.fact.why,
        entry.fact.after.get("replacement", ""),
    )


def publish_record(
    office: Office,
    repo: str,
    subject: Subject,
    record: ChannelRecord,
    known: Registry | None = None,
    before: Sequence[SignedManifest] = (),
) -> bool:
    """Attach a record to platforms and index in a repository, and read it back; whether it was news.

    The index comes last: what it says, its platforms say already. It gets what else is to be attached
    to it (`before`) in front of the record, and in one listing with it. A registry that does not list by
    itself shows nothing before it is listed: there everything is put and read back first. `known` answers
    for what was there just before, in the place of the client. Raises RegistryError when it cannot be read
    back.
    """
    client, index = office.client, office.client.reference(repo, digest=subject.digest)
    data, media_type, _ = (known or client).get_manifest(index)
    platforms = parse_manifest(data, media_type).manifests
    lists_itself = client.supports_referrers(repo)
    show = attach if lists_itself else enlist

    def says_it(one: Descriptor) -> bool:
        where, key = index.with_digest(one.digest), office.trust
        return read_record(known or client, where, subject.digest, key, one.digest) == record

    def upload(item: SignedManifest) -> SignedManifest:
        put_content(client, repo, item, known)
        if not lists_itself:
            client.put_referrer(repo, item.manifest, item.media_type)
        return item

    with ThreadPoolExecutor(_THREADS, thread_name_prefix="records") as pool:
        carriers = (*platforms, Descriptor(media_type, subject.digest, len(data)))
        there = list(pool.map(says_it, carriers))
        wanted = [one for one, said in zip(carriers, there, strict=True) if not said]
        signed = [signed_record(record, one, office.keys.verdict) for one in wanted]
        list(pool.map(upload, (*signed, *before)))
        reading = [] if lists_itself else [pool.submit(read_back, client, repo, item) for item in signed]
        items = dict(zip((one.digest for one in wanted), signed, strict=True))
        last = items.pop(subject.digest, None)
        list(pool.map(lambda one: show(client, repo, [one[1]], one[0], known), items.items()))
        for read in reading:
            read.result()
        if on_index := [*before, *([last] if last else [])]:
            show(client, repo, on_index, subject.digest, known)
        if lists_itself:
            list(pool.map(lambda item: read_back(client, repo, item), signed))
    return bool(wanted or before)


def move_tags(
    office: Office, image: Reference, tags: Mapping[str, Digest | None], known: Registry | None = None
) -> bool:
    """Let tags point to an image that is there, in their order; whether one did not before. Read back.

    `tags` tells of each where it pointed when that was looked at last; `known` answers for the image's
    manifest.
    """
    client, moving = office.client, [image.with_tag(t) for t, there in tags.items() if there != image.digest]
    if not moving:
        return False
    data, media_type, digest = (known or client).get_manifest(image)
    for ref in moving:
        client.put_manifest(ref, data, media_type)
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="tags") as pool:
        for ref, found in zip(moving, pool.map(client.get_manifest, moving), strict=True):
            if found[2] != digest:
                raise _vanished(str(ref))
    return True


def tell_gates(office: Office, state: State, repos: tuple[str, ...]) -> None:
    """Let gates look at these repositories now, and at those of the decisions before, if they missed one."""
    before = (e.fact.ref.partition(":")[0] for e in reversed(state.history[-_RECENT:]))
    announce(office.client, (*repos, *before), office.now)


def fetch(client: RegistryClient, ref: Reference) -> Manifest:
    """A manifest of the registry, parsed."""
    data, media_type, _ = client.get_manifest(ref)
    return parse_manifest(data, media_type)


def is_held(repository: str) -> bool:
    """Whether images come into a repository in quarantine, for somebody to decide on them."""
    return repository.startswith(f"{QUARANTINES}/")


def home_of(repository: str) -> str:
    """The repository that consumers pull from, of one that images come into."""
    for place in (CANDIDATES, QUARANTINES):
        repository = repository.removeprefix(f"{place}/")
    return repository


def points_to(office: Office, repo: str, tag: str) -> Digest | None:
    """Where a tag points; None when there is no such tag."""
    found = office.client.head_manifest(office.client.reference(repo, tag))
    return found.digest if found else None


def _vanished(context: str) -> RegistryError:
    return RegistryError(
        "what was written cannot be read back",
        context=context,
        hint="another writer may be at work, or the storage loses data; run the command again",
        reference="not-readable",
    )
