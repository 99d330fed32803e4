"""Rebuild requests after a rescan: written down, or taken back."""

from __future__ import annotations

from builder.model.digest import Digest
from builder.model.rebuild import RebuildRequest
from builder.rebuilds import ask_rebuild, waiting_rebuilds, withdraw_rebuild
from builder.store import Store
from registry.index.writing import Problem
from registry.rescan.judging import Bench, Judged, Outcome, requests


def settle_requests(
    store: Store, judged: tuple[Judged, ...], problems: tuple[Problem, ...], bench: Bench
) -> tuple[tuple[RebuildRequest, ...], tuple[RebuildRequest, ...]]:
    """Requests that are new, and those that nothing asks for any more.

    Of an image that was not looked at, none is taken back.
    """
    wanted = {r.key: r for r in requests(judged, bench)}
    unknown = {j.image.digest for j in judged if j.outcome is Outcome.UNSCANNED}
    unknown |= {Digest(p.digest) for p in problems if p.digest}
    unread = {p.repository.rpartition("/")[2] for p in problems if not p.digest}
    over = [
        r
        for r in waiting_rebuilds(store)
        if r.key not in wanted and r.digest not in unknown and r.ref.partition(":")[0] not in unread
    ]
    withdrawn = tuple(r for r in over if withdraw_rebuild(store, r))
    return tuple(r for r in wanted.values() if ask_rebuild(store, r)), withdrawn
