"""The real Trivy: one scan of all packages finds in each image what a scan of that image finds."""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from builder.errors import ToolError
from builder.model.catalogue import Catalogue
from builder.model.evidence import Finding
from builder.model.image import Target
from builder.model.lock import LockedPackage
from builder.stages.define import load_catalogue
from builder.stages.lock import locked_section
from builder.stages.scan import scan
from builder.store import Store
from builder.tools import trivy as trivy_tool
from builder.tools.strict_json import parse_object
from builder.tools.trivy import Trivy
from builder.tools.trivy_db import Database, open_database
from builder.tools.trivy_report import read_report
from registry.index.reading import Package, packages_of
from registry.rescan.union import match
from tests.support.aged import aged_sets
from tests.support.debian import debian_files, debian_image
from tests.support.images import package
from tests.support.indexes import sbom
from tests.support.vulndb import sample_data, sample_database, write_archive, write_database
from tests.support.vulndb.make import buckets

pytestmark = pytest.mark.integration

NOW = dt.datetime(2026, 9, 1, tzinfo=dt.UTC)
ROOT = Path(__file__).parents[2]
SUITES = {12: "bookworm", 13: "trixie"}


@pytest.fixture(scope="module")
def trivy() -> Trivy:
    return trivy_tool.locate(None, os.environ)


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Database:
    folder = tmp_path_factory.mktemp("database")
    source = sample_database(folder)
    return open_database(Store(folder / "state").create(), str(source), now=NOW, age_days_max=30)


class Union:
    """Images that are scanned one by one, and their packages, scanned at once."""

    def __init__(self, database: Database, trivy: Trivy, folder: Path) -> None:
        self.database, self.trivy, self.folder = database, trivy, folder
        self.numbers: dict[Package, int] = {}
        self.single: list[tuple[tuple[int, ...], tuple[Finding, ...]]] = []

    def add_image(self, packages: Sequence[LockedPackage], release: str) -> None:
        """An image with these packages on a point release, scanned as images are."""
        place = self._folder()
        major = int(release.partition(".")[0])
        image = debian_image(place / "layout", packages, debian_files(packages, release), SUITES[major])
        report, sboms = scan(image, name="x", database=self.database, trivy=self.trivy, work=place)
        self._take(sboms.cyclonedx, major, report.findings)

    def add_sbom(self, packages: Sequence[LockedPackage], release: str) -> None:
        """The same, scanned by its SBOM: cheaper, and with the same result."""
        place, document = self._folder(), sbom(packages, release)
        (place / "sbom.json").write_bytes(document)
        output = place / "report.json"
        self.trivy.scan_sbom(place / "sbom.json", self.database.cache_dir, output, seconds=300)
        self._take(document, int(release.partition(".")[0]), read_report(output).findings)

    def check(self, major: int, point: str) -> int:
        """All packages of a release at once: each image has the findings of its own scan; how many."""
        work = self._folder()
        packages = {n: p for p, n in self.numbers.items()}
        found = match(
            f"debian {major}", point, packages, database=self.database, trivy=self.trivy, work=work
        ).findings
        for numbers, findings in self.single:
            assert sorted(key(f) for n in numbers for f in found[n]) == sorted(map(key, findings))
        return sum(len(findings) for _, findings in self.single)

    def _take(self, document: bytes, major: int, findings: tuple[Finding, ...]) -> None:
        components = parse_object(document, size_max=1 << 30, what="it")
        found = packages_of(components, f"debian {major}", None)
        numbers = tuple(self.numbers.setdefault(p, len(self.numbers) + 1) for p in found)
        self.single.append((numbers, findings))

    def _folder(self) -> Path:
        place = self.folder / f"{len(list(self.folder.iterdir()))}"
        place.mkdir()
        return place


def key(finding: Finding) -> tuple[str, ...]:
    """Everything that a finding says."""
    return tuple(map(str, asdict(finding).values()))


@pytest.mark.parametrize(("major", "old", "new"), [(12, "12.5", "12.11"), (13, "13.0", "13.1")])
def test_aged_package_sets_have_the_findings_of_a_scan_of_each(
    major: int, old: str, new: str, database: Database, trivy: Trivy, tmp_path: Path
) -> None:
    union = Union(database, trivy, tmp_path)
    first, *others = aged_sets(sample_data(), str(major), count=4)
    union.add_image(first, old)
    for packages in others:
        union.add_sbom(packages, new)
    assert union.check(major, new) > 100


def test_the_catalogue_has_the_findings_of_a_scan_of_each(
    database: Database, trivy: Trivy, tmp_path: Path
) -> None:
    union = Union(database, trivy, tmp_path)
    catalogue = load_catalogue(ROOT)
    closures = {closure_of(catalogue, target) for target in catalogue.targets()}
    for one in sorted(closures):
        # What another image has as well, and more, would be scanned twice.
        if not any(set(one) < set(other) for other in closures):
            union.add_sbom(one, "13.1")
    assert len(union.single) >= 2
    union.check(13, "13.1")


def closure_of(catalogue: Catalogue, target: Target) -> tuple[LockedPackage, ...]:
    """The locked packages of an image and of those below it."""
    platform, family = target.platforms[0], (target, *catalogue.ancestors(target))
    return tuple(sorted({p for one in family for p in locked_section(catalogue, one, platform).packages}))


def test_what_looks_alike_is_told_apart(database: Database, trivy: Trivy, tmp_path: Path) -> None:
    """Same name and version from another source version, of another architecture, with another epoch."""
    union = Union(database, trivy, tmp_path)
    bad = replace(package("libssl3t64", "3.5.1-1"), source="openssl", source_version="3.5.1-1")
    for other in (
        bad,
        replace(bad, architecture="arm64"),
        replace(bad, source_version="3.5.99-1"),
        replace(bad, source_version="1:3.5.1-1"),
        replace(bad, source="bash"),
        replace(bad, version="9:3.5.1-1"),
    ):
        union.add_sbom([other], "13.1")
    counts = [len(findings) for _, findings in union.single]
    assert len(union.numbers) == 6 and counts[0] == counts[1] == counts[5] > 0 == counts[2] == counts[3]
    union.check(13, "13.1")


def test_another_release_has_its_own_advisories(database: Database, trivy: Trivy, tmp_path: Path) -> None:
    """The version that Debian 12 has fixed is older than the one of Debian 13."""
    found = {}
    for major, point in ((12, "12.11"), (13, "13.1")):
        union = Union(database, trivy, tmp_path)
        fixed = replace(
            package("libssl3", "3.0.17-1~deb12u2"), source="openssl", source_version="3.0.17-1~deb12u2"
        )
        union.add_sbom([fixed], point)
        found[major] = union.check(major, point)
    assert found[12] != found[13]


def test_a_database_without_the_release_is_noticed(trivy: Trivy, tmp_path: Path) -> None:
    data = sample_data()
    del data["releases"]["13"]
    folder = write_database(tmp_path / "db", buckets(data), data["updated"])
    source = write_archive(folder, tmp_path / "db.tar")
    poor = open_database(Store(tmp_path / "state").create(), str(source), now=NOW, age_days_max=30)
    (tmp_path / "work").mkdir()
    one = next(
        iter(
            packages_of(
                parse_object(sbom([package()], "13.1"), size_max=1 << 20, what="it"), "debian 13", None
            )
        )
    )
    with pytest.raises(ToolError) as refused:
        match("debian 13", "13.1", {1: one}, database=poor, trivy=trivy, work=tmp_path / "work")
    assert (refused.value.reference, "planted openssl" in refused.value.message) == ("scan-not-trusted", True)
