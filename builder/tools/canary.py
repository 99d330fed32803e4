"""The canary: a package known to be vulnerable, planted to see whether the scanner still sees.

A scanner with an empty, foreign or broken database says "nothing found" just as it does for
a clean image. So with each scan it must also find these, with the very same database.

A canary is named here only when its advisory was seen in what Trivy's database is made of (the
lists of aquasecurity/vuln-list) for this very release. `docs/adr/0045` says which distributions
are left out, and why.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

from builder.tools.trivy import Trivy
from builder.tools.trivy_report import read_report


@dataclass(frozen=True, slots=True)
class Distribution:
    """How Trivy writes the packages of a distribution: the type of its package URLs, and their `distro`.

    `release` finds in its version what the database tells releases apart by; empty where there are none.
    """

    purl_type: str
    distro: str
    release: str = ""


_ROLLING = Distribution("apk", "{version}")
# By the family's name in Trivy's reports, which is also the namespace of its package URLs.
DISTRIBUTIONS = {
    "debian": Distribution("deb", "debian-{version}", r"(\d+)(?:\.\d+)*"),
    "ubuntu": Distribution("deb", "ubuntu-{version}", r"(\d+\.\d+)"),
    "alpine": Distribution("apk", "{version}", r"(\d+\.\d+)(?:\.\d+)?"),
    "alma": Distribution("rpm", "alma-{version}", r"(\d+)(?:\.\d+)*"),
    "wolfi": _ROLLING,
    "chainguard": _ROLLING,
}


def release_name(family: str, version: str) -> str:
    """What the database calls a release (`debian 13`, `alpine 3.22`, `wolfi`), from a report's words.

    A version that is written otherwise than expected is kept as it is: then nothing is known of it.
    """
    known = DISTRIBUTIONS.get(family)
    if known is None:
        return f"{family} {version.partition('.')[0]}"
    if not known.release:
        return family
    found = re.fullmatch(known.release, version)
    return f"{family} {found[1] if found else version}"


@dataclass(frozen=True, slots=True)
class Canary:
    """A source package of a release at a version with `vulnerabilities` that advisories have fixed.

    `revision` is what Trivy keeps apart of a version: the last part of Debian's and rpm's, none of apk's.
    """

    release: str
    package: str
    upstream: str
    revision: str
    vulnerabilities: tuple[str, ...]
    epoch: int = 0

    @property
    def family(self) -> str:
        """The distribution, as Trivy names it."""
        return self.release.partition(" ")[0]

    @property
    def version(self) -> str:
        """The version as the distribution writes it."""
        return f"{self.epoch}:" * bool(self.epoch) + self.upstream + f"-{self.revision}" * bool(self.revision)

    def component(self, version: str = "") -> dict[str, object]:
        """The package in a CycloneDX document of the distribution at a version (of a point release).

        The properties are Trivy's own: without them it takes the binary package's name for
        the source package's, and finds a tenth.
        """
        known = DISTRIBUTIONS[self.family]
        plain = self.version.partition(":")[2] if self.epoch else self.version
        place = known.distro.format(version=version or self._system)
        qualifiers = "&".join([f"distro={place}", *([f"epoch={self.epoch}"] if self.epoch else [])])
        reference = f"pkg:{known.purl_type}/{self.family}/{self.package}@{plain}?{qualifiers}"
        facts = {
            "PkgType": self.family,
            "SrcName": self.package,
            "SrcVersion": self.upstream,
            **({"SrcRelease": self.revision} if self.revision else {}),
            **({"SrcEpoch": str(self.epoch)} if self.epoch else {}),
        }
        return {
            "bom-ref": reference,
            "type": "library",
            "name": self.package,
            "version": self.version,
            "purl": reference,
            "properties": [{"name": f"aquasecurity:trivy:{k}", "value": v} for k, v in facts.items()],
        }

    def document(self) -> bytes:
        """A CycloneDX document with the operating system and this package."""
        system = {
            "bom-ref": "os",
            "type": "operating-system",
            "name": self.family,
            "version": self._system,
        }
        components = [system, self.component()]
        return json.dumps(
            {"bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1, "components": components}
        ).encode()

    @property
    def _system(self) -> str:
        return self.release.partition(" ")[2] or "20230201"


_OF_ALPINE = ("openssl", "3.0.1-r0", "", ("CVE-2022-0778", "CVE-2023-0286"))
_OF_WOLFI = ("openssl", "3.1.3-r0", "", ("CVE-2023-5363",))
# The advisories that fixed them are named beside.
CANARIES = {
    canary.release: canary
    for canary in (
        # DSA-6015-1 and DSA-6113-1
        Canary("debian 12", "openssl", "3.0.16", "1~deb12u1", ("CVE-2025-9230", "CVE-2025-15467")),
        Canary("debian 13", "openssl", "3.5.1", "1", ("CVE-2025-9230", "CVE-2025-15467")),
        # USN-6986-1: 3.0.2-0ubuntu1.18 and 3.0.13-0ubuntu3.4
        Canary("ubuntu 22.04", "openssl", "3.0.2", "0ubuntu1.17", ("CVE-2024-6119",)),
        Canary("ubuntu 24.04", "openssl", "3.0.13", "0ubuntu3.3", ("CVE-2024-6119",)),
        # Alpine's list of security fixes: 3.0.2-r0 and 3.0.8-r0, taken over by each later release
        *(Canary(f"alpine 3.{minor}", *_OF_ALPINE) for minor in range(22, 25)),
        # Wolfi's and Chainguard's lists: 3.1.4-r0
        Canary("wolfi", *_OF_WOLFI),
        Canary("chainguard", *_OF_WOLFI),
        # ALSA-2022:1065 (1:1.1.1k-6.el8_5) and ALSA-2022:7288 (1:3.0.1-43.el9_0)
        Canary("alma 8", "openssl", "1.1.1k", "5.el8_5", ("CVE-2022-0778",), epoch=1),
        Canary("alma 9", "openssl", "3.0.1", "41.el9_0", ("CVE-2022-3602",), epoch=1),
    )
}


def plant(release: str, cache: Path, trivy: Trivy, work: Path, seconds: float) -> tuple[set[str], list[str]]:
    """Scan the canary of a release with the database in `cache`; files go to `work`.

    Returns what was found in it, and what should have been and was not. Raises ToolError.
    """
    canary = CANARIES[release]
    planted, output = work / "canary.cdx.json", work / "canary-report.json"
    planted.write_bytes(canary.document())
    trivy.scan_sbom(planted, cache, output, seconds=seconds)
    found = {f.id for f in read_report(output).findings if f.package == canary.package}
    return found, [v for v in canary.vulnerabilities if v not in found]
