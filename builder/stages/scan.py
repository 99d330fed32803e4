"""Scan: a platform image in, a scan report and its SBOMs out, or an error; never "clean" by default.

Trivy ends with code 0 and an empty report in many cases where it has not looked (unknown
operating system, truncated package database, database without this release …). So a report
counts only when all of these hold, numbered as in the code:

 1. the bytes that are scanned are the ones the manifest names;
 2. Trivy ended with code 0 and wrote a report that parses, by the same version;
 3. the report is of this image: its config digest and its layers;
 4. it saw the operating system that the definition names, which is still supported;
 5. it saw exactly the locked packages, no more and no less;
 6. both SBOMs name exactly these packages, too;
 7. with the same database it finds the canary's vulnerabilities;
 8. the database is the same after all this as it was before.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from builder.checks.licences import is_licence_file, read_licences, with_licences
from builder.errors import ToolError
from builder.model.digest import Digest, canonical_json
from builder.model.evidence import CanaryResult, Sboms, ScanReport
from builder.model.image import PlatformImage
from builder.model.scanner import Scanner
from builder.oci.filesystem import read_filesystem
from builder.oci.layout import single_platform_view, verify_blobs
from builder.tools.canary import CANARIES, plant, release_name
from builder.tools.further_scan import ask_scanners
from builder.tools.strict_json import clean, parse_object
from builder.tools.trivy import Trivy
from builder.tools.trivy_db import Database
from builder.tools.trivy_report import (
    SBOM_MAX,
    Report,
    cyclonedx_names,
    cyclonedx_packages,
    read_report,
    spdx_packages,
)

MAJOR_VERSIONS = {"bookworm": 12, "trixie": 13}
SCANNERS = ("vuln", "secret", "license")
SECONDS_MAX = 300.0  # for one run of the scanner
_SHOWN = 8  # package names in a message
_NAMESPACE = uuid.UUID("8f0c36b6-6a43-5a1e-9a83-0d9c1f3f52a7")
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
# Where CycloneDX and SPDX documents say when they were made.
_TIMES = frozenset(("timestamp", "created", "annotationDate"))
_EPOCH = "1970-01-01T00:00:00Z"


def scan(
    image: PlatformImage,
    *,
    name: str,
    database: Database,
    trivy: Trivy,
    work: Path,
    seconds_max: float = SECONDS_MAX,
    further: Sequence[Scanner] = (),
) -> tuple[ScanReport, Sboms]:
    """Scan one platform of an image for vulnerabilities, secrets and licences.

    The SPDX document also has each package's licence by its copyright file, and all those files.
    `name` is what the SBOMs call the image, `work` an empty folder for the files between,
    `further` the scanners of extensions, which are asked too.
    Raises ToolError when any of the conditions above does not hold, RegistryError when the
    image's own blobs are damaged.
    """
    try:
        return _scan(image, name, database, trivy, work, seconds_max, further)
    except OSError as error:
        raise _refusal("its files cannot be read or written", str(error)) from None


def _scan(
    image: PlatformImage,
    name: str,
    database: Database,
    trivy: Trivy,
    work: Path,
    seconds_max: float,
    further: Sequence[Scanner],
) -> tuple[ScanReport, Sboms]:
    major = MAJOR_VERSIONS.get(image.lock.suite)
    if major is None:
        raise _refusal(f"the suite {image.lock.suite} is none that Trivy is known to recognise")
    expected = tuple(sorted(f"{p.name}={p.version}" for p in image.packages))
    if not expected:
        raise _refusal("no package is locked, so there is nothing to compare with")
    database.verify()
    verify_blobs(image.layout, image)  # 1
    view = single_platform_view(image, work / "layout")
    output = work / "report.json"
    trivy.scan_image(view, database.cache_dir, output, scanners=SCANNERS, seconds=seconds_max)
    report = read_report(output)
    _verify_identity(report, image, trivy)
    _verify_system(report, major)
    _verify_packages(report.packages, expected, "Trivy's report")
    _verify_findings(report, image)
    sboms = _sboms(report, image, name, trivy, work, seconds_max)
    _verify_packages(cyclonedx_packages(sboms.cyclonedx), expected, "the CycloneDX document")
    licences = read_licences(read_filesystem(image, is_licence_file), image.packages)
    sboms = replace(sboms, spdx=with_licences(sboms.spdx, licences))
    _verify_packages(spdx_packages(sboms.spdx), expected, "the SPDX document")
    canary = _plant(f"debian {major}", database, trivy, work, seconds_max)
    asked = ask_scanners(further, image, name, view, sboms.cyclonedx, expected, work)
    database.verify()  # 8
    scanned = _scan_report(image, report, database, trivy, canary)
    return replace(scanned, expressions=licences.packages, further=asked), sboms


def scan_import(
    image: PlatformImage,
    *,
    name: str,
    database: Database,
    trivy: Trivy,
    work: Path,
    seconds_max: float = SECONDS_MAX,
    further: Sequence[Scanner] = (),
) -> tuple[ScanReport, Sboms]:
    """Scan one platform of an image that others made: any distribution, language packages too.

    The conditions above hold but for 4 and 5: the system has to be one that Trivy knows, and what
    it saw is compared with the image's own package database by the policy. Where no planted
    vulnerability of the release is known, the canary is empty, and the policy decides; where one is,
    the image's SBOM alone must have the same findings, so that a rescan covers it.
    """
    try:
        database.verify()
        verify_blobs(image.layout, image)
        view, output = single_platform_view(image, work / "layout"), work / "report.json"
        trivy.scan_image(
            view,
            database.cache_dir,
            output,
            scanners=SCANNERS,
            seconds=seconds_max,
            packages="os,library",
        )
        report = read_report(output)
        _verify_identity(report, image, trivy)
        system = f"{report.os_family or 'none'} {report.os_version}".rstrip()
        if report.os_family in ("", "none"):
            raise _refusal("Trivy knows no such operating system, so it looked for no vulnerability", system)
        if report.end_of_life:
            raise _refusal("the operating system is past its end of life: Trivy finds nothing in it", system)
        sboms = _sboms(report, image, name, trivy, work, seconds_max, ("os-pkgs", "lang-pkgs"))
        if missing := sorted(set(report.packages) - cyclonedx_names(sboms.cyclonedx)):
            raise _refusal("the CycloneDX document lacks packages", ", ".join(missing[:_SHOWN]))
        canary, release = CanaryResult("", "", ()), release_name(report.os_family, report.os_version)
        if release in CANARIES:
            canary = _plant(release, database, trivy, work, seconds_max)
            _verify_sbom(report, sboms, database, trivy, work, seconds_max)
        asked = ask_scanners(further, image, name, view, sboms.cyclonedx, report.packages, work)
        database.verify()
    except OSError as error:
        raise _refusal("its files cannot be read or written", str(error)) from None
    return replace(_scan_report(image, report, database, trivy, canary), further=asked), sboms


def _scan_report(
    image: PlatformImage, report: Report, database: Database, trivy: Trivy, canary: CanaryResult
) -> ScanReport:
    return ScanReport(
        digest=image.manifest.digest,
        platform=image.platform,
        scanner=trivy.identity,
        database=database.identity,
        os_family=report.os_family,
        os_version=report.os_version,
        packages=report.packages,
        findings=report.findings,
        secrets=report.secrets,
        licences=report.licences,
        canary=canary,
    )


def _verify_identity(report: Report, image: PlatformImage, trivy: Trivy) -> None:
    """2 and 3. The report is by this scanner and of this image."""
    if report.scanner_version != trivy.identity.version:
        raise _refusal(
            "the report is by another version of Trivy",
            f"report: {report.scanner_version or 'none'}, binary: {trivy.identity.version}",
        )
    if report.artefact_type != "container_image" or report.image_id != image.config.digest:
        raise _refusal(
            "the report is of another image",
            f"report: {report.artefact_type} {report.image_id}, scanned: {image.config.digest}",
        )
    if report.diff_ids != tuple(layer.diff_id for layer in image.layers):
        raise _refusal("the report is of other layers", f"report: {len(report.diff_ids)} layers")


def _verify_system(report: Report, major: int) -> None:
    """4. Trivy recognised the operating system; otherwise it looks for nothing and says so nowhere."""
    seen = f"{report.os_family or 'none'} {report.os_version}".rstrip()
    if report.os_family != "debian" or report.os_version.partition(".")[0] != str(major):
        raise _refusal(
            "Trivy did not recognise the operating system, so it looked for no vulnerability",
            f"seen: {seen}, expected: debian {major}; it reads /etc/debian_version",
        )
    if report.end_of_life:
        raise _refusal("the operating system is past its end of life: Trivy finds nothing in it", seen)


def _verify_packages(found: tuple[str, ...], expected: tuple[str, ...], where: str) -> None:
    """5 and 6. `found` is exactly the locked packages."""
    if found == expected:
        return
    missing = sorted(set(expected) - set(found))
    foreign = sorted(set(found) - set(expected))
    twice = sorted({p for p in found if found.count(p) > 1})
    told = [
        f"{label}: {', '.join(names[:_SHOWN])}{' …' if len(names) > _SHOWN else ''}"
        for label, names in (("not seen", missing), ("not locked", foreign), ("seen twice", twice))
        if names
    ]
    raise _refusal(
        f"{where} does not name exactly the locked packages ({len(found)} seen, {len(expected)} locked)",
        "\n".join(told),
    )


def _verify_findings(report: Report, image: PlatformImage) -> None:
    """5. No finding is about anything else."""
    foreign = sorted({f.package for f in report.findings} - {p.name for p in image.packages})
    if foreign:
        raise _refusal("there are findings in packages that are not locked", ", ".join(foreign[:_SHOWN]))


def _sboms(
    report: Report,
    image: PlatformImage,
    name: str,
    trivy: Trivy,
    work: Path,
    seconds_max: float,
    classes: tuple[str, ...] = ("os-pkgs",),
) -> Sboms:
    """Both SBOM forms of the packages in the report, the same bytes for the same image.

    The findings are taken out before, since an SBOM holds what does not change with the database.
    """
    created = clean(_dict(report.raw["Metadata"].get("ImageConfig")).get("created"), 40) or _EPOCH
    inventory = report.raw | {
        "CreatedAt": created,
        "ArtifactName": f"{name}@{image.manifest.digest}",
        "Results": [
            {key: value for key, value in result.items() if key not in ("Vulnerabilities", "Target")}
            | {"Target": name if result.get("Class") == "os-pkgs" else result.get("Target")}
            for result in report.raw["Results"]
            if result.get("Class") in classes
        ],
    }
    source = work / "inventory.json"
    source.write_text(json.dumps(inventory))
    documents = []
    for form in ("cyclonedx", "spdx-json"):
        output = work / f"sbom.{form}"
        trivy.convert(source, form, output, seconds=seconds_max)
        documents.append(_without_chance(output, created, image.manifest.digest))
    return Sboms(image.manifest.digest, *documents)


def _without_chance(path: Path, created: str, digest: Digest) -> bytes:
    """A document whose random identifiers follow from the image, and whose time is the image's."""
    with open(path, "rb") as handle:
        data = handle.read(SBOM_MAX + 1)
    document = parse_object(data, size_max=SBOM_MAX, what="an SBOM")
    components = _dicts(document.get("components"))
    root = _dict(_dict(document.get("metadata")).get("component"))
    parts: dict[str, object] = {
        "document": document.get("serialNumber") or document.get("documentNamespace"),
        "root": root.get("bom-ref"),
        **{f"{c.get('type')} {c.get('name')}": c.get("bom-ref") for c in components},
    }
    names = {
        match[0]: str(uuid.uuid5(_NAMESPACE, f"{digest}/{path.name}/{part}"))
        for part, value in parts.items()
        if isinstance(value, str) and (match := _UUID.search(value))
    }
    document = _renamed(document, names, created)
    # Trivy sorts by the random identifiers.
    for field, key in (("components", "bom-ref"), ("dependencies", "ref")):
        if field in document:
            document[field] = sorted(_dicts(document[field]), key=_by(key))
    try:
        return canonical_json(document)
    except UnicodeEncodeError as error:
        raise _refusal("an SBOM holds text that is no Unicode", str(error)[:200]) from None


def _renamed(value: Any, names: Mapping[str, str], created: str) -> Any:
    if isinstance(value, dict):
        return {
            key: created if key in _TIMES else _renamed(inner, names, created) for key, inner in value.items()
        }
    if isinstance(value, list):
        return [_renamed(inner, names, created) for inner in value]
    if isinstance(value, str):
        return _UUID.sub(lambda match: names.get(match[0], match[0]), value)
    return value


def _by(name: str) -> Callable[[dict[str, Any]], str]:
    return lambda item: str(item.get(name))


def _dict(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _dicts(value: object) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _verify_sbom(
    report: Report, sboms: Sboms, database: Database, trivy: Trivy, work: Path, seconds_max: float
) -> None:
    """The image's SBOM alone has the same findings: that is what a rescan will look at.

    In an image, Trivy also goes by what no SBOM says, such as the repositories that Alpine's apk uses.
    """
    source, output = work / "own.cdx.json", work / "own-report.json"
    source.write_bytes(sboms.cyclonedx)
    trivy.scan_sbom(source, database.cache_dir, output, seconds=seconds_max)
    differing = {(f.id, f.package) for f in report.findings} ^ {
        (f.id, f.package) for f in read_report(output).findings
    }
    if differing:
        raise _refusal(
            "its SBOM alone has other findings than the image, so no rescan would see what this scan saw",
            ", ".join(sorted(f"{v} in {p}" for v, p in differing)[:_SHOWN]),
        )


def _plant(release: str, database: Database, trivy: Trivy, work: Path, seconds_max: float) -> CanaryResult:
    """7. Scan the canary; all its vulnerabilities must be found."""
    canary = CANARIES[release]
    ids, missing = plant(release, database.cache_dir, trivy, work, seconds_max)
    if missing:
        raise _refusal(
            f"the planted {canary.package} {canary.version} of {release} is known to be vulnerable, "
            "but Trivy did not find that",
            f"not found: {', '.join(missing)}; the database seems to lack {release}",
        )
    return CanaryResult(canary.package, canary.version, tuple(sorted(ids)))


def _refusal(message: str, context: str = "") -> ToolError:
    return ToolError(
        f"the scan cannot be trusted: {message}",
        context=context,
        hint="no verdict was given; mend the image or the database, and run again",
        reference="scan-not-trusted",
    )
