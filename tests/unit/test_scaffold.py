"""`goldsmith new`: a complete folder after any image of the catalogue; what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from builder import scaffold
from builder.cli.main import run
from builder.errors import DefinitionError, UsageError
from builder.stages.define import load_catalogue
from builder.tools.strict_yaml import parse
from tests.support.catalogue import image, write

ROOT = Path(__file__).parents[2]
SOUND = load_catalogue(ROOT)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A catalogue of two, without a lock, and an archive that cannot be reached."""
    root = write(tmp_path / "catalogue", image("base"), image("app", **{"from": "base"}))
    monkeypatch.setenv("GOLDSMITH_CATALOGUE", str(root))
    monkeypatch.setenv("GOLDSMITH_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("GOLDSMITH_DEBIAN_MIRROR", "http://127.0.0.1:9/debian")
    return root


def answer(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, Any]:
    code = run([*arguments, "--json"])
    return code, json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("model", sorted(SOUND.definitions))
def test_every_image_of_the_catalogue_can_serve_as_a_model(model: str) -> None:
    wish = scaffold.Wish("mine", model, "Ünïcode: team", "yes")
    files = scaffold.scaffold(SOUND, wish)
    made, old = (parse(d) for d in (files["image.yaml"], (ROOT / f"images/{model}/image.yaml").read_bytes()))
    assert made == {**old, "name": "mine", "owner": "Ünïcode: team", "title": "yes"}
    assert parse(files["checks.yaml"]) == parse((ROOT / f"images/{model}/checks.yaml").read_bytes())
    assert set(SOUND.files.get(model, {})) < set(files)
    assert scaffold.lacking(SOUND.checks[model]) == ()


def test_comments_are_kept_and_comments_that_help_are_added_once() -> None:
    first = scaffold.scaffold(SOUND, scaffold.Wish("mine", "python", "team"))
    text = first["image.yaml"].decode()
    assert "# Line editing, full-screen terminals" in text
    assert text.count("# Who answers for it.\n") == 1
    assert "FROM" in text and "goldsmith lock" in text
    assert scaffold._definition(text, {"owner": "team"}) == text
    assert scaffold.TO_FILL_IN in first["README.md"].decode()


def test_a_lock_that_holds_is_taken_over_and_the_catalogue_is_sound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import shutil

    for folder in ("images", "templates"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    monkeypatch.setenv("GOLDSMITH_CATALOGUE", str(tmp_path))
    monkeypatch.setenv("GOLDSMITH_DEBIAN_MIRROR", "http://127.0.0.1:9/debian")
    code, said = answer(capsys, "new", "web", "--like", "php", "--owner", "web-team")
    assert code == 0 and said["locked"] is True
    assert {"image.yaml", "image.lock", "checks.yaml", "README.md", "files/container.ini"} <= set(
        said["written"]
    )
    assert run(["lint"]) == 0
    assert load_catalogue(tmp_path).definitions["web"].owner == "web-team"
    assert (tmp_path / "images/web").stat().st_mode & 0o777 == 0o755


def test_without_a_lock_and_an_archive_it_says_what_is_to_do(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, said = answer(capsys, "new", "mine", "--like", "app", "--owner", "team")
    assert code == 0 and said["locked"] is False
    assert any(note.startswith("goldsmith lock mine") for note in said["to_do"])
    assert any("must fail" in note for note in said["to_do"])  # the model has no such check
    assert sorted(p.name for p in (place / "images/mine").iterdir()) == [
        "README.md",
        "checks.yaml",
        "image.yaml",
    ]


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        (("app", "--like", "base"), "images/app is there already", "another name"),
        (("Big_One", "--like", "base"), "no image can be called", "lower-case"),
        (("../out", "--like", "base"), "no image can be called", "lower-case"),
        (("mine", "--like", "bass"), "to take after", "did you mean base?"),
        (("mine", "--like", "zzz"), "to take after", "there are: app, base"),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_is_written(
    place: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str, hint: str
) -> None:
    code, said = answer(capsys, "new", *arguments, "--owner", "team")
    assert code == 2 and message in said["message"] and hint in said["hint"]
    assert sorted(p.name for p in (place / "images").iterdir()) == ["app", "base"]


def test_an_owner_comes_from_git_or_is_asked_for(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    code, said = answer(capsys, "new", "mine", "--like", "base")
    assert code == 2 and "--owner" in said["hint"]
    (tmp_path / ".gitconfig").write_text("[user]\n\tname = Ada\n")
    assert answer(capsys, "new", "mine", "--like", "base")[0] == 0
    assert load_catalogue(place).definitions["mine"].owner == "Ada"


def test_a_folder_that_came_meanwhile_is_not_touched(place: Path) -> None:
    (place / "images/mine").mkdir()
    with pytest.raises(UsageError, match="there already"):
        scaffold.write_folder(place / "images", "mine", {"image.yaml": b"x"})
    assert sorted(p.name for p in (place / "images").iterdir()) == ["app", "base", "mine"]
    assert list((place / "images/mine").iterdir()) == []


def test_a_model_whose_text_cannot_be_followed_is_refused(place: Path) -> None:
    path = place / "images/app/image.yaml"
    path.write_text(json.dumps(parse(path.read_bytes())))  # sound, but one line
    with pytest.raises(DefinitionError) as caught:
        scaffold.scaffold(load_catalogue(place), scaffold.Wish("mine", "app", "team"))
    assert caught.value.problems[0].file == "images/app/image.yaml"
