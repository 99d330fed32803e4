"""Everything that has to be known of the image is known, of this very image."""

from __future__ import annotations

from collections.abc import Iterator

from builder.model.evidence import CheckReport, Evidence, NotDone, Sboms, ScanReport
from builder.policy.rule import Case, Rule, Seen


def _check(case: Case) -> Iterator[Seen]:
    if case.image.imported != (case.policy.imports is not None):
        yield _seen("the image", "the policy is for images of the other kind: imported, or our own")
    for image in case.image.platforms:
        found = [e for e in case.evidence if e.platform == image.platform]
        if len(found) != 1:
            yield _seen(image.platform, f"{len(found)} sets of evidence instead of one")
        for evidence in found:
            yield from (
                _seen(image.platform, problem)
                # A scan that was not done gives no SBOMs either: one problem, told once.
                for problem in dict.fromkeys(_problems(evidence, image.manifest.digest, case.image.imported))
            )
    built = {image.platform for image in case.image.platforms}
    for platform in sorted({e.platform for e in case.evidence} - built):
        yield _seen(platform, "evidence of a platform that the image does not have")
    if not case.image.platforms:
        yield _seen("the image", "it has no platform")


def _problems(evidence: Evidence, digest: str, imported: bool) -> Iterator[str]:
    if evidence.digest != digest:
        yield f"the evidence is of {evidence.digest}, not of {digest}"
    # There is no Dockerfile of what others made.
    for part in (evidence.checks, evidence.scan, evidence.sboms, *(() if imported else (evidence.lint,))):
        if isinstance(part, NotDone):
            yield f"{part.stage} was not done: {part.reason}"
        elif isinstance(part, CheckReport | ScanReport | Sboms) and part.digest != digest:
            yield f"a {type(part).__name__} is of {part.digest}, not of {digest}"
    if isinstance(evidence.sboms, Sboms) and not (evidence.sboms.cyclonedx and evidence.sboms.spdx):
        yield "an SBOM is empty"


def _seen(platform: object, problem: str) -> Seen:
    return {"platform": platform, "problem": problem}


RULE = Rule(
    id="evidence-complete",
    title="Checks, scan, SBOMs and lint were done on this very image",
    failure="{platform}: {problem}",
    solution="mend what kept the stage from running (`goldsmith doctor` tells what is missing), run again",
    check=_check,
)
