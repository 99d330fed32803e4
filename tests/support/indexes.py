"""Images with real-looking SBOMs in a registry in memory, and an index of it."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

from builder.model.channel import Channel, ChannelRecord
from builder.model.digest import Digest, canonical_json
from builder.model.evidence import DatabaseIdentity, Evidence, Finding, Sboms, ScanReport, Severity
from builder.model.image import BuiltImage
from builder.model.lock import LockedPackage
from builder.signing.keys import Keys
from builder.signing.trust import Trust
from registry.index.rebuild import Rebuilt, reindex
from registry.index.schema import Place
from registry.promotion.records import signed_record
from tests.support.evidence import DATABASE, World, approval, evidence, shared_keys
from tests.support.images import NOW, built_image, package
from tests.support.memory_registry import HOST, MemoryRegistry


def binary(name: str, version: str, source: str = "", source_version: str = "") -> LockedPackage:
    """A package of a source."""
    made = package(name, version)
    return replace(made, source=source or name, source_version=source_version or version)


def purl(p: LockedPackage, distro: str) -> str:
    """The package URL as Trivy writes it."""
    epoch, _, rest = p.version.rpartition(":")
    base = f"pkg:deb/debian/{quote(p.name, safe='')}@{quote(rest, safe='')}?arch={p.architecture}&distro={distro}"
    return base + (f"&epoch={epoch}" if epoch else "")


def component(p: LockedPackage, distro: str) -> dict[str, Any]:
    """The component of a package as Trivy writes it."""
    epoch, _, rest = p.source_version.rpartition(":")
    upstream, _, revision = rest.rpartition("-") if "-" in rest else (rest, "", "")
    facts = {
        "PkgID": f"{p.name}@{p.version}",
        "PkgType": "debian",
        "SrcName": p.source,
        "SrcVersion": upstream,
        **({"SrcRelease": revision} if revision else {}),
        **({"SrcEpoch": epoch} if epoch else {}),
    }
    return {
        "bom-ref": purl(p, distro),
        "type": "library",
        "name": p.name,
        "version": p.version,
        "purl": purl(p, distro),
        "properties": [{"name": f"aquasecurity:trivy:{k}", "value": v} for k, v in sorted(facts.items())],
    }


def sbom(packages: Sequence[LockedPackage], point: str) -> bytes:
    """A CycloneDX document of these packages on a point release of Debian."""
    system = {"bom-ref": "os", "type": "operating-system", "name": "debian", "version": point}
    parts = [system, *(component(p, f"debian-{point}") for p in packages)]
    return canonical_json({"bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1, "components": parts})


def finding(vulnerability: str, p: LockedPackage, fixed: str = "", severity: str = "HIGH") -> Finding:
    """A finding in a package."""
    status = "fixed" if fixed else "affected"
    return Finding(
        vulnerability, p.name, p.version, fixed, Severity(severity), status, f"{vulnerability} title"
    )


def database(updated: str, name: str = "") -> DatabaseIdentity:
    """A database of a day."""
    return replace(DATABASE, digest=Digest.of((name or updated).encode()), updated_at=updated)


def proofs_of(
    image: BuiltImage,
    packages: Sequence[LockedPackage],
    findings: Sequence[Finding],
    point: str,
    of_database: DatabaseIdentity,
) -> tuple[Evidence, ...]:
    """Evidence of each platform with these packages and findings."""
    out = []
    for platform in image.platforms:
        one = evidence(platform)
        assert isinstance(one.scan, ScanReport) and isinstance(one.sboms, Sboms)
        scan = replace(
            one.scan,
            os_version=point,
            packages=tuple(sorted(f"{p.name}={p.version}" for p in packages)),
            findings=tuple(findings),
            database=of_database,
        )
        document = replace(one.sboms, cyclonedx=sbom(packages, point))
        out.append(replace(one, scan=scan, sboms=document))
    return tuple(out)


@dataclass
class Listed:
    """A registry in memory that also lists what it has."""

    inner: MemoryRegistry

    def repositories(self) -> tuple[str, ...]:
        self.inner._ask("repositories")
        return tuple(sorted({repo for repo, _ in self.inner.manifests}))

    def tags(self, repo: str) -> tuple[str, ...]:
        self.inner._ask("tags")
        return tuple(sorted(tag for name, tag in self.inner.tags if name == repo))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


@dataclass
class Fleet:
    """Images in a registry in memory, and the place of an index."""

    folder: Path
    registry: MemoryRegistry = field(default_factory=MemoryRegistry)
    keys: Keys = field(init=False)
    trust: Trust = field(init=False)
    made: int = 0

    def __post_init__(self) -> None:
        self.keys, self.trust = shared_keys()

    @property
    def place(self) -> Place:
        return Place(self.folder / "index")

    def image(
        self,
        packages: Sequence[LockedPackage],
        findings: Sequence[Finding] = (),
        *,
        name: str = "python",
        repository: str = "candidate/python",
        point: str = "13.1",
        at: dt.datetime = NOW,
        of_database: DatabaseIdentity = DATABASE,
        folder: str = "image",
        **options: Any,
    ) -> World:
        """A signed image with these packages and findings, published."""
        self.made += 1
        files = ({"etc/os-release": b"base\n"}, {"hello": f"{self.made}".encode()})
        image = built_image(self.folder / f"{folder}-{self.made}", name=name, files=files, **options)
        own = (
            replace(i, packages=tuple(replace(p, architecture=i.platform.debian) for p in packages))
            for i in image.platforms
        )
        image = replace(image, platforms=tuple(own))
        proofs = proofs_of(image, packages, findings, point, of_database)
        verdict = replace(approval(image, proofs, at), database=of_database)
        here = World(image, proofs, verdict, self.keys, self.trust, f"{HOST}/{repository}")
        self.registry.store_signed(repository, here.signed())
        return here

    def decide(
        self, here: World, channel: Channel, sequence: int = 1, replacement: str = "", repository: str = ""
    ) -> None:
        """Put a channel record on an image."""
        image = here.image
        record = ChannelRecord(
            image.digest,
            image.target.ref,
            "",
            channel,
            sequence,
            Digest.of(b"entry"),
            NOW,
            "a reason",
            replacement,
        )
        item = signed_record(record, image.index, self.keys.verdict)
        self.registry.store(repository or here.repository.partition("/")[2], item)

    def reindex(self, **options: Any) -> Rebuilt:
        """Make the index."""
        return reindex(self.place, HOST, Listed(self.registry), self.trust, NOW, **options)
