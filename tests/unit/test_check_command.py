"""`goldsmith check`: exit codes, forms of the result, fixing, and the exported catalogue."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path

import pytest

from builder.cli import main as command_line
from registry.devcheck.known_file import encode
from tests.support.evidence import new_keys
from tests.support.known import known, pinned


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of a developer: the public keys, the exported catalogue, and a Dockerfile."""
    keys = new_keys(tmp_path / "keys")
    now = dt.datetime.now(dt.UTC).replace(microsecond=0)
    fresh = known().model_copy(update={"exported": now, "valid_until": now + dt.timedelta(days=1)})
    (tmp_path / "catalogue.json").write_bytes(encode(fresh, keys.verdict))
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "Dockerfile").write_text("FROM python:3.13\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GOLDSMITH_STATE", str(tmp_path / "state"))
    monkeypatch.delenv("GOLDSMITH_CATALOGUE", raising=False)
    return tmp_path


def run(*arguments: str) -> int:
    return command_line.run(["check", *arguments, "--catalogue", "catalogue.json", "--trust", "keys"])


def test_findings_end_with_4_and_a_fix_makes_it_0(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("src") == 4
    assert f"write instead: {pinned('python:3.13')}" in capsys.readouterr().out
    assert run("src", "--fix", "--diff") == 4
    assert f"+FROM {pinned('python:3.13')}" in capsys.readouterr().out
    assert (place / "src" / "Dockerfile").read_text() == "FROM python:3.13\n"
    assert run("src", "--fix") == 0
    assert "fixed: src/Dockerfile" in capsys.readouterr().out
    assert (place / "src" / "Dockerfile").read_text() == f"FROM {pinned('python:3.13')}\n"
    assert run("src") == 0


def test_what_cannot_be_read_ends_with_1(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "src" / "Dockerfile").write_text("nothing\n")
    assert run("src") == 1
    assert "not readable" in capsys.readouterr().out
    assert run("gone") == 1
    (place / "src" / "x.Dockerfile").write_text("FROM nginx\n")
    assert run("src") == 4


def test_machines_get_one_document(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("src", "--json") == 4
    (finding,) = json.loads(capsys.readouterr().out)["findings"]
    assert finding["instead"] == pinned("python:3.13")
    assert run("src", "--sarif") == 4
    assert json.loads(capsys.readouterr().out)["version"] == "2.1.0"
    assert run("src", "--fix", "--diff", "--json") == 4
    assert json.loads(capsys.readouterr().out)["fixed"] == []


def test_a_changed_catalogue_is_refused(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = json.loads((place / "catalogue.json").read_text())
    data["payload"] = "e30="
    (place / "catalogue.json").write_text(json.dumps(data))
    assert run("src") == 1
    assert "the catalogue is refused" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [("src", "--diff"), ("src", "--json", "--sarif"), ()])
def test_wrong_usage_ends_with_2(place: Path, arguments: tuple[str, ...]) -> None:
    assert run(*arguments) == 2


def test_another_mirror_can_be_named(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("src", "--mirror", "other.example") == 4
    assert "other.example/candidate/python:3.13@sha256:" in capsys.readouterr().out
