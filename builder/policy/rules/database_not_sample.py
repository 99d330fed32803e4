"""The vulnerability database is a real one, not the sample of the tests and the demo."""

from __future__ import annotations

from collections.abc import Iterator

from builder.policy.rule import Case, Rule, Seen


def _check(case: Case) -> Iterator[Seen]:
    if case.policy.database.sample == "refuse":
        for source in sorted({scan.database.source for scan in case.scans if scan.database.sample}):
            yield {"source": source}


RULE = Rule(
    id="database-not-sample",
    title="The vulnerability database is not the sample",
    failure="scanned with the small sample database ({source}), which knows few vulnerabilities",
    solution="set GOLDSMITH_TRIVY_DB to a real database, or let this machine reach its registry",
    check=_check,
    needs="scan",
)
