"""Trivy's output: whatever stands in it, the answer is a report or a ToolError."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from builder.errors import ToolError
from builder.model.image import PlatformImage
from builder.tools.trivy_report import cyclonedx_packages, read_report, spdx_packages
from tests.support import fake_trivy
from tests.support.debian import PACKAGES, debian_image

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=4,
)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> PlatformImage:
    return debian_image(tmp_path_factory.mktemp("image") / "layout")


def full_report(image: PlatformImage) -> dict[str, Any]:
    """A report in which every field that is read has a value."""
    report = fake_trivy.report(image)
    report["Results"][0]["Vulnerabilities"] = [fake_trivy.finding(FixedVersion="3")]
    report["Results"][0]["Packages"] = [
        {"Name": "zlib1g", "Epoch": 1, "Version": "1.3.dfsg", "Release": "1+b1"},
        {"Name": "hello", "Version": "2.10", "Release": "5"},
    ]
    report["Results"].append(
        {"Class": "secret", "Target": "/k", "Secrets": [{"RuleID": "aws", "Severity": "HIGH"}]}
    )
    report["Results"].append(
        {"Class": "license", "Licenses": [{"PkgName": "hello", "Name": "MIT"}, {"Name": "GPL-2.0-only"}]}
    )
    return report


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every container and key inside a document."""
    found: list[tuple[Any, Any]] = []
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in pairs:
        found += [(value, key), *places(inner)]
    return found


def spoil(document: dict[str, Any], data: st.DataObject) -> bytes:
    """The document with one value replaced by anything."""
    spoilt = copy.deepcopy(document)
    container, key = data.draw(st.sampled_from(places(spoilt)))
    container[key] = data.draw(ANYTHING)
    return json.dumps(spoilt).encode()


FUZZ = settings(
    max_examples=300,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def test_versions_are_put_together_as_debian_writes_them(tmp_path: Path, image: PlatformImage) -> None:
    (tmp_path / "r.json").write_text(json.dumps(full_report(image)))
    report = read_report(tmp_path / "r.json")
    assert report.packages == ("hello=2.10-5", "zlib1g=1:1.3.dfsg-1+b1")
    assert [(x.package, x.licences) for x in report.licences] == [
        ("", ("GPL-2.0-only",)),
        ("hello", ("MIT",)),
    ]


@FUZZ
@given(data=st.data())
def test_any_report_is_read_or_refused(tmp_path: Path, image: PlatformImage, data: st.DataObject) -> None:
    (tmp_path / "r.json").write_bytes(spoil(full_report(image), data))
    try:
        read_report(tmp_path / "r.json")
    except ToolError as refused:
        assert refused.message


@FUZZ
@given(data=st.data())
@pytest.mark.parametrize(
    ("make", "read"),
    [(fake_trivy.cyclonedx, cyclonedx_packages), (fake_trivy.spdx, spdx_packages)],
    ids=["cyclonedx", "spdx"],
)
def test_any_sbom_is_read_or_refused(
    image: PlatformImage,
    make: Callable[[PlatformImage], dict[str, Any]],
    read: Callable[[bytes], tuple[str, ...]],
    data: st.DataObject,
) -> None:
    try:
        assert len(read(spoil(make(image), data))) <= len(PACKAGES) + 1
    except ToolError as refused:
        assert refused.message
