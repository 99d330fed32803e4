"""One scan for many images: documents of all their packages, each compared with the database once.

The scanner matches packages, not images: what it finds in a package is the same in each image that
has it, as long as name, version, source, architecture and distribution release are the same. As with
the scan of an image, a report counts only when all of these hold, numbered as in the code:

 1. each package has the scanner's own facts: with the binary's name taken for the source's, it
    finds a tenth; a release is one that the scanner is known to recognise;
 2. it ended with code 0 and wrote a report of an SBOM that parses, by the same version;
 3. it saw the operating system that the document names, which is still supported;
 4. it saw each package once, and nothing else (the second of two entries that look alike is
    dropped silently, so each has a reference of its own);
 5. in this very run it found what the planted canary is known for;
 6. the database is the same after all this as it was before.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from builder.errors import ToolError
from builder.model.evidence import CanaryResult, Finding
from builder.tools.canary import CANARIES, DISTRIBUTIONS, Canary, release_name
from builder.tools.trivy import Trivy
from builder.tools.trivy_db import Database
from builder.tools.trivy_report import Report, findings_by_reference, read_report
from registry.index.reading import Package

SECONDS_MAX = 900.0  # for one run of the scanner
_AT_ONCE = 1000  # packages in one document: a report of all would take gigabytes to read
_REPORT_BYTES = 32 << 20  # of a report that is read; a larger one's document is split
_CANARY = "canary"
_NEEDED = frozenset({"PkgType", "SrcName", "SrcVersion"})
# Packages of languages that are matched by their package URL alone, as the scanner calls their kinds.
_LANGUAGES = frozenset({"python-pkg", "node-pkg", "gemspec", "gobinary", "jar"})
_SHOWN = 8  # packages in a message
_PREFIX = "aquasecurity:trivy:"


@dataclass(frozen=True, slots=True)
class Matched:
    """What is known of each package of a release, by its number; one without flaws has an empty tuple."""

    findings: Mapping[int, tuple[Finding, ...]]
    canary: CanaryResult


def why_not(package: Package) -> str:
    """1. Why a package cannot be compared with the database; empty when it can."""
    canary = CANARIES.get(package.release)
    if canary is None:
        return f"no planted vulnerability of {package.release or 'its release'} is known"
    facts = json.loads(package.facts) if package.facts else {}
    if not package.of_system:
        known = facts.get("PkgType") in _LANGUAGES
        return "" if known else f"the SBOM does not say what kind of package {package.name} is"
    if facts.get("PkgType") != canary.family or not set(facts) >= _NEEDED:
        return f"the SBOM does not say which source {package.name} {package.version} is built from"
    return ""


def match(
    release: str,
    point: str,
    packages: Mapping[int, Package],
    *,
    database: Database,
    trivy: Trivy,
    work: Path,
    seconds_max: float = SECONDS_MAX,
) -> Matched:
    """Compare packages of one release (`debian 13`, at its newest point release) with the database.

    `work` is an empty folder. Raises ToolError when any of the conditions above does not hold.
    """
    canary = CANARIES.get(release)
    unfit = next((reason for p in packages.values() if (reason := why_not(p))), "")
    if canary is None or unfit or any(p.release != release for p in packages.values()):
        raise _refusal(unfit or f"packages of several releases, or of an unknown one: {release}")
    findings: dict[int, tuple[Finding, ...]] = {}
    planted: CanaryResult | None = None
    numbers = sorted(packages)
    waiting = [numbers[n : n + _AT_ONCE] for n in range(0, len(numbers), _AT_ONCE)]
    while waiting:
        some = waiting.pop()
        part = {n: packages[n] for n in some}
        text = json.dumps(document(point, part, canary))
        report = _scan(text, database, trivy, work, seconds_max, may_split=len(some) > 1)
        if report is None:
            waiting += [some[: len(some) // 2], some[len(some) // 2 :]]
            continue
        _verify_origin(report, trivy, release)
        found = findings_by_reference(report)
        _verify_packages(set(found), {_reference(n) for n in part} | {_CANARY})
        planted = _verify_canary(found.pop(_CANARY), canary)
        findings |= {n: found[_reference(n)] for n in part}
    database.verify()  # 6
    if planted is None:
        raise _refusal("there is no package to be compared")
    return Matched(findings, planted)


def _scan(
    text: str, database: Database, trivy: Trivy, work: Path, seconds_max: float, *, may_split: bool
) -> Report | None:
    """2. The report of a document; None when it is so large that the document should be split."""
    source, output = work / "union.cdx.json", work / "report.json"
    try:
        source.write_text(text)
        database.verify()
        trivy.scan_sbom(source, database.cache_dir, output, seconds=seconds_max)
        if may_split and output.stat().st_size > _REPORT_BYTES:
            return None
    except OSError as error:
        raise _refusal("its files cannot be read or written", str(error)) from None
    return read_report(output)


def document(point: str, packages: Mapping[int, Package], canary: Canary) -> dict[str, Any]:
    """The CycloneDX document of all packages, the operating system, and the canary."""
    distribution = DISTRIBUTIONS[canary.family].distro.format(version=point)
    planted: dict[str, Any] = canary.component(point)
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "components": [
            {"bom-ref": "os", "type": "operating-system", "name": canary.family, "version": point},
            {**planted, "bom-ref": _CANARY, "properties": [*planted["properties"], _own_id(_CANARY)]},
            *(_component(number, packages[number], distribution) for number in sorted(packages)),
        ],
    }


def _component(number: int, package: Package, distribution: str) -> dict[str, Any]:
    base, _, query = package.purl.partition("?")
    qualifiers = sorted([*(q for q in query.split("&") if q), f"distro={distribution}"])
    facts = json.loads(package.facts)
    return {
        "bom-ref": _reference(number),
        "type": "library",
        "name": package.name,
        "version": package.version,
        "purl": f"{base}?{'&'.join(qualifiers)}",
        "properties": [
            *({"name": _PREFIX + name, "value": value} for name, value in sorted(facts.items())),
            _own_id(_reference(number)),
        ],
    }


def _own_id(reference: str) -> dict[str, str]:
    return {"name": f"{_PREFIX}PkgID", "value": reference}


def _reference(number: int) -> str:
    return f"package-{number}"


def _verify_origin(report: Report, trivy: Trivy, release: str) -> None:
    """2 and 3. The report is of a document, by this scanner, which recognised the release."""
    if report.scanner_version != trivy.identity.version or report.artefact_type != "cyclonedx":
        raise _refusal(
            "the report is by another version, or not of the document",
            f"{report.scanner_version or 'none'}, {report.artefact_type or 'none'}",
        )
    if release_name(report.os_family, report.os_version) != release:
        seen = f"{report.os_family or 'none'} {report.os_version}".rstrip()
        raise _refusal("the scanner did not recognise the operating system", f"seen: {seen}, is: {release}")
    if report.end_of_life:
        raise _refusal("the operating system is past its end of life: nothing is found in it", release)


def _verify_packages(seen: set[str], expected: set[str]) -> None:
    """4. Each package was seen."""
    if seen != expected:
        missing, foreign = sorted(expected - seen), sorted(seen - expected)
        raise _refusal(
            f"the scanner saw {len(seen)} packages of {len(expected)}",
            f"not seen: {', '.join(missing[:_SHOWN])}\nunknown: {', '.join(foreign[:_SHOWN])}",
        )


def _verify_canary(found: tuple[Finding, ...], canary: Canary) -> CanaryResult:
    """5. It really looked."""
    ids = {f.id for f in found}
    if missing := [v for v in canary.vulnerabilities if v not in ids]:
        raise _refusal(
            f"the planted {canary.package} {canary.version} is known to be vulnerable; it was not found",
            f"not found: {', '.join(missing)}; the database seems to lack this release",
        )
    return CanaryResult(canary.package, canary.version, tuple(sorted(ids)))


def _refusal(message: str, context: str = "") -> ToolError:
    return ToolError(
        f"the rescan cannot be trusted: {message}",
        context=context,
        hint="no verdict was renewed; mend scanner or database, and run again",
        reference="scan-not-trusted",
    )
