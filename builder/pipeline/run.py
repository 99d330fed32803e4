"""Run: several images from their definitions to the registry, parents first."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from builder.errors import GoldsmithError, PolicyDenied, RegistryError
from builder.model.catalogue import Catalogue
from builder.model.digest import Digest
from builder.model.image import BuiltImage
from builder.model.outcome import ImageOutcome
from builder.pipeline.build import Builder
from builder.pipeline.history import Components, history_of, keep_history, release_identity
from builder.pipeline.prepare import Prepared, prepare
from builder.pipeline.release import Release, Tools, release, release_key, verdict_holds
from builder.pipeline.timing import Stages
from builder.policy.explain import explain
from builder.report import Reporter
from builder.store import Store

# Failures that pass by themselves, and say nothing about the input.
_PASSING = frozenset({"disk-full", "system-refused", "no-database", "database-changed", "mirror-unreachable"})


@dataclass(frozen=True, slots=True)
class Failure:
    """An image that could not be finished, and why; its children are not tried."""

    ref: str
    error: GoldsmithError


@dataclass(frozen=True, slots=True)
class Runner:
    """Everything a run needs; `still_published` asks the registry for a tag's digest."""

    catalogue: Catalogue
    store: Store
    builder: Builder
    tools: Tools
    still_published: Callable[[BuiltImage], bool]
    now: dt.datetime
    reporter: Reporter

    def run(self, refs: Sequence[str]) -> tuple[tuple[ImageOutcome, ...], tuple[Failure, ...]]:
        """Take the named images (all of them when none is named) and their parents to the registry.

        A failure stops only its descendants. Images are built one after the other, and an image
        is released while the next one is built; a child is released only after its parent was.
        """
        prepared = self._prepare(refs)
        built: dict[str, BuiltImage] = {}
        outcomes: dict[str, Future[ImageOutcome]] = {}
        failures: dict[str, Failure] = {}
        # Parents come first, so that a child that waits for its parent can never block it.
        with ThreadPoolExecutor(2) as threads:
            for item in prepared:
                ref = item.target.ref
                parent = self.catalogue.parent(item.target)
                if parent and parent.ref in failures:
                    failures[ref] = _after(ref, failures[parent.ref])
                    continue
                stages = Stages(ref, self.reporter)
                try:
                    below = built[parent.ref] if parent else None
                    found = self.builder.reuse(item)
                    built[ref] = found or self.builder.build(item, below, stages)
                except GoldsmithError as error:
                    self._note_failure(item, error)
                    failures[ref] = Failure(ref, error)
                    continue
                self._note_build(item, built[ref].digest)
                before = outcomes[parent.ref] if parent else None
                outcomes[ref] = threads.submit(
                    self._release, item, built[ref], below, stages, before, found is None
                )
        finished = []
        for ref, future in outcomes.items():
            try:
                finished.append(future.result())
            except GoldsmithError as error:
                failures[ref] = Failure(ref, error)
        return tuple(finished), tuple(failures.values())

    def _prepare(self, refs: Sequence[str]) -> list[Prepared]:
        targets = self.catalogue.targets()
        if refs:
            wanted = {t.ref for r in refs for t in (self.catalogue.find(r),)}
            wanted |= {a.ref for r in list(wanted) for a in self.catalogue.ancestors(self.catalogue.find(r))}
            targets = tuple(t for t in targets if t.ref in wanted)
        known: dict[str, Prepared] = {}
        return [prepare(self.catalogue, target, known) for target in targets]

    def _release(
        self,
        prepared: Prepared,
        image: BuiltImage,
        parent: BuiltImage | None,
        stages: Stages,
        before: Future[ImageOutcome] | None,
        anew: bool,
    ) -> ImageOutcome:
        if before is not None and not before.result().approved:
            raise PolicyDenied(
                f"{prepared.target.ref} was not released",
                context=f"its parent {before.result().ref} was denied",
                hint=f"goldsmith why {before.result().ref}",
            )
        key = release_key(image, self.tools)
        record = self.store.record("released", key)
        if record and verdict_holds(record, self.now) and self.still_published(image):
            return _outcome(image, record, stages, anew, self.builder.names)
        result = release(prepared, image, parent, self.tools, self.store, stages)
        record = _record(image, result)
        self.store.remember("verdicts", Digest.of(image.target.ref.encode()), record)
        if result.published:
            self.store.remember("released", key, record)
        history = history_of(self.store, image.target.ref)
        keep_history(self.store, history.released(release_identity(image.target, self.tools.identity)))
        return _outcome(image, record, stages, anew, self.builder.names)

    def _note_build(self, prepared: Prepared, digest: Digest) -> None:
        """Keep what the image was built of, so that the next plan can say what changed."""
        history = history_of(self.store, prepared.target.ref)
        if (history.input_hash, history.digest) != (prepared.input_hash, digest):
            parts = Components(self.catalogue.root).of(prepared)
            keep_history(self.store, history.built(self.now, prepared.input_hash, digest, parts))

    def _note_failure(self, prepared: Prepared, error: GoldsmithError) -> None:
        """Count a failure against its input, unless it was the surroundings' doing."""
        if not isinstance(error, RegistryError) and error.reference not in _PASSING:
            history = history_of(self.store, prepared.target.ref)
            keep_history(self.store, history.failed(self.now, prepared.input_hash, error.message))


def _record(image: BuiltImage, result: Release) -> dict[str, object]:
    verdict = result.verdict
    return {
        "ref": image.target.ref,
        "digest": image.digest,
        "approved": verdict.approved,
        "verdict": ("approved by " if verdict.approved else "denied by ") + verdict.policy,
        "sample": bool(verdict.database and verdict.database.sample),
        "issued_at": verdict.issued_at.isoformat(),
        "expires_at": verdict.expires_at.isoformat(),
        "findings": result.findings,
        "reference": result.published.reference if result.published else "",
        "explanation": list(explain(verdict)),
    }


def _outcome(
    image: BuiltImage, record: Mapping[str, object], stages: Stages, anew: bool, engines: tuple[str, ...]
) -> ImageOutcome:
    findings, explanation = record["findings"], record["explanation"]
    return ImageOutcome(
        ref=image.target.ref,
        digest=image.digest,
        outcome="built" if anew else "unchanged",
        approved=bool(record["approved"]),
        verdict=str(record["verdict"]) + (" (SAMPLE DATABASE)" if record["sample"] else ""),
        packages=len({p.name for x in image.platforms for p in x.packages}),
        compressed_bytes=sum(p.compressed_bytes for p in image.platforms),
        findings={str(k): int(v) for k, v in findings.items()} if isinstance(findings, dict) else {},
        reference=str(record["reference"]),
        engines=engines,
        stages=dict(stages.seconds),
        explanation=tuple(map(str, explanation)) if isinstance(explanation, list) else (),
    )


def _after(ref: str, failure: Failure) -> Failure:
    error = GoldsmithError(
        f"{ref} was not tried",
        context=f"{failure.ref} failed: {failure.error.message}",
        hint=failure.error.hint,
    )
    return Failure(ref, error)
