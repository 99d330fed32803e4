"""A verdict in words."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from pathlib import Path

from builder.model.verdict import RuleResult, Verdict
from builder.policy.explain import explain
from builder.policy.rule import NOT_JUDGED
from tests.support.evidence import DATABASE
from tests.support.images import NOW, built_image, verdict


def denied(tmp_path: Path, *rules: RuleResult) -> Verdict:
    return replace(verdict(built_image(tmp_path)), approved=False, database=DATABASE, rules=rules)


def test_a_denial_names_each_reason_and_its_solution(tmp_path: Path) -> None:
    lines = explain(
        denied(
            tmp_path,
            RuleResult("secrets", "No secrets", ("1 found: aws in /key",), "take it out"),
            RuleResult("licences", "No denied licence", (), "leave it out"),
        )
    )
    assert lines[1] == "denied by the policy baseline since 2026-03-01 12:00 UTC"
    assert "  1 found: aws in /key" in lines
    assert "  what to do: take it out" in lines
    assert lines[-1] == "passed: licences"


def test_an_approval_says_how_long_it_holds_and_when_it_has_ended(tmp_path: Path) -> None:
    given = verdict(built_image(tmp_path))
    assert explain(given)[1].endswith("since 2026-03-01 12:00 UTC, valid until 2026-03-08 12:00 UTC")
    assert "EXPIRED since 2026-03-08 12:00 UTC" in explain(given, NOW + dt.timedelta(days=7))[1]
    assert "EXPIRED" not in explain(given, NOW + dt.timedelta(days=6, hours=23))[1]


def test_what_could_not_be_judged_is_told_once(tmp_path: Path) -> None:
    blind = [RuleResult(f"rule-{n}", "A rule", (f"{NOT_JUDGED} scan for x",), "scan") for n in range(3)]
    lines = explain(denied(tmp_path, *blind))
    assert sum("what to do" in line for line in lines) == 0
    assert lines[-3:] == [f"  rule-{n}: {NOT_JUDGED} scan for x" for n in range(3)]


def test_a_sample_database_is_told_loudly(tmp_path: Path) -> None:
    given = replace(denied(tmp_path), database=replace(DATABASE, sample=True))
    assert any("SAMPLE" in line for line in explain(given))


def test_many_failures_are_cut(tmp_path: Path) -> None:
    lines = explain(denied(tmp_path, RuleResult("r", "R", tuple(map(str, range(50))), "less")))
    assert "  and 42 more" in lines
