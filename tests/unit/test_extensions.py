"""Rules that installed packages bring: asked like ours, part of the policy's digest, never a pass by accident."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from builder import extensions
from builder.cli.main import run
from builder.errors import ToolError
from builder.model.digest import Digest
from builder.policy.engine import evaluate
from builder.policy.rule import Case
from builder.stages.judge import judge, load_policy
from tests.support.evidence import evidence
from tests.support.images import NOW, built_image

POLICY = load_policy(Path(__file__).parents[2] / "registry" / "policies" / "baseline.yaml")
RULE = """
from builder.policy.rule import Rule
def check(case):
    {body}
RULE = Rule(id={id!r}, title="Ours", failure="{{what}}", solution="mend it", check=check)
"""
Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Put a package on the path as an installer does: a module, its metadata, an entry point."""
    import sys

    monkeypatch.syspath_prepend(str(tmp_path / "site"))

    def put(
        body: str = "return []", id: str = "team-rule", text: str = "", module: str = "team_rules"
    ) -> None:
        site = tmp_path / "site"
        info = site / "team_rules-1.2.dist-info"
        info.mkdir(parents=True, exist_ok=True)
        (site / f"{module}.py").write_text(text or RULE.format(body=body, id=id))
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: team-rules\nVersion: 1.2\n")
        (info / "entry_points.txt").write_text(f"[goldsmith.rules]\nours = {module}:RULE\n")
        (info / "RECORD").write_text(f"{module}.py,,\n")
        sys.modules.pop(module, None)
        sys.path_importer_cache.clear()
        monkeypatch.delitem(sys.modules, module, raising=False)

    yield put  # type: ignore[misc]
    sys.modules.pop("team_rules", None)


def asked(tmp_path: Path, seconds_max: float = 30) -> tuple[str, ...]:
    (extension,) = extensions.rules((), seconds_max)
    image = built_image(tmp_path / "image")
    case = Case(image, tuple(evidence(p) for p in image.platforms), POLICY.data, NOW)
    (result,) = evaluate(case, [extension.rule])
    return result.failures


def test_a_rule_of_an_installed_package_is_asked_and_can_deny(install: Install, tmp_path: Path) -> None:
    install('return [{"what": "no " + case.image.target.ref}]')
    assert asked(tmp_path) == ("no python:3.13",)
    (extension,) = extensions.rules(())
    image = built_image(tmp_path / "other")
    from dataclasses import replace

    policy = replace(POLICY, added=(extension.rule,))
    verdict = judge(image, tuple(evidence(p) for p in image.platforms), policy, NOW)
    assert not verdict.approved and "team-rule" in [r.id for r in verdict.failed]


def test_another_code_or_version_is_another_policy(install: Install) -> None:
    install("return []")
    first = extensions.rules(())
    install("return [] # changed")
    second = extensions.rules(())
    digest = Digest.of(b"policy")
    assert len({extensions.combined(digest, x) for x in ((), first, second)}) == 3
    assert extensions.combined(digest, ()) == digest
    assert first[0].identity["package"] == "team-rules" and first[0].identity["version"] == "1.2"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("raise KeyError('x')", "the extension ours (team_rules:RULE): KeyError"),
        ("raise SystemExit(0)", "SystemExit"),
        ("return None", "TypeError"),
        ("return [7]", "the rule itself broke"),
        ("return [{'other': 1}]", "the rule itself broke"),
    ],
)
def test_a_rule_that_breaks_or_lies_in_type_denies(
    install: Install, tmp_path: Path, body: str, said: str
) -> None:
    install(body)
    (failure,) = asked(tmp_path)
    assert said in failure


def test_a_rule_that_hangs_denies(install: Install, tmp_path: Path) -> None:
    install("import threading; threading.Event().wait(5); return []")
    (failure,) = asked(tmp_path, seconds_max=0.2)
    assert "ours (team_rules:RULE) did not end" in failure
    assert any(t.name == "extension" and t.daemon for t in threading.enumerate())


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"text": "RULE = 7"}, "it is a int, not a rule"),
        ({"text": "raise OSError('no')"}, "OSError: no"),
        ({"text": ""}, ""),
        ({"id": "secrets"}, "is there already"),
        ({"id": "Not A Name"}, "no rule can have the id"),
    ],
)
def test_what_is_no_rule_is_an_error_that_names_it(
    install: Install, given: dict[str, str], said: str
) -> None:
    install(**given)
    if not said:
        assert len(extensions.rules({"secrets"})) == 1  # the control
        return
    with pytest.raises(ToolError) as caught:
        extensions.rules({"secrets"})
    assert caught.value.reference == "extension-broken"
    assert "ours" in caught.value.message and said in caught.value.context


def test_they_are_listed(install: Install, capsys: pytest.CaptureFixture[str]) -> None:
    install()
    assert run(["rules", "--json"]) == 0
    listed = {r["id"]: r["extension"] for r in json.loads(capsys.readouterr().out)["policy"]}
    assert listed["team-rule"]["package"] == "team-rules" and listed["secrets"] is None
