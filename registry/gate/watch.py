"""Looks at the storage again and again, and brings what changed through admission.

A look asks for the catalogue, the tags of each served repository, and where its floating tags
point; evidence is looked at again when its tags moved. Immutable tags and older images are asked
for in turn. Between looks, and within one, a note of the storage (`changes`) is asked for: what it
names is looked at first. What cannot be reached changes nothing: what is held expires by itself.
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
from registry import changes
from registry.gate.admission import MALFORMED, admit, no_longer
from registry.gate.approved import ApprovedSet, RepositoryState, View, compile_view
from registry.gate.clock import SteadyClock
from registry.gate.decision import Approved, Denied, Reason
from registry.gate.journal import Journal
from registry.gate.kept import Kept
from registry.gate.keyfolder import KeyFolder
from registry.gate.proofs import Proofs
from registry.gate.repositories import CANDIDATE, Names

_COSIGN_TAG = re.compile(r"sha256-[0-9a-f]{64}(\.sig|\.att|\.sbom)?")
_IMMUTABLE_TAG = re.compile(r".+-[0-9a-f]{12}")
HEED_SECONDS = 0.2  # from one question for a note to the next
_OTHERS_AT_A_LOOK = 100  # immutable tags that are asked for in turn
_HALF_WRITTEN = dt.timedelta(seconds=10)  # how long evidence of a held image may contradict itself
_GONE_MAX = 10_000


class ListingRegistry(Registry, Protocol):
    """What a look asks of the storage."""

    def repositories(self) -> tuple[str, ...]:
        """The names of all repositories."""

    def tags(self, repo: str) -> tuple[str, ...]:
        """All tags of a repository."""


@dataclass(slots=True)
class _Known:
    """What we know of an image: the decision, the evidence that it was made on, and since when."""

    decision: Approved | Kept | Denied
    mark: str
    contradicted: dt.datetime | None = None
    again: bool = False  # the keys have changed since

    @property
    def passing(self) -> bool:
        """Whether it is to be decided anew."""
        return self.again or (isinstance(self.decision, Denied) and self.decision.passing)


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
        keys: KeyFolder | None = None,
    ) -> None:
        self._host, self._registry, self._trust = host, registry, trust
        self._approved, self._proofs, self._clock, self._journal = approved, proofs, clock, journal
        self._names, self._accept_sample, self._keys = names, accept_sample, keys
        self._known: dict[str, dict[Digest, _Known]] = {}
        self._tags: dict[str, dict[str, Digest]] = {}
        self._gone: dict[str, dict[str, Digest]] = {}
        self._views: dict[str, View] = {}
        self._turn = 0
        self._note: Digest | None = None
        self._heeded = 0.0
        self.reachable = False
        self._admitting = 0.0
        self.seconds = self.asking_seconds = 0.0

    def recall(self) -> int:
        """Take up what was approved before, to be proved at its first use; returns how many images."""
        count = 0
        for kept in self._proofs.load(self._trust):
            if self._names.public(kept.repository) is None:
                continue
            self._of(kept.repository)[kept.index] = _Known(kept, kept.mark)
            self._tags.setdefault(kept.repository, {}).update(dict.fromkeys(kept.tags, kept.index))
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
            failed = [r for r in served if not self._look_at_next(r)]
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

    def heed(self) -> bool:
        """Look at what a new note of the storage names, if there is one; whether there was."""
        self._heeded = time.monotonic()
        note = Reference(self._host, changes.REPOSITORY, changes.TAG)
        try:
            found = self._registry.head_manifest(note)
            if found is None or found.digest == self._note:
                return False
            data, media_type, digest = self._registry.get_manifest(note)
            named = [r for r in changes.noted(data, media_type) if self._names.public(r) is not None]
            looked = [self._look_at(r) for r in named]
        except RegistryError as error:
            self._away(error)
            return False
        if all(looked):  # else it is asked for again
            self._note = digest
        self._approved.replace(dict(self._views))
        return True

    def _look_at_next(self, repository: str) -> bool:
        """One repository of a look; in a large storage, notes do not wait for the end of it."""
        if time.monotonic() - self._heeded > HEED_SECONDS:
            self.heed()
        self.heed_keys()
        return self._look_at(repository)

    def heed_keys(self) -> None:
        """Take up changed keys: deny what rested on a lost one; the next look decides on all denials."""
        trust = self._keys.changed(self._journal) if self._keys is not None else None
        if trust is None:
            return
        self._trust = trust
        for repository, images in self._known.items():
            for digest, known in images.items():
                known.again = isinstance(known.decision, Denied)
                if not isinstance(known.decision, Denied) and any(map(trust.flaw, known.decision.uses)):
                    denied = no_longer(known.decision, trust, self._clock.time())
                    images[digest] = _Known(denied, "", again=True)
                    self._proofs.forget(repository, digest)
                    self._tell(repository, digest, "", denied)
            self._compile(repository)
        self._approved.replace(dict(self._views))

    def known(self, repository: str, digest: Digest) -> Approved | Kept | Denied | None:
        """What was decided on an image."""
        found = self._of(repository).get(digest)
        return found.decision if found else None

    def counts(self) -> Mapping[str, int]:
        """How many images were approved and denied, by reason."""
        out = {"approved": 0, **{str(r): 0 for r in Reason}}
        for one in [known for images in self._known.values() for known in images.values()]:
            decision = one.decision
            out[str(decision.reason) if isinstance(decision, Denied) else "approved"] += 1
        return out

    def _of(self, repository: str) -> dict[Digest, _Known]:
        return self._known.setdefault(repository, {})

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
        known = self._of(repository).get(digest)
        if known is not None and isinstance(known.decision, Kept) and known.decision.refused:
            known = None  # what was kept did not prove itself
        settled = known is not None and not known.passing
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
        if known is not None and not isinstance(known.decision, Denied) and isinstance(decision, Denied):
            kept = self._held_on(known, decision, now)
            if kept is not None:
                return kept
        if isinstance(decision, Denied) and known is not None and isinstance(known.decision, Denied):
            same = (known.decision.reason, known.decision.name) == (decision.reason, decision.name)
            decision = replace(decision, since=known.decision.since) if same else decision
            if same:
                known.decision, known.mark, known.again = decision, mark, False
                return False
        self._of(repository)[digest] = _Known(decision, mark)
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
        unreadable = decision.passing or decision.name == MALFORMED  # it was well-formed before
        return False if unreadable and decision.name != "verdict-from-the-future" else None

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
        for digest, known in list(self._of(repository).items()):
            if digest not in reached and not isinstance(known.decision, Denied):
                self._withdraw(repository, digest, known.decision)
                changed = True
        return changed

    def _withdraw(self, repository: str, digest: Digest, decision: Approved | Kept) -> None:
        cause = "it was taken out of the registry"
        now = self._clock.time()
        denied = Denied(Reason.WITHDRAWN, cause, now, "withdrawn", digests=decision.digests)
        self._of(repository)[digest] = _Known(denied, "")
        self._proofs.drop(repository, digest)
        self._tell(repository, digest, "", denied)

    def _forget(self, repository: str) -> None:
        self._note_gone(repository, {})
        self._tags[repository] = {}
        self._compile(repository)

    def _compile(self, repository: str) -> None:
        public = self._names.public(repository)
        if public is not None:
            decisions = {d: k.decision for d, k in self._of(repository).items()}
            state = RepositoryState(self._tags.get(repository, {}), decisions, self._gone.get(repository, {}))
            self._views[public] = compile_view(public, repository, state)

    def _keep(self, repository: str) -> None:
        """Remember on disk what is approved, with its tags."""
        leading: dict[Digest, list[str]] = {}
        for tag, digest in self._tags.get(repository, {}).items():
            leading.setdefault(digest, []).append(tag)
        for digest, known in self._of(repository).items():
            if isinstance(known.decision, Denied):
                self._proofs.drop(repository, digest)
            else:
                self._proofs.save(known.decision, leading.get(digest, []))

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
