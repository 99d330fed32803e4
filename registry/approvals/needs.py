"""Approvals: which changes of an image need how many people, and whose approvals count. Pure.

An image is compared with the one that was stable before it, by the digests of definition, template
and lock. Who wrote a change does not approve it; nobody is counted twice. Whatever cannot be told
(what it is made of, who wrote it) counts against the image.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from builder.model.digest import Digest
from builder.model.sources import Origin, Sources, Tree
from builder.policy.schema import ApprovalLimits
from registry.approvals.people import is_one_of, same_person


class Change(StrEnum):
    """What can be new in an image."""

    DEFINITION = "definition"
    TEMPLATE = "template"
    LOCK = "lock"
    FIRST = "first"
    IMPORT = "import"


@dataclass(frozen=True, slots=True)
class Made:
    """What an image is made of, for comparison."""

    definition: Digest
    template: Digest
    lock: Digest


@dataclass(frozen=True, slots=True)
class Approval:
    """Somebody looked at what an image (`digest`, its index) is made of, and found it good."""

    digest: Digest
    ref: str
    made: Made
    who: str
    at: dt.datetime
    why: str
    policy: str


@dataclass(frozen=True, slots=True)
class Writers:
    """Who wrote what is new; `unknown` is why that cannot be told, and empty when it can."""

    people: tuple[str, ...]
    unknown: str = ""


@dataclass(frozen=True, slots=True)
class Approvers:
    """Who may approve, by the access rules; by these of the default nobody may.

    `may` is whether somebody (an identity's name) may approve an image (its name), `able` whom to
    ask, `emails` whose an address is. `alone`: there are no rules, so one person does everything.
    """

    may: Callable[[str, str], bool] = lambda who, image: False
    able: Callable[[str], tuple[str, ...]] = lambda image: ()
    emails: Mapping[str, str] = field(default_factory=dict)
    alone: bool = True


@dataclass(frozen=True, slots=True)
class Count:
    """Whose approvals count, and for each other one why it does not."""

    approvers: tuple[str, ...]
    left_out: tuple[str, ...]


def imported(digest: Digest) -> Made:
    """What an image from elsewhere is made of: nothing that we know but itself."""
    return Made(digest, digest, digest)


def made_of(attested: Collection[Sources]) -> Made | None:
    """What an image is made of by all that is attested of it; None when nothing is.

    An image can be published again with another definition (its checks changed) and the same
    digest: then it is made of both.
    """
    if not attested:
        return None
    return Made(
        _joined({s.definition for s in attested}),
        _joined({s.template for s in attested}),
        _joined({s.lock for s in attested}),
    )


def changes(previous: Made | None, now: Made) -> frozenset[Change]:
    """What is new in an image; without a previous one everything is."""
    if previous is None:
        return frozenset({Change.FIRST, Change.DEFINITION, Change.TEMPLATE, Change.LOCK})
    pairs = {
        Change.DEFINITION: (previous.definition, now.definition),
        Change.TEMPLATE: (previous.template, now.template),
        Change.LOCK: (previous.lock, now.lock),
    }
    return frozenset(change for change, (before, after) in pairs.items() if before != after)


def asked(limits: ApprovalLimits, found: Collection[Change]) -> Mapping[Change, int]:
    """For which of these changes somebody has to approve, and how many people."""
    numbers = {
        Change.DEFINITION: limits.definition,
        Change.TEMPLATE: limits.template,
        Change.LOCK: limits.lock,
        Change.FIRST: limits.first,
        Change.IMPORT: limits.import_,
    }
    return {change: numbers[change] for change in found if numbers[change]}


def needed(limits: ApprovalLimits, found: Collection[Change]) -> int:
    """How many approvals these changes need: one looks at all of them, so the largest number holds."""
    return max(asked(limits, found).values(), default=0)


def writers(
    attested: Collection[Sources], found: Collection[Change], known: Mapping[str, Collection[str]]
) -> Writers:
    """Who wrote the changes `found`; `known` are the commits that stable images came from, by image.

    Who moved a lock wrote nothing but the lock.
    """
    origins = [s.origin for s in attested]
    people: dict[str, None] = {}
    reasons = [] if origins else ["the provenance does not say who wrote it"]
    for origin in origins:
        reasons += _untold(origin, known)
        names = origin.writers if set(found) - {Change.LOCK} else ()
        names += origin.lockers if Change.LOCK in found else ()
        if origin.tree is not Tree.CLEAN:
            names += (origin.publisher,)
        people |= dict.fromkeys(names)
    return Writers(tuple(people), reasons[0] if reasons else "")


def count(
    approvals: Iterable[Approval],
    ref: str,
    now: Made,
    by: Writers,
    *,
    exactly: bool = False,
    approvers: Approvers,
) -> Count:
    """Whose approvals count for an image made of `now`; `exactly` asks for the same lock, too.

    Only people approve: a token is nobody, whoever made it.
    """
    emails, image = approvers.emails, ref.partition(":")[0]
    good: list[str] = []
    left_out: dict[str, None] = {}
    for approval in sorted(approvals, key=lambda a: (a.at, a.who)):
        if approval.ref != ref or not _covers(approval.made, now, exactly):
            continue
        if by.unknown:
            left_out[f"{approval.who}: {by.unknown}"] = None
        elif not can_be_told(approval.who, emails):
            left_out[f"{approval.who}: access.yaml does not say which e-mail addresses are theirs"] = None
        elif is_one_of(approval.who, by.people, emails):
            left_out[f"{approval.who} wrote it, or may have"] = None
        elif not is_person(approval.who) or not approvers.may(approval.who, image):
            left_out[f"{approval.who} may not approve {ref}"] = None
        elif not any(same_person(approval.who, other, emails) for other in good):
            good.append(approval.who)
    return Count(tuple(good), tuple(left_out))


def can_be_told(who: str, emails: Mapping[str, str]) -> bool:
    """Whether an identity can be told from writers: an issuer's subject may be a number that says nothing."""
    return not who.startswith("oidc:") or "@" in who or who in emails.values()


def is_person(who: str) -> bool:
    """Whether an identity is somebody, and not something that somebody made."""
    return who.partition(":")[0] in ("user", "oidc") and bool(who.partition(":")[2])


def _covers(approved: Made, now: Made, exactly: bool) -> bool:
    same = (approved.definition, approved.template) == (now.definition, now.template)
    return same and (not exactly or approved.lock == now.lock)


def _untold(origin: Origin, known: Mapping[str, Collection[str]]) -> list[str]:
    if origin.tree is Tree.UNKNOWN:
        return ["git could not tell who wrote it (no git, or no whole history, where it was published)"]
    for ref, commit in origin.since:
        if commit not in known.get(ref, ()):
            return [f"who wrote it was looked for since a commit of {ref} that never was stable"]
    return []


def _joined(digests: set[Digest]) -> Digest:
    return digests.copy().pop() if len(digests) == 1 else Digest.of_json(sorted(digests))
