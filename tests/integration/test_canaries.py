"""The real Trivy with images of other distributions: planted packages are found, and a rescan covers them."""

from __future__ import annotations

import datetime as dt
import json
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from builder.errors import ToolError
from builder.model.evidence import ScanReport
from builder.stages.scan import scan_import
from builder.store import Store
from builder.tools import trivy as trivy_tool
from builder.tools.canary import CANARIES, plant, release_name
from builder.tools.strict_json import parse_object
from builder.tools.trivy import Trivy
from builder.tools.trivy_db import Database, open_database
from registry.index.reading import Package, packages_of
from registry.rescan.union import match, why_not
from tests.support.debian import debian_image
from tests.support.vulndb import write_archive, write_database

pytestmark = pytest.mark.integration

NOW = dt.datetime(2026, 9, 1, tzinfo=dt.UTC)
Advisories = Mapping[str, Mapping[str, Mapping[str, str]]]
# As the distributions wrote them: by what the database calls a release, package and vulnerability.
_ALPINE = {"openssl": {"CVE-2022-0778": "3.0.2-r0", "CVE-2023-0286": "3.0.8-r0"}}
_WOLFI = {"openssl": {"CVE-2023-5363": "3.1.4-r0"}}
ADVISORIES: Advisories = {
    **{f"alpine 3.{minor}": _ALPINE for minor in (22, 24)},
    "alpine edge": {"openssl": {"CVE-2026-1": "9-r0"}},
    "ubuntu 22.04": {"openssl": {"CVE-2024-6119": "3.0.2-0ubuntu1.18"}},
    "ubuntu 24.04": {"openssl": {"CVE-2024-6119": "3.0.13-0ubuntu3.4"}},
    "wolfi": _WOLFI,
    "chainguard": _WOLFI,
    "alma 8": {"openssl": {"CVE-2022-0778": "1:1.1.1k-6.el8_5"}, "nodejs:18::npm": {"CVE-2026-2": "9-1"}},
    "pip::GitHub Security Advisory Pip": {"jinja2": {"CVE-2026-3": "<2.10.1"}},
    "npm::GitHub Security Advisory npm": {
        "@babel/traverse": {"CVE-2026-4": "<7.23.2"},
        "lodash": {"CVE-2026-5": "<4.17.21"},
    },
    "rubygems::GitHub Security Advisory RubyGems": {"rack": {"CVE-2026-6": "<2"}},
    "go::GitHub Security Advisory Go": {"stdlib": {"CVE-2026-7": "<99"}},
    "alma 9": {"openssl": {"CVE-2022-3602": "1:3.0.1-43.el9_0"}},
}
APK = "P:libcrypto3\nV:{0}\nA:x86_64\nL:Apache-2.0\no:openssl\n\nP:musl\nV:1.2.5-r9\nA:x86_64\nL:MIT\no:musl\n\n"
DPKG = (
    "Package: libssl3t64\nStatus: install ok installed\nSource: openssl\nArchitecture: amd64\nVersion: {0}\n"
)
FILES = {
    "alpine 3.22": {"etc/alpine-release": "3.22.1\n", "lib/apk/db/installed": APK.format("3.0.7-r0")},
    "ubuntu 24.04": {
        "etc/os-release": 'ID=ubuntu\nVERSION_ID="24.04"\n',
        "etc/lsb-release": "DISTRIB_ID=Ubuntu\nDISTRIB_RELEASE=24.04\n",
        "var/lib/dpkg/status": DPKG.format("3.0.13-0ubuntu3.1"),
    },
    "wolfi": {
        "etc/os-release": 'ID=wolfi\nVERSION_ID="20230201"\n',
        "usr/lib/apk/db/installed": APK.format("3.1.3-r0"),
        "lib/apk/db/installed": APK.format("3.1.3-r0"),
    },
}


PYTHON = "Metadata-Version: 2.1\nName: Jinja2\nVersion: 2.4.1\n"
GEM = 'Gem::Specification.new do |s|\n s.name = "rack".freeze\n s.version = "1.0"\n s.licenses = ["MIT".freeze]\nend\n'
LANGUAGES = {
    "usr/lib/python3/site-packages/Jinja2-2.4.1.dist-info/METADATA": PYTHON,
    "app/node_modules/@babel/traverse/package.json": '{"name":"@babel/traverse","version":"7.0.0","license":"MIT"}',
    "app/node_modules/lodash/package.json": '{"name":"lodash","version":"4.17.0","license":"MIT"}',
    "other/node_modules/lodash/package.json": '{"name":"lodash","version":"4.17.0","license":"MIT"}',
    "usr/share/gems/specifications/rack-1.0.gemspec": GEM,
}


@pytest.fixture(scope="module")
def trivy() -> Trivy:
    return trivy_tool.locate(None, os.environ)


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Database:
    return made(tmp_path_factory.mktemp("database"), ADVISORIES)


def made(folder: Path, advisories: Advisories) -> Database:
    """A database of these advisories; what fills it up is of a release that nobody asks for."""
    filling = {"debian 1": {f"p{n}": {f"CVE-1999-{n}": "1"} for n in range(12_000)}}
    names = {v for release in advisories.values() for found in release.values() for v in found}
    root: dict[str, Any] = {
        release: {
            package: {v: json.dumps(detail(release, at)).encode() for v, at in found.items()}
            for package, found in packages.items()
        }
        for release, packages in {**filling, **advisories}.items()
    }
    root["vulnerability"] = {v: json.dumps({"Severity": "HIGH"}).encode() for v in names}
    written = write_database(folder / "db", root, "2026-08-31T00:00:00Z")
    source = write_archive(written, folder / "db.tar")
    return open_database(Store(folder / "state").create(), str(source), now=NOW, age_days_max=30)


def detail(release: str, at: str) -> dict[str, Any]:
    """An advisory: of a release the version that fixed it, of a language those that have it."""
    return {"VulnerableVersions": [at]} if "::" in release else {"FixedVersion": at}


def scanned(
    files: Mapping[str, str], database: Database, trivy: Trivy, folder: Path
) -> tuple[ScanReport, dict[int, Package]]:
    """An image's scan, and its packages as the index has them."""
    folder.mkdir(exist_ok=True)
    (folder / "work").mkdir()
    image = debian_image(folder / "image", files={n: t.encode() for n, t in files.items()})
    report, sboms = scan_import(image, name="x", database=database, trivy=trivy, work=folder / "work")
    release = release_name(report.os_family, report.os_version)
    document = parse_object(sboms.cyclonedx, size_max=1 << 20, what="it")
    return report, dict(enumerate(packages_of(document, release, image.platform), 1))


# Debian's are looked for in the sample (test_scan.py); of Alpine's releases all have the same.
@pytest.mark.parametrize(
    "release",
    sorted(r for r in CANARIES if not r.startswith("debian ") and r not in ("alpine 3.22", "alpine 3.23")),
)
def test_the_planted_package_of_each_release_is_found(
    release: str, database: Database, trivy: Trivy, tmp_path: Path
) -> None:
    found, missing = plant(release, database.cache_dir, trivy, tmp_path, 60)
    assert (found >= set(CANARIES[release].vulnerabilities), missing) == (True, [])


@pytest.mark.parametrize("release", ["alpine 3.22", "ubuntu 24.04", "wolfi, with languages"])
def test_an_image_of_another_distribution_is_covered_by_a_rescan(
    release: str, database: Database, trivy: Trivy, tmp_path: Path
) -> None:
    if release == "wolfi, with languages":
        release = "wolfi"
        report, packages = scanned({**FILES[release], **LANGUAGES}, database, trivy, tmp_path)
        assert {f.id for f in report.findings} >= {f"CVE-2026-{n}" for n in range(3, 7)}
    else:
        report, packages = scanned(FILES[release], database, trivy, tmp_path)
    assert report.canary.package == "openssl"
    assert report.findings, "there is something to be found"
    assert not [why for p in packages.values() if (why := why_not(p))]
    (tmp_path / "rescan").mkdir()
    again = match(
        release, report.os_version, packages, database=database, trivy=trivy, work=tmp_path / "rescan"
    )
    found = {f for findings in again.findings.values() for f in findings}
    assert found == set(report.findings)
    assert again.canary == report.canary


def test_without_advisories_of_the_release_nothing_is_believed(
    database: Database, trivy: Trivy, tmp_path: Path
) -> None:
    """Of Alpine 3.23 the database has none."""
    files = {**FILES["alpine 3.22"], "etc/alpine-release": "3.23.0\n"}
    with pytest.raises(ToolError) as refused:
        scanned(files, database, trivy, tmp_path)
    assert (refused.value.reference, "planted openssl" in refused.value.message) == ("scan-not-trusted", True)


def test_an_image_that_a_rescan_would_see_with_other_eyes_is_refused(
    database: Database, trivy: Trivy, tmp_path: Path
) -> None:
    """Trivy goes by the repositories in an image of Alpine, which no SBOM names."""
    files = {**FILES["alpine 3.22"], "etc/apk/repositories": "https://mirror.example/alpine/edge/main\n"}
    with pytest.raises(ToolError) as refused:
        scanned(files, database, trivy, tmp_path)
    assert refused.value.reference == "scan-not-trusted"
    assert "its SBOM alone has other findings" in refused.value.message


def test_a_package_of_a_module_is_matched_by_its_module(
    database: Database, trivy: Trivy, tmp_path: Path
) -> None:
    facts = {"PkgType": "alma", "SrcName": "nodejs", "SrcVersion": "8", "SrcRelease": "1.module_el8"}
    label = {"Modularitylabel": "nodejs:18:8090:a75119d5"}
    component = {
        "type": "library",
        "name": "npm",
        "version": "8-1.module_el8",
        "purl": "pkg:rpm/alma/npm@8-1.module_el8?arch=x86_64&distro=alma-8.9",
        "properties": [{"name": f"aquasecurity:trivy:{k}", "value": v} for k, v in (facts | label).items()],
    }
    (package,) = packages_of({"components": [component]}, "alma 8", None)
    found = match("alma 8", "8.9", {1: package}, database=database, trivy=trivy, work=tmp_path).findings
    assert [f.id for f in found[1]] == ["CVE-2026-2"]
    alike = replace(package, facts=json.dumps(facts))
    lost = match("alma 8", "8.9", {1: alike}, database=database, trivy=trivy, work=tmp_path).findings
    assert lost[1] == (), "the label is what tells the module"


def test_what_a_program_of_go_is_made_of_is_matched(database: Database, trivy: Trivy, tmp_path: Path) -> None:
    """A program is an application without a package URL; its packages name no file."""
    document = {
        "components": [
            {"type": "application", "name": "usr/bin/registry"},
            {
                "type": "library",
                "name": "stdlib",
                "version": "v1.19.8",
                "purl": "pkg:golang/stdlib@v1.19.8",
                "properties": [{"name": "aquasecurity:trivy:PkgType", "value": "gobinary"}],
            },
        ]
    }
    (package,) = packages_of(document, "wolfi", None)
    found = match("wolfi", "20230201", {1: package}, database=database, trivy=trivy, work=tmp_path).findings
    assert [f.id for f in found[1]] == ["CVE-2026-7"]
