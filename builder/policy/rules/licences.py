"""No package has a licence that the policy denies."""

from __future__ import annotations

from collections.abc import Iterator

from builder.policy.rule import Case, Rule, Seen


def _check(case: Case) -> Iterator[Seen]:
    denied = {name.casefold() for name in case.policy.licences.denied}
    for scan in case.scans:
        for package in scan.licences:
            for licence in package.licences:
                if licence.casefold() in denied:
                    yield {
                        "platform": scan.platform,
                        "package": package.package or "a loose file",
                        "licence": licence,
                    }


RULE = Rule(
    id="licences",
    title="No denied licence",
    failure="{platform}: {package} has the denied licence {licence}",
    solution="leave the package out, or ask the policy's owner whether the licence is acceptable",
    check=_check,
    needs="scan",
)
