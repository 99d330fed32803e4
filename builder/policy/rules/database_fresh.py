"""The vulnerability database is recent, and the same for all platforms."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator

from builder.policy.rule import Case, Rule, Seen

_CLOCK_SKEW_DAYS = 1 / 24


def _check(case: Case) -> Iterator[Seen]:
    databases = {scan.database.digest: scan.database for scan in case.scans}
    if len(databases) > 1:
        yield {"problem": f"{len(databases)} different databases were used"}
    for database in databases.values():
        updated = dt.datetime.fromisoformat(database.updated_at)
        age = (case.now - updated) / dt.timedelta(days=1)
        if age < -_CLOCK_SKEW_DAYS:
            yield {"problem": f"the database is from the future: {database.updated_at}"}
        if age > case.policy.database.age_days_max:
            yield {
                "problem": f"the database is {age:.1f} days old (of {database.updated_at}), "
                f"{case.policy.database.age_days_max:g} are allowed"
            }


RULE = Rule(
    id="database-fresh",
    title="The vulnerability database is recent",
    failure="{problem}",
    solution="let this machine reach the database's registry, or set GOLDSMITH_TRIVY_DB to a newer one",
    check=_check,
    needs="scan",
)
