"""Approving: what of an image waits for people, and what they say of it.

The procedure; the numbers stand in the code:

 1. The image is verified where it is, at today's date: nobody approves what is refused anyway. The
    ledger agrees with the registry, and this machine's clock with the ledger.
 2. What is new in it, against the image that was stable last, by the ledger; and who wrote that.
 3. Who wrote it, or may have, does not approve it.
 4. Who approved the very same before has done so: nobody approves twice.
 5. The approval is signed and attached to the index, beside those of others.
 6. The decision enters the ledger. From here on it counts, and not before.

A run that was cut leaves at most a signed approval that no entry of the ledger names: it counts
for nothing, and the next run makes another one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from builder.errors import PolicyDenied, UsageError
from builder.model.digest import Digest
from builder.model.reference import Reference
from builder.model.sources import Sources
from builder.signing.keys import RoleSigner
from builder.signing.refusal import EvidenceRefused
from builder.signing.verification import Verification
from registry.approvals.needs import (
    Approval,
    Change,
    Count,
    Made,
    Writers,
    asked,
    can_be_told,
    changes,
    count,
    imported,
    is_person,
    made_of,
    needed,
    writers,
)
from registry.approvals.people import is_one_of
from registry.approvals.records import put_approval, read_approval
from registry.audit.ledger import Action, Entry, Fact
from registry.audit.redaction import redact
from registry.promotion.closure import Closure
from registry.promotion.office import (
    CANDIDATES,
    QUARANTINES,
    Office,
    Subject,
    heed_clock,
    read_verified,
    state_of,
)
from registry.promotion.recheck import origin_of

_READ_MAX = 64  # approvals of one image that are looked at, the newest first
_COMMITS_MAX = 16
_PARTS = ("definition", "template", "lock")


@dataclass(frozen=True, slots=True)
class Matter:
    """What there is to approve of an image; `made` is None when nothing is attested of that."""

    subject: Subject
    made: Made | None
    commits: tuple[str, ...]
    changes: frozenset[Change]
    writers: Writers

    @property
    def fields(self) -> Mapping[str, str]:
        """What the ledger keeps of it, so that the next image can be compared with it."""
        if self.made is None:
            return {}
        commits = {"commits": " ".join(self.commits)} if self.commits else {}
        return {**{part: str(getattr(self.made, part)) for part in _PARTS}, **commits}


@dataclass(frozen=True, slots=True)
class Standing:
    """How many approvals an image needs, and whose it has."""

    matter: Matter
    needed: int
    count: Count

    @property
    def missing(self) -> int:
        """How many are missing."""
        return max(0, self.needed - len(self.count.approvers))


@dataclass(frozen=True, slots=True)
class Approved:
    """What became of an approval; `changed` is False when it had been given before."""

    standing: Standing
    entry: Entry
    changed: bool


def matter_of(office: Office, subject: Subject, found: Verification, history: tuple[Entry, ...]) -> Matter:
    """2. What is new in a verified image, by the ledger, and who wrote what has to be approved of it."""
    before = last_stable(subject.ref, history)
    origin = origin_of(found)
    if origin is not None:  # nothing is known of it but its digest, and who brought it in
        made, new = imported(subject.digest), frozenset({Change.IMPORT})
        same = before is not None and _made(before) == made
        return Matter(subject, made, (), frozenset() if same else new, Writers((origin.by,)))
    attested: dict[Sources, None] = {
        p.sources: None for m in found.manifests for p in m.provenances if p.sources is not None
    }
    ours = made_of(attested)
    new = changes(_made(before) if before else None, ours) if ours else frozenset({Change.FIRST})
    commits = sorted({s.origin.commit for s in attested if s.origin.commit})[:_COMMITS_MAX]
    known: dict[str, set[str]] = {}
    for entry in history:
        known.setdefault(entry.fact.ref, set()).update(entry.fact.after.get("commits", "").split())
    by = writers(attested, asked(office.policy.data.approvals, new), known)
    return Matter(subject, ours, tuple(commits), new, by)


def standing(office: Office, matter: Matter, history: tuple[Entry, ...]) -> Standing:
    """How many approvals the policy asks for, and whose there are; reads them only when it matters."""
    limits = office.policy.data.approvals
    number = needed(limits, matter.changes)
    if matter.made is None or not number:
        return Standing(matter, number, Count((), ()))
    found, bad = _approvals(office, matter.subject, matter.made, history)
    ref, by = matter.subject.ref, matter.writers
    given = [approval for _, approval in found]
    exactly = _exactly(office, matter)
    counted = count(given, ref, matter.made, by, exactly=exactly, approvers=office.approvers)
    return Standing(matter, number, Count(counted.approvers, (*counted.left_out, *bad)))


def demand(office: Office, matter: Matter, history: tuple[Entry, ...]) -> None:
    """Pass when an image has the approvals that it needs; raises PolicyDenied with who may give them."""
    now = standing(office, matter, history)
    if not now.missing:
        return
    ref = matter.subject.ref
    if matter.made is None:
        raise PolicyDenied(
            f"nobody can tell what is new in {ref}",
            context="its provenance does not say what it is made of",
            hint=f"publish it again: goldsmith run {ref}",
            reference="sources-unknown",
        )
    many = "an approval" if now.missing == 1 else f"{now.missing} approvals"
    raise PolicyDenied(
        f"{ref} needs {many} by somebody who did not write what is new",
        context="\n".join(blocked_by(now)),
        hint=_who_can(office, matter),
        reference="approval-missing",
    )


def blocked_by(now: Standing) -> list[str]:
    """What an image waits for, in lines for people."""
    matter = now.matter
    lines = [f"new: {', '.join(sorted(matter.changes))}; {matter.subject.digest}"]
    if matter.writers.unknown:
        lines.append(f"who wrote it cannot be told: {matter.writers.unknown}")
    elif matter.writers.people:
        lines.append(f"written by {', '.join(matter.writers.people)}")
    if now.count.approvers:
        lines.append(f"approved by {', '.join(now.count.approvers)}")
    return lines + [f"does not count: {reason}" for reason in now.count.left_out]


def approve(office: Office, signer: RoleSigner, reference: Reference, why: str) -> Approved:
    """Carry out the procedure above for `office.who`; `reference` is the candidate.

    Raises UsageError without a reason, EvidenceRefused and PolicyDenied when it may not be
    approved by this person; then nothing was written.
    """
    if not why.strip():
        raise UsageError("an approval needs a reason", hint="--why TEXT: what was looked at")
    # 1. what is refused anyway
    subject, found, closure = look_at(office, reference)
    state = state_of(office, subject, office.client, closure)
    heed_clock(office, state)
    history = state.history
    # 2. what is new, and who wrote it
    matter = matter_of(office, subject, found, history)
    # 3. not one's own
    made = _refuse_own(office, matter)
    # 4. not twice
    for entry, given in _approvals(office, subject, made, history)[0]:
        if given.who == office.who and (given.made == made or not _exactly(office, matter)):
            return Approved(standing(office, matter, history), entry, changed=False)
    # 5. signed and attached
    office.trust.require(signer.public, office.now)
    policy = f"{office.policy.name}@{office.policy.digest}"
    approval = Approval(subject.digest, subject.ref, made, office.who, office.now, redact(why), policy)
    index = closure.descriptor(subject.digest)
    carrier = put_approval(office.client, reference.name, approval, index, signer)
    # 6. the ledger
    parts = {part: matter.fields[part] for part in _PARTS}
    after = {**parts, "approval": str(carrier), "policy": policy}
    fact = Fact(office.who, Action.APPROVE, subject.ref, subject.digest, {}, after, why)
    entry = office.ledger.append(fact, office.keys.verdict, office.now)
    return Approved(standing(office, matter, (*history, entry)), entry, changed=True)


def look_at(office: Office, reference: Reference) -> tuple[Subject, Verification, Closure]:
    """1. A candidate, verified whole. Raises as `verify` does."""
    found, closure = read_verified(office, reference)
    return Subject(found.digest, found.verdict.ref, place=place_of(found)), found, closure


def place_of(found: Verification) -> str:
    """The prefix under which an image came into the registry."""
    return CANDIDATES if origin_of(found) is None else QUARANTINES


def _refuse_own(office: Office, matter: Matter) -> Made:
    ref, by = matter.subject.ref, matter.writers
    if not is_person(office.who):
        raise PolicyDenied(
            f"{office.who} is nobody: people approve",
            hint="unset GOLDSMITH_TOKEN to act as yourself",
            reference="not-a-person",
        )
    if matter.made is None or by.unknown:
        raise PolicyDenied(
            f"who wrote {ref} cannot be told, so nobody can approve it",
            context=by.unknown or "its provenance does not say what it is made of",
            hint=f"publish it again from a whole clone with everything committed: goldsmith run {ref}",
            reference="writers-unknown",
        )
    if not can_be_told(office.who, office.approvers.emails):
        raise PolicyDenied(
            f"{office.who} cannot be told from those who wrote what is new in {ref}",
            context=f"written by {', '.join(by.people)}",
            hint=f"say under `emails` in access.yaml which addresses are theirs: ADDRESS: {office.who}",
            reference="approver-unknown",
        )
    if is_one_of(office.who, by.people, office.approvers.emails):
        raise PolicyDenied(
            f"{office.who} wrote what is new in {ref}, or may have",
            context=f"written by {', '.join(by.people)}",
            hint=_who_can(office, matter),
            reference="own-change",
        )
    return matter.made


def _exactly(office: Office, matter: Matter) -> bool:
    """Whether an approval has to be of the very lock."""
    return Change.LOCK in matter.changes and office.policy.data.approvals.lock > 0


def _who_can(office: Office, matter: Matter) -> str:
    ref, approvers = matter.subject.ref, office.approvers
    if approvers.alone:
        return (
            "there is nobody else yet: give a second person the role approver in access.yaml, or set "
            "`approvals` to 0 in a policy of your own; see docs/guide/approvals.md"
        )
    able = approvers.able(matter.subject.repo)
    others = [who for who in able if not is_one_of(who, matter.writers.people, approvers.emails)]
    if not others:
        return f"access.yaml names nobody who may approve {matter.subject.repo} and did not write it"
    return f"ask {', '.join(others[:5])}: goldsmith approve {ref}@{matter.subject.digest} --why TEXT"


def last_stable(ref: str, history: tuple[Entry, ...]) -> Entry | None:
    """The newest decision that made an image stable of which is known what it is made of."""
    stable = (e for e in reversed(history) if e.fact.ref == ref and "tagDigest" in e.fact.after)
    return next((e for e in stable if e.fact.after.keys() >= set(_PARTS)), None)


def _made(entry: Entry) -> Made:
    return Made(*(Digest(entry.fact.after[part]) for part in _PARTS))


def _approvals(
    office: Office, subject: Subject, made: Made, history: tuple[Entry, ...]
) -> tuple[list[tuple[Entry, Approval]], list[str]]:
    """The signed approvals of what an image is made of, and why others cannot be believed."""
    good: list[tuple[Entry, Approval]] = []
    bad: list[str] = []
    told = [e for e in reversed(history) if _is_of(e, subject, made)]
    for entry in told[:_READ_MAX]:
        who = f"{entry.fact.who} (entry {entry.sequence})"
        try:
            found = _read(office, subject, entry)
        except EvidenceRefused as error:
            bad.append(f"{who}: {error.message}")
            continue
        if found is None:
            bad.append(f"{who}: the signed approval is not in the registry")
        else:
            good.append((entry, found))
    return good, bad


def _read(office: Office, subject: Subject, entry: Entry) -> Approval | None:
    for repo in reversed(subject.repos):
        where = office.client.reference(repo, digest=subject.digest)
        found = read_approval(office.client, where, entry, office.trust)
        if found is not None:
            return found
    return None


def _is_of(entry: Entry, subject: Subject, made: Made) -> bool:
    """Whether an entry is an approval of this definition and template of this image."""
    fact = entry.fact
    same = all(fact.after.get(part) == getattr(made, part) for part in ("definition", "template"))
    return fact.what is Action.APPROVE and fact.ref == subject.ref and same
