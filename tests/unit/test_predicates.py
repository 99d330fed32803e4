"""Predicates: what they say, and that nothing else is read back."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from builder.model.digest import Digest
from builder.model.evidence import CheckReport, CheckResult, Outcome, ScanReport
from builder.model.lock import LockedPackage
from builder.signing import predicates as p
from builder.signing.refusal import EvidenceRefused
from tests.support.evidence import DATABASE, evidence, provenance_of
from tests.support.images import AMD64, NOW, built_image, package


def _scan(tmp_path: Path) -> ScanReport:
    scan = evidence(built_image(tmp_path / "image").platforms[0]).scan
    assert isinstance(scan, ScanReport)
    return scan


def test_provenance_names_every_material_with_its_digest(tmp_path: Path) -> None:
    image = built_image(tmp_path / "image")
    found = provenance_of(image)
    build = found["buildDefinition"]
    parent, deb = build["resolvedDependencies"]
    assert parent == {
        "uri": f"pkg:oci/base@sha256%3A{Digest.of(b'parent').hex}?tag=13",
        "digest": {"sha256": Digest.of(b"parent").hex},
        "name": "base:13",
    }
    assert deb["uri"] == "pkg:deb/debian/hello@2.10-5?arch=amd64&distro=trixie"
    assert deb["digest"] == {"sha256": package().sha256}
    external = build["externalParameters"]
    assert external["ref"] == "python:3.13"
    assert external["locks"] == {"linux/amd64": {"sha256": image.platforms[0].lock.digest.hex}}
    assert external["definition"] == {"sha256": Digest.of(b"definition").hex}
    assert build["internalParameters"]["tools"]["deflate"] == "0.9.0"
    assert "metadata" not in found["runDetails"]  # no times: the same input, the same bytes
    assert p.parse_provenance(found).immutable_tag == image.immutable_tag


def test_a_purl_escapes_what_a_debian_version_may_hold() -> None:
    odd = LockedPackage("libstdc++6", "1:2.0~rc1+b1", "amd64", "ab" * 32, 1, "pool/main/x.deb", "gcc", "1")
    assert p.package_url(odd, "trixie") == (
        "pkg:deb/debian/libstdc%2B%2B6@1%3A2.0~rc1%2Bb1?arch=amd64&distro=trixie"
    )


def test_the_vulnerability_report_names_scanner_database_and_result(tmp_path: Path) -> None:
    scan = _scan(tmp_path)
    found = json.loads(p.vulnerabilities(scan, NOW))
    assert found["scanner"]["version"] == "0.76.0"
    assert found["scanner"]["db"]["digest"] == {"sha256": DATABASE.digest.hex}
    assert found["scanner"]["result"]["findings"][0]["id"] == "CVE-2026-1"
    assert found["metadata"]["scanFinishedOn"] == "2026-03-01T12:00:00Z"
    p.parse_vulnerabilities(found)


@pytest.mark.parametrize(
    ("outcomes", "result"),
    [
        ((Outcome.PASSED,), "PASSED"),
        ((Outcome.PASSED, Outcome.NOT_RUN), "WARNED"),
        ((Outcome.PASSED, Outcome.NOT_RUN, Outcome.FAILED), "FAILED"),
    ],
)
def test_a_check_that_was_not_run_is_no_pass(outcomes: tuple[Outcome, ...], result: str) -> None:
    results = tuple(CheckResult(f"check-{n}", "title", o) for n, o in enumerate(outcomes))
    found = json.loads(p.test_result(CheckReport(Digest.of(b""), AMD64, "docker", results), Digest.of(b"c")))
    assert found["result"] == result
    assert found["passedTests"] == ["check-0"]
    assert len(found["warnedTests"]) == outcomes.count(Outcome.NOT_RUN)
    if result == "FAILED":
        with pytest.raises(EvidenceRefused) as raised:
            p.parse_test_result(found)
        assert raised.value.reference == "checks-failed"
    else:
        p.parse_test_result(found)


_BAD: list[tuple[Any, dict[str, Any]]] = [
    (p.parse_provenance, {}),
    (p.parse_provenance, {"buildDefinition": {"buildType": "https://example.org/other"}}),
    (
        p.parse_provenance,
        {
            "buildDefinition": {
                "buildType": p.BUILD_TYPE,
                "externalParameters": {"ref": "a:1", "immutableTag": "1-abc"},
                "resolvedDependencies": [{"uri": "pkg:deb/debian/a@1"}],
            },
            "runDetails": {"builder": {"id": p.BUILDER_ID}},
        },
    ),
    (p.parse_vulnerabilities, {}),
    (p.parse_vulnerabilities, {"scanner": {"version": "1", "db": {}, "result": {"findings": []}}}),
    (
        p.parse_vulnerabilities,
        {"scanner": {"version": "1", "db": {"digest": {"sha256": "ab" * 32}}, "result": {}}},
    ),
    (p.parse_test_result, {}),
    (p.parse_test_result, {"result": "PASSED"}),
    (
        p.parse_test_result,
        {"result": "PASSED", "passedTests": [], "warnedTests": [], "failedTests": []},
    ),
    (
        p.parse_test_result,
        {"result": "PASSED", "passedTests": ["a"], "warnedTests": [], "failedTests": ["b"]},
    ),
    (p.parse_cyclonedx, {}),
    (p.parse_cyclonedx, {"bomFormat": "CycloneDX", "specVersion": "1.6"}),
    (p.parse_cyclonedx, {"bomFormat": "SPDX", "specVersion": "1.6", "components": []}),
    (p.parse_spdx, {}),
    (p.parse_spdx, {"spdxVersion": "SPDX-2.3", "packages": "many"}),
]


@pytest.mark.parametrize(("parse", "predicate"), _BAD)
def test_predicates_that_we_could_not_have_written_are_refused(parse: Any, predicate: dict[str, Any]) -> None:
    with pytest.raises(EvidenceRefused):
        parse(predicate)


def test_an_sbom_of_a_million_components_is_too_large() -> None:
    one: dict[str, Any] = {}
    with pytest.raises(EvidenceRefused) as raised:
        p.parse_cyclonedx({"bomFormat": "CycloneDX", "specVersion": "1.6", "components": [one] * 1_000_001})
    assert raised.value.reference == "too-large"


def test_a_sample_database_is_marked_in_the_report(tmp_path: Path) -> None:
    sample = replace(_scan(tmp_path), database=replace(DATABASE, sample=True))
    assert json.loads(p.vulnerabilities(sample, NOW))["scanner"]["db"]["sample"] is True
