"""Looks at the storage again and again, and brings what changed through admission.

A look asks for the catalogue, the tags of each served repository, and where its floating tags
point; evidence is looked at again when its tags moved. Immutable tags and older images are asked
for in turn, some at each look. What cannot be reached changes nothing: what is approved and held
goes on being served until it expires.
"""

from __future__ import annotations

import datetime as dt
import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

from builder.errors import RegistryError
from builder.model.digest import Digest
from builder.model.image import Descriptor
from builder.model.reference import Reference
from builder.signing.collect import Registry
from builder.signing.trust import Trust
from registry.gate.admission import admit
from registry.gate.approved import ApprovedSet, RepositoryState, View, compile_view
from registry.gate.clock import SteadyClock
from registry.gate.decision import Approved, Denied, Reason
from registry.gate.journal import Journal
from registry.gate.names import Refused, read_path
from registry.gate.proofs import Proofs

CANDIDATE = "candidate/"
_COSIGN_TAG = re.compile(r"sha256-[0-9a-f]{64}(\.sig|\.att|\.sbom)?")
_IMMUTABLE_TAG = re.compile(r".+-[0-9a-f]{12}")
_OTHERS_AT_A_LOOK = 100  # immutable tags that are asked for in turn
_HALF_WRITTEN = dt.timedelta(seconds=10)  # how long evidence of a held image may contradict itself
_GONE_MAX = 10_000


class ListingRegistry(Registry, Protocol):
    """What a look asks of the storage."""

    def repositories(self) -> tuple[str, ...]:
        """The names of all repositories."""

    def tags(self, repo: str) -> tuple[str, ...]:
        """All tags of a repository."""


@dataclass(frozen=True, slots=True)
class Names:
    """Which repositories of the storage are served, and under which names.

    With the prefix `candidate/`, those below it, with or without it in the public name; with an
    empty prefix, all but the candidates.
    """

    prefix: str = CANDIDATE
    strip: bool = False

    def public(self, storage: str) -> str | None:
        """The public name of a repository; None when it is not served."""
        if not storage.startswith(self.prefix) or (not self.prefix and storage.startswith(CANDIDATE)):
            return None
        name = storage[len(self.prefix) :] if self.strip else storage
        try:
            return read_path(f"/v2/{name}/tags/list".encode()).name
        except Refused:
            return None

    def storage(self, public: str) -> str | None:
        """The other way round."""
        name = self.prefix + public if self.strip else public
        return name if self.public(name) == public else None


@dataclass(slots=True)
class _Known:
    """What we know of an image: the decision, the evidence that it was made on, and since when."""

    decision: Approved | Denied
    mark: str
    contradicted: dt.datetime | None = None


class Watch:
    """The state of all repositories; `look` brings it up to date. One thread calls it."""

    def __init__(
        self,
        host: str,
        registry: ListingRegistry,
        trust: Trust,
        approved: ApprovedSet,
        proofs: Proofs,
        clock: SteadyClock,
        journal: Journal,
        names: Names,
        *,
        accept_sample: bool = False,
    ) -> None:
        self._host, self._registry, self._trust = host, registry, trust
        self._approved, self._proofs, self._clock, self._journal = approved, proofs, clock, journal
        self._names, self._accept_sample = names, accept_sample
        self._known: dict[tuple[str, Digest], _Known] = {}
        self._tags: dict[str, dict[str, Digest]] = {}
        self._gone: dict[str, dict[str, Digest]] = {}
        self._views: dict[str, View] = {}
        self._turn = 0
        self.reachable = False
        self._admitting = 0.0
        self.seconds = self.asking_seconds = 0.0

    def recall(self) -> int:
        """Take up what was approved before, each verdict proved anew; returns how many images."""
        count = 0
        for approved, tags in self._proofs.load(self._trust):
            if self._names.public(approved.repository) is None:
                continue
            self._known[approved.repository, approved.index] = _Known(approved, approved.mark)
            self._tags.setdefault(approved.repository, {}).update(dict.fromkeys(tags, approved.index))
            count += 1
        for repository in self._tags:
            self._compile(repository)
        self._approved.replace(dict(self._views))
        return count

    def look(self) -> bool:
        """Look at the storage once; whether it could be reached."""
        began, self._admitting = time.monotonic(), 0.0
        try:
            served = [r for r in self._registry.repositories() if self._names.public(r) is not None]
            failed = [r for r in served if not self._look_at(r)]
            for repository in set(self._tags) - set(served):
                self._forget(repository)
            reachable = not failed
        except RegistryError as error:
            self._away(error)
            reachable = False
        if reachable and not self.reachable:
            self._journal.event("storage-reached", host=self._host)
        self.reachable = reachable
        self._turn += 1
        self.seconds = time.monotonic() - began
        self.asking_seconds = self.seconds - self._admitting
        self._approved.replace(dict(self._views))
        return reachable

    def known(self, repository: str, digest: Digest) -> Approved | Denied | None:
        """What was decided on an image."""
        found = self._known.get((repository, digest))
        return found.decision if found else None

    def counts(self) -> Mapping[str, int]:
        """How many images were approved and denied, by reason."""
        out = {"approved": 0, **{str(r): 0 for r in Reason}}
        for one in list(self._known.values()):
            decision = one.decision
            out["approved" if isinstance(decision, Approved) else str(decision.reason)] += 1
        return out

    def _look_at(self, repository: str) -> bool:
        try:
            listed = set(self._registry.tags(repository))
            tags = self._pointers(repository, sorted(t for t in listed if not _COSIGN_TAG.fullmatch(t)))
            changed = tags != self._tags.get(repository)
            changed |= self._note_gone(repository, tags)
            for digest in dict.fromkeys(tags.values()):
                names = [t for t, d in tags.items() if d == digest]
                changed |= self._consider(repository, digest, names, listed)
        except RegistryError as error:
            self._away(error)
            return False
        self._tags[repository] = tags
        if changed:
            self._compile(repository)
            self._keep(repository)
        return True

    def _pointers(self, repository: str, tags: Iterable[str]) -> dict[str, Digest]:
        """Where the tags point: floating and new ones are asked for, of the others some in turn."""
        old, out = self._tags.get(repository, {}), {}
        ordered = list(tags)
        others = [t for t in ordered if t in old and _IMMUTABLE_TAG.fullmatch(t)]
        due = self._due(others)
        for tag in ordered:
            if tag in old and _IMMUTABLE_TAG.fullmatch(tag) and tag not in due:
                out[tag] = old[tag]
                continue
            found = self._registry.head_manifest(Reference(self._host, repository, tag))
            if found is not None:
                out[tag] = found.digest
        return out

    def _due(self, others: list[str]) -> set[str]:
        if not others:
            return set()
        start = self._turn * _OTHERS_AT_A_LOOK % len(others)
        return set((others[start:] + others[:start])[:_OTHERS_AT_A_LOOK])

    def _consider(self, repository: str, digest: Digest, tags: list[str], listed: set[str]) -> bool:
        """Decide on an image when it is new, or its evidence has changed; whether it matters."""
        known = self._known.get((repository, digest))
        settled = known is not None and not (isinstance(known.decision, Denied) and known.decision.passing)
        floating = any(not _IMMUTABLE_TAG.fullmatch(t) for t in tags)
        if settled and not floating and not self._due(sorted(self._tags.get(repository, {}))) & set(tags):
            return False
        mark = self._mark(repository, digest, listed)
        if known is not None and settled and known.mark == mark:
            return False
        return self._decide(repository, digest, tags, known, mark)

    def _mark(self, repository: str, digest: Digest, listed: set[str]) -> str:
        """The state of an image's evidence: where its tags point, or what refers to it."""
        parts = []
        for ending in (".att", ".sig", ""):
            tag = f"sha256-{digest.hex}{ending}"
            found: Descriptor | None = None
            if tag in listed:
                found = self._registry.head_manifest(Reference(self._host, repository, tag))
            parts.append(found.digest if found else "-")
        if parts[-1] == "-":  # no list under a tag: the storage has the referrers API
            listed_by_it = sorted(d.digest for d in self._registry.referrers(repository, digest))
            parts[-1] = Digest.of(" ".join(listed_by_it).encode())
        return " ".join(parts)

    def _decide(
        self, repository: str, digest: Digest, tags: list[str], known: _Known | None, mark: str
    ) -> bool:
        tag = next((t for t in tags if not _IMMUTABLE_TAG.fullmatch(t)), tags[0])
        now, began = self._clock.time(), time.monotonic()
        decision = admit(
            Reference(self._host, repository, tag, digest),
            self._registry,
            self._trust,
            now,
            accept_sample=self._accept_sample,
            promoted=not repository.startswith(CANDIDATE),
            seen=self._proofs.seen,
            mark=mark,
        )
        self._admitting += time.monotonic() - began
        if known is not None and isinstance(known.decision, Approved) and isinstance(decision, Denied):
            kept = self._held_on(known, decision, now)
            if kept is not None:
                return kept
        if isinstance(decision, Denied) and known is not None and isinstance(known.decision, Denied):
            same = (known.decision.reason, known.decision.name) == (decision.reason, decision.name)
            decision = replace(decision, since=known.decision.since) if same else decision
            if same:
                known.decision, known.mark = decision, mark
                return False
        self._known[repository, digest] = _Known(decision, mark)
        self._tell(repository, digest, tag, decision)
        return True

    def _held_on(self, known: _Known, decision: Denied, now: dt.datetime) -> bool | None:
        """Whether an approved image is kept though its new evidence does not pass (False: kept).

        Evidence that cannot be read now, or that is being written, changes nothing yet; the old
        verdict holds until it expires. Every other refusal is taken at once.
        """
        if decision.name == "verdict-replayed":
            known.contradicted = known.contradicted or now
            return False if now - known.contradicted < _HALF_WRITTEN else None
        return False if decision.passing and decision.name != "verdict-from-the-future" else None

    def _note_gone(self, repository: str, tags: Mapping[str, Digest]) -> bool:
        """Tags that vanished: what was approved and has no tag any more is withdrawn."""
        old = self._tags.get(repository, {})
        gone = self._gone.setdefault(repository, {})
        for tag in set(old) - set(tags):
            gone[tag] = old[tag]
        for tag in set(gone) & set(tags):
            del gone[tag]
        while len(gone) > _GONE_MAX:
            del gone[next(iter(gone))]
        reached = set(tags.values())
        changed = False
        for (name, digest), known in list(self._known.items()):
            if name != repository or digest in reached:
                continue
            if isinstance(known.decision, Approved):
                self._withdraw(repository, digest, known)
                changed = True
        return changed

    def _withdraw(self, repository: str, digest: Digest, known: _Known) -> None:
        if not isinstance(known.decision, Approved):
            return
        concerned = frozenset(h.digest for h in known.decision.manifests)
        cause = "it was taken out of the registry"
        denied = Denied(Reason.WITHDRAWN, cause, self._clock.time(), "withdrawn", digests=concerned)
        self._known[repository, digest] = _Known(denied, "")
        self._proofs.drop(repository, digest)
        self._tell(repository, digest, "", denied)

    def _forget(self, repository: str) -> None:
        self._note_gone(repository, {})
        self._tags[repository] = {}
        self._compile(repository)

    def _compile(self, repository: str) -> None:
        public = self._names.public(repository)
        if public is not None:
            decisions = {d: k.decision for (r, d), k in self._known.items() if r == repository}
            state = RepositoryState(self._tags.get(repository, {}), decisions, self._gone.get(repository, {}))
            self._views[public] = compile_view(public, repository, state)

    def _keep(self, repository: str) -> None:
        """Remember on disk what is approved, with its tags."""
        tags = self._tags.get(repository, {})
        for (name, digest), known in self._known.items():
            if name == repository and isinstance(known.decision, Approved):
                self._proofs.save(known.decision, [t for t, d in tags.items() if d == digest])
            elif name == repository:
                self._proofs.drop(name, digest)

    def _tell(self, repository: str, digest: Digest, tag: str, decision: Approved | Denied) -> None:
        if isinstance(decision, Approved):
            until = decision.expires_at.isoformat()
            self._journal.event("admitted", repository=repository, tag=tag, digest=digest, until=until)
        else:
            self._journal.event(
                "not-admitted",
                repository=repository,
                tag=tag,
                digest=digest,
                reason=str(decision.reason),
                name=decision.name,
                cause=decision.cause,
            )

    def _away(self, error: RegistryError) -> None:
        if self.reachable:
            self._journal.event("storage-away", cause=error.message, context=error.context)
