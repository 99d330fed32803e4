"""Checks that a catalogue or an extension adds to ours: made of every image, demanded, and never a pass by accident."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from builder import extensions
from builder.checks.declared import declared
from builder.checks.rule import Facts
from builder.cli.main import run
from builder.errors import DefinitionError, Problem, ToolError
from builder.model.definition import CatalogueCheck, ChecksDefinition
from builder.model.evidence import CheckReport, Outcome
from builder.model.image import Target
from builder.oci.filesystem import read_filesystem
from builder.oci.layout import create_layout
from builder.pipeline.release import release_key_of
from builder.policy.engine import evaluate
from builder.policy.rule import Case
from builder.policy.rules import brought
from builder.stages.check import check
from builder.stages.define import read_common_checks
from builder.store import Store
from builder.tools.dockerd import NoEngine
from tests.support.catalogue import image, write
from tests.support.evidence import evidence
from tests.support.extensions import NAMED, Site, site
from tests.support.images import NOW, add_layer, built_image, platform_image, target
from tests.support.promotion import policy

__all__ = ["site"]
SAID = {"schema": 1, "title": "Ours", "rationale": "Because.", "source": "ACME 1"}
CHECK = """
from builder.checks.rule import Rule
def failures(facts):
    {body}
CHECK = Rule(id={id!r}, title="Ours", rationale="Because.", source="ACME 2", looks_at="files",
             failures=failures, reads=("etc/motd",))
"""
POINT = {"goldsmith.checks": {"ours": "acme_checks:CHECK"}}


def model(**changes: object) -> CatalogueCheck:
    return CatalogueCheck.model_validate_json(json.dumps({**SAID, **changes}))


def report(tmp_path: Path, of: Target, added: tuple[object, ...] = ()) -> CheckReport:
    layout = create_layout(tmp_path / "layout")
    files = {"etc/motd": b"ACME", "opt/a/b": b"", "opt/c": b""}
    image = platform_image(layout, [add_layer(layout, files)])

    def no_probe() -> Path:
        raise AssertionError

    store = Store(tmp_path / "state").create()
    return check(of, image, NoEngine("none"), no_probe, store, added=added)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("said", "failures"),
    [
        ({"forbidden": ["/opt/*"]}, ["/opt/c is there"]),
        ({"forbidden": ["/opt/**"]}, ["/opt/a/b is there", "/opt/c is there"]),
        ({"forbidden": ["/OPT/*", "/opt/[ac]", "/etc/motd"]}, ["/etc/motd is there"]),
        ({"files": [{"path": "/etc/motd", "mode": "0644"}]}, []),
        ({"files": [{"path": "/etc/motd", "present": False}]}, ["/etc/motd: it is there"]),
        ({"files": [{"path": "/etc/acme"}]}, ["/etc/acme: it is missing"]),
        (
            {"labels": ["acme.team", "acme.cost", "acme.empty"]},
            ["the label acme.cost is missing", "the label acme.empty is missing"],
        ),
    ],
)
def test_a_check_of_the_catalogue_finds_what_it_is_for(
    tmp_path: Path, said: dict[str, object], failures: list[str]
) -> None:
    layout = create_layout(tmp_path / "layout")
    image = platform_image(layout, [add_layer(layout, {"etc/motd": b"ACME", "opt/a/b": b"", "opt/c": b""})])
    config = {"Labels": {"acme.team": "a", "acme.empty": ""}}
    (rule,) = declared({"acme-check": model(**said)})
    facts = Facts(read_filesystem(image, ()), config, "runtime", "trixie")
    assert list(rule.failures(facts)) == failures


def test_the_checks_of_a_catalogue_are_made_of_every_image_and_asked_for(tmp_path: Path) -> None:
    of = replace(
        target(),
        common={"acme-motd": model(files=[{"path": "/etc/motd"}]), "acme-opt": model(forbidden=["/opt/**"])},
    )
    outcomes = {r.id: r.outcome for r in report(tmp_path, of).results}
    assert (outcomes["acme-motd"], outcomes["acme-opt"]) == (Outcome.PASSED, Outcome.FAILED)
    keys = {release_key_of(built_image(tmp_path / "i").digest, one, {}) for one in (target(), of)}
    assert len(keys) == 2  # another check asks for another verdict


def test_mistakes_in_them_have_their_place(tmp_path: Path) -> None:
    folder = tmp_path / "checks"
    folder.mkdir()
    for name, said in {
        "good": {"labels": ["a"]},
        "nothing": {},
        "no-shell": {"labels": ["a"]},
        "Not A Name": {"labels": ["a"]},
        "typo": {"label": ["a"]},
        "relative": {"forbidden": ["opt"]},
    }.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump({**SAID, **said}))
    (folder / "away.yaml").symlink_to("/etc/hostname")
    problems: list[Problem] = []
    assert list(read_common_checks(tmp_path, problems)) == ["good"]
    assert {p.file for p in problems} == {
        f"checks/{n}.yaml" for n in ("nothing", "no-shell", "Not A Name", "typo", "relative", "away")
    }
    assert any("is there already" in p.message for p in problems)


def test_a_check_of_an_extension_is_made_and_reads_what_it_names(site: Site, tmp_path: Path) -> None:
    body = 'return [] if facts.files.contents["etc/motd"] == b"ACME" else ["/etc/motd is not ours"]'
    site.install({"acme_checks": CHECK.format(body=body, id="acme-motd")}, POINT)
    found = extensions.load(NAMED)
    outcomes = {r.id: r.outcome for r in report(tmp_path, target(), found.checks).results}
    assert outcomes["acme-motd"] is Outcome.PASSED
    assert found.identities()[0].kind == "check"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("return ['/a', '/b']", "/a; /b"),
        ("raise KeyError('x')", "the extension ours (acme_checks:CHECK): KeyError"),
        ("raise SystemExit(0)", "SystemExit"),
        ("return None", "TypeError"),
        ("return ''", "answers with a str"),
        ("return [None]", "TypeError"),
        ("import threading; threading.Event().wait(5)", "it did not end"),
    ],
)
def test_a_check_that_breaks_has_failed(site: Site, tmp_path: Path, body: str, said: str) -> None:
    site.install({"acme_checks": CHECK.format(body=body, id="acme-motd")}, POINT)
    found = extensions.load(NAMED, seconds_max=0.3)
    (one,) = [r for r in report(tmp_path, target(), found.checks).results if r.id == "acme-motd"]
    assert one.outcome is Outcome.FAILED and said in one.detail


def test_what_a_check_does_to_the_facts_changes_no_other_result(site: Site, tmp_path: Path) -> None:
    body = "facts.files.entries.clear(); return []"
    site.install({"acme_checks": CHECK.format(body=body, id="acme-motd")}, POINT)
    asked = ChecksDefinition.model_validate_json('{"schema": 1, "files": [{"path": "/etc/motd"}]}')
    found = report(tmp_path, replace(target(), checks=asked), extensions.load(NAMED).checks)
    assert [r.outcome for r in found.results if "/etc/motd" in r.title] == [Outcome.PASSED]


@pytest.mark.parametrize(
    "text",
    [
        "CHECK = 7",
        CHECK.format(body="return []", id="no-shell"),
        CHECK.format(body="return []", id="non-root"),  # one of those for images that others made
        CHECK.format(body="", id="x"),
        CHECK.format(body="return []", id="x").replace('("etc/motd",)', '("etc/motd")'),
        CHECK.format(body="return []", id="x").replace("etc/motd", "/etc/motd"),
        CHECK.format(body="return []", id="x").replace("reads=", "variants=(), reads="),
    ],
)
def test_what_is_no_check_is_an_error(site: Site, text: str) -> None:
    site.install({"acme_checks": text}, POINT)
    with pytest.raises(ToolError) as caught:
        extensions.load(NAMED)
    assert caught.value.reference == "extension-broken"


def test_an_image_of_which_one_was_not_made_is_denied(site: Site, tmp_path: Path) -> None:
    """Such as an older candidate, or one that a worker without the extension has checked."""
    site.install({"acme_checks": CHECK.format(body="return []", id="acme-motd")}, POINT)
    who = extensions.load(NAMED).identities()
    image = built_image(tmp_path / "image")
    proofs = tuple(evidence(p) for p in image.platforms)
    case = Case(image, proofs, policy().data, NOW)
    common = replace(image, target=replace(image.target, common={"acme-opt": model(labels=["a"])}))
    for one, missing in (
        (case, None),
        (replace(case, extensions=who), "the check acme-motd was not asked"),
        (replace(case, image=common), "the check acme-opt was not asked"),
        (
            replace(case, image=replace(image, imported=True), extensions=who),
            "the check acme-motd was not asked",
        ),
    ):
        (result,) = evaluate(one, [brought.RULE])
        assert result.passed if missing is None else missing in result.failures[0]


def test_all_are_listed(
    site: Site, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    site.install({"acme_checks": CHECK.format(body="return []", id="acme-motd")}, POINT)
    for folder in ("images", "templates", "checks"):
        (tmp_path / folder).mkdir()
    (tmp_path / "checks" / "acme-opt.yaml").write_text(yaml.safe_dump({**SAID, "labels": ["a"]}))
    monkeypatch.setenv("GOLDSMITH_EXTENSIONS", "acme-extension")
    monkeypatch.setenv("GOLDSMITH_CATALOGUE", str(tmp_path))
    assert run(["rules", "--json"]) == 0
    listed = {c["id"]: c["extension"] for c in json.loads(capsys.readouterr().out)["checks"]}
    assert listed["acme-motd"]["package"] == "acme-extension" and listed["acme-opt"] is None
    assert run(["rules", "acme-opt"]) == 0
    assert "source: ACME 1" in capsys.readouterr().out
    (tmp_path / "checks" / "acme-opt.yaml").write_text("schema: 2")
    assert run(["rules"]) == DefinitionError.exit_code


def test_a_check_of_the_catalogue_cannot_pass_for_one_of_an_extension(
    site: Site, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    site.install({"acme_checks": CHECK.format(body="return []", id="acme-motd")}, POINT)
    write(tmp_path, image("base"))
    (tmp_path / "checks").mkdir()
    (tmp_path / "checks" / "acme-motd.yaml").write_text(yaml.safe_dump({**SAID, "labels": ["a"]}))
    monkeypatch.setenv("GOLDSMITH_CATALOGUE", str(tmp_path))
    assert run(["rules"]) == 0
    monkeypatch.setenv("GOLDSMITH_EXTENSIONS", "acme-extension")
    for command in (["rules"], ["images"]):
        assert run(command) == DefinitionError.exit_code
        assert "checks/acme-motd.yaml: 'acme-motd' is there already" in capsys.readouterr().err
