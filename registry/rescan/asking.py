"""Asks the scanners of extensions again about an image whose verdict is to be renewed.

Ours compares the names of packages, once for all images. Others may look at anything: so the image is
fetched from the registry, and each platform is shown to them as at its first scan. What they find over the
policy's limits, and a newer package mends, is to be rebuilt as what ours finds.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from builder.errors import ToolError
from builder.model.digest import Digest, canonical_json, is_digest_of_json
from builder.model.evidence import Finding, FurtherScan, ScanReport
from builder.model.rebuild import RebuildRequest
from builder.model.reference import Reference
from builder.model.scanner import Scanner
from builder.oci.layout import single_platform_view
from builder.policy.rule import Case
from builder.policy.schema import Policy
from builder.signing.attested import statements
from builder.signing.predicates import CYCLONEDX_TYPE
from builder.signing.refusal import refuse
from builder.signing.verification import Verification
from builder.tools.further_scan import ask_scanners
from registry.promotion.closure import Closure
from registry.promotion.office import Office
from registry.rescan.counting import Limit
from registry.rescan.inventory import Image
from registry.rescan.judging import Bench
from registry.upstream.fetch import fetch
from registry.upstream.source import RegistrySource

Further = Mapping[Digest, tuple[FurtherScan, ...]]


@dataclass(frozen=True, slots=True)
class Answered:
    """What the scanners found in an image today, by the digest of each platform; the platforms' names; and
    what is to be rebuilt for it."""

    further: Further
    platforms: Mapping[Digest, str]
    requests: tuple[RebuildRequest, ...]


def demanded(policy: Policy) -> bool:
    """Whether the policy wants scanners of extensions to be asked."""
    return any(e.kind == "scanner" for e in policy.extensions)


def ask_again(
    office: Office,
    closure: Closure,
    found: Verification,
    case: Case,
    scanners: Sequence[Scanner],
    work: Path,
) -> Further:
    """What the scanners find today, by the digest of each platform; files between go to `work`.

    Raises ToolError when one that the policy demands does not answer, RegistryError when the image
    cannot be fetched, EvidenceRefused when it is not sound, or its SBOM is not the one that was judged.
    """
    at_hand = [scanner.identity for scanner in scanners]
    missing = [e for e in office.policy.extensions if e.kind == "scanner" and e not in at_hand]
    if missing:
        raise ToolError(
            f"the policy demands {missing[0]}, which cannot be asked here",
            hint="name its package in GOLDSMITH_EXTENSIONS",
            reference="scan-not-trusted",
        )
    where = closure.client.reference(closure.repo, digest=closure.image)
    fetched = fetch(RegistrySource(closure.client, where), work / "image")
    there = {one.manifest.digest: one for one in fetched.platforms}
    answers = {}
    for image, evidence in zip(case.image.platforms, case.evidence, strict=True):
        one, scan = there.get(evidence.digest), evidence.scan
        if one is None or not isinstance(scan, ScanReport):
            refuse("platform-missing", "a platform that was judged is not there", context=evidence.digest)
        folder = work / image.platform.architecture
        folder.mkdir()
        here = replace(
            image, layout=fetched.layout, manifest=one.manifest, config=one.config_blob, layers=one.layers
        )
        view = single_platform_view(here, folder / "layout")
        sbom = _sbom(office, closure, where.with_digest(evidence.digest), found)
        ref = found.verdict.ref
        answers[evidence.digest] = ask_scanners(scanners, here, ref, view, sbom, scan.packages, folder)
    return answers


def _sbom(office: Office, closure: Closure, where: Reference, found: Verification) -> bytes:
    """The CycloneDX document that was judged, byte for byte."""
    wanted = found.verdict.sboms.get(str(where.digest), "")
    for one in statements(closure, where, office.trust, frozenset({CYCLONEDX_TYPE})):
        if is_digest_of_json(wanted, one.predicate):
            return canonical_json(one.predicate)
    refuse("sbom-mismatch", "the attested SBOM is not the one that was judged", context=str(where.digest))


def requests_for(case: Case, image: Image, bench: Bench) -> tuple[RebuildRequest, ...]:
    """What is to be rebuilt for what scanners of extensions found, by the reports of today in `case`."""
    found: dict[Digest, RebuildRequest] = {}
    for scan in case.scans if image.current else ():
        said_by = {f: one.scanner.id for one in scan.further for f in one.findings}
        for finding in _over(case, scan, bench.limits(bench.policy_of(image))):
            # What has no name or version that can be asked for is told with the verdict that is not renewed.
            with contextlib.suppress(ValueError):
                if finding.fixable and finding in said_by:
                    request = RebuildRequest(
                        ref=image.ref,
                        digest=image.digest,
                        vulnerability=finding.id,
                        package=finding.package,
                        fixed_version=finding.fixed_version,
                        severity=finding.severity,
                        requested_at=bench.now,
                        known_exploited=finding.id in bench.exploited,
                        scanner=said_by[finding],
                    )
                    found[request.key] = request
    return tuple(found.values())


def _over(case: Case, scan: ScanReport, limits: Sequence[Limit]) -> Iterator[Finding]:
    counted = list(case.counted(scan))
    for kind, limit in limits:
        over = [finding for finding in counted if kind(finding)]
        if limit is not None and len(over) > limit:
            yield from over
