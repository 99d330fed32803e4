"""The canary: a package known to be vulnerable, planted to see whether the scanner still sees.

A scanner with an empty, foreign or broken database says "nothing found" just as it does for
a clean image. So with each scan it must also find these, with the very same database.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from builder.tools.trivy import Trivy
from builder.tools.trivy_report import read_report


@dataclass(frozen=True, slots=True)
class Canary:
    """A Debian source package at a version with `vulnerabilities` that advisories have fixed."""

    package: str
    upstream: str
    revision: str
    vulnerabilities: tuple[str, ...]

    @property
    def version(self) -> str:
        """The version as Debian writes it."""
        return f"{self.upstream}-{self.revision}"

    def document(self, major: int) -> bytes:
        """A CycloneDX document with the operating system and this package.

        The properties are Trivy's own: without them it takes the binary package's name for
        the source package's, and finds a tenth.
        """
        reference = f"pkg:deb/debian/{self.package}@{self.version}?distro=debian-{major}"
        facts = {
            "PkgType": "debian",
            "SrcName": self.package,
            "SrcVersion": self.upstream,
            "SrcRelease": self.revision,
        }
        package = {
            "bom-ref": reference,
            "type": "library",
            "name": self.package,
            "version": self.version,
            "purl": reference,
            "properties": [{"name": f"aquasecurity:trivy:{k}", "value": v} for k, v in facts.items()],
        }
        system = {"bom-ref": "os", "type": "operating-system", "name": "debian", "version": str(major)}
        return json.dumps(
            {"bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1, "components": [system, package]}
        ).encode()


# By Debian's major version. The advisories DSA-6015-1 and DSA-6113-1 fixed both.
CANARIES = {
    12: Canary("openssl", "3.0.16", "1~deb12u1", ("CVE-2025-9230", "CVE-2025-15467")),
    13: Canary("openssl", "3.5.1", "1", ("CVE-2025-9230", "CVE-2025-15467")),
}


def plant(major: int, cache: Path, trivy: Trivy, work: Path, seconds: float) -> tuple[set[str], list[str]]:
    """Scan the canary of a Debian release with the database in `cache`; files go to `work`.

    Returns what was found in it, and what should have been and was not. Raises ToolError.
    """
    canary = CANARIES[major]
    planted, output = work / "canary.cdx.json", work / "canary-report.json"
    planted.write_bytes(canary.document(major))
    trivy.scan_sbom(planted, cache, output, seconds=seconds)
    found = {f.id for f in read_report(output).findings if f.package == canary.package}
    return found, [v for v in canary.vulnerabilities if v not in found]
