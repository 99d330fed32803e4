"""Vulnerabilities without a fix are within the policy's limits."""

from __future__ import annotations

from collections.abc import Iterator

from builder.policy.rule import Case, Rule, Seen, over_limits


def _check(case: Case) -> Iterator[Seen]:
    for scan in case.scans:
        found = [f for f in case.counted(scan) if not f.fixable]
        yield from over_limits(case, scan, found, case.policy.vulnerabilities.unfixed)


RULE = Rule(
    id="vulnerabilities-unfixed",
    title="Few vulnerabilities without a fix",
    failure="{platform}: {count} {severity} without a fix, {allowed} allowed: {list}",
    solution="leave out the package if you can; otherwise wait for the fix, or waive it (`goldsmith waive`)",
    check=_check,
    needs="scan",
)
