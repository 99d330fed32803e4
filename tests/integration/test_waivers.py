"""A waiver from its text to the scanner of somebody who pulls the image: one answer everywhere."""

from __future__ import annotations

import json
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from builder.tools.trivy import binary
from tests.integration.conftest import ROOT, Checkout
from tests.support.oracles import cosign
from tests.support.ports import free_address
from tests.support.vulndb import sample_data, write_archive, write_database
from tests.support.vulndb.make import buckets

pytestmark = pytest.mark.integration
CVE, OTHER = "CVE-2026-4711", "CVE-2026-4712"


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample, and two critical flaws without a fix: in zlib (its versions have an epoch) and glibc."""
    data = sample_data()
    for source, name in (("zlib", CVE), ("glibc", OTHER)):
        data["releases"]["13"].setdefault(source, {})[name] = {"severity": 4, "status": 2}
        data["vulnerabilities"][name] = {"title": "planted by a test", "severity": 4}
    folder = tmp_path_factory.mktemp("database")
    return write_archive(write_database(folder / "db", buckets(data), data["updated"]), folder / "db.tar")


@pytest.fixture(scope="module")
def line(today: Checkout, database: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Checkout]:
    settings = {
        "GOLDSMITH_REGISTRY": free_address(),
        "GOLDSMITH_TRIVY_DB": str(database),
        "GOLDSMITH_POLICY": "demo",
    }
    checkout = today.copy(tmp_path_factory.mktemp("waivers"), {**today.environment, **settings})
    checkout.goldsmith("init")
    checkout.goldsmith("up", "--no-registry")
    checkout.open_registry()
    yield checkout
    checkout.goldsmith("down")


def found_by_trivy(image: str, cache: Path, *options: str | Path) -> set[str]:
    done = subprocess.run(
        [
            *(binary(None, {}), "image", "--cache-dir", cache, "--skip-db-update", "--skip-java-db-update"),
            *("--offline-scan", "--scanners", "vuln", "--format", "json", "--quiet", *options, image),
        ],
        capture_output=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout).get("Results", ())
    return {v["VulnerabilityID"] for r in results for v in r.get("Vulnerabilities", ())} & {CVE, OTHER}


def waive(line: Checkout, name: str, package: str) -> None:
    line.goldsmith(
        *("waive", "base", name, "--package", package, "--owner", "ann", "--approver", "bob"),
        *("--justification", "vulnerable_code_not_in_execute_path"),
        *("--statement", "No program of the image calls the function."),
    )


def test_a_waived_finding_is_the_same_to_our_policy_and_to_trivy(
    line: Checkout, database: Path, tmp_path: Path
) -> None:
    denied = line.goldsmith("run", "base", "--engine", "direct", ok=False)
    assert denied.returncode == 4
    assert f"{CVE} in zlib1g" in denied.stderr + denied.stdout

    waive(line, CVE, "zlib1g")
    still = line.goldsmith("run", "base", "--engine", "direct", ok=False)
    assert still.returncode == 4, "one waiver lets one finding pass, not all"
    assert OTHER in still.stderr + still.stdout
    waive(line, OTHER, "libc6")

    (image,) = json.loads(line.goldsmith("run", "base", "--engine", "direct", "--json").stdout)["images"]
    assert image["verdict"].startswith("approved by demo")
    verified = json.loads(line.goldsmith("verify", "base", "--accept-sample", "--json").stdout)
    assert [w.partition("@")[0] for w in verified["verdict"]["waivers"]] == [f"base/{CVE}", f"base/{OTHER}"]

    document = tmp_path / "vex.json"
    line.goldsmith("vex", "base", "--accept-sample", "--output", str(document))
    cache = tmp_path / "cache"
    with tarfile.open(database) as tar:
        tar.extractall(cache / "db")  # two files that the fixture wrote
    by_digest = image["reference"]
    assert found_by_trivy(by_digest, cache) == {CVE, OTHER}
    assert found_by_trivy(by_digest, cache, "--vex", document) == set()

    # cosign, too, knows it as an OpenVEX attestation by the key of those who decide.
    subprocess.run(
        [
            *(cosign(2), "verify-attestation", "--type", "openvex", "--insecure-ignore-tlog"),
            *("--key", line.state / "keys" / "verdict.pub", by_digest),
        ],
        check=True,
        capture_output=True,
        timeout=60,
    )

    # A policy that gives no waiver would refuse it, which can be known before anybody is hurt.
    demo = (ROOT / "registry" / "policies" / "demo.yaml").read_text()
    strict = tmp_path / "strict.yaml"
    strict.write_text(demo.replace("name: demo", "name: strict").replace("days_max: 90", "days_max: 0"))
    rehearsed = line.goldsmith("rehearse", str(strict), "--json", ok=False)
    assert rehearsed.returncode == 4, rehearsed.stderr
    (base,) = (i for i in json.loads(rehearsed.stdout)["images"] if i["ref"] == "base:13")
    assert (base["breaks"], list(base["then"])) == (True, ["vulnerabilities-unfixed"])

    # The end of a waiver is the end of the approval.
    file = line.catalogue / "images" / "base" / "waivers.yaml"
    file.write_text(file.read_text().partition(f"  - vulnerability: {OTHER}")[0])
    again = line.goldsmith("run", "base", "--engine", "direct", ok=False)
    assert again.returncode == 4
    assert OTHER in again.stderr + again.stdout
