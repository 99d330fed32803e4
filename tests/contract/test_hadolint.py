"""hadolint: the real one says what is wrong; one that misbehaves is not believed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from builder.errors import ToolError
from builder.tools import hadolint
from tests.support.programs import program

ENVIRONMENT = {"PATH": "/usr/bin:/bin"}
GOOD = b'FROM scratch\nCOPY a /a\nENTRYPOINT ["/a"]\n'


def fake(tmp_path: Path, body: str) -> hadolint.Hadolint:
    version = 'if "--version" in sys.argv: print("Haskell Dockerfile Linter 2.15.1"); sys.exit()\n'
    return hadolint.locate(str(program(tmp_path / "hadolint", version + body)), ENVIRONMENT)


@pytest.mark.integration
def test_the_real_one_finds_what_is_wrong() -> None:
    linter = hadolint.locate(None, os.environ)
    assert linter.version == "2.15.1"
    assert linter.lint(GOOD).findings == ()
    found = linter.lint(b"FROM debian:13\nRUN cd /tmp && sudo ls\nMAINTAINER x\n").findings
    assert {("DL3004", 2, "error"), ("DL4000", 3, "error")} <= {(f.code, f.line, f.level) for f in found}
    assert [f.code for f in linter.lint(b"FROM\n").findings] == ["DL1000"]


def test_only_a_dev_image_may_end_as_root() -> None:
    linter = hadolint.locate(None, os.environ)
    root = b"FROM scratch\nUSER 0:0\n"
    assert [f.code for f in linter.lint(root).findings] == ["DL3002"]
    assert linter.lint(root, variant="dev").findings == ()


@pytest.mark.integration
def test_nothing_in_the_surroundings_silences_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".hadolint.yaml").write_text("ignored: [DL3004]\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HADOLINT_IGNORE", "DL3004")
    monkeypatch.setenv("HOME", str(tmp_path))
    dockerfile = b"FROM debian:13\n# hadolint ignore=DL3004\nRUN sudo ls\n"
    assert "DL3004" in {f.code for f in hadolint.locate(None, os.environ).lint(dockerfile).findings}


@pytest.mark.parametrize(
    "output",
    [
        "",
        "[",
        "{}",
        '[{"line": 1}]',
        '[{"line": "1", "level": "error"}]',
        '[{"line": 1, "level": "fine", "code": "x"}]',
        "[" * 100_000,
    ],
)
def test_an_unreadable_answer_is_refused(tmp_path: Path, output: str) -> None:
    with pytest.raises(ToolError, match="cannot be read"):
        fake(tmp_path, f"sys.stdout.write({output!r})").lint(GOOD)


def test_a_failure_is_not_a_clean_bill(tmp_path: Path) -> None:
    with pytest.raises(ToolError, match="exit code 3"):
        fake(tmp_path, "print('[]'); sys.exit(3)").lint(GOOD)


def test_one_that_hangs_is_stopped(tmp_path: Path) -> None:
    with pytest.raises(ToolError, match="did not end within"):
        fake(tmp_path, "time.sleep(60)").lint(GOOD, seconds_max=0.5)


def test_hostile_text_is_made_harmless(tmp_path: Path) -> None:
    row = '[{"line": 1, "level": "error", "code": "X\\u001b[31m", "message": "' + "a" * 999 + '"}]'
    (found,) = fake(tmp_path, f"print({row!r})").lint(GOOD).findings
    assert "\x1b" not in found.code
    assert len(found.message) == 300


def test_a_program_without_a_version_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ToolError, match="does not say its version"):
        hadolint.locate(str(program(tmp_path / "hadolint", "print('hello')")), ENVIRONMENT)
    with pytest.raises(ToolError, match="not installed"):
        hadolint.locate(str(tmp_path / "none"), ENVIRONMENT)
