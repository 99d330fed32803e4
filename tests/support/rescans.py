"""Everything that a rescan works with, over a registry's interface, with a scanner that knows a table."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from builder.model.digest import Digest
from builder.model.evidence import DatabaseIdentity, ScannerIdentity
from builder.model.image import Target
from builder.model.lock import LockedPackage
from builder.model.scanner import Scanner
from builder.stages.publish import publish
from builder.store import Store
from builder.tools.canary import CANARIES, release_name
from registry.index.schema import Place
from registry.promotion.promote import Promotion, promote
from registry.rescan.run import Desk, Rescan, rescan
from tests.support.evidence import World, approval, shared_keys
from tests.support.images import AMD64, built_image
from tests.support.indexes import finding, proofs_of
from tests.support.promotion import House

# What the scanner finds: by source package, id → (fixed version or "", severity).
Advisories = Mapping[str, Mapping[str, tuple[str, str]]]

_SCANNER = ScannerIdentity("trivy", "0.76.0", Digest.of(b"trivy"))


@dataclass
class TableScanner:
    """Answers as Trivy does, from `advisories`; `change` alters a report before it is written."""

    advisories: Advisories = field(default_factory=dict)
    identity: ScannerIdentity = _SCANNER
    runs: int = 0
    change: Any = None

    def scan_sbom(self, sbom: Path, cache: Path, output: Path, *, seconds: float) -> None:
        """Write a report of an SBOM."""
        self.runs += 1
        bom = json.loads(sbom.read_text())
        system, *components = bom["components"]
        packages, rows = [], []
        release = release_name(system["name"], system["version"])
        for one in components:
            facts = {p["name"].rpartition(":")[2]: p["value"] for p in one["properties"]}
            identifier = {"BOMRef": one["bom-ref"], "PURL": one["purl"]}
            packages.append(
                {"ID": facts["PkgID"], "Name": one["name"], "Version": "1", "Identifier": identifier}
            )
            known = dict(self.advisories.get(facts["SrcName"], {}))
            if one["bom-ref"] == "canary":
                known |= dict.fromkeys(CANARIES[release].vulnerabilities, ("9", "HIGH"))
            for name, (fixed, severity) in known.items():
                rows.append(
                    {
                        "VulnerabilityID": name,
                        "PkgName": one["name"],
                        "PkgIdentifier": identifier,
                        "InstalledVersion": one["version"],
                        "FixedVersion": fixed,
                        "Status": "fixed" if fixed else "affected",
                        "Severity": severity,
                        "Title": f"{name} title",
                    }
                )
        report = {
            "SchemaVersion": 2,
            "Trivy": {"Version": "0.76.0"},
            "ArtifactType": "cyclonedx",
            "Metadata": {"OS": {"Family": system["name"], "Name": system["version"]}},
            "Results": [{"Class": "os-pkgs", "Packages": packages, "Vulnerabilities": rows}],
        }
        if self.change is not None:
            report = self.change(report)
        output.write_text(report if isinstance(report, str) else json.dumps(report))


@dataclass
class TableDatabase:
    """A database of a name, always untouched."""

    identity: DatabaseIdentity
    cache_dir: Path = Path()

    def verify(self) -> None:
        """Nothing has changed."""


class Home(House):
    """A house with the keys of this process."""

    def __post_init__(self) -> None:
        self.keys, self.trust = shared_keys()
        (self.folder / "work").mkdir()


@dataclass
class Night:
    """A registry with images, and rescans of it; `now` and the database's day move on by `sleep`."""

    folder: Path
    client: Any  # a RegistryClient, or what stands for one
    house: House = field(init=False)
    scanner: TableScanner = field(default_factory=TableScanner)
    targets: dict[str, Target] = field(default_factory=dict)
    made: int = 0
    further: tuple[Scanner, ...] = ()

    def __post_init__(self) -> None:
        self.house = Home(self.folder, self.client)
        self.store = Store(self.folder / "state").create()
        self.place = Place(self.folder / "state" / "index")

    @property
    def database(self) -> TableDatabase:
        """The database of this day."""
        day = self.house.now.strftime("%Y-%m-%dT06:00:00Z")
        identity = DatabaseIdentity(
            Digest.of(repr((day, self.scanner.advisories)).encode()), "mirror.example/db:2", day, 2, False
        )
        return TableDatabase(identity)

    def sleep(self, days: float = 1) -> None:
        """Another night."""
        self.house.now += dt.timedelta(days=days)

    def image(self, packages: Sequence[LockedPackage], name: str = "python", point: str = "13.1") -> World:
        """A new candidate with these packages, scanned today."""
        self.made += 1
        files = ({"etc/os-release": b"base\n"}, {"hello": f"{self.made}".encode()})
        image = built_image(self.folder / f"image-{self.made}", name=name, files=files, platforms=(AMD64,))
        image = replace(image, platforms=tuple(replace(p, packages=tuple(packages)) for p in image.platforms))
        found = [
            finding(v, p, fixed, severity)
            for p in packages
            for v, (fixed, severity) in self.scanner.advisories.get(p.source, {}).items()
        ]
        proofs = proofs_of(image, packages, found, point, self.database.identity)
        verdict = replace(approval(image, proofs, self.house.now), database=self.database.identity)
        verdict = replace(verdict, policy_digest=self.house.policy.digest)
        repository = f"{self.client.host}/candidate/{name}"
        here = World(image, proofs, verdict, self.house.keys, self.house.trust, repository)
        publish(here.signed(), self.client)
        self.targets[image.target.ref] = image.target
        return here

    def promote(self, here: World) -> Promotion:
        """Promote a candidate."""
        where = self.client.reference(
            f"candidate/{here.image.target.definition.name}", digest=here.image.digest
        )
        return promote(self.house.office(), where, here.image.target, "it passed")

    def rescan(self, **options: Any) -> Rescan:
        """A rescan of today."""
        desk = Desk(
            self.store,
            self.place,
            self.client,
            self.database,  # type: ignore[arg-type]
            self.scanner,  # type: ignore[arg-type]
            self.targets.__getitem__,
            lambda: len(self.house.ledger.entries()),
            scanners=self.further,
        )
        return rescan(self.house.office(), desk, **options)
