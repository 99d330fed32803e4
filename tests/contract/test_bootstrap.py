"""The set-up script, on machines that lack something; nothing is installed here."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
_NEEDED = (
    "sh",
    "dirname",
    "sed",
    "head",
    "sort",
    "tr",
    "sha256sum",
    "cat",
    "cut",
    "mkdir",
    "id",
    "tail",
    "grep",
    "env",
    "rm",
)


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A checkout and a PATH with the standard tools only."""
    checkout = tmp_path / "checkout"
    (checkout / ".ci").mkdir(parents=True)
    script = (ROOT / ".ci" / "bootstrap").read_text()
    # The folders of administrators are added by the script; here they must not be.
    script = script.replace("PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin", "PATH=$PATH")
    (checkout / ".ci" / "bootstrap").write_text(script)
    for name in ("requirements.lock", "pyproject.toml"):
        (checkout / name).write_text("")
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in _NEEDED:
        found = shutil.which(name, path="/usr/bin:/bin")
        assert found
        (programs / name).symlink_to(found)
    return checkout


def _program(machine: Path, name: str, text: str) -> None:
    path = machine.parent / "bin" / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def _run(machine: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": str(machine.parent / "bin"), "HOME": str(machine.parent), **more}
    return subprocess.run(
        ["/bin/sh", machine / ".ci" / "bootstrap", *arguments],
        env=environment, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, timeout=60,
    )  # fmt: skip


def _packages(machine: Path, **more: str) -> set[str]:
    done = _run(machine, "--list", **more)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_missing_packages_are_named(machine: Path) -> None:
    assert {"docker.io", "docker-registry", "gnupg"} <= _packages(machine)


def test_what_is_there_from_elsewhere_is_not_installed_again(machine: Path) -> None:
    for name in ("dockerd", "docker", "docker-registry", "gpg"):
        _program(machine, name, "exit 0")
    assert _packages(machine) & {"docker.io", "docker-cli", "docker-registry", "gnupg"} == set()


# What brings a program that tests ask for by `tool("…")`: an essential package, or one of the set-up.
_BROUGHT_BY = {
    "apt-get": "apt",
    "containerd": "docker.io",
    "ctr": "docker.io",
    "docker": "docker-cli",
    "dockerd": "docker.io",
    "docker-registry": "docker-registry",
    "dpkg-deb": "dpkg",
    "git": "git",
    "setpriv": "util-linux",
    "skopeo": "skopeo",
    "systemd-analyze": "systemd",
    "unshare": "util-linux",
}


def test_continuous_integration_gets_every_program_that_a_test_asks_for(machine: Path) -> None:
    asked = {
        name
        for path in (ROOT / "tests").rglob("*.py")
        for name in re.findall(r'\btool\("([a-z-]+)"\)', path.read_text())
    }
    assert asked <= set(_BROUGHT_BY)
    there = {"apt", "dpkg", "util-linux"}
    # Debian 12 has Docker's client in docker.io.
    installed = {{"docker-cli": "docker.io"}.get(p, p) for p in _packages(machine, CI="true")}
    needed = {{"docker-cli": "docker.io"}.get(_BROUGHT_BY[name], _BROUGHT_BY[name]) for name in asked}
    assert needed - there <= installed


def test_what_only_tests_call_is_not_installed_for_whoever_wants_to_build(machine: Path) -> None:
    assert _packages(machine) & {"git", "skopeo", "systemd"} == set()
    for name in ("git", "skopeo", "systemd-analyze"):
        _program(machine, name, "exit 0")
    assert _packages(machine, CI="true") & {"git", "skopeo", "systemd"} == set()


def test_without_apt_the_packages_are_named(machine: Path) -> None:
    done = _run(machine)
    assert done.returncode == 1
    assert "docker-registry" in done.stderr and "no apt-get" in done.stderr


def test_a_user_without_sudo_gets_the_command(machine: Path) -> None:
    _program(machine, "apt-get", "exit 1")
    (machine.parent / "bin" / "id").unlink()
    _program(machine, "id", "echo 1000")
    done = _run(machine)
    assert done.returncode == 1
    assert "as root: apt-get install --no-install-recommends" in done.stderr


def test_the_lists_are_read_only_when_a_package_is_unknown_and_a_failure_shows_the_log(machine: Path) -> None:
    (machine.parent / "bin" / "id").unlink()
    _program(machine, "id", "echo 0")
    calls = machine.parent / "calls"
    _program(machine, "apt-get", f'echo "$*" >>{calls}; echo "E: no space left"; [ "$1" = update ]')
    _program(machine, "apt-cache", "exit 0")
    done = _run(machine)
    assert done.returncode == 1
    assert "no space left" in done.stderr
    order = [line.split()[0] for line in calls.read_text().splitlines()]
    assert order == ["install", "update", "install"]
    assert "--no-install-recommends" in calls.read_text()
