"""Vulnerabilities without a fix are within the policy's limits."""

from __future__ import annotations

from collections.abc import Iterator

from builder.policy.rule import Case, Rule, Seen, over_limits


def _check(case: Case) -> Iterator[Seen]:
    for scan in case.scans:
        # Trivy also lists what the distribution has found not to be affected.
        counted = [f for f in scan.findings if not f.fixable and f.status != "not_affected"]
        yield from over_limits(scan, counted, case.policy.vulnerabilities.unfixed)


RULE = Rule(
    id="vulnerabilities-unfixed",
    title="Few vulnerabilities without a fix",
    failure="{platform}: {count} {severity} without a fix, {allowed} allowed: {list}",
    solution="leave out the package if you can; otherwise wait for the fix, or raise the policy's limit",
    check=_check,
    needs="scan",
)
