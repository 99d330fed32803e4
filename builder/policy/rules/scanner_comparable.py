"""For an imported image: there was something to compare the scanner with."""

from __future__ import annotations

from collections.abc import Iterator

from builder.policy.rule import Case, Rule, Seen


def _check(case: Case) -> Iterator[Seen]:
    limits = case.policy.imports
    named = {image.platform for image in case.image.platforms if image.packages}
    for scan in case.scans:
        if scan.platform not in named and (limits is None or limits.not_comparable == "refuse"):
            yield {
                "platform": scan.platform,
                "problem": "not comparable: no package database that can be read",
            }
        if not scan.canary.package and (limits is None or limits.no_canary == "refuse"):
            system = f"{scan.os_family} {scan.os_version}".strip()
            yield {"platform": scan.platform, "problem": f"no planted vulnerability is known for {system}"}


RULE = Rule(
    id="scanner-comparable",
    title="What the scanner saw could be compared with what is installed",
    failure="{platform}: {problem}",
    solution="take an image of a distribution that can be compared, or accept it in the policy (imports:)",
    check=_check,
    needs="scan",
)
