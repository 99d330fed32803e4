"""Rehearsal: what a changed policy would say of everything that is there, without any effect.

Every image is verified where consumers (or else those who promote) find it, and its attested
reports are put before today's policy and the changed one, as a promotion would do.
"""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from builder.errors import GoldsmithError
from builder.model.digest import Digest
from builder.model.image import Target
from builder.model.reference import Reference
from builder.model.witness import Witness
from builder.oci.faults import Temporary
from builder.policy.engine import announce, evaluate
from builder.policy.schema import Policy
from builder.signing.collect import Registry
from builder.signing.verification import Verification
from registry.promotion.office import CANDIDATES
from registry.promotion.recheck import attested_case, rules_again
from registry.pulls import Pull

_THREADS = 8


@dataclass(frozen=True, slots=True)
class Rehearsed:
    """One image: what each policy has against it (rule: failures), and who pulls it.

    `announced` is what the changed policy will refuse on a later day. `unreadable` says why
    nothing can be said, which counts as a refusal of both.
    """

    ref: str
    digest: Digest | None
    where: str
    today: Mapping[str, tuple[str, ...]]
    then: Mapping[str, tuple[str, ...]]
    announced: tuple[str, ...] = ()
    unreadable: str = ""
    pulled_by: tuple[tuple[str, int], ...] = ()

    @property
    def breaks(self) -> bool:
        """Whether the change would refuse what passes today."""
        return not self.today and bool(self.then)


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """What a rehearsal works with; `verify` raises GoldsmithError for what cannot be believed."""

    registry: Registry
    verify: Callable[[Reference], Verification]
    host: str
    today: Policy
    then: Policy
    now: dt.datetime
    pulls: Sequence[Pull] = ()
    witnesses: Callable[[Reference], tuple[Witness, ...]] = lambda reference: ()


def rehearse(targets: Iterable[Target], with_: Rehearsal) -> tuple[Rehearsed, ...]:
    """What both policies say of each image that is in the registry, in the order of the catalogue.

    An image that was never published is left out: there is nothing to judge. Raises RegistryError when
    the registry does not answer: then nothing is known of any image.
    """
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="rehearse") as pool:
        found = pool.map(lambda target: _one(target, with_), targets)
        return tuple(one for one in found if one is not None)


def _one(target: Target, with_: Rehearsal) -> Rehearsed | None:
    name = target.definition.name
    where = f"{with_.host}/{target.ref}"
    digest = None
    try:
        for repo in (name, f"{CANDIDATES}/{name}"):
            reference = Reference(with_.host, repo, target.tag)
            there = with_.registry.head_manifest(reference)
            if there is not None:
                where, digest = str(reference), there.digest
                found = with_.verify(reference.with_digest(there.digest))
                return _judged(found, target, reference, with_)
    except Temporary:
        raise
    except GoldsmithError as error:
        return Rehearsed(target.ref, digest, where, {}, {}, unreadable=error.message)
    return None


def _judged(found: Verification, target: Target, where: Reference, with_: Rehearsal) -> Rehearsed:
    seen = with_.witnesses(where.with_digest(found.digest))
    cases = [
        (replace(attested_case(found, target, policy, with_.now), witnesses=seen), policy)
        for policy in (with_.today, with_.then)
    ]
    rules = [rules_again(case, policy, found.verdict, promoting=True) for case, policy in cases]
    today, then = (
        {r.id: r.failures for r in evaluate(case, asked) if not r.passed}
        for (case, _), asked in zip(cases, rules, strict=True)
    )
    pulled = Counter[str]()
    for pull in with_.pulls:
        if pull.digest == found.digest:
            pulled[pull.who] += pull.count
    return Rehearsed(
        target.ref,
        found.digest,
        str(where),
        today,
        then,
        announce(cases[1][0], rules[1]),
        pulled_by=tuple(pulled.most_common()),
    )
