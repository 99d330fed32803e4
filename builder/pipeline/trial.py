"""Try: one image built, checked and scanned on this machine, and judged; nothing signed, nothing published.

Where a release stops at the first thing that cannot be done, a trial goes on: what was not done is
told as that, and the policy denies for it. Each stage comes with the command that does it again.
What was found is kept for a comparison of what is built here.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from builder.errors import DefinitionError, GoldsmithError, LockError
from builder.model.catalogue import Catalogue
from builder.model.digest import Digest
from builder.model.evidence import (
    CheckReport,
    Evidence,
    LintReport,
    NotDone,
    Outcome,
    Sboms,
    ScanReport,
    Severity,
)
from builder.model.image import BuildContext, BuiltImage, PlatformImage, Target
from builder.model.verdict import Verdict
from builder.pipeline.build import Builder
from builder.pipeline.kept_evidence import keep_evidence
from builder.pipeline.prepare import Prepared, prepare
from builder.pipeline.release import Assayers, assay
from builder.pipeline.timing import Stages
from builder.policy.rule import NOT_JUDGED
from builder.report import Reporter
from builder.store import Store

EVIDENCE_STAGES = ("check", "scan", "lint")
_CONTEXT_MAX = 160  # characters of why a tool failed, in a line
_WORST = tuple(Severity)
_Found = TypeVar("_Found")


@dataclass(frozen=True, slots=True)
class Stage:
    """What became of a stage: what it has against the image, and the command that does it again."""

    name: str
    outcome: Outcome
    said: tuple[str, ...] = ()
    reproduce: str = ""


@dataclass(frozen=True, slots=True)
class Tried:
    """What a trial came to. Without a verdict, there was nothing to judge, or it was not asked for."""

    ref: str
    stages: tuple[Stage, ...]
    digest: Digest | None = None
    layout: Path | None = None
    verdict: Verdict | None = None
    seconds: Mapping[str, float] | None = None

    @property
    def good(self) -> bool:
        """Whether every stage that was asked for passed, and the policy approves if it was asked."""
        judged = self.verdict is None or self.verdict.approved
        return judged and all(stage.outcome is Outcome.PASSED for stage in self.stages)

    def as_dict(self) -> dict[str, Any]:
        """The trial as plain data."""
        return {
            "ref": self.ref,
            "good": self.good,
            "digest": self.digest,
            "layout": str(self.layout) if self.layout else None,
            "stages": [
                {"name": s.name, "outcome": s.outcome, "said": list(s.said), "reproduce": s.reproduce}
                for s in self.stages
            ],
            "approved": self.verdict.approved if self.verdict else None,
        }


@dataclass(frozen=True, slots=True)
class Trying:
    """What a trial is done with; no keys. `only` names the kinds of evidence that are asked for, and
    `options` are those of the command line (with a blank before each) that doing it again needs.
    """

    builder: Builder
    tools: Assayers
    judge: Callable[[BuiltImage, tuple[Evidence, ...]], Verdict]
    store: Store
    reporter: Reporter
    now: dt.datetime
    only: frozenset[str] = frozenset()
    options: str = ""

    def image(self, catalogue: Catalogue, target: Target) -> Tried:
        """Take one image, and those below it as far as needed, through all stages up to the verdict."""
        ref = target.ref
        chain: list[Prepared] = []
        known: dict[str, Prepared] = {}
        for one in (*reversed(catalogue.ancestors(target)), target):
            try:
                chain.append(prepare(catalogue, one, known))
            except LockError as error:
                return Tried(ref, (_broken("lock", error, f"goldsmith lock --check {one.definition.name}"),))
            except DefinitionError as error:
                return Tried(ref, (_broken("render", error, f"goldsmith render {one.ref}"),))
        done = [Stage("lock", Outcome.PASSED), Stage("render", Outcome.PASSED)]
        engines = "".join(f" --engine {name}" for name in self.builder.names)
        stages = Stages(ref, self.reporter)
        try:
            image, _ = self.builder.chain(
                chain, lambda one: stages if one == ref else Stages(one, self.reporter)
            )
        except GoldsmithError as error:
            return Tried(ref, (*done, _broken("build", error, f"goldsmith build {ref}{engines}")))
        done.append(Stage("build", Outcome.PASSED))
        evidence = assay(chain[-1], image, _Forgiving(self.tools, self.only), self.store, stages)
        again = f"goldsmith try {ref}{self.options}"
        for kind in EVIDENCE_STAGES:
            if not self.only or kind in self.only:
                done.append(_stage(kind, evidence, f"{again} --only {kind}"))
        verdict = None if self.only else self.judge(image, evidence)
        if verdict:
            done.append(_judged(verdict, again))
        keep_evidence(self.store, image, evidence, verdict, self.now)
        return Tried(ref, tuple(done), image.digest, image.layout, verdict, stages.seconds)


def _judged(verdict: Verdict, again: str) -> Stage:
    """What the policy says; why stands in the verdict's explanation."""
    if verdict.approved:
        return Stage("judge", Outcome.PASSED)
    judged = [r for r in verdict.failed if not all(f.startswith(NOT_JUDGED) for f in r.failures)]
    not_met = ", ".join(rule.id for rule in judged or verdict.failed)
    return Stage("judge", Outcome.FAILED, (f"not met, see below: {not_met}",), again)


@dataclass(frozen=True, slots=True)
class _Forgiving:
    """The tools, with "not done" and why instead of an error; what is not asked for is not done."""

    tools: Assayers
    only: frozenset[str]

    def check(self, target: Target, image: PlatformImage) -> CheckReport | NotDone:
        return self._done("check", lambda: self.tools.check(target, image))

    def scan(
        self, target: Target, image: PlatformImage, work: Path
    ) -> tuple[ScanReport | NotDone, Sboms | NotDone]:
        found = self._done("scan", lambda: self.tools.scan(target, image, work))
        return (found, found) if isinstance(found, NotDone) else found

    def lint(self, context: BuildContext) -> LintReport | NotDone:
        return self._done("lint", lambda: self.tools.lint(context))

    def _done(self, stage: str, act: Callable[[], _Found]) -> _Found | NotDone:
        if self.only and stage not in self.only:
            return NotDone(stage, "not asked for")
        try:
            return act()
        except GoldsmithError as error:
            context = f" ({' '.join(error.context.split())[:_CONTEXT_MAX]})" if error.context else ""
            return NotDone(stage, f"{error.message}{context}" + (f"; {error.hint}" if error.hint else ""))


def _stage(name: str, evidence: Sequence[Evidence], reproduce: str) -> Stage:
    """What the evidence of all platforms says of a stage."""
    outcomes: set[Outcome] = set() if evidence else {Outcome.NOT_RUN}
    places: dict[str, list[str]] = {}
    for one in evidence:
        found = {"check": one.checks, "scan": one.scan, "lint": one.lint}[name]
        for outcome, line in _against(found):
            outcomes.add(outcome)
            places.setdefault(line, []).append(str(one.platform))
    said = tuple(f"{', '.join(where)}: {line}" for line, where in places.items())
    worst = next((o for o in (Outcome.FAILED, Outcome.NOT_RUN) if o in outcomes), Outcome.PASSED)
    return Stage(name, worst, said, "" if worst is Outcome.PASSED else reproduce)


def _against(found: object) -> Iterator[tuple[Outcome, str]]:
    """What a platform's evidence has against it; what a scanner or linter found is told and judged later."""
    if isinstance(found, ScanReport):
        for one in sorted(found.findings, key=lambda f: (not f.fixable, _WORST.index(f.severity), f.id)):
            state = (
                f"fixed in {one.fixed_version}" if one.fixable else f"no fix, Debian's state: {one.status}"
            )
            where = f"{one.package} {one.installed_version}"
            yield Outcome.PASSED, f"{one.id} ({one.severity.lower()}) in {where}: {state}"
    if isinstance(found, LintReport):
        for remark in found.findings:
            yield Outcome.PASSED, f"line {remark.line}: {remark.code} ({remark.level}) {remark.message}"
    if isinstance(found, NotDone):
        yield Outcome.NOT_RUN, f"not done: {found.reason}"
    if isinstance(found, CheckReport):
        for result in found.results:
            if result.outcome is Outcome.FAILED:
                yield result.outcome, f"{result.title} ({result.id}): {result.detail}"
        waiting = [r for r in found.results if r.outcome is Outcome.NOT_RUN]
        if waiting:
            reason = waiting[0].detail.removeprefix("not run: ")
            yield Outcome.NOT_RUN, f"{len(waiting)} checks were not run: {reason}"


def _broken(name: str, error: GoldsmithError, reproduce: str) -> Stage:
    return Stage(name, Outcome.FAILED, _said(error), reproduce)


def _said(error: GoldsmithError) -> tuple[str, ...]:
    lines = (error.message, *error.context.splitlines())
    return (*lines, *((f"what to do: {error.hint}",) if error.hint else ()))
