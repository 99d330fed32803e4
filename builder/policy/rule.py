"""What a rule is: an id, a title, a failure message, a solution, and a pure function.

A rule sees the image, its evidence, the policy's data and the time of the run, and yields what
it has against the image; yielding nothing is a pass.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from builder.model.evidence import (
    NOT_AFFECTED,
    CheckReport,
    Evidence,
    Finding,
    LintReport,
    NotDone,
    ScanReport,
)
from builder.model.extension import ExtensionIdentity
from builder.model.image import BuiltImage
from builder.model.waiver import Waiver
from builder.model.witness import Witness
from builder.policy.exploited import KnownExploited
from builder.policy.schema import PolicyData, Thresholds
from builder.policy.waivers import Decision, Terms, decide

_SHOWN = 5  # items of a list in one failure


@dataclass(frozen=True, slots=True)
class Case:
    """Everything that a rule may look at. Nothing else decides."""

    image: BuiltImage
    evidence: tuple[Evidence, ...]
    policy: PolicyData
    now: dt.datetime
    exploited: KnownExploited | None = None
    witnesses: tuple[Witness, ...] = ()  # who built the image again; known at promotion only
    extensions: tuple[ExtensionIdentity, ...] = ()  # what has to be asked beside our own

    @property
    def scans(self) -> Iterator[ScanReport]:
        """The scans that were done."""
        return (e.scan for e in self.evidence if isinstance(e.scan, ScanReport))

    def waived(self, scan: ScanReport) -> Iterator[tuple[Finding, Waiver]]:
        """The findings of a scan that are waived, and by what."""
        for finding in scan.union:
            if finding.status != NOT_AFFECTED and (found := self.decision(scan, finding).waiver):
                yield finding, found

    def counted(self, scan: ScanReport) -> Iterator[Finding]:
        """The findings that count: neither waived, nor found not to affect the distribution."""
        for finding in scan.union:
            if finding.status != NOT_AFFECTED and self.decision(scan, finding).waiver is None:
                yield finding

    def decision(self, scan: ScanReport, finding: Finding) -> Decision:
        """What the image's waivers say of a finding."""
        waivers = self.image.target.waivers
        if not waivers:
            return Decision()
        added = {
            p.name for one in self.image.platforms if one.platform == scan.platform for p in one.lock.packages
        }
        exploited = self.exploited.ids if self.exploited else frozenset()
        return decide(finding, waivers, Terms(added, exploited, self.policy.waivers.days_max, self.now))

    @property
    def checks(self) -> Iterator[CheckReport]:
        """The check reports that were made."""
        return (e.checks for e in self.evidence if isinstance(e.checks, CheckReport))

    @property
    def lints(self) -> Iterator[tuple[Evidence, LintReport]]:
        """The lint reports that were made, each with the platform's evidence."""
        return ((e, e.lint) for e in self.evidence if isinstance(e.lint, LintReport))


Seen = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule. `failure` is filled with each mapping that `check` yields.

    `needs` is the evidence without which the rule cannot pass.
    """

    id: str
    title: str
    failure: str
    solution: str
    check: Callable[[Case], Iterable[Seen]]
    needs: Literal["checks", "scan", "sboms", "lint"] | None = None

    def failures(self, case: Case) -> tuple[str, ...]:
        """What the rule has against the image; without the evidence it needs, just that."""
        if self.needs:
            missing = [e for e in case.evidence if isinstance(getattr(e, self.needs), NotDone)]
            if missing or not case.evidence:
                where = ", ".join(str(e.platform) for e in missing) or "any platform"
                return (f"{NOT_JUDGED} {self.needs} for {where}",)
        return tuple(self.failure.format_map(seen) for seen in self.check(case))


NOT_JUDGED = "not judged, because there is no evidence of"


def listed(items: Sequence[str]) -> str:
    """The first few of a list, and how many more there are."""
    more = len(items) - _SHOWN
    return ", ".join(items[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def over_limits(
    case: Case, scan: ScanReport, findings: Sequence[Finding], limits: Thresholds
) -> Iterator[dict[str, object]]:
    """One entry for each severity with more findings than allowed, worst first."""
    by_severity: dict[object, list[Finding]] = {}
    for finding in findings:
        by_severity.setdefault(finding.severity, []).append(finding)
    for severity, found in by_severity.items():
        allowed = limits.limit(found[0].severity)
        if allowed is not None and len(found) > allowed:
            yield {
                "platform": scan.platform,
                "count": len(found),
                "severity": severity,
                "allowed": allowed,
                "list": listed([described(f, case.decision(scan, f)) for f in found]),
            }


def described(finding: Finding, decision: Decision) -> str:
    """A finding in words, with what became of its waiver."""
    state = f"fixed in {finding.fixed_version}" if finding.fixable else finding.status
    lapsed = f"; {decision.lapsed}" if decision.lapsed else ""
    return f"{finding.id} in {finding.package} {finding.installed_version} ({state}{lapsed})"
