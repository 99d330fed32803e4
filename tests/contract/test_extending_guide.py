"""The package of the guide, as it is printed there: installed, listed, asked, and on record."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pytest
import yaml

from builder.cli.extending import find_policy_of, installed, open_catalogue
from builder.cli.main import run
from builder.model.evidence import Outcome
from builder.model.generated import generated
from builder.model.image import PlatformImage
from builder.oci.layout import create_layout
from builder.settings import Settings
from builder.stages.check import check
from builder.stages.judge import judge
from builder.store import Store
from builder.tools.dockerd import NoEngine
from builder.tools.further_scan import ask_scanners
from tests.support.catalogue import image, write
from tests.support.evidence import evidence
from tests.support.extensions import Site, site
from tests.support.images import AMD64, NOW, add_layer, built_image, platform_image

__all__ = ["site"]
GUIDE = (Path(__file__).parents[2] / "docs" / "guide" / "extending.md").read_text()


def printed(language: str) -> list[str]:
    """The examples of the guide in a language."""
    return re.findall(rf"```{language}\n(.*?)```", GUIDE, re.DOTALL)


@pytest.fixture
def settings(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """A catalogue with what the guide writes, and its package, installed and named."""
    (text,) = printed("toml")
    project = tomllib.loads(text)["project"]
    module = "\n".join(printed("python"))
    site.install({"acme_goldsmith": module}, project["entry-points"], project["name"], project["version"])
    check, definition, checks = map(yaml.safe_load, printed("yaml"))
    root = write(tmp_path / "catalogue", image("base"), definition)
    (root / "images" / "banner" / "checks.yaml").write_text(yaml.safe_dump(checks))
    (root / "checks").mkdir()
    (root / "checks" / "acme-opt.yaml").write_text(yaml.safe_dump(check))
    environment = {
        "GOLDSMITH_EXTENSIONS": "acme-goldsmith==1.2",
        "GOLDSMITH_CATALOGUE": str(root),
        "GOLDSMITH_STATE": str(tmp_path / "state"),
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return Settings.load(environment, root, NOW)


@pytest.fixture
def layer(tmp_path: Path) -> PlatformImage:
    layout = create_layout(tmp_path / "layout")
    return platform_image(layout, [add_layer(layout, {"etc/motd": b"welcome"})])


def test_everything_is_listed(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["rules", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    ids = {one["id"] for one in (*listed["policy"], *listed["checks"])}
    assert {"acme-title", "acme-motd", "acme-opt"} <= ids
    run(["doctor", "--json"])  # whatever else this machine lacks
    found = {i["name"]: i for i in json.loads(capsys.readouterr().out)["items"]}["extensions"]
    assert found["ok"]
    for part in ("rule acme-title", "check acme-motd", "step acme-banner", "scanner acme-scanner"):
        assert f"{part} of acme-goldsmith 1.2" in found["found"]
    assert "check acme-opt of the catalogue" in found["found"]


def test_everything_is_asked_and_on_record(settings: Settings, layer: PlatformImage, tmp_path: Path) -> None:
    target = open_catalogue(settings).find("banner")
    (motd,) = generated(target, AMD64, is_root=False)
    assert (motd.path, motd.content) == ("/etc/motd", b"Property of ACME\n")

    def no_probe() -> Path:
        raise AssertionError

    brought, store = installed(settings), Store(settings.state).create()
    report = check(target, layer, NoEngine("none"), no_probe, store, added=brought.checks)
    outcomes = {r.id: r.outcome for r in report.results}
    assert outcomes["acme-motd"] is outcomes["acme-opt"] is Outcome.FAILED

    packages = ("acme-agent=7", "hello=2.10-5")
    (further,) = ask_scanners(brought.scanners, layer, "web:1", layer.layout, b"{}", packages, tmp_path)
    assert [(f.id, f.package) for f in further.findings] == [("ACME-2026-1", "acme-agent")]

    built = built_image(tmp_path / "built")
    proofs = tuple(evidence(p) for p in built.platforms)
    policy = find_policy_of(settings, "baseline")
    verdict = judge(built, proofs, policy, NOW)
    against = {r.id: r.failures for r in verdict.failed}
    assert against["acme-title"] == ("the title is python for tests",)
    assert "the scanner acme-scanner was not asked" in " ".join(against["additions-asked"])
    assert {e.id for e in verdict.extensions} == {"acme-title", "acme-motd", "acme-scanner"}
    plain = find_policy_of(Settings.load({"GOLDSMITH_CATALOGUE": str(settings.catalogue)}), "baseline")
    assert plain.digest != policy.digest and not plain.extensions


def test_the_examples_of_the_guide_name_nothing_when_no_package_is_named(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("GOLDSMITH_EXTENSIONS")
    assert run(["rules"]) == 0
    assert "acme-title" not in capsys.readouterr().out
    assert run(["images"]) == 1  # its definition uses a step that nobody brings
    assert "GOLDSMITH_EXTENSIONS" in capsys.readouterr().err
