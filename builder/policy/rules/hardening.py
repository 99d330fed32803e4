"""The hardening checks that the policy names were really run, and passed."""

from __future__ import annotations

from collections.abc import Iterator

from builder.model.evidence import Outcome
from builder.policy.rule import Case, Rule, Seen


def _check(case: Case) -> Iterator[Seen]:
    required = case.policy.checks.required
    if case.image.target.variant == "runtime":
        required += case.policy.checks.required_runtime
    for report in case.checks:
        outcomes: dict[str, list[Outcome]] = {}
        for result in report.results:
            outcomes.setdefault(result.id, []).append(result.outcome)
        for check in required:
            found = outcomes.get(check, [])
            if not found:
                yield {"platform": report.platform, "id": check, "outcome": "was not run"}
            elif any(outcome is not Outcome.PASSED for outcome in found):
                worst = next(outcome for outcome in found if outcome is not Outcome.PASSED)
                yield {"platform": report.platform, "id": check, "outcome": str(worst)}


RULE = Rule(
    id="hardening",
    title="The hardening that the policy asks for was checked",
    failure="{platform}: {id} {outcome}",
    solution="take out of the image what the check found; if the check is unknown, correct the policy",
    check=_check,
    needs="checks",
)
