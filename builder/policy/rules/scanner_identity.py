"""The scan is by a scanner that we know, which proved that it sees."""

from __future__ import annotations

from collections.abc import Iterator

from builder.model.evidence import ScanReport
from builder.policy.rule import Case, Rule, Seen, listed


def _check(case: Case) -> Iterator[Seen]:
    locked = {image.platform: image.packages for image in case.image.platforms}
    for scan in case.scans:
        expected = sorted(f"{p.name}={p.version}" for p in locked.get(scan.platform, ()))
        imported = case.image.imported
        for problem in _problems(
            scan, expected, case.policy.scanner.name, case.policy.scanner.versions, imported
        ):
            yield {"platform": scan.platform, "problem": problem}


def _problems(
    scan: ScanReport, expected: list[str], name: str, versions: tuple[str, ...], imported: bool
) -> Iterator[str]:
    if scan.scanner.name != name or scan.scanner.version not in versions:
        yield f"scanned by {scan.scanner.name} {scan.scanner.version}, not {name} {' or '.join(versions)}"
    if list(scan.packages) != expected and not (imported and not expected):
        differing, what = sorted(set(scan.packages) ^ set(expected)), "installed" if imported else "locked"
        yield f"{len(scan.packages)} packages seen, {len(expected)} {what}: {listed(differing)}"
    if not expected and not imported:
        yield "no package is locked"
    # Where none is known, that is a finding of the rule scanner-comparable.
    if not scan.canary.found and not (imported and not scan.canary.package):
        yield f"the planted {scan.canary.package} {scan.canary.version} was not found to be vulnerable"


RULE = Rule(
    id="scanner-identity",
    title="A known scanner saw exactly the locked packages and the planted vulnerability",
    failure="{platform}: {problem}",
    solution="use the pinned scanner (`goldsmith doctor`); a new version must first be named in the policy",
    check=_check,
    needs="scan",
)
