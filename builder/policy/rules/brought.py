"""What the catalogue and extensions add to our own checks and scan was really asked of this image."""

from __future__ import annotations

from collections.abc import Iterator

from builder.policy.rule import Case, Rule, Seen


def _check(case: Case) -> Iterator[Seen]:
    # The checks of a catalogue are for its own images; those of extensions for all.
    checks = [*case.image.target.common, *(e.id for e in case.extensions if e.kind == "check")]
    for report in case.checks:
        made = {result.id for result in report.results}
        yield from (_lacks(report.platform, "check", c) for c in checks if c not in made)
    for scan in case.scans:
        asked = {further.scanner for further in scan.further}
        scanners = (e for e in case.extensions if e.kind == "scanner")
        yield from (_lacks(scan.platform, "scanner", s.id) for s in scanners if s not in asked)


def _lacks(platform: object, kind: str, identifier: str) -> Seen:
    return {"platform": platform, "kind": kind, "id": identifier}


RULE = Rule(
    id="additions-asked",
    title="The checks and scanners that the catalogue and extensions add were asked",
    failure="{platform}: the {kind} {id} was not asked, or another version of it",
    solution="run the image's pipeline again (others' images: import them again); "
    "workers of a cluster need the same GOLDSMITH_EXTENSIONS",
    check=_check,
    needs="checks",
)
