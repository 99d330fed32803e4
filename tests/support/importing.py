"""An office that imports: the import policy, a scanner that answers as told, everything else is real."""

from __future__ import annotations

import datetime as dt
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import registry
from builder.checks.rule import Rule
from builder.model.digest import Digest, canonical_json
from builder.model.evidence import CanaryResult, Evidence, Sboms, ScannerIdentity, ScanReport
from builder.model.image import BuiltImage, PlatformImage, Target
from builder.model.release import PublishedImage, SignedImage
from builder.model.verdict import Verdict
from builder.oci.client import RegistryClient
from builder.policy.schema import Policy
from builder.stages.judge import judge, load_policy
from builder.stages.publish import publish
from builder.stages.sign import sign
from registry.imports.procedure import Imported, Instruments, Wish, import_image
from registry.upstream.source import LayoutSource, Source
from tests.support.evidence import DATABASE
from tests.support.foreign import Foreign, write_layout
from tests.support.images import NOW
from tests.support.promotion import NOBODY, House

WISH = Wish("upstream", "1.0", "platform-team", dt.date(2029, 6, 30), "team A needs it")


def import_policy(**changes: Any) -> Policy:
    """The policy for imports that comes with the tool, and nobody's approval."""
    found = load_policy(Path(registry.__file__).parent / "policies" / "import.yaml")
    nobody = found.data.approvals.model_copy(update=NOBODY)
    return Policy(found.data.model_copy(update={"approvals": nobody, **changes}), found.digest)


def good_scan(target: Target, image: PlatformImage, work: Path) -> tuple[ScanReport, Sboms]:
    """A scan that saw what is installed, and nothing bad."""
    names = tuple(sorted(f"{p.name}={p.version}" for p in image.packages))
    digest = image.manifest.digest
    components = [dict(zip(("name", "version"), n.split("=", 1), strict=True)) for n in names]
    cyclonedx = {"bomFormat": "CycloneDX", "specVersion": "1.6", "components": components}
    spdx = {"spdxVersion": "SPDX-2.3", "packages": [], "name": str(digest)}
    report = ScanReport(
        digest=digest,
        platform=image.platform,
        scanner=ScannerIdentity("trivy", "0.76.0", Digest.of(b"trivy")),
        database=DATABASE,
        os_family="debian",
        os_version="13.1",
        packages=names,
        findings=(),
        secrets=(),
        licences=(),
        canary=CanaryResult("openssl", "3.5.1-1", ("CVE-2025-9230",)),
    )
    return report, Sboms(digest, canonical_json(cyclonedx), canonical_json(spdx))


Scan = Callable[[Target, PlatformImage, Path], tuple[ScanReport, Sboms]]


class ImportHouse(House):
    """A house whose office imports."""

    def __init__(self, folder: Path, client: RegistryClient, now: dt.datetime = NOW) -> None:
        super().__init__(folder, client)
        self.policy, self.now = import_policy(), now
        self.checks: tuple[Rule, ...] = ()

    def instruments(self, scan: Scan = good_scan) -> Instruments:
        """Judge, sign and publish for real."""

        def judged(image: BuiltImage, evidence: tuple[Evidence, ...]) -> Verdict:
            return judge(image, evidence, self.policy, self.now)

        def signed(
            image: BuiltImage, evidence: tuple[Evidence, ...], verdict: Verdict, provenance: Mapping[str, Any]
        ) -> SignedImage:
            name = f"{self.client.host}/quarantine/{image.target.definition.name}"
            return sign(image, evidence, verdict, provenance, self.keys, name)

        def published(image: SignedImage) -> PublishedImage:
            return publish(image, self.client, "quarantine")

        return Instruments(scan, judged, signed, published, self.checks)

    def take(self, source: Source, scan: Scan = good_scan, **wish: Any) -> Imported:
        """Import an image."""
        with tempfile.TemporaryDirectory(dir=self.folder / "work") as work:
            return import_image(
                self.office(work=Path(work)),
                source,
                replace(WISH, **wish),
                {"python", "base"},
                self.instruments(scan),
            )

    def layout(self, *platforms: Foreign) -> LayoutSource:
        """A layout of foreign images (by default one), as a source."""
        folder = self.folder / "theirs"
        shutil.rmtree(folder, ignore_errors=True)
        return LayoutSource(write_layout(folder, *(platforms or (Foreign(),))))
