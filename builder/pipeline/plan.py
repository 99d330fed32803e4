"""Plan: what the next run would do with each image, and why; nothing is built and nobody is asked.

`survey` reads what is known (content keys, records, histories); `decide` is a pure function of it.
The decision is the one that `run` takes: an input hash without a finished image is built, a
release key without a good verdict is released.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from builder.errors import GoldsmithError
from builder.model.catalogue import Catalogue
from builder.model.digest import Digest
from builder.model.history import History
from builder.model.plan import Action, Cause, PlannedImage, Reason
from builder.model.rebuild import RebuildRequest
from builder.pipeline.guard import Limits, Need, arrange, held_back
from builder.pipeline.history import Components, history_of, release_identity
from builder.pipeline.prepare import Prepared, prepare
from builder.pipeline.reasons import (
    build_reasons,
    release_reasons,
    request_reasons,
    unmet,
)
from builder.pipeline.release import release_key_of, verdict_holds
from builder.store import Store

__all__ = ["Limits", "Surveyed", "decide", "survey"]


@dataclass(frozen=True, slots=True)
class Surveyed:
    """What is known of one image before a run: its content keys, and what they led to before.

    `problem` says why it cannot be prepared; then there is no input hash. `digest` is that of the
    finished image of this very input, if there is one; `due` are the reasons for a release of it.
    """

    ref: str
    parent: str | None
    history: History
    problem: str = ""
    input_hash: Digest | None = None
    digest: Digest | None = None
    reasons: tuple[Reason, ...] = ()
    packages: Mapping[str, str] = field(default_factory=dict)


def survey(
    catalogue: Catalogue,
    store: Store,
    identity: Mapping[str, object],
    engines: Sequence[str],
    now: dt.datetime,
    in_place: Callable[[Prepared, Digest], bool] | None = None,
) -> tuple[Surveyed, ...]:
    """Read the content keys of all images and what is recorded under them; parents come first.

    `identity` is what a verdict depends on (see `Tools`). `in_place` asks the registry whether an
    image's tags still lead to it; without it nobody is asked.
    """
    known: dict[str, Prepared] = {}
    locks: dict[str, object] = {}
    components = Components(catalogue.root)
    found = []
    for target in catalogue.targets():
        ref = target.ref
        parent = catalogue.parent(target)
        above = parent.ref if parent else None
        history = history_of(store, ref)
        try:
            prepared = prepare(catalogue, target, known, locks)  # type: ignore[arg-type]
        except GoldsmithError as error:
            found.append(Surveyed(ref, above, history, problem=f"{error.message}; {error.hint}".rstrip("; ")))
            continue
        digest = _finished(store, prepared.input_hash, engines)
        if digest is None:
            reasons = build_reasons(history, prepared, components.of(prepared))
        else:
            wanted = release_identity(target, identity)
            record = store.record("released", release_key_of(digest, target, identity))
            reasons = release_reasons(
                history, wanted, record, record is not None and verdict_holds(record, now)
            )
            if not reasons and in_place is not None and not in_place(prepared, digest):
                reasons = (Reason(Cause.LOST, "the registry's tags lead elsewhere"),)
        packages = {p.name: p.version for platform in prepared.packages.values() for p in platform}
        found.append(Surveyed(ref, above, history, "", prepared.input_hash, digest, reasons, packages))
    return tuple(found)


def _finished(store: Store, input_hash: Digest, engines: Sequence[str]) -> Digest | None:
    """The digest of the finished image of an input, as `Builder.reuse` or `Elsewhere.known` finds it."""
    for kind, folder in (("built", store.images), ("made", store.root / "made")):
        record = store.record(kind, input_hash)
        try:
            if record is None or not set(engines) <= set(record["engines"]):
                continue
            digest = Digest(record["digest"])
        except (KeyError, TypeError, ValueError):
            continue
        if (folder / digest.hex / "index.json").is_file():
            return digest
    return None


def decide(
    surveyed: Sequence[Surveyed],
    requests: Sequence[RebuildRequest],
    limits: Limits,
    now: dt.datetime,
    consumers: Mapping[str, int] | None = None,
) -> tuple[PlannedImage, ...]:
    """What to do with each image, in the order of doing it. Pure.

    `consumers` counts who pulls an image; the images that are built on it count as well. The most
    urgent comes first (known exploited, then how many consumers, then since when), its parents
    before it. What a guard holds back, and all that is built on it, is `held` with the reason.
    """
    by_ref: dict[str, list[RebuildRequest]] = {}
    for request in requests:
        by_ref.setdefault(request.ref, []).append(request)
    needs = [_need(item, by_ref.get(item.ref, []), now) for item in surveyed]
    ordered = arrange(needs, consumers or {})
    held = held_back(ordered, limits, now)
    unknown = [r for r in requests if r.ref not in {s.ref for s in surveyed}]
    return (
        *(_planned(need, held.get(need.ref, "")) for need in ordered),
        *_orphans(unknown),
    )


def _need(item: Surveyed, requests: Sequence[RebuildRequest], now: dt.datetime) -> Need:
    """One image's own need, before its place among the others is known."""
    waiting = tuple(r for r in requests if unmet(r, item.packages))
    met = tuple(r for r in requests if r not in waiting and item.digest is None)
    if item.input_hash is None:
        action, reasons = (
            Action.BLOCKED,
            (Reason(Cause.LOCK, item.problem), *request_reasons(requests, item.packages)),
        )
    elif item.digest is None:
        action, reasons = Action.BUILD, (*item.reasons, *request_reasons((*met, *waiting), item.packages))
    elif item.reasons:
        action, reasons = Action.RELEASE, (*item.reasons, *request_reasons(waiting, item.packages))
    elif waiting:
        action, reasons = Action.BLOCKED, request_reasons(waiting, item.packages)
    else:
        action, reasons = Action.NOTHING, ()
    since = min((r.requested_at for r in (*met, *waiting)), default=item.history.built_at)
    return Need(
        ref=item.ref,
        parent=item.parent,
        action=action,
        reasons=reasons,
        exploited=any(r.known_exploited for r in (*met, *waiting)),
        since=since if action is not Action.NOTHING else None,
        input_hash=item.input_hash,
        history=item.history,
    )


def _planned(need: Need, held: str) -> PlannedImage:
    return PlannedImage(
        ref=need.ref,
        action=Action.HELD if held else need.action,
        reasons=need.reasons,
        held=held,
        exploited=need.exploited,
        consumers=need.consumers,
        since=need.since,
    )


def _orphans(requests: Sequence[RebuildRequest]) -> Iterator[PlannedImage]:
    """Requests for images that the catalogue no longer has: nobody will ever build them."""
    for ref in sorted({r.ref for r in requests}):
        asked = [r for r in requests if r.ref == ref]
        reasons = (*request_reasons(asked, {}), Reason(Cause.DEFINITION, "the catalogue has no such image"))
        yield PlannedImage(
            ref,
            Action.BLOCKED,
            reasons,
            exploited=any(r.known_exploited for r in asked),
            since=min(r.requested_at for r in asked),
        )
