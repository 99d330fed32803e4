"""Policies are strict files: every mistake is told, none is guessed away."""

from __future__ import annotations

from pathlib import Path

import pytest

from builder.errors import DefinitionError, UsageError
from builder.stages.judge import find_policy, load_policy

BASELINE = Path(__file__).parents[2] / "registry" / "policies" / "baseline.yaml"


def mistakes(tmp_path: Path, text: str) -> dict[str, str]:
    path = tmp_path / "p.yaml"
    path.write_text(text)
    with pytest.raises(DefinitionError) as refused:
        load_policy(path)
    return {p.path: p.message for p in refused.value.problems}


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    text = BASELINE.read_text()
    text = text.replace("verdict_days_valid: 7", "verdict_days_valid: 0").replace(
        "level: warning", "level: w"
    )
    text = text.replace("secrets_max: 0", 'secrets_max: "0"').replace("sample: refuse", "sample: maybe")
    text = text.replace("critical: 0, high: 0", "critical: -1, hihg: 0") + "more: 1\n"
    assert set(mistakes(tmp_path, text)) == {
        "verdict_days_valid",
        "lint.level",
        "secrets_max",
        "database.sample",
        "vulnerabilities.fixable.critical",
        "vulnerabilities.fixable.high",
        "vulnerabilities.fixable.hihg",
        "more",
    }


@pytest.mark.parametrize(
    "text",
    ["", "[]", "schema: 1\nschema: 1\n", "a: &x 1\nb: *x\n", "\x00", "schema: {{\n", ".inf", "a: .nan"],
)
def test_other_documents_are_refused(tmp_path: Path, text: str) -> None:
    assert mistakes(tmp_path, text)


def test_no_threshold_has_a_default(tmp_path: Path) -> None:
    lines = BASELINE.read_text().splitlines()
    for number, line in enumerate(lines):
        if ":" in line and not line.lstrip().startswith("#") and not line.endswith(":"):
            assert mistakes(tmp_path, "\n".join(lines[:number] + lines[number + 1 :])), line


def test_a_changed_text_is_another_policy(tmp_path: Path) -> None:
    other = tmp_path / "baseline.yaml"
    other.write_text(BASELINE.read_text() + "# note\n")
    assert load_policy(other).digest != load_policy(BASELINE).digest


def test_the_first_folder_wins_and_names_must_agree(tmp_path: Path) -> None:
    mine = tmp_path / "baseline.yaml"
    mine.write_text(BASELINE.read_text().replace("secrets_max: 0", "secrets_max: 3"))
    assert find_policy("baseline", [tmp_path, BASELINE.parent]).data.secrets_max == 3
    assert find_policy("demo", [tmp_path, BASELINE.parent]).name == "demo"
    (tmp_path / "mine.yaml").write_text(BASELINE.read_text())
    with pytest.raises(UsageError, match="calls itself"):
        find_policy("mine", [tmp_path])


@pytest.mark.parametrize("name", ["absent", "../baseline", "", "/etc/passwd"])
def test_an_unknown_policy_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError) as refused:
        find_policy(name, [tmp_path, BASELINE.parent])
    assert refused.value.context == "known: baseline, demo, import"


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no policy at"):
        load_policy(tmp_path / "none.yaml")


def test_a_day_for_a_rule_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(
        BASELINE.read_text().replace("name: baseline", "name: mine")
        + "effective: {no-such-rule: 2027-01-01}\n"
    )
    with pytest.raises(DefinitionError) as refused:
        load_policy(file)
    assert "no such rule" in refused.value.problems[0].message
    assert "secrets" in refused.value.problems[0].hint
