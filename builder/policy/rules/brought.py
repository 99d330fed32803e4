"""What the catalogue and extensions add to our own checks and scan was really asked of this image."""

from __future__ import annotations

from collections.abc import Iterator

from builder.policy.rule import Case, Rule, Seen


def _check(case: Case) -> Iterator[Seen]:
    of = {kind: [e.id for e in case.extensions if e.kind == kind] for kind in ("check", "scanner")}
    # What others made is held to the checks that the policy names.
    checks = [] if case.image.imported else [*case.image.target.common, *of["check"]]
    for report in case.checks:
        made = {result.id for result in report.results}
        yield from (_lacks(report.platform, "check", c) for c in checks if c not in made)
    for scan in case.scans:
        asked = {further.scanner.id for further in scan.further}
        yield from (_lacks(scan.platform, "scanner", s) for s in of["scanner"] if s not in asked)


def _lacks(platform: object, kind: str, identifier: str) -> Seen:
    return {"platform": platform, "kind": kind, "id": identifier}


RULE = Rule(
    id="additions-asked",
    title="The checks and scanners that the catalogue and extensions add were asked",
    failure="{platform}: the {kind} {id} was not asked",
    solution="run the image's pipeline again; workers of a cluster need the same GOLDSMITH_EXTENSIONS",
    check=_check,
    needs="checks",
)
