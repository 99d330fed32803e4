"""What a rule is: an id, a title, a failure message, a solution, and a pure function.

A rule sees the image, its evidence, the policy's data and the time of the run, and yields what
it has against the image; yielding nothing is a pass.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from builder.model.evidence import CheckReport, Evidence, Finding, LintReport, NotDone, ScanReport
from builder.model.image import BuiltImage
from builder.policy.schema import PolicyData, Thresholds

_SHOWN = 5  # items of a list in one failure


@dataclass(frozen=True, slots=True)
class Case:
    """Everything that a rule may look at. Nothing else decides."""

    image: BuiltImage
    evidence: tuple[Evidence, ...]
    policy: PolicyData
    now: dt.datetime

    @property
    def scans(self) -> Iterator[ScanReport]:
        """The scans that were done."""
        return (e.scan for e in self.evidence if isinstance(e.scan, ScanReport))

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
    scan: ScanReport, findings: Sequence[Finding], limits: Thresholds
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
                "list": listed(
                    [
                        f"{f.id} in {f.package} {f.installed_version}"
                        + (f" (fixed in {f.fixed_version})" if f.fixable else f" ({f.status})")
                        for f in found
                    ]
                ),
            }
