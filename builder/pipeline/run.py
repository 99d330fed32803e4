"""Run: several images from their definitions to the registry, parents first."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from builder.errors import GoldsmithError, PolicyDenied, RegistryError
from builder.fleet import Ended, State, Task, run_graph
from builder.model.catalogue import Catalogue
from builder.model.digest import Digest
from builder.model.evidence import Evidence
from builder.model.image import BuiltImage, Target
from builder.model.lock import ImageLock
from builder.model.outcome import ImageEnd, ImageOutcome, ImageState
from builder.model.platform import Platform
from builder.pipeline.build import Builder
from builder.pipeline.history import Components, history_of, keep_history, keep_reasons, release_identity
from builder.pipeline.kept_evidence import keep_evidence
from builder.pipeline.prepare import Prepared, prepare
from builder.pipeline.progress import Progress
from builder.pipeline.reasons import build_reasons
from builder.pipeline.release import (
    Release,
    Tools,
    is_whole,
    release,
    release_key,
    release_key_of,
    verdict_holds,
)
from builder.pipeline.remote import Elsewhere
from builder.pipeline.timing import Stages, Took, keep_seconds, took_before
from builder.policy.explain import explain
from builder.report import Reporter
from builder.stages.finish import without
from builder.store import Store

_PARENT_DENIED = "parent-denied"
# Failures that pass by themselves, and say nothing about the input.
_PASSING = frozenset({"disk-full", "system-refused", "no-database", "database-changed", "mirror-unreachable"})


@dataclass(frozen=True, slots=True)
class Failure:
    """An image that could not be finished, and why; its children are not tried."""

    ref: str
    error: GoldsmithError


@dataclass(frozen=True, slots=True)
class _Built:
    """A finished build on its way to its release."""

    image: BuiltImage
    anew: bool
    stages: Stages
    evidence: tuple[Evidence, ...] | None = None


@dataclass(frozen=True, slots=True)
class Runner:
    """Everything a run needs; `still_published` asks the registry for a tag's digest.

    `jobs` images are built at once, and twice as many are released meanwhile. With `elsewhere`
    they are built, checked and scanned there. The verdicts of `rescanned` images are kept fresh by a
    rescan: for them a new database is no reason for a release. `made_elsewhere` brings what a cluster
    made of an input before.
    """

    catalogue: Catalogue
    store: Store
    builder: Builder
    tools: Tools
    still_published: Callable[[BuiltImage], bool]
    now: dt.datetime
    reporter: Reporter
    jobs: int = 1
    elsewhere: Elsewhere | None = None
    rescanned: frozenset[str] = frozenset()
    made_elsewhere: Callable[[Prepared], BuiltImage | None] = lambda item: None

    def run(self, refs: Sequence[str]) -> tuple[tuple[ImageOutcome, ...], tuple[Failure, ...]]:
        """Take the named images (all of them when none is named) and their parents to the registry."""
        return split(self.run_all(refs))

    def run_all(self, refs: Sequence[str], held: Mapping[str, str] | None = None) -> tuple[ImageEnd, ...]:
        """The same; returns how each image ended, parents first.

        A failure stops only its descendants. An image is released while the next one is built; a
        child is released only after its parent was. What is `held`, with the reason, is not tried,
        and neither is what is built on it.
        """
        chosen = self._chosen(refs)
        prepared, ends = self._prepare(chosen, held or {})
        progress = self._progress(chosen, prepared)
        for end in ends.values():
            progress.ended(end)

        def watch(ended: Ended) -> None:
            kind, _, ref = ended.name.partition(" ")
            if ref not in ends and (kind == "release" or ended.state is not State.DONE):
                ends[ref] = _image_end(ref, ended, ends)
                progress.ended(ends[ref])

        with _Threads(self, prepared, progress) as threads:
            run_graph(self._tasks(prepared), threads.submit, watch=watch)
        return tuple(ends[target.ref] for target in chosen)

    def _tasks(self, prepared: Mapping[str, Prepared]) -> list[Task]:
        tasks = []
        for ref, item in prepared.items():
            parent = self.catalogue.parent(item.target)
            tasks.append(Task(f"build {ref}", (f"build {parent.ref}",) if parent else ()))
            before = (f"build {ref}", *((f"build {parent.ref}", f"release {parent.ref}") if parent else ()))
            tasks.append(Task(f"release {ref}", before))
        return tasks

    def _progress(self, chosen: Sequence[Target], prepared: Mapping[str, Prepared]) -> Progress:
        """With what each image will probably take: nothing for what is finished already."""
        parents, expected = {}, {}
        for target in chosen:
            above = self.catalogue.parent(target)
            parents[target.ref] = above.ref if above else None
            item = prepared.get(target.ref)
            if item is None:
                continue
            record = self.store.record("built", item.input_hash) or self.store.record("made", item.input_hash)
            took = took_before(self.store, target.ref)
            if record is not None and self._holds(record, target):
                took = Took()
            elif record is not None and took is not None:
                took = Took(0.0, took.release)
            expected[target.ref] = took
        return Progress(parents, expected, self.jobs, self.reporter)

    def _holds(self, record: Mapping[str, Any], target: Target) -> bool:
        try:
            key = release_key_of(Digest(record["digest"]), target, self.tools.identity)
        except (KeyError, TypeError, ValueError):
            return False
        released = self.store.record("released", key)
        return released is not None and verdict_holds(released, self.now)

    def _chosen(self, refs: Sequence[str]) -> tuple[Target, ...]:
        targets = self.catalogue.targets()
        if not refs:
            return targets
        wanted = {self.catalogue.find(r).ref: self.catalogue.find(r) for r in refs}
        family = {a.ref for t in wanted.values() for a in self.catalogue.ancestors(t)}
        return tuple(t for t in targets if t.ref in wanted or t.ref in family)

    def _prepare(
        self, chosen: Sequence[Target], held: Mapping[str, str]
    ) -> tuple[dict[str, Prepared], dict[str, ImageEnd]]:
        """What can be built, and how the others end before anything is built."""
        known: dict[str, Prepared] = {}
        locks: dict[str, ImageLock] = {}
        prepared: dict[str, Prepared] = {}
        ends: dict[str, ImageEnd] = {}
        for target in chosen:
            ref, parent = target.ref, self.catalogue.parent(target)
            above = ends.get(parent.ref) if parent else None
            if ref in held:
                ends[ref] = ImageEnd(ref, ImageState.HELD, because=held[ref])
            elif above is not None:
                ends[ref] = _after(ref, above)
            else:
                try:
                    prepared[ref] = prepare(self.catalogue, target, known, locks)
                except GoldsmithError as error:
                    ends[ref] = ImageEnd(ref, ImageState.FAILED, error=error)
        return prepared, ends

    def _build(self, item: Prepared, parent: BuiltImage | None, below: Prepared | None) -> _Built:
        stages = Stages(item.target.ref, self.reporter)
        try:
            if self.elsewhere is not None:
                return self._have_made(self.elsewhere, item, parent, below, stages)
            found = self.builder.reuse(item) or self.made_elsewhere(item)
            image = found or self.builder.build(item, parent, stages)
        except GoldsmithError as error:
            self._note_failure(item, error)
            raise
        self._note_build(item, image.digest)
        return _Built(image, found is None, stages)

    def _have_made(
        self,
        elsewhere: Elsewhere,
        item: Prepared,
        parent: BuiltImage | None,
        below: Prepared | None,
        stages: Stages,
    ) -> _Built:
        image = elsewhere.known(item, self.builder.names) or self.builder.reuse(item)
        if image is not None and self._released(image) is not None:
            return _Built(image, False, stages)
        chain = (item,) if below is None else (below, item)
        digests = {parent.target.ref: parent.digest} if parent else {}
        with stages.stage("elsewhere"):
            image, made = elsewhere.make(chain, digests, self.builder.names)
        stages.seconds.update(made.seconds)
        self._note_build(item, image.digest)
        return _Built(image, made.anew, stages, made.evidence)

    def _released(self, image: BuiltImage) -> dict[str, Any] | None:
        """The record of an image's release, if its verdict is good and its tags are in place."""
        record = self.store.record("released", release_key(image, self.tools))
        if not record or not verdict_holds(record, self.now):
            record = self._kept_fresh(image)
        return record if record and self.still_published(_judged(image, record)) else None

    def _kept_fresh(self, image: BuiltImage) -> dict[str, Any] | None:
        ref = image.target.ref
        record = approval_of(self.store, ref) if ref in self.rescanned else None
        return record if record and record.get("digest") == _judged(image, record).digest else None

    def _release(
        self, prepared: Prepared, built: _Built, parent: BuiltImage | None, before: ImageOutcome | None
    ) -> ImageOutcome:
        image, stages, anew = built.image, built.stages, built.anew
        if before is not None and not before.approved:
            raise PolicyDenied(
                f"{prepared.target.ref} was not released",
                context=f"its parent {before.ref} was denied",
                hint=f"goldsmith why {before.ref}",
                reference=_PARENT_DENIED,
            )
        known = self._released(image)
        if known is not None:
            return _outcome(_judged(image, known), known, stages, anew, self.builder.names)
        if before is not None and parent is not None:
            parent = without(parent, [Platform.parse(p) for p in before.left_out])
        result = release(prepared, image, parent, self.tools, self.store, stages, built.evidence)
        keep_evidence(self.store, image, result.anew, result.verdict, self.now)
        keep_seconds(self.store, prepared.target.ref, stages.seconds)
        record = _record(result)
        self.store.remember("verdicts", Digest.of(image.target.ref.encode()), record)
        if result.published:
            self.store.remember("released", release_key(image, self.tools), record)
        history = history_of(self.store, image.target.ref)
        keep_history(self.store, history.released(release_identity(image.target, self.tools.identity)))
        return _outcome(result.image, record, stages, anew, self.builder.names)

    def _note_build(self, prepared: Prepared, digest: Digest) -> None:
        """Keep what the image was built of, so that the next plan can say what changed."""
        history = history_of(self.store, prepared.target.ref)
        if (history.input_hash, history.digest) != (prepared.input_hash, digest):
            parts = Components(self.catalogue.root).of(prepared)
            if history.digest != digest:
                keep_reasons(self.store, digest, build_reasons(history, prepared, parts))
            keep_history(self.store, history.built(self.now, prepared.input_hash, digest, parts))

    def _note_failure(self, prepared: Prepared, error: GoldsmithError) -> None:
        """Count a failure against its input, unless it was the surroundings' doing."""
        if not isinstance(error, RegistryError) and error.reference not in _PASSING:
            history = history_of(self.store, prepared.target.ref)
            keep_history(self.store, history.failed(self.now, prepared.input_hash, error.message))


def _judged(image: BuiltImage, record: Mapping[str, Any]) -> BuiltImage:
    """The image as it was released: without the platforms that were left out."""
    return without(image, [Platform.parse(str(p)) for p in record.get("left_out", ())])


def approval_of(store: Store, ref: str) -> dict[str, Any] | None:
    """The record of an image's newest verdict here, when it was an approval of all of it, and published."""
    record = store.record("verdicts", Digest.of(ref.encode())) or {}
    good = record.get("approved") is True and record.get("reference") and not record.get("left_out")
    return record if good and is_whole(record) else None


def _record(result: Release) -> dict[str, object]:
    verdict, image = result.verdict, result.image
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
        "left_out": [str(p) for p in result.left_out],
        "checks": result.checks,
    }


def _outcome(
    image: BuiltImage, record: Mapping[str, object], stages: Stages, anew: bool, engines: tuple[str, ...]
) -> ImageOutcome:
    findings, explanation, left_out = record["findings"], record["explanation"], record.get("left_out")
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
        left_out=tuple(map(str, left_out)) if isinstance(left_out, list) else (),
    )


def split(ends: Sequence[ImageEnd]) -> tuple[tuple[ImageOutcome, ...], tuple[Failure, ...]]:
    """What the images came to, and the failures, root causes first."""
    failed = sorted((e for e in ends if e.error is not None), key=lambda e: e.state is ImageState.SKIPPED)
    outcomes = tuple(e.outcome for e in ends if e.outcome is not None)
    return outcomes, tuple(Failure(e.ref, e.error) for e in failed if e.error is not None)


class _Threads:
    """Threads that build, and others that release: a build that waits never holds up a release."""

    def __init__(self, runner: Runner, prepared: Mapping[str, Prepared], progress: Progress) -> None:
        self._runner, self._prepared, self._progress = runner, prepared, progress
        self._building = ThreadPoolExecutor(runner.jobs, thread_name_prefix="build")
        self._releasing = ThreadPoolExecutor(2 * runner.jobs, thread_name_prefix="release")

    def __enter__(self) -> _Threads:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is not None and self._runner.elsewhere is not None:
            self._runner.elsewhere.cancel()
        for pool in (self._building, self._releasing):
            pool.shutdown(cancel_futures=kind is not None)
        self._progress.close()

    def submit(self, task: Task, inputs: Mapping[str, Any]) -> Future[Any]:
        """Start a task of the graph; `inputs` are the results of those before it."""
        kind, _, ref = task.name.partition(" ")
        item = self._prepared[ref]
        above = self._runner.catalogue.parent(item.target)
        below: _Built | None = inputs.get(f"build {above.ref}") if above else None
        parent = below.image if below else None
        if kind == "build":
            under = self._prepared[above.ref] if above else None
            return self._building.submit(self._told(kind, ref, self._runner._build), item, parent, under)
        before = inputs.get(f"release {above.ref}") if above else None
        built = inputs[f"build {ref}"]
        return self._releasing.submit(
            self._told(kind, ref, self._runner._release), item, built, parent, before
        )

    def _told(self, kind: str, ref: str, action: Callable[..., Any]) -> Callable[..., Any]:
        def act(*arguments: Any) -> Any:
            with self._progress.working(kind, ref):
                return action(*arguments)

        return act


def _image_end(ref: str, ended: Ended, ends: Mapping[str, ImageEnd]) -> ImageEnd:
    """How an image ended, from the last task that was tried for it."""
    if ended.state is State.DONE:
        outcome: ImageOutcome = ended.result
        state = ImageState(outcome.outcome) if outcome.approved else ImageState.DENIED
        return ImageEnd(ref, state, outcome)
    if ended.error is not None and ended.error.reference == _PARENT_DENIED:
        return ImageEnd(ref, ImageState.SKIPPED, error=ended.error, because=ended.error.context)
    if ended.error is not None:
        return ImageEnd(ref, ImageState.FAILED, error=ended.error)
    cause = ends.get(ended.because.partition(" ")[2])
    if cause is None:
        return ImageEnd(ref, ImageState.SKIPPED, because=ended.because)
    return _after(ref, cause)


def _after(ref: str, above: ImageEnd) -> ImageEnd:
    """The end of an image whose parent did not come to a good one."""
    if above.error is None:
        return ImageEnd(ref, ImageState.HELD, because=f"{above.ref}, which is {above.state.value}")
    if above.state is ImageState.SKIPPED:
        return ImageEnd(ref, ImageState.SKIPPED, error=_not_tried(ref, above.error), because=above.because)
    error = GoldsmithError(
        f"{ref} was not tried",
        context=f"{above.ref} failed: {above.error.message}",
        hint=above.error.hint,
    )
    return ImageEnd(ref, ImageState.SKIPPED, error=error, because=above.ref)


def _not_tried(ref: str, error: GoldsmithError) -> GoldsmithError:
    return GoldsmithError(f"{ref} was not tried", context=error.context, hint=error.hint)
