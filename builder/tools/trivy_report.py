"""Reads what Trivy wrote: its JSON report and its two SBOM forms, strictly.

Sources: Trivy's report schema 2 (`pkg/types/report.go`), CycloneDX 1.6 and later, SPDX 2.3.
Every string in them comes from an image or a database and is treated as hostile.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from builder.errors import ToolError
from builder.model.digest import Digest
from builder.model.evidence import Finding, PackageLicences, Secret, Severity
from builder.tools.strict_json import clean, load_object, parse_object

REPORT_MAX = 256 << 20  # bytes
SBOM_MAX = 128 << 20  # bytes
_ROWS_MAX = 200_000  # findings, packages or licences in one report
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,99}")
_TOKEN = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+~^:_-]{0,299}")
# Packages of languages have wider names (@scope/name, group:artefact, host/path); Python has epochs (1!2.0).
_NAME = re.compile(r"[@A-Za-z0-9_][A-Za-z0-9.+~^:_@/-]{0,299}")
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+~^:_!-]{0,299}")
_STATUSES = frozenset(
    (
        "unknown",
        "not_affected",
        "affected",
        "fixed",
        "under_investigation",
        "will_not_fix",
        "fix_deferred",
        "end_of_life",
    )
)
_SEVERITIES = tuple(Severity)


@dataclass(frozen=True, slots=True)
class Report:
    """One report of Trivy. `packages` are NAME=VERSION of the operating system's packages.

    `image_id` is the digest of the image's config, None when an SBOM was scanned. `raw` is
    the parsed document, for conversion.
    """

    scanner_version: str
    artefact_type: str
    image_id: Digest | None
    diff_ids: tuple[str, ...]
    os_family: str
    os_version: str
    end_of_life: bool
    results: int
    packages: tuple[str, ...]
    findings: tuple[Finding, ...]
    secrets: tuple[Secret, ...]
    licences: tuple[PackageLicences, ...]
    raw: dict[str, Any]


def read_report(path: Path) -> Report:
    """Parse the JSON report at `path`; raises ToolError when it is missing, cut or malformed."""
    raw = load_object(path, size_max=REPORT_MAX, what="Trivy's report")
    if raw.get("SchemaVersion") != 2:
        raise _malformed(f"schema version {clean(str(raw.get('SchemaVersion')), 40)!r}, not 2")
    results = _objects(raw, "Results")
    system = [r for r in results if r.get("Class") == "os-pkgs"]
    about = _object(raw, "Metadata")
    release = _object(about, "OS")
    image_id = about.get("ImageID")
    try:
        digest = Digest(image_id) if isinstance(image_id, str) else None
    except ValueError:
        raise _malformed("an ImageID that is no digest") from None
    return Report(
        scanner_version=clean(_object(raw, "Trivy").get("Version"), 60),
        artefact_type=clean(raw.get("ArtifactType"), 60),
        image_id=digest,
        diff_ids=tuple(clean(d, 100) for d in _list(about, "DiffIDs")),
        os_family=clean(release.get("Family"), 60),
        os_version=clean(release.get("Name"), 60),
        end_of_life=release.get("EOSL", False) is not False,
        results=len(system),
        packages=tuple(sorted(_package(p) for r in system for p in _objects(r, "Packages"))),
        findings=_findings(v for r in results for v in _objects(r, "Vulnerabilities")),
        secrets=_secrets(results),
        licences=_licences(x for r in results for x in _objects(r, "Licenses")),
        raw=raw,
    )


def cyclonedx_packages(document: bytes) -> tuple[str, ...]:
    """NAME=VERSION of every library component of a CycloneDX document, sorted."""
    bom = parse_object(document, size_max=SBOM_MAX, what="the CycloneDX document")
    if bom.get("bomFormat") != "CycloneDX":
        raise _malformed("a CycloneDX document without its bomFormat")
    packages = []
    for component in _objects(bom, "components"):
        if component.get("type") == "operating-system":
            continue
        _deb(component.get("purl"), component.get("name"))
        packages.append(f"{_token(component.get('name'))}={_token(component.get('version'))}")
    return tuple(sorted(packages))


def cyclonedx_names(document: bytes) -> frozenset[str]:
    """NAME=VERSION of every component of a CycloneDX document, whatever it is a package of."""
    bom = parse_object(document, size_max=SBOM_MAX, what="the CycloneDX document")
    if bom.get("bomFormat") != "CycloneDX":
        raise _malformed("a CycloneDX document without its bomFormat")
    return frozenset(
        f"{clean(c.get('name'), 300)}={clean(c.get('version'), 300)}" for c in _objects(bom, "components")
    )


def spdx_packages(document: bytes) -> tuple[str, ...]:
    """NAME=VERSION of every library package of an SPDX 2.3 document, sorted."""
    spdx = parse_object(document, size_max=SBOM_MAX, what="the SPDX document")
    if spdx.get("spdxVersion") != "SPDX-2.3":
        raise _malformed("an SPDX document of another version than 2.3")
    packages = []
    for package in _objects(spdx, "packages"):
        if package.get("primaryPackagePurpose") in ("CONTAINER", "OPERATING-SYSTEM"):
            continue
        references = _objects(package, "externalRefs")
        purls = [r.get("referenceLocator") for r in references if r.get("referenceType") == "purl"]
        _deb(purls[0] if len(purls) == 1 else None, package.get("name"))
        packages.append(f"{_token(package.get('name'))}={_token(package.get('versionInfo'))}")
    return tuple(sorted(packages))


def findings_by_reference(report: Report) -> dict[str, tuple[Finding, ...]]:
    """What a report of an SBOM found in each package, by the package's reference in the SBOM.

    Every package that was seen has an entry. Raises ToolError when one is seen twice, or a finding is
    of a package that was not seen.
    """
    rows: dict[str, list[dict[str, Any]]] = {}
    for result in _objects(report.raw, "Results"):
        for entry in _objects(result, "Packages"):
            reference = _reference(_object(entry, "Identifier"))
            if reference in rows:
                raise _malformed(f"the package {reference} twice")
            rows[reference] = []
    for result in _objects(report.raw, "Results"):
        for row in _objects(result, "Vulnerabilities"):
            reference = _reference(_object(row, "PkgIdentifier"))
            if reference not in rows:
                raise _malformed(f"a finding in the package {reference}, which it has not seen")
            rows[reference].append(row)
    return {reference: _findings(found) for reference, found in rows.items()}


def _reference(identifier: dict[str, Any]) -> str:
    reference = identifier.get("BOMRef")
    if not isinstance(reference, str) or not _TOKEN.fullmatch(reference):
        raise _malformed("a package without a reference")
    return reference


def _package(entry: dict[str, Any]) -> str:
    """NAME=VERSION as Debian writes it, from the parts that Trivy splits a version into."""
    epoch, version, release = entry.get("Epoch", 0), entry.get("Version"), entry.get("Release", "")
    if not isinstance(epoch, int) or not isinstance(release, str):
        raise _malformed("a package whose version is malformed")
    full = f"{epoch}:" if epoch else ""
    full += _token(version) + (f"-{release}" if release else "")
    return f"{_token(entry.get('Name'))}={_token(full)}"


def _findings(rows: Iterable[dict[str, Any]]) -> tuple[Finding, ...]:
    """One finding for each id and package, the worst when it is listed twice."""
    found: dict[tuple[str, str, str], Finding] = {}
    for row in rows:
        finding = _finding(row)
        key = (finding.id, finding.package, finding.installed_version)
        known = found.get(key)
        if known is None or _weight(finding) < _weight(known):
            found[key] = finding
        if len(found) > _ROWS_MAX:
            raise _malformed(f"more than {_ROWS_MAX} findings")
    return tuple(sorted(found.values(), key=lambda f: (_SEVERITIES.index(f.severity), f.id, f.package)))


def _finding(row: dict[str, Any]) -> Finding:
    identifier, status = row.get("VulnerabilityID"), row.get("Status") or "unknown"
    if not isinstance(identifier, str) or not _ID.fullmatch(identifier):
        raise _malformed("a finding without a proper id")
    if not isinstance(status, str) or status not in _STATUSES:
        raise _malformed(f"{identifier} with an unknown status {clean(str(status), 40)!r}")
    fixed = row.get("FixedVersion") or ""
    return Finding(
        id=identifier,
        package=_token(row.get("PkgName"), _NAME),
        installed_version=_token(row.get("InstalledVersion"), _VERSION),
        fixed_version=clean(fixed),
        severity=_severity(row, identifier),
        status=status,
        title=clean(row.get("Title")),
    )


def _weight(finding: Finding) -> tuple[int, bool]:
    return _SEVERITIES.index(finding.severity), not finding.fixable


def _secrets(results: list[dict[str, Any]]) -> tuple[Secret, ...]:
    """Rule, place and severity of each secret; the text that matched is not read."""
    return tuple(
        sorted(
            {
                Secret(clean(row.get("RuleID"), 100), clean(result.get("Target")), _severity(row, "a secret"))
                for result in results
                for row in _objects(result, "Secrets")
            },
            key=lambda s: (s.path, s.rule),
        )
    )


def _licences(rows: Iterable[dict[str, Any]]) -> tuple[PackageLicences, ...]:
    names: dict[str, set[str]] = {}
    for row in rows:
        name = row.get("PkgName")
        names.setdefault(_token(name, _NAME) if name else "", set()).add(clean(row.get("Name"), 200))
    return tuple(PackageLicences(package, tuple(sorted(names[package]))) for package in sorted(names))


def _severity(row: dict[str, Any], what: str) -> Severity:
    """The severity of a row; UNKNOWN when it has none, since many entries have none."""
    value = row.get("Severity") or "UNKNOWN"
    try:
        return Severity(value)
    except ValueError:
        raise _malformed(f"{what} with an unknown severity {clean(str(value), 40)!r}") from None


def _deb(purl: object, name: object) -> None:
    """Refuse a component that is no Debian package, or another one than its name says."""
    if not isinstance(purl, str) or not purl.startswith(f"pkg:deb/debian/{_purl_name(name)}@"):
        raise _malformed(f"an entry that is no Debian package: {clean(name, 100)!r}")


def _purl_name(name: object) -> str:
    return _token(name).replace("+", "%2B")


def _token(value: object, form: re.Pattern[str] = _TOKEN) -> str:
    if not isinstance(value, str) or not form.fullmatch(value):
        raise _malformed(f"a malformed package name or version: {clean(value, 60)!r}")
    return value


def _object(parent: dict[str, Any], name: str) -> dict[str, Any]:
    value = parent.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise _malformed(f"{name} is not an object")
    return value


def _objects(parent: dict[str, Any], name: str) -> list[dict[str, Any]]:
    """A list of objects under `name`; null and absent are an empty list."""
    value = _list(parent, name)
    if not all(isinstance(x, dict) for x in value):
        raise _malformed(f"{name} is not a list of objects")
    return value


def _list(parent: dict[str, Any], name: str) -> list[Any]:
    value = parent.get(name)
    if value is None:
        return []
    if not isinstance(value, list) or len(value) > _ROWS_MAX:
        raise _malformed(f"{name} is not a list, or too long")
    return value


def _malformed(reason: str) -> ToolError:
    return ToolError(
        f"Trivy's output cannot be trusted: {reason}",
        hint="check which trivy runs (`goldsmith doctor`), and run again",
    )
