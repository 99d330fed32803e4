"""What packages bring that the settings name: asked like ours, part of what is judged by, never a pass by accident."""

from __future__ import annotations

import json
import os
import py_compile
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from builder import extensions
from builder.cli.extending import installed
from builder.cli.main import run
from builder.errors import GoldsmithError, ToolError, UsageError
from builder.model.digest import Digest
from builder.policy.engine import evaluate
from builder.policy.explain import explain
from builder.policy.rule import Case
from builder.settings import Settings
from builder.signing import verdicts
from builder.signing.refusal import EvidenceRefused
from builder.stages.judge import judge, load_policy
from tests.support.evidence import evidence
from tests.support.extensions import NAMED, RULE, Site, rule, site
from tests.support.images import NOW, built_image

__all__ = ["site"]
BASELINE = Path(__file__).parents[2] / "registry" / "policies" / "baseline.yaml"
POLICY = load_policy(BASELINE)
RULES = {"goldsmith.rules": {"ours": "acme_rules:RULE"}}


def asked(tmp_path: Path, seconds_max: float = 30) -> tuple[str, ...]:
    found = extensions.load(NAMED, seconds_max)
    image = built_image(tmp_path / "image")
    case = Case(image, tuple(evidence(p) for p in image.platforms), POLICY.data, NOW)
    (result,) = evaluate(case, found.rules)
    return result.failures


def test_a_rule_of_a_named_package_is_asked_and_can_deny(site: Site, tmp_path: Path) -> None:
    rule(site, 'return [{"what": "no " + case.image.target.ref}]')
    assert asked(tmp_path) == ("no python:3.13",)
    found = extensions.load(NAMED)
    image = built_image(tmp_path / "other")
    policy = replace(POLICY, added=found.rules, extensions=found.identities())
    verdict = judge(image, tuple(evidence(p) for p in image.platforms), policy, NOW)
    assert not verdict.approved and "team-rule" in [r.id for r in verdict.failed]
    # Who was asked stands in the verdict, and comes back from its signed form.
    told = verdicts.decode(json.loads(verdicts.encode(verdict)))
    assert [(e.kind, e.id, e.package, e.version) for e in told.extensions] == [
        ("rule", "team-rule", "acme-extension", "1.2")
    ]
    assert told.extensions == found.identities()
    assert "extensions asked: rule team-rule of acme-extension 1.2" in explain(told)


@pytest.mark.parametrize(
    "change", [{"package": "not a name"}, {"digest": "sha256:1"}, {"more": "x"}, {"version": "1 2"}]
)
def test_a_verdict_with_a_malformed_extension_is_refused(
    site: Site, tmp_path: Path, change: dict[str, str]
) -> None:
    rule(site)
    image = built_image(tmp_path / "image")
    policy = replace(POLICY, extensions=extensions.load(NAMED).identities())
    verdict = judge(image, tuple(evidence(p) for p in image.platforms), policy, NOW)
    value = json.loads(verdicts.encode(verdict))
    assert verdicts.decode(value) == verdict
    value["extensions"][0] |= change
    with pytest.raises(EvidenceRefused):
        verdicts.decode(value)


def test_what_is_installed_but_not_named_is_not_even_imported(site: Site) -> None:
    site.install({"acme_rules": "raise OSError('imported')"}, RULES)
    assert extensions.load(()).parts == ()
    assert extensions.not_named(()) == ("acme-extension",)
    assert extensions.not_named(("Acme.Extension==1.2",)) == ()
    with pytest.raises(ToolError, match="acme_rules"):
        extensions.load(NAMED)


def test_where_none_is_named_no_metadata_is_searched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which would cost every command its time."""
    from importlib import metadata

    def search(*_: object, **__: object) -> None:
        raise AssertionError("searched")

    for name in ("entry_points", "distribution", "distributions"):
        monkeypatch.setattr(metadata, name, search)
    assert extensions.load(()).parts == ()
    with pytest.raises(AssertionError, match="searched"):
        extensions.load(NAMED)


def test_another_code_or_version_is_another_policy(site: Site) -> None:
    digest = Digest.of(b"policy")
    seen = {digest}
    for body, version in (("return []", "1.2"), ("return [] # changed", "1.2"), ("return []", "1.3")):
        rule(site, body, version=version)
        seen.add(extensions.combined(digest, extensions.load(NAMED).identities()))
    assert len(seen) == 4
    assert extensions.combined(digest, ()) == digest


def test_data_files_of_the_package_are_part_of_it_and_scripts_beside_it_are_not(site: Site) -> None:
    rule(site)
    record = site.folder / "acme_extension.dist-info" / "RECORD"
    record.write_text("acme_rules.py,,\nacme.json,,\n../../bin/acme,,\n")
    digests = []
    for text in ("1", "2"):
        (site.folder / "acme.json").write_text(text)
        digests.append(extensions.load(NAMED).identities()[0].digest)
    assert digests[0] != digests[1]


def test_code_that_lies_elsewhere_is_read_where_it_is(site: Site) -> None:
    """An editable install: the record names no module."""
    rule(site)
    (site.folder / "acme_extension.dist-info" / "RECORD").write_text("acme.pth,,\n")
    (site.folder / "acme.pth").write_text("")
    before = extensions.load(NAMED).identities()[0].digest
    (site.folder / "acme_rules.py").write_text(RULE.format(body="return ()", id="team-rule", needs=None))
    site.forget()
    assert extensions.load(NAMED).identities()[0].digest != before


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("raise KeyError('x')", "the extension ours (acme_rules:RULE): KeyError"),
        ("raise SystemExit(0)", "SystemExit"),
        ("return None", "TypeError"),
        ("return ''", "answers with a str"),
        ("return {}", "answers with a dict"),
        ("class Silent(Exception): __str__ = lambda self: exit(0)\n    raise Silent", "Silent"),
        ("class Text: __str__ = lambda self: exit(0)\n    return [{'what': Text()}]", "SystemExit"),
        ("return [7]", "the rule itself broke"),
        ("return [{'other': 1}]", "the rule itself broke"),
    ],
)
def test_a_rule_that_breaks_or_lies_in_type_denies(site: Site, tmp_path: Path, body: str, said: str) -> None:
    rule(site, body)
    (failure,) = asked(tmp_path)
    assert said in failure


def test_a_rule_that_hangs_denies(site: Site, tmp_path: Path) -> None:
    rule(site, "import threading; threading.Event().wait(5); return []")
    (failure,) = asked(tmp_path, seconds_max=0.2)
    assert "ours (acme_rules:RULE): it did not end" in failure
    assert any(t.name == "extension" and t.daemon for t in threading.enumerate())


@pytest.mark.parametrize(
    ("text", "points", "said"),
    [
        ("RULE = 7", RULES, "it is a int, not a rule"),
        ("raise OSError('no')", RULES, "OSError: no"),
        ("raise SystemExit(0)", RULES, "SystemExit"),
        ("import threading; threading.Event().wait(5)", RULES, "did not end within"),
        (
            "from pathlib import Path; Path(__file__).write_text('# other'); RULE = 7",
            RULES,
            "changed while it was loaded",
        ),
        (RULE.format(body="return []", id="secrets", needs=None), RULES, "is there already"),
        (RULE.format(body="return []", id="Not A Name", needs=None), RULES, "nothing can have the id"),
        (RULE.format(body="return []", id="x", needs="luck"), RULES, "is no evidence"),
        ("", {"goldsmith.rule": {"ours": "acme_rules:RULE"}}, "there is no group 'goldsmith.rule'"),
        ("", {"other.group": {"ours": "acme_rules:RULE"}}, "it has no entry point in"),
        (
            RULE.format(body="return []", id="x", needs=None),
            {"goldsmith.rules": {"ours": "acme_rules:RULE", "again": "acme_rules:RULE"}},
            "is there already",
        ),
    ],
)
def test_what_cannot_be_used_is_an_error_that_names_it(
    site: Site, text: str, points: dict[str, dict[str, str]], said: str
) -> None:
    site.install({"acme_rules": text}, points)
    with pytest.raises(ToolError) as caught:
        extensions.load(NAMED, 0.5 if "Event" in text else 30)
    assert caught.value.reference == "extension-broken"
    assert "ours" in caught.value.message or "acme-extension" in caught.value.message
    assert said in caught.value.context and "GOLDSMITH_EXTENSIONS" in caught.value.hint


def test_what_is_no_list_of_entry_points_is_an_error(site: Site) -> None:
    rule(site)
    (site.folder / "acme_extension.dist-info" / "entry_points.txt").write_text("[goldsmith.rules]\nours\n")
    with pytest.raises(ToolError) as caught:
        extensions.load(NAMED)
    assert caught.value.reference == "extension-broken"


@pytest.mark.parametrize("listed", ["acme_rules.py,,\nacme.fifo,,\n", "acme_rules.py,,\nacme.json,,\n"])
def test_a_package_whose_files_cannot_be_read_is_an_error(site: Site, listed: str) -> None:
    rule(site)
    os.mkfifo(site.folder / "acme.fifo")
    (site.folder / "acme_extension.dist-info" / "RECORD").write_text(listed)
    with pytest.raises(ToolError) as caught:
        extensions.load(NAMED)
    assert caught.value.reference == "extension-broken" and "no regular file" in caught.value.context


def test_code_without_its_source_is_part_of_the_package(site: Site) -> None:
    digests = []
    for body in ("return []", "return ()"):
        rule(site, body)
        module = site.folder / "acme_rules.py"
        py_compile.compile(str(module), str(site.folder / "acme_rules.pyc"), doraise=True)
        module.unlink()
        (site.folder / "acme_extension.dist-info" / "RECORD").write_text("acme_rules.pyc,,\n")
        digests.append(extensions.load(NAMED).identities()[0].digest)
    assert digests[0] != digests[1]


def test_who_it_is_stays_what_runs_when_a_newer_one_is_installed_meanwhile(site: Site) -> None:
    rule(site)
    settings = Settings.load({"GOLDSMITH_EXTENSIONS": "acme-extension"})
    before = installed(settings).identities()
    (site.folder / "acme_rules.py").write_text(RULE.format(body="return ()", id="team-rule", needs=None))
    info = site.folder / "acme_extension.dist-info" / "METADATA"
    info.write_text(info.read_text().replace("1.2", "1.3"))
    assert installed(settings).identities() == before
    site.forget()  # as the next process does
    assert [e.version for e in installed(settings).identities()] == ["1.3"]


def test_one_that_hangs_does_not_keep_the_command_from_ending(site: Site) -> None:
    """The interpreter waits for all threads of a pool, whoever began it."""
    hang = "from concurrent.futures import ThreadPoolExecutor\nimport time\n"
    site.install({"acme_rules": f"{hang}ThreadPoolExecutor().submit(time.sleep, 300).result()\n"}, RULES)
    script = (
        "from builder import extensions\nfrom builder.cli import extending, main\n"
        "extending.loaded = lambda names: extensions.load(names, 0.2)\nmain.main(['rules'])\n"
    )
    done = in_process(site, "-c", script)
    assert done.returncode == ToolError.exit_code and b"did not end within 0.2 s" in done.stderr


def in_process(site: Site, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    """Run Python with the package on its path, and named."""
    path = f"{site.folder}{os.pathsep}{Path(__file__).parents[2]}"
    environment = {**os.environ, "PYTHONPATH": path, "GOLDSMITH_EXTENSIONS": "acme-extension"}
    command = [sys.executable, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, check=False, timeout=120)


def test_what_it_prints_is_no_part_of_our_results(site: Site) -> None:
    noise = "import subprocess\nprint('noise')\nsubprocess.run(['echo', 'more noise'], check=True)\n"
    site.install({"acme_rules": noise + RULE.format(body="return []", id="team-rule", needs=None)}, RULES)
    done = in_process(site, "-m", "builder", "rules", "team-rule", "--json")
    assert [r["id"] for r in json.loads(done.stdout)["policy"]] == ["team-rule"]
    assert b"noise\n" in done.stderr and b"more noise" in done.stderr


@pytest.mark.parametrize(
    ("named", "kind", "reference"),
    [
        (("acme-extension==1.2",), None, ""),
        (("acme.Extension",), None, ""),
        (("acme-extension==1.3",), ToolError, "extension-other-version"),
        (("acme-extensions",), ToolError, "extension-missing"),
        (("../acme",), UsageError, "usage-error"),
        (("acme-extension==",), UsageError, "usage-error"),
        (tuple(f"a{n}" for n in range(17)), UsageError, "usage-error"),
    ],
)
def test_packages_are_named_exactly(
    site: Site, named: tuple[str, ...], kind: type[GoldsmithError] | None, reference: str
) -> None:
    rule(site)
    if kind is None:
        assert len(extensions.load(named).rules) == 1
        return
    with pytest.raises(kind) as caught:
        extensions.load(named)
    assert caught.value.reference == reference


def test_a_policy_may_give_a_teams_rule_a_day_to_begin(site: Site, tmp_path: Path) -> None:
    rule(site)
    changed = tmp_path / "baseline.yaml"
    changed.write_text(BASELINE.read_text() + "\neffective:\n  team-rule: 2099-01-01\n")
    with pytest.raises(GoldsmithError):
        load_policy(changed)
    assert "team-rule" in load_policy(changed, extensions.load(NAMED).rules).data.effective


def test_they_are_listed_where_they_are_named(
    site: Site, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rule(site)
    assert run(["rules", "--json"]) == 0
    assert "team-rule" not in capsys.readouterr().out
    monkeypatch.setenv("GOLDSMITH_EXTENSIONS", "acme-extension")
    assert run(["rules", "--json"]) == 0
    listed = {r["id"]: r["extension"] for r in json.loads(capsys.readouterr().out)["policy"]}
    assert listed["team-rule"]["package"] == "acme-extension" and listed["secrets"] is None
    assert run(["rules"]) == 0
    assert "rule team-rule is of the extension acme-extension 1.2, sha256:" in capsys.readouterr().out
    monkeypatch.setenv("GOLDSMITH_EXTENSIONS", "nobody-has-this")
    assert run(["rules"]) != 0
