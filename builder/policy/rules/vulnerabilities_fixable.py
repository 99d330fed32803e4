"""No vulnerability stays for which a fixed package is published."""

from __future__ import annotations

from collections.abc import Iterator

from builder.policy.rule import Case, Rule, Seen, over_limits


def _check(case: Case) -> Iterator[Seen]:
    for scan in case.scans:
        found = [f for f in case.counted(scan) if f.fixable]
        yield from over_limits(case, scan, found, case.policy.vulnerabilities.fixable)


RULE = Rule(
    id="vulnerabilities-fixable",
    title="Nothing is left unfixed that Debian has fixed",
    failure="{platform}: {count} {severity} with a fix, {allowed} allowed: {list}",
    solution="run `goldsmith lock` to take the fixed packages, review the change, and build again",
    check=_check,
    needs="scan",
)
