"""What a user sees when something goes wrong: a sentence, an exit code, never a traceback."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from builder import errors
from builder.cli import main as command_line
from builder.cli.moments import moment
from builder.cli.overview import SECTIONS
from builder.report import plain
from builder.signing.refusal import EvidenceRefused
from tests.support.catalogue import image, write

ROOT = Path(__file__).parents[2]


@pytest.fixture
def catalogue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = write(tmp_path / "catalogue", image("base"))
    monkeypatch.chdir(root)
    monkeypatch.setenv("GOLDSMITH_STATE", str(tmp_path / "state"))
    monkeypatch.delenv("GOLDSMITH_CATALOGUE", raising=False)
    return root


def run(*arguments: str) -> int:
    return command_line.run(list(arguments))


def shell(words: str, directory: Path) -> subprocess.CompletedProcess[str]:
    """A command line with redirections, as a user types it; `goldsmith` is ours."""
    program = f"{shlex.quote(sys.executable)} -m builder"
    return subprocess.run(
        ["bash", "-c", words.replace("goldsmith", program)],
        cwd=directory,
        env={**os.environ, "PYTHONPATH": str(ROOT), "GOLDSMITH_STATE": str(directory / "state")},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_a_mistake_in_the_catalogue_ends_with_1_and_names_the_place(
    catalogue: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (catalogue / "images" / "base" / "image.yaml").write_text("schema: 1\nname: base\npakages: []\n")
    assert run("images") == 1
    said = capsys.readouterr().err
    assert "images/base/image.yaml" in said
    assert "pakages" in said


def test_every_mistake_is_there_as_json_too(catalogue: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (catalogue / "images" / "base" / "image.yaml").write_text("schema: 1\nname: base\npakages: []\n")
    assert run("images", "--json") == 1
    told = json.loads(capsys.readouterr().out)
    assert told["exit_code"] == 1
    assert {p["path"] for p in told["problems"]} >= {"pakages", "title", "streams"}


@pytest.mark.parametrize(
    "arguments", [("build",), ("build", "base", "--engine", "podman"), ("nothing",), ("build", "nothing")]
)
def test_wrong_usage_ends_with_2(
    catalogue: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]
) -> None:
    assert run(*arguments) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_outside_a_catalogue_the_command_says_where_to_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GOLDSMITH_CATALOGUE", raising=False)
    assert run("images") == 2
    assert "GOLDSMITH_CATALOGUE" in capsys.readouterr().err


def test_a_bug_ends_with_3_and_leaves_a_log(
    catalogue: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("our own mistake")

    (tmp_path / "state").mkdir()
    monkeypatch.setattr("builder.stages.define.load_catalogue", broken)
    assert run("images") == 3
    said = capsys.readouterr().err
    assert "Traceback" not in said
    (log,) = (tmp_path / "state").glob("goldsmith-bug-*.log")
    assert str(log) in said
    assert "ZeroDivisionError: our own mistake" in log.read_text()


def test_an_interruption_ends_with_130(
    catalogue: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("builder.stages.define.load_catalogue", interrupted)
    assert run("images") == 130
    assert "Traceback" not in capsys.readouterr().err


def test_exit_codes_are_those_of_the_manual() -> None:
    codes = {
        errors.DefinitionError: 1,
        errors.LockError: 1,
        errors.UsageError: 2,
        errors.PolicyDenied: 4,
        errors.ToolError: 5,
        errors.RegistryError: 6,
        errors.NotReproducible: 7,
    }
    assert {kind: kind.exit_code for kind in codes} == codes


@pytest.mark.parametrize("hostile", ["\x1b[2J\x1b]0;owned\x07", "a\rb", "\x9b31m", "\x00"])
def test_no_escape_sequence_reaches_the_terminal(hostile: str) -> None:
    assert not any(ord(c) < 32 or 127 <= ord(c) < 160 for c in plain(hostile))


def test_an_interrupt_and_a_bug_end_without_a_traceback(
    catalogue: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted() -> int:
        raise KeyboardInterrupt

    def broken() -> int:
        raise RuntimeError("oh")

    (tmp_path / "state").mkdir()
    assert command_line.guarded(interrupted, ["x"]) == 130
    assert command_line.guarded(broken, ["x"]) == 3
    assert "Traceback" not in capsys.readouterr().err
    assert len(list((tmp_path / "state").glob("goldsmith-bug-*.log"))) == 1


def test_each_of_several_mistakes_comes_with_its_suggestion(
    catalogue: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (catalogue / "images" / "base" / "image.yaml").read_text()
    (catalogue / "images" / "base" / "image.yaml").write_text(text.replace("end_of_life", "end_of_lfe"))
    (catalogue / "images" / "base" / "checks.yaml").write_text("schema: [")
    assert run("lint") == 1
    said = capsys.readouterr().err
    assert "end_of_lfe: unknown key (did you mean 'end_of_life'?)" in said
    assert "checks.yaml: line" in said


def test_a_reader_that_leaves_is_no_reason_to_complain(catalogue: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "builder", "schema"],
            cwd=Path(__file__).parents[2],
            stdout=writing,
            stderr=subprocess.PIPE,
            check=False,
        )
    finally:
        os.close(writing)
    assert done.stderr == b""
    assert done.returncode not in (0, 3, 120)


@pytest.mark.parametrize("hostile", ["\u202egnp.exe", "\u2066x", "\udcff", "\u2028error: all is lost"])
def test_nothing_turns_or_breaks_a_line_on_the_terminal(hostile: str) -> None:
    assert plain(hostile).isprintable()


def test_a_reader_that_has_seen_enough_is_no_bug(catalogue: Path) -> None:
    done = shell("goldsmith images --json | true; echo ${PIPESTATUS[0]}", catalogue)
    assert done.stdout.strip() in ("0", "141")  # whether it was still there when we wrote
    assert done.stderr == ""
    # A pipe whose other end is closed already.
    done = shell("mkfifo p; exec 3<>p 4>p 3<&-; goldsmith images --json >&4; echo $?", catalogue)
    assert done.stdout.strip() == "141"
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ("goldsmith images >&-", 0, ""),
        ("goldsmith images >&- 2>&-", 0, ""),
        ("goldsmith images --json >/dev/full", 5, "error: "),
        ("goldsmith images >/dev/full", 5, "error: "),
        ("PYTHONIOENCODING=ascii goldsmith images", 0, ""),
        ("mkdir gone; cd gone; rmdir ../gone; goldsmith images", 2, "error: the working directory is gone"),
        ("goldsmith images $'\\xff'", 2, "error: "),
    ],
)
def test_odd_surroundings_are_no_bug(catalogue: Path, words: str, code: int, said: str) -> None:
    done = shell(words, catalogue)
    assert done.returncode == code
    assert "Traceback" not in done.stderr
    assert said in done.stderr


def test_a_catalogue_may_be_called_as_it_likes(catalogue: Path, tmp_path: Path) -> None:
    """`[/x]` is a closing tag to the library that prints tables."""
    odd = tmp_path / "a[" / "b]"
    odd.parent.mkdir()
    catalogue.rename(odd)
    done = shell("goldsmith images", odd)
    assert (done.returncode, done.stderr) == (0, "")
    assert str(odd) in done.stdout


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--version") == 0
    assert capsys.readouterr().out.startswith("goldsmith ")


@pytest.mark.parametrize("arguments", [("nothing",), ("build",), ("images", "--bogus")])
def test_wrong_usage_is_json_too(arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*arguments, "--json") == 2
    told = json.loads(capsys.readouterr().out)
    assert (told["error"], told["exit_code"]) == ("usage-error", 2)
    assert "--help" in told["hint"]


@pytest.mark.parametrize(
    ("error", "code", "name"),
    [
        (ZeroDivisionError("ours"), 3, "bug"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (PermissionError(13, "Permission denied", "/x"), 5, "system-refused"),
    ],
)
def test_every_end_is_json_too(
    catalogue: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    code: int,
    name: str,
) -> None:
    def broken(*_: object) -> None:
        raise error

    monkeypatch.setattr("builder.stages.define.load_catalogue", broken)
    assert run("images", "--json") == code
    told = json.loads(capsys.readouterr().out)
    assert (told["error"], told["exit_code"]) == (name, code)
    assert run("images") == code
    assert "error: " in capsys.readouterr().err


def test_a_denial_is_called_one(
    catalogue: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(*_: object) -> None:
        raise EvidenceRefused("nothing is signed", reference="unsigned")

    monkeypatch.setattr("builder.stages.define.load_catalogue", refused)
    assert run("images") == 4
    assert capsys.readouterr().err.startswith("denied: nothing is signed")


def test_each_command_is_found_in_the_module_that_is_loaded_for_it() -> None:
    for module, names in command_line.COMMANDS.items():
        assert sorted(command_line.application((module,)).commands) == sorted(names), module


def test_the_help_lists_every_command_once_under_what_it_is_for(capsys: pytest.CaptureFixture[str]) -> None:
    names = [name for names in command_line.COMMANDS.values() for name in names]
    assert sorted(name for names in SECTIONS.values() for name in names) == sorted(names)
    assert run("--help") == 0
    shown = [line.split()[0] for line in capsys.readouterr().out.splitlines() if line.startswith("  ")]
    assert {name for name in names if shown.count(name) != 1} == set()


@pytest.mark.parametrize(
    "text", ["yesterday", "2026-13-01", "9999-12-31T23:59:59-14:00", "0001-01-01T00:00:00+14:00"]
)
def test_what_is_no_moment_is_a_mistake_of_who_asks(text: str) -> None:
    with pytest.raises(errors.UsageError, match="no date or time"):
        moment(text)


def test_a_moment_without_a_zone_is_in_utc() -> None:
    assert moment("") is None
    assert str(moment("2026-03-01")) == "2026-03-01 00:00:00+00:00"
    assert moment("2026-03-01T02:00:00+02:00") == moment("2026-03-01")
