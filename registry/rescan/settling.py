"""Rebuild requests after a rescan: written down, or taken back."""

from __future__ import annotations

from collections.abc import Mapping

from builder.model.digest import Digest
from builder.model.rebuild import RebuildRequest
from builder.rebuilds import ask_rebuild, waiting_rebuilds, withdraw_rebuild
from builder.store import Store
from registry.index.writing import Problem
from registry.rescan.asking import Answered, demanded
from registry.rescan.judging import Bench, Judged, Outcome, requests

Settled = tuple[tuple[RebuildRequest, ...], tuple[RebuildRequest, ...]]


def settle_requests(
    store: Store, judged: tuple[Judged, ...], problems: tuple[Problem, ...], bench: Bench
) -> Settled:
    """Requests that are new, and those that nothing asks for any more.

    Of an image that was not looked at, none is taken back; and none that a scanner of an extension asked
    for while the policy demands one: that is settled when it was asked.
    """
    wanted = {r.key: r for r in requests(judged, bench)}
    unknown = {j.image.digest for j in judged if j.outcome is Outcome.UNSCANNED}
    unknown |= {Digest(p.digest) for p in problems if p.digest}
    unread = {p.repository.rpartition("/")[2] for p in problems if not p.digest}
    asked_later = {j.image.digest for j in judged if j.image.current and demanded(bench.policy_of(j.image))}
    over = [
        r
        for r in waiting_rebuilds(store)
        if r.key not in wanted
        and r.digest not in unknown
        and r.ref.partition(":")[0] not in unread
        and not (r.scanner and r.digest in asked_later)
    ]
    withdrawn = tuple(r for r in over if withdraw_rebuild(store, r))
    return tuple(r for r in wanted.values() if ask_rebuild(store, r)), withdrawn


def settle_answers(store: Store, answers: Mapping[Digest, Answered]) -> Settled:
    """The same for what scanners of extensions found in the images that they were asked about."""
    wanted = {r.key: r for answered in answers.values() for r in answered.requests}
    over = [r for r in waiting_rebuilds(store) if r.scanner and r.digest in answers and r.key not in wanted]
    withdrawn = tuple(r for r in over if withdraw_rebuild(store, r))
    return tuple(r for r in wanted.values() if ask_rebuild(store, r)), withdrawn
