"""A trial: every stage is told, a stage that cannot be done denies, and each says how to do it again."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from builder.cli.main import run
from builder.errors import DefinitionError, GoldsmithError, LockError, Problem, ToolError
from builder.model.digest import Digest
from builder.model.evidence import (
    CheckReport,
    CheckResult,
    Finding,
    LintFinding,
    LintReport,
    NotDone,
    Outcome,
    Severity,
)
from builder.pipeline import trial
from builder.pipeline.trial import Tried, Trying
from builder.policy.engine import evaluate
from builder.policy.rule import Case
from builder.policy.rules import evidence_complete
from builder.stages.judge import load_policy
from tests.support.catalogue import image, stream, write
from tests.support.evidence import evidence
from tests.unit.test_pipeline_run import NOW, World

POLICY = load_policy(Path(__file__).parents[2] / "registry" / "policies" / "baseline.yaml")


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    made = World(tmp_path, monkeypatch)
    monkeypatch.setattr(trial, "prepare", lambda catalogue, target, known: _prepared(target))
    return made


def _prepared(target):
    from tests.unit.test_pipeline_run import _Prepared

    return _Prepared(target)


class Hands:
    """Tools that find nothing wrong, until the test says so."""

    def __init__(self) -> None:
        self.broken: dict[str, ToolError] = {}
        self.results: tuple[CheckResult, ...] = (CheckResult("x", "It works", Outcome.PASSED),)
        self.findings: tuple[Finding, ...] = ()
        self.remarks: tuple[LintFinding, ...] = ()
        self.asked: list[str] = []

    def check(self, target, image):
        self._ask("check")
        return CheckReport(image.manifest.digest, image.platform, "docker", self.results)

    def scan(self, target, image, work):
        self._ask("scan")
        proof = evidence(image)
        return replace(proof.scan, findings=self.findings), proof.sboms

    def lint(self, context):
        self._ask("lint")
        return LintReport("hadolint", "2", self.remarks)

    def _ask(self, name: str) -> None:
        self.asked.append(name)
        if name in self.broken:
            raise self.broken[name]


def tried(
    world: World, hands: Hands, ref: str = "python:1", only: frozenset[str] = frozenset(), options: str = ""
) -> Tried:
    class Chain(type(world.builds)):  # the fake of the runs, with what a trial asks for
        def chain(self, prepared, stages):
            image = None
            for one in prepared:
                image = self.build(one, image, stages(one.target.ref))
            return image, True

    world.builds.__class__ = Chain

    def judge(image, proofs):
        case = Case(image, proofs, POLICY.data, NOW)
        rules = evaluate(case, [evidence_complete.RULE])
        return replace(world._judge(image, proofs), approved=all(r.passed for r in rules), rules=rules)

    target = world.catalogue.find(ref)
    return Trying(world.builds, hands, judge, world.store, world.reporter, NOW, only, options).image(
        world.catalogue, target
    )


def outcomes(found: Tried) -> dict[str, str]:
    return {stage.name: str(stage.outcome) for stage in found.stages}


def test_a_good_image_passes_all_stages_and_nothing_is_published(world: World) -> None:
    found = tried(world, Hands())
    assert set(outcomes(found).values()) == {"passed"}
    assert [s.name for s in found.stages] == ["lock", "render", "build", "check", "scan", "lint", "judge"]
    assert found.good and found.verdict and found.verdict.approved
    assert world.builds.built == ["base:1", "python:1"]
    assert world.published == []
    kept = [json.loads(f.read_text()) for f in (world.store.records / "evidence").iterdir()]
    assert [one["ref"] for one in kept] == ["python:1"], "what was found can be told again by diff"


def test_a_failed_check_is_told_with_the_command_that_does_it_again(world: World) -> None:
    hands = Hands()
    hands.results = (CheckResult("it", "It computes", Outcome.FAILED, "exit code 127"),)
    found = tried(world, hands)
    assert outcomes(found)["check"] == "failed" and not found.good
    stage = found.stages[3]
    assert stage.reproduce == "goldsmith try python:1 --only check"
    assert stage.said == ("linux/amd64: It computes (it): exit code 127",)


def test_every_finding_is_listed_the_fixable_first_and_the_others_with_debians_state(world: World) -> None:
    hands = Hands()
    hands.findings = (
        Finding("CVE-1-1", "libc6", "2.41", "", Severity.LOW, "will_not_fix", "x"),
        Finding("CVE-1-3", "libc6", "2.41", "", Severity.CRITICAL, "affected", "x"),
        Finding("CVE-1-2", "tar", "1.35", "1.36", Severity.LOW, "fixed", "x"),
    )
    stage = tried(world, hands).stages[4]
    assert (stage.name, stage.outcome, stage.reproduce) == ("scan", Outcome.PASSED, "")
    assert stage.said == (
        "linux/amd64: CVE-1-2 (low) in tar 1.35: fixed in 1.36",
        "linux/amd64: CVE-1-3 (critical) in libc6 2.41: no fix, Debian's state: affected",
        "linux/amd64: CVE-1-1 (low) in libc6 2.41: no fix, Debian's state: will_not_fix",
    )


def test_without_an_engine_the_checks_are_told_as_not_run_and_it_is_not_good(world: World) -> None:
    hands = Hands()
    hands.results = (CheckResult("it", "It computes", Outcome.NOT_RUN, "not run: no engine answers"),)
    found = tried(world, hands)
    assert outcomes(found)["check"] == "not-run" and not found.good
    assert "1 checks were not run: no engine answers" in found.stages[3].said[0]


def test_a_scan_that_cannot_be_done_denies_and_the_others_go_on(world: World) -> None:
    hands = Hands()
    hands.broken["scan"] = ToolError("no vulnerability database can be had", hint="set GOLDSMITH_TRIVY_DB")
    found = tried(world, hands)
    assert outcomes(found) == {
        **dict.fromkeys(outcomes(found), "passed"),
        "scan": "not-run",
        "judge": "failed",
    }
    assert found.verdict and not found.verdict.approved and not found.good
    assert "set GOLDSMITH_TRIVY_DB" in found.stages[4].said[0]
    assert found.stages[4].reproduce == "goldsmith try python:1 --only scan"


def test_a_build_that_fails_ends_the_trial(world: World) -> None:
    world.builds.broken.add("python:1")
    found = tried(world, Hands())
    assert outcomes(found) == {"lock": "passed", "render": "passed", "build": "failed"}
    assert found.stages[-1].reproduce == "goldsmith build python:1 --engine direct"
    assert found.verdict is None and not found.good


@pytest.mark.parametrize(
    ("error", "of", "stage", "command"),
    [
        (LockError("stale", hint="run `goldsmith lock python`"), "python:1", "lock", "lock --check python"),
        (LockError("stale", hint="run `goldsmith lock base`"), "base:1", "lock", "lock --check base"),
        (DefinitionError([Problem("templates/x.j2", "line 1", "no")]), "base:1", "render", "render base:1"),
    ],
)
def test_what_cannot_be_prepared_names_the_command_for_the_image_that_it_is_about(
    world: World,
    monkeypatch: pytest.MonkeyPatch,
    error: GoldsmithError,
    of: str,
    stage: str,
    command: str,
) -> None:
    def prepare(catalogue, target, known):
        if target.ref == of:
            raise error
        return _prepared(target)

    monkeypatch.setattr(trial, "prepare", prepare)
    found = tried(world, Hands())
    assert outcomes(found) == {stage: "failed"} and not found.good
    assert found.stages[0].reproduce == f"goldsmith {command}"
    assert error.message in found.stages[0].said


def test_a_denial_is_a_stage_with_the_command_that_asks_the_policy_again(world: World) -> None:
    hands = Hands()
    hands.broken["scan"] = ToolError("no database", hint="get one")
    found = tried(world, hands, options=" --policy strict")
    judged = found.stages[-1]
    assert (judged.name, judged.outcome) == ("judge", Outcome.FAILED)
    assert judged.said == ("not met, see below: evidence-complete",)
    assert judged.reproduce == "goldsmith try python:1 --policy strict"
    assert found.stages[4].reproduce == "goldsmith try python:1 --policy strict --only scan"


def test_what_was_not_done_is_told_once(world: World) -> None:
    """A scan that was not done gives no SBOMs either."""
    hands = Hands()
    hands.broken["scan"] = ToolError("no database", hint="get one")
    verdict = tried(world, hands).verdict
    assert verdict is not None
    (rule,) = verdict.failed
    assert len(rule.failures) == 1 and "no database" in rule.failures[0]


def test_remarks_of_the_linter_are_listed(world: World) -> None:
    hands = Hands()
    hands.remarks = (LintFinding("DL4000", 17, "MAINTAINER is deprecated", "error"),)
    stage = tried(world, hands).stages[5]
    assert (stage.name, stage.said) == (
        "lint",
        ("linux/amd64: line 17: DL4000 (error) MAINTAINER is deprecated",),
    )


def test_one_stage_alone_gives_no_verdict(world: World) -> None:
    hands = Hands()
    found = tried(world, hands, only=frozenset({"lint"}))
    assert hands.asked == ["lint"]
    assert outcomes(found) == dict.fromkeys(("lock", "render", "build", "lint"), "passed")
    assert found.verdict is None and found.good


def test_no_evidence_at_all_is_no_pass() -> None:
    assert trial._stage("check", (), "again").outcome is Outcome.NOT_RUN


def test_what_is_not_done_is_a_type_and_no_report(world: World) -> None:
    forgiving = trial._Forgiving(Hands(), frozenset({"check"}))
    assert forgiving.lint("context") == NotDone("lint", "not asked for")


def test_an_unknown_stage_is_a_mistake_of_the_command_line(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GOLDSMITH_CATALOGUE", str(world.catalogue.root))
    monkeypatch.setenv("GOLDSMITH_STATE", str(world.store.root))
    assert run(["try", "python:1", "--only", "sign"]) == 2
    assert "check, scan or lint" in capsys.readouterr().err
    assert run(["try", "pythom"]) == 2
    assert "did you mean" in capsys.readouterr().err


def test_the_plain_data_says_what_the_lines_say(world: World) -> None:
    data = tried(world, Hands()).as_dict()
    assert data["good"] is True and data["approved"] is True
    assert Digest(data["digest"]) and data["stages"][0]["name"] == "lock"


def test_mistakes_of_the_catalogue_name_the_command_that_tells_them_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write(tmp_path, image("one", streams={"1": stream(suite="trixy")}))
    monkeypatch.setenv("GOLDSMITH_CATALOGUE", str(root))
    assert run(["try", "one"]) == 1
    said = capsys.readouterr().err
    assert "images/one/image.yaml: streams.1.suite" in said
    assert "again: goldsmith lint" in said
