"""What doctor says of machines that lack something: which thing, and the command that installs it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from builder.cli import doctor, main
from builder.settings import Settings
from builder.signing.keys import ROLES
from builder.tools import docker_engine


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setattr(docker_engine, "_SYSTEM_SOCKET", f"unix://{tmp_path}/none.sock")
    for folder in ("images", "templates", "bin"):
        (tmp_path / folder).mkdir()
    environment = {
        "GOLDSMITH_CATALOGUE": str(tmp_path),
        "GOLDSMITH_DEBIAN_MIRROR": "http://mirror.test/debian",
    }
    loaded = Settings.load(environment)
    return replace(loaded, child_environment={"PATH": str(tmp_path / "bin")})


def _program(settings: Settings, name: str, text: str) -> None:
    path = Path(settings.child_environment["PATH"]) / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def _items(settings: Settings) -> dict[str, doctor.Item]:
    return {item.name: item for item in doctor.examine(settings)}


def test_what_is_missing_comes_with_the_command_that_installs_it(settings: Settings) -> None:
    items = _items(settings)
    for name in ("apt-get", "docker-registry"):
        assert not items[name].ok and items[name].needed
        assert "apt-get install" in items[name].install
    assert "docker.io" in items["container engine"].install


def test_versions_are_shown(settings: Settings) -> None:
    _program(settings, "docker-registry", 'echo "registry github.com/docker/distribution 2.8.3+ds1"')
    _program(settings, "apt-get", "echo 'apt 3.0.3 (amd64)'; exit 0")
    items = _items(settings)
    assert items["docker-registry"].found.startswith("2.8.3+ds1 at ")
    assert items["apt-get"].found.startswith("3.0.3 at ")


def test_a_program_that_fails_to_say_its_version_is_still_there(settings: Settings) -> None:
    _program(settings, "docker-registry", "printf '\\377\\033[31m'; exit 3")
    assert _items(settings)["docker-registry"].ok


def test_an_engine_that_can_be_started_is_enough_and_is_not_started(
    settings: Settings, tmp_path: Path
) -> None:
    _program(settings, "dockerd", f"touch {tmp_path}/started")
    _program(settings, "docker", "exit 1")
    items = _items(settings)
    assert items["container engine"].ok and "goldsmith up" in items["container engine"].found
    assert items["docker client"].ok
    assert not (tmp_path / "started").exists()


def test_a_mirror_that_nobody_knows(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from builder.tools import mirror

    find = mirror.find
    monkeypatch.setattr(mirror, "find", lambda named: find(named, tmp_path / "etc"))
    item = _items(replace(settings, debian_mirror=None))["debian mirror"]
    assert not item.ok
    assert "GOLDSMITH_DEBIAN_MIRROR" in item.install


def test_exit_code_5_and_json(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Settings, "load", classmethod(lambda *_: settings))
    assert main.run(["doctor", "--json"]) == 5
    told = json.loads(capsys.readouterr().out)
    assert told["ok"] is False
    missing = {x["name"]: x["install"] for x in told["items"] if x["needed"] and not x["ok"]}
    assert "docker-registry" in missing
    assert all(missing.values())


def test_exit_code_0_when_everything_needed_is_there(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    item = doctor.Item("x", True, True, "1.0", "tests")
    optional = doctor.Item("y", False, False, "none yet", "tests", "goldsmith init")
    monkeypatch.setattr(Settings, "load", classmethod(lambda *_: settings))
    monkeypatch.setattr(doctor, "examine", lambda _: (item, optional))
    assert main.run(["doctor"]) == 0
    assert "y: goldsmith init" in capsys.readouterr().out


def test_databases_are_counted_and_not_the_records_of_them(settings: Settings) -> None:
    folder = settings.state / "db"
    (folder / ("a" * 64)).mkdir(parents=True)
    (folder / "current-1.json").write_text("{}")
    assert _items(settings)["vulnerability database"].found.startswith("1 kept")


def test_the_keys_that_init_makes_are_all_that_is_asked_for(settings: Settings) -> None:
    """A hint to run `goldsmith init` must not stay after it was run: a witness's key is made elsewhere."""
    keys = settings.state / "keys"
    keys.mkdir(parents=True)
    assert "goldsmith init" in _items(settings)["signing keys"].install
    for role in ROLES:
        (keys / f"{role}.pub").touch()
    item = _items(settings)["signing keys"]
    assert (item.ok, item.install) == (True, "")
    (keys / "witness.pub").touch()
    assert "witness.pub" in _items(settings)["signing keys"].found


def test_a_state_directory_that_takes_nothing_is_a_line_and_not_the_end(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_only(_: object) -> None:
        raise OSError(30, "Read-only file system", str(settings.state / "tmp"))

    monkeypatch.setattr("builder.tools.buildah.locate", read_only)
    items = _items(settings)
    assert not items["buildah"].ok and "Read-only file system" in items["buildah"].found
    assert "state directory" in items
