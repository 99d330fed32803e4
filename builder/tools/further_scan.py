"""Asks the scanners of extensions; an answer that cannot be one is none, and none is an error."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path

from builder.errors import ToolError
from builder.model.evidence import Finding, FurtherScan, Severity
from builder.model.image import PlatformImage
from builder.model.scanner import Scanned, Scanner
from builder.oci.layout import verify_blobs

_TEXT_MAX = 1000  # characters


def ask_scanners(
    scanners: Sequence[Scanner],
    image: PlatformImage,
    name: str,
    layout: Path,
    cyclonedx: bytes,
    packages: tuple[str, ...],
    work: Path,
) -> tuple[FurtherScan, ...]:
    """What each scanner finds in one platform of an image, in folders of their own below `work`.

    Raises ToolError that names the scanner when one does not answer, or not with findings in `packages`,
    RegistryError when one has changed the image's blobs, which may be the very files that we keep.
    """
    found = []
    for scanner in scanners:
        folder = work / f"scanner-{scanner.id}"
        sbom = work / f"scanner-{scanner.id}.cyclonedx.json"
        folder.mkdir()
        sbom.write_bytes(cyclonedx)
        given = Scanned(name, image.manifest.digest, image.platform, layout, sbom, packages, folder)
        findings = tuple(scanner.scan(given))
        mistake = next(_mistakes(findings, packages), "" if scanner.identity else "nobody knows whose it is")
        if mistake or scanner.identity is None:
            raise ToolError(
                f"the scan cannot be trusted: the scanner {scanner.id}: {mistake}",
                context=str(scanner.identity or ""),
                hint="mend the package that brings it; no verdict was given",
                reference="scan-not-trusted",
            )
        found.append(FurtherScan(scanner.identity, tuple(sorted(findings, key=_order))))
    if scanners:
        verify_blobs(layout, image)
    return tuple(found)


def _order(finding: Finding) -> tuple[int, str, str]:
    return list(Severity).index(finding.severity), finding.id, finding.package


def _mistakes(findings: tuple[object, ...], packages: tuple[str, ...]) -> Iterator[str]:
    names = {package.partition("=")[0] for package in packages}
    for one in findings:
        if not isinstance(one, Finding) or not isinstance(one.severity, Severity):
            yield f"it gives a {type(one).__name__}, which is no finding"
            continue
        texts = [getattr(one, field.name) for field in fields(one) if field.name != "severity"]
        if (
            not all(isinstance(t, str) and len(t) <= _TEXT_MAX and t.isprintable() for t in texts)
            or not one.id
        ):
            yield "a finding has texts that cannot be"
        elif one.package not in names:
            yield f"it finds something in {one.package[:80]!r}, which is not in the image"
