"""What the catalogue and extensions bring beside our own checks was really asked of this image."""

from __future__ import annotations

from collections.abc import Iterator

from builder.policy.rule import Case, Rule, Seen


def _check(case: Case) -> Iterator[Seen]:
    if case.image.imported:
        return  # which is held to the checks that the policy names
    wanted = [*case.image.target.common, *(e.id for e in case.extensions if e.kind == "check")]
    for report in case.checks:
        made = {result.id for result in report.results}
        for identifier in wanted:
            if identifier not in made:
                yield {"platform": report.platform, "id": identifier}


RULE = Rule(
    id="added-checks-made",
    title="The checks of the catalogue and of extensions were made",
    failure="{platform}: {id} was not made",
    solution="run the image's pipeline again; workers of a cluster need the same GOLDSMITH_EXTENSIONS",
    check=_check,
    needs="checks",
)
