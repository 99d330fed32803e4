"""`goldsmith lock` from end to end: real apt, a signed archive on loopback, real files."""

from __future__ import annotations

import datetime as dt
import json
import re
from pathlib import Path
from typing import Any

import pytest

from builder.cli.main import run
from builder.model.lock import ImageLock
from builder.store import Store
from tests.support import requires
from tests.support.archive import Archive
from tests.support.catalogue import image, stream, write
from tests.support.disk import full_disk
from tests.support.openpgp import SigningKey

NOW = dt.datetime.now(dt.UTC).replace(microsecond=0)


class Place:
    """A catalogue, an archive and a state directory, and the command line over them."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.archive = Archive(folder / "archive", NOW)
        self.archive.add("libc", "2.41-1")
        self.archive.add("certificates", architecture="all", depends="libc, setup")
        self.archive.add("setup", architecture="all")
        self.archive.add("app", "3.0-1", depends="libapp, certificates")
        self.archive.add("libapp", "3.0-1", source="app", depends="libc")
        self.archive.publish()
        self.catalogue = write(
            folder / "catalogue",
            image("base", streams={"1": stream("certificates", omit=["setup"])}),
            image("app", **{"from": "base", "streams": {"3": stream("app")}}),
            builder={"schema": 1, "suite": "trixie", "packages": ["setup", "libc"]},
        )
        self.state = folder / "state"
        self._capsys = capsys

    def goldsmith(self, *arguments: str) -> tuple[int, Any]:
        """Exit code and JSON of a command."""
        self._capsys.readouterr()
        code = run([*arguments, "--json"])
        return code, json.loads(self._capsys.readouterr().out)

    def locks(self) -> dict[str, bytes]:
        """Every lock's bytes, by path."""
        return {
            path.relative_to(self.catalogue).as_posix(): path.read_bytes()
            for path in sorted(self.catalogue.rglob("*.lock"))
        }


@pytest.fixture
def place(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Place:
    requires.tool("apt-get")
    made = Place(tmp_path, capsys)
    monkeypatch.setenv("GOLDSMITH_CATALOGUE", str(made.catalogue))
    monkeypatch.setenv("GOLDSMITH_STATE", str(made.state))
    monkeypatch.setenv("GOLDSMITH_DEBIAN_MIRROR", made.archive.address)
    monkeypatch.setenv("GOLDSMITH_DEBIAN_KEYRING", str(made.archive.keyring))
    return made


def packages(data: bytes) -> list[str]:
    (section,) = ImageLock.parse(data.decode()).sections
    return [f"{p.name} {p.version}" for p in section.packages]


def test_lock_change_check_lock(place: Place) -> None:
    code, first = place.goldsmith("lock")
    assert code == 0
    assert first["written"] == ["images/base/image.lock", "images/app/image.lock", "templates/builder.lock"]
    locked = place.locks()
    assert {name: packages(data) for name, data in locked.items()} == {
        "images/app/image.lock": ["app 3.0-1", "libapp 3.0-1"],
        "images/base/image.lock": ["certificates 1.0-1", "libc 2.41-1"],
        "templates/builder.lock": ["libc 2.41-1", "setup 1.0-1"],
    }
    assert str(place.archive.root).encode() not in b"".join(locked.values())

    assert place.goldsmith("lock") == (0, {"stale": False, "written": [], "differences": []})
    assert place.goldsmith("lock", "--check")[0] == 0

    place.archive.add("libapp", "3.0-1+deb13u1", pocket="security", source="app", depends="libc")
    place.archive.publish()
    code, checked = place.goldsmith("lock", "--check")
    assert (code, checked["stale"], checked["written"]) == (1, True, [])
    (difference,) = checked["differences"]
    assert difference["file"] == "images/app/image.lock"
    assert difference["changed"] == [{"name": "libapp", "old": "3.0-1", "new": "3.0-1+deb13u1"}]
    assert place.locks() == locked, "--check changes nothing"

    assert place.goldsmith("lock", "app")[1]["written"] == ["images/app/image.lock"]
    assert place.goldsmith("lock", "--check")[0] == 0


def test_people_see_the_difference(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    place.goldsmith("lock")
    place.archive.add("libc", "2.41-2", pocket="updates")
    place.archive.publish()
    assert run(["lock", "--check"]) == 1
    said = capsys.readouterr().out
    assert "images/base/image.lock [1 runtime linux/amd64]" in said
    assert "~ libc 2.41-1 -> 2.41-2" in said


def test_people_see_that_a_file_was_exchanged_under_its_version(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    place.goldsmith("lock")
    path = place.catalogue / "images/base/image.lock"
    path.write_text(re.sub(r"(package libc .*?)[0-9a-f]{64}", r"\g<1>" + "b" * 64, path.read_text()))
    capsys.readouterr()
    assert run(["lock", "--check"]) == 1
    assert "~ libc 2.41-1: another file" in capsys.readouterr().out


def test_a_check_without_a_lock_is_stale(place: Place) -> None:
    code, checked = place.goldsmith("lock", "--check")
    assert code == 1
    assert {d["reasons"][0] for d in checked["differences"]} == {"not locked yet"}
    assert place.locks() == {}


def test_an_edited_lock_is_stale(place: Place) -> None:
    place.goldsmith("lock")
    path = place.catalogue / "images/base/image.lock"
    path.write_text(path.read_text().replace("libc 2.41-1", "libc 2.40-1"))
    assert place.goldsmith("lock", "--check")[0] == 1


def test_one_unknown_package_changes_no_lock(place: Place) -> None:
    place.goldsmith("lock")
    before = place.locks()
    path = place.catalogue / "images/app/image.yaml"
    path.write_text(path.read_text().replace("- app", "- ap"))
    place.archive.add("libc", "2.41-2")
    place.archive.publish()
    code, said = place.goldsmith("lock")
    assert (code, said["error"]) == (1, "definition-error")
    (problem,) = said["problems"]
    assert (problem["file"], problem["path"]) == ("images/app/image.yaml", "streams.3.packages.0")
    assert problem["message"] == "trixie has no package ap for linux/amd64"
    assert problem["hint"]
    assert place.locks() == before


@pytest.mark.parametrize("fault", ["key", "expired", "truncated", "down"])
def test_an_archive_that_cannot_be_trusted_changes_no_lock(
    place: Place, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.goldsmith("lock")
    before = place.locks()
    if fault == "key":
        place.archive.publish(key=SigningKey(NOW))
    elif fault == "expired":
        place.archive.publish(dated=NOW - dt.timedelta(days=30))
    elif fault == "truncated":
        place.archive.add("libc", "2.41-2")
        place.archive.publish()
        index = place.archive.index()
        index.write_bytes(index.read_bytes()[:-20])
    else:
        monkeypatch.setenv("GOLDSMITH_DEBIAN_MIRROR", place.archive.at(f"file:{place.state}/nothing"))
    code, said = place.goldsmith("lock")
    assert (code, said["error"]) == (1, "lock-error")
    assert "trixie" in said["message"]
    assert place.locks() == before


def test_a_full_disk_changes_no_lock(place: Place) -> None:
    place.goldsmith("lock")
    before = place.locks()
    for number in range(100):
        place.archive.add(f"filler{number}")
    place.archive.publish()
    with full_disk(8192):
        code, said = place.goldsmith("lock")
    assert code in (1, 5)
    assert said["hint"]
    assert place.locks() == before
    assert place.goldsmith("lock", "--check")[0] == 0, "the next run completes"


def test_a_second_run_is_told_to_wait(place: Place) -> None:
    with Store(place.state).exclusive("another run"):
        code, said = place.goldsmith("lock")
    assert (code, said["error"]) == (1, "state-busy")
    assert place.locks() == {}


def test_the_catalogue_is_listed(place: Place) -> None:
    code, said = place.goldsmith("images")
    assert code == 0
    assert [(i["ref"], i["from"], i["suite"]) for i in said["images"]] == [
        ("base:1", None, "trixie"),
        ("app:3", "base:1", "trixie"),
    ]


def test_mistakes_are_listed_for_machines(place: Place) -> None:
    path = place.catalogue / "images/app/image.yaml"
    path.write_text(path.read_text() + "tittle: x\ncolour: y\n")
    code, said = place.goldsmith("images")
    assert code == 1
    assert {(p["path"], p["file"]) for p in said["problems"]} == {
        ("tittle", "images/app/image.yaml"),
        ("colour", "images/app/image.yaml"),
    }


def test_schemas_are_written(place: Place, tmp_path: Path) -> None:
    code, said = place.goldsmith("schema", "--output", str(tmp_path / "schemas"))
    assert code == 0
    assert sorted(Path(p).name for p in said["written"]) == [
        "access.schema.json",
        "builder.schema.json",
        "check.schema.json",
        "checks.schema.json",
        "image.schema.json",
        "roles.schema.json",
        "waivers.schema.json",
    ]
    assert json.loads((tmp_path / "schemas/image.schema.json").read_text())["additionalProperties"] is False


def test_lint_finds_stale_locks_and_what_hadolint_says(place: Place) -> None:
    place.goldsmith("lock")
    partials = place.catalogue / "templates" / "_partials"
    partials.mkdir(exist_ok=True)
    (partials / "assemble.sh.j2").write_text("#!/bin/sh\n")
    template = place.catalogue / "templates" / "debian-runtime.Dockerfile.j2"
    template.write_text("FROM scratch\nUSER 65532:65532\n")
    assert place.goldsmith("lint")[0] == 0
    template.write_text("FROM scratch\nRUN cd /tmp && sudo true\n")
    code, said = place.goldsmith("lint")
    assert code == 1
    assert any("DL3004" in p["message"] for p in said["problems"])
    path = place.catalogue / "images/app/image.yaml"
    path.write_text(path.read_text().replace("- app", "- libapp"))
    assert any(p["file"] == "images/app/image.lock" for p in place.goldsmith("lint")[1]["problems"])
