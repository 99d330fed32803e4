"""The real Trivy with the sample database: it sees what is there, and we notice when it does not look."""

from __future__ import annotations

import datetime as dt
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from builder.errors import ToolError
from builder.model.evidence import Finding, Severity
from builder.model.image import PlatformImage
from builder.stages.scan import scan
from builder.store import Store
from builder.tools import trivy as trivy_tool
from builder.tools.canary import CANARIES, Canary
from builder.tools.trivy import Trivy
from builder.tools.trivy_db import Database, open_database
from builder.tools.trivy_report import read_report
from tests.support.debian import PACKAGES, debian_files, debian_image
from tests.support.vulndb import sample_data, sample_database, write_archive, write_database
from tests.support.vulndb.make import buckets

pytestmark = pytest.mark.integration

NOW = dt.datetime(2026, 9, 1, tzinfo=dt.UTC)


@pytest.fixture(scope="module")
def trivy() -> Trivy:
    return trivy_tool.locate(None, os.environ)


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Database:
    folder = tmp_path_factory.mktemp("database")
    return opened(folder, sample_database(folder))


def opened(folder: Path, source: Path) -> Database:
    return open_database(Store(folder / "state").create(), str(source), now=NOW, age_days_max=30)


def work(tmp_path: Path) -> Path:
    folder = tmp_path / "work"
    folder.mkdir()
    return folder


def refusal(image: PlatformImage, database: Database, trivy: Trivy, tmp_path: Path) -> ToolError:
    with pytest.raises(ToolError) as refused:
        scan(image, name="base:13", database=database, trivy=trivy, work=work(tmp_path))
    return refused.value


def test_reports_findings_secrets_licences_and_exact_sboms(
    tmp_path: Path, trivy: Trivy, database: Database
) -> None:
    secret = b"AWS_ACCESS_KEY_ID=AKIAIOSFODNN7ABCDEFG\n"
    image = debian_image(tmp_path / "image", files=debian_files() | {"opt/key": secret})
    report, sboms = scan(image, name="base:13", database=database, trivy=trivy, work=work(tmp_path))

    expected = tuple(sorted(f"{p.name}={p.version}" for p in PACKAGES))
    assert report.digest == image.manifest.digest
    assert report.packages == expected
    found = {f.id: f for f in report.findings if f.package == "libssl3t64"}
    assert found["CVE-2025-15467"].severity is Severity.HIGH
    assert found["CVE-2025-15467"].fixed_version == "3.5.4-1~deb13u2"
    assert {(s.rule, s.path) for s in report.secrets} == {("aws-access-key-id", "/opt/key")}
    assert {x.package: x.licences for x in report.licences}["bash"] == ("GPL-2.0-or-later",)
    assert set(report.canary.found) >= {"CVE-2025-9230", "CVE-2025-15467"}
    assert report.database.sample
    assert report.scanner.version == "0.76.0"
    assert b"AKIAIOSFODNN7" not in json.dumps([repr(report), sboms.cyclonedx.decode()]).encode()

    cyclonedx, spdx = json.loads(sboms.cyclonedx), json.loads(sboms.spdx)
    assert not cyclonedx["vulnerabilities"]
    assert cyclonedx["metadata"]["component"]["name"] == f"base:13@{image.manifest.digest}"
    assert str(tmp_path) not in sboms.cyclonedx.decode() + sboms.spdx.decode()
    assert {p["versionInfo"] for p in spdx["packages"] if p["name"] == "zlib1g"} == {
        "1:1.3.dfsg+really1.3.1-1+b1"
    }


def test_the_same_image_gives_the_same_sboms(tmp_path: Path, trivy: Trivy, database: Database) -> None:
    image = debian_image(tmp_path / "image")
    made = []
    for name in ("a", "b", "c"):  # Trivy's random identifiers also decide its order
        (tmp_path / name).mkdir()
        made.append(
            scan(image, name="base:13", database=database, trivy=trivy, work=work(tmp_path / name))[1]
        )
    assert made == [made[0]] * 3


@pytest.mark.parametrize(
    ("removed", "reason"),
    [
        ("etc/debian_version", "did not recognise the operating system"),
        ("var/lib/dpkg/status.d/bash", "does not name exactly the locked packages (4 seen, 5 locked)"),
    ],
)
def test_a_blind_scan_is_refused(
    tmp_path: Path, trivy: Trivy, database: Database, removed: str, reason: str
) -> None:
    files = {name: data for name, data in debian_files().items() if name != removed}
    assert reason in refusal(debian_image(tmp_path / "image", files=files), database, trivy, tmp_path).message


@pytest.mark.parametrize("release", ["forky/sid", "99.1", "12.5", "8.11"])
def test_another_release_is_refused(tmp_path: Path, trivy: Trivy, database: Database, release: str) -> None:
    image = debian_image(tmp_path / "image", files=debian_files(release=release))
    assert "did not recognise the operating system" in refusal(image, database, trivy, tmp_path).message


def test_a_truncated_package_database_is_refused(tmp_path: Path, trivy: Trivy, database: Database) -> None:
    files = debian_files()
    stanzas = [files.pop(name) for name in sorted(files) if "status.d" in name]
    whole = b"\n".join(stanzas)
    files["var/lib/dpkg/status"] = whole[: len(whole) // 2]
    image = debian_image(tmp_path / "image", files=files)
    assert "does not name exactly the locked packages" in refusal(image, database, trivy, tmp_path).message


@pytest.mark.parametrize("system", ["os-release alone", "unknown id", "neither file", "empty image"])
def test_an_unknown_system_is_refused(tmp_path: Path, trivy: Trivy, database: Database, system: str) -> None:
    files = {n: d for n, d in debian_files().items() if not n.startswith("etc/")}
    if system == "os-release alone":
        files["etc/os-release"] = debian_files()["etc/os-release"]
    elif system == "unknown id":
        files["etc/os-release"] = b'ID=ours\nVERSION_ID="13"\n'
    elif system == "empty image":
        files = {"opt/nothing": b""}
    error = refusal(debian_image(tmp_path / "image", files=files), database, trivy, tmp_path)
    assert "did not recognise the operating system" in error.message


@pytest.mark.parametrize("status", ["missing", "garbage", "deinstalled"])
def test_a_package_database_that_says_nothing_is_refused(
    tmp_path: Path, trivy: Trivy, database: Database, status: str
) -> None:
    files = debian_files()
    for name in [n for n in files if "status.d" in n]:
        stanza = files.pop(name)
        if status == "garbage":
            files[name] = bytes(reversed(stanza))
        if status == "deinstalled":
            files[name] = stanza.replace(b"install ok installed", b"deinstall ok config-files")
    image = debian_image(tmp_path / "image", files=files)
    assert "(0 seen, 5 locked)" in refusal(image, database, trivy, tmp_path).message


def test_packages_that_are_not_locked_are_refused(tmp_path: Path, trivy: Trivy, database: Database) -> None:
    image = debian_image(tmp_path / "image", packages=PACKAGES[1:], files=debian_files())
    error = refusal(image, database, trivy, tmp_path)
    assert error.context == "not locked: bash=5.2.37-2+b5"


@pytest.mark.parametrize("kept", ["debian 12", "nothing"])
def test_a_database_without_this_release_is_refused(tmp_path: Path, trivy: Trivy, kept: str) -> None:
    root = {n: b for n, b in buckets(sample_data()).items() if not n.startswith("debian") or n == kept}
    root["filler"] = {"filler": bytes(2 << 20)}
    folder = write_database(tmp_path / "db", root, "2026-08-22T00:00:00Z")
    database = opened(tmp_path, write_archive(folder, tmp_path / "db.tar"))
    error = refusal(debian_image(tmp_path / "image"), database, trivy, tmp_path)
    assert "known to be vulnerable" in error.message
    assert "CVE-2025-9230" in error.context


def small_database(
    tmp_path: Path, advisories: Mapping[str, Any], details: Mapping[str, Any] | None = None
) -> Database:
    """What the planted package needs, with `advisories` for bash and `details` of vulnerabilities.

    Without `details` (None) the database has none at all.
    """
    whole = buckets(sample_data())
    canary = whole["debian 13"]["openssl"]
    root: dict[str, Any] = {
        "data-source": whole["data-source"],
        "debian 13": {"openssl": canary, "bash": {n: json.dumps(a).encode() for n, a in advisories.items()}},
        "filler": {"filler": bytes(2 << 20)},
    }
    if details is not None:
        known = {name: whole["vulnerability"][name] for name in canary}
        root["vulnerability"] = known | {n: json.dumps(d).encode() for n, d in details.items()}
    folder = write_database(tmp_path / "db", root, "2026-08-22T00:00:00Z")
    return opened(tmp_path, write_archive(folder, tmp_path / "db.tar"))


def test_a_database_without_details_of_any_vulnerability_is_refused(tmp_path: Path, trivy: Trivy) -> None:
    database = small_database(tmp_path, {}, None)
    assert refusal(debian_image(tmp_path / "image"), database, trivy, tmp_path).hint


@pytest.mark.parametrize("spoilt", ["no system", "bookworm", "12/sid", "no components"])
def test_a_planted_document_in_which_trivy_sees_nothing_is_refused(
    tmp_path: Path, trivy: Trivy, database: Database, spoilt: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    document = json.loads(CANARIES["debian 13"].document())
    system, package = document["components"]
    components = {"no system": [package], "no components": []}
    document["components"] = components.get(spoilt, [system | {"version": spoilt}, package])
    monkeypatch.setattr(Canary, "document", lambda *_: json.dumps(document).encode())
    assert (
        "known to be vulnerable, but Trivy did not find that"
        in refusal(debian_image(tmp_path / "image"), database, trivy, tmp_path).message
    )


def findings(image: PlatformImage, database: Database, trivy: Trivy, tmp_path: Path) -> dict[str, Finding]:
    """What a scan finds in bash, by id."""
    report, _ = scan(image, name="base:13", database=database, trivy=trivy, work=work(tmp_path))
    return {f.id: f for f in report.findings if f.package == "bash"}


def test_a_flaw_of_two_names_counts_under_both_and_a_missing_score_hides_nothing(
    tmp_path: Path, trivy: Trivy
) -> None:
    names = ("CVE-2026-1", "GHSA-aaaa-bbbb-cccc", "CVE-2026-2")
    details = {name: {"Title": "one flaw", "Severity": "HIGH"} for name in names[:2]}
    database = small_database(
        tmp_path,
        {name: {"FixedVersion": "9"} for name in names},
        {**details, "CVE-2026-2": {"Title": "no score", "CVSS": {}}},
    )
    found = findings(debian_image(tmp_path / "image"), database, trivy, tmp_path)
    assert {name: f.severity for name, f in found.items()} == dict(
        zip(names, (Severity.HIGH, Severity.HIGH, Severity.UNKNOWN), strict=True)
    )
    assert all(f.fixable for f in found.values())


@pytest.mark.parametrize(
    ("advisories", "after"),
    [({"CVE-2026-1": {"Severity": 1, "Status": 2}}, [Severity.LOW]), ({}, [])],
    ids=["severity lowered", "advisory withdrawn"],
)
def test_what_a_later_database_takes_back_is_known_by_its_digest(
    tmp_path: Path, trivy: Trivy, database: Database, advisories: dict[str, Any], after: list[Severity]
) -> None:
    later = small_database(tmp_path, advisories, {"CVE-2026-1": {"Title": "a flaw", "Severity": "CRITICAL"}})
    found = findings(debian_image(tmp_path / "image"), later, trivy, tmp_path)
    assert [f.severity for f in found.values()] == after
    assert later.identity.digest != database.identity.digest, "another database asks for another verdict"


def test_labels_and_java_archives_change_nothing(tmp_path: Path, trivy: Trivy, database: Database) -> None:
    labels = {"purl": "pkg:deb/debian/openssl@9?distro=debian-13", "org.opencontainers.image.version": "sid"}
    files = debian_files() | {"opt/app.jar": b"PK\x05\x06" + bytes(18)}
    image = debian_image(tmp_path / "image", files=files, labels=labels)
    report, _ = scan(image, name="base:13", database=database, trivy=trivy, work=work(tmp_path))
    assert report.packages == tuple(sorted(f"{p.name}={p.version}" for p in PACKAGES))
    assert "CVE-2025-15467" in {f.id for f in report.findings}


def test_our_sbom_shows_a_scanner_the_same_as_the_image(
    tmp_path: Path, trivy: Trivy, database: Database
) -> None:
    image = debian_image(tmp_path / "image")
    report, sboms = scan(image, name="base:13", database=database, trivy=trivy, work=work(tmp_path))
    for form in (sboms.cyclonedx, sboms.spdx):
        (tmp_path / "sbom.json").write_bytes(form)
        trivy.scan_sbom(tmp_path / "sbom.json", database.cache_dir, tmp_path / "again.json", seconds=60)
        assert read_report(tmp_path / "again.json").findings == report.findings


def test_an_altered_layer_is_not_scanned(tmp_path: Path, trivy: Trivy, database: Database) -> None:
    image = debian_image(tmp_path / "image")
    blob = image.layout / "blobs" / "sha256" / image.layers[0].blob.digest.hex
    blob.write_bytes(debian_image(tmp_path / "other", packages=PACKAGES[:2]).layers[0].blob.digest.encode())
    with pytest.raises(Exception, match="other content"):
        scan(image, name="base:13", database=database, trivy=trivy, work=work(tmp_path))


def test_settings_of_the_surroundings_do_not_reach_trivy(
    tmp_path: Path, trivy: Trivy, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".trivyignore").write_text("CVE-2025-15467\n")
    (tmp_path / "trivy.yaml").write_text("severity: [CRITICAL]\n")
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / ".trivyignore").write_text("CVE-2025-15467\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TRIVY_SEVERITY", "CRITICAL")
    monkeypatch.setenv("HOME", str(tmp_path))
    image = debian_image(tmp_path / "image")
    report, _ = scan(image, name="base:13", database=database, trivy=trivy, work=tmp_path / "work")
    assert "CVE-2025-15467" in {f.id for f in report.findings}


def test_an_advisory_without_details_still_counts(tmp_path: Path, trivy: Trivy) -> None:
    database = small_database(tmp_path, {"CVE-2026-99999": {"FixedVersion": "9"}}, {})
    image = debian_image(tmp_path / "image")
    report, _ = scan(image, name="base:13", database=database, trivy=trivy, work=work(tmp_path))
    (found,) = [f for f in report.findings if f.package == "bash"]
    assert (found.severity, found.fixed_version) == (Severity.UNKNOWN, "9")


@pytest.mark.parametrize("release", sorted(r for r in CANARIES if r.startswith("debian ")))
def test_every_canary_is_found(tmp_path: Path, trivy: Trivy, database: Database, release: str) -> None:
    canary = CANARIES[release]
    (tmp_path / "canary.json").write_bytes(canary.document())
    trivy.scan_sbom(tmp_path / "canary.json", database.cache_dir, tmp_path / "report.json", seconds=60)
    found = {f.id for f in read_report(tmp_path / "report.json").findings}
    assert found >= set(canary.vulnerabilities)
    assert len(found) > 15, "without Trivy's own properties it would find a tenth"
