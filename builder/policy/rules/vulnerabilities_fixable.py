"""No vulnerability stays for which a fixed package is published."""

from __future__ import annotations

from collections.abc import Iterator

from builder.policy.rule import Case, Rule, Seen, over_limits


def _check(case: Case) -> Iterator[Seen]:
    for scan in case.scans:
        # Trivy also lists what the distribution has found not to be affected.
        counted = [f for f in scan.findings if f.fixable and f.status != "not_affected"]
        yield from over_limits(scan, counted, case.policy.vulnerabilities.fixable)


RULE = Rule(
    id="vulnerabilities-fixable",
    title="Nothing is left unfixed that Debian has fixed",
    failure="{platform}: {count} {severity} with a fix, {allowed} allowed: {list}",
    solution="run `goldsmith lock` to take the fixed packages, review the change, and build again",
    check=_check,
    needs="scan",
)
