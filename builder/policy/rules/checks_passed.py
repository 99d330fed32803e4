"""Every check that the image declares, and every one for all images, passed."""

from __future__ import annotations

from collections.abc import Iterator

from builder.model.evidence import Outcome
from builder.policy.rule import Case, Rule, Seen


def _check(case: Case) -> Iterator[Seen]:
    for report in case.checks:
        if not report.results:
            yield {"platform": report.platform, "id": "checks", "what": "none was run"}
        for result in report.results:
            if result.outcome not in (Outcome.PASSED, Outcome.NOT_APPLICABLE):
                detail = f" ({result.detail})" if result.detail else ""
                yield {
                    "platform": report.platform,
                    "id": result.id,
                    "what": f"{result.title}: {result.outcome}{detail}",
                }


RULE = Rule(
    id="checks-passed",
    title="All checks in the locked-down container passed",
    failure="{platform}: {id}: {what}",
    solution="mend the image, or its checks.yaml if that asks for the wrong thing; "
    "for checks that were not run: goldsmith doctor",
    check=_check,
    needs="checks",
)
