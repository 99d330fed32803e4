"""Which `docker` program is used: the first that really builds, whatever PATH says."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from builder.errors import ToolError
from builder.store import Store
from builder.tools.docker_client import find_combination
from builder.tools.docker_engine import Engine

ENGINE = Engine("unix:///nowhere/docker.sock", "26.1.5", "ID", "system")

# Writes the tar that `--output` names, with the file of the context.
_BUILD = """
for argument; do
    case $argument in --output=type=tar,dest=*) output=${argument#*dest=} ;; esac
    context=$argument
done
cd "$context" && tar -xf marker.tar && tar -cf "$output" marker
"""


def _client(folder: Path, version: str, body: str) -> Path:
    folder.mkdir()
    path = folder / "docker"
    path.write_text(
        f"#!/bin/sh\necho \"$DOCKER_BUILDKIT $*\" >>'{folder}/calls'\n"
        f'if [ "$1" = --version ]; then echo "Docker version {version}, build 0"; exit 0; fi\n{body}'
    )
    path.chmod(0o755)
    return path


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "state").create()


def _find(store: Store, *clients: Path) -> object:
    return find_combination(ENGINE, store, {"PATH": "/usr/bin:/bin"}, clients)


def test_a_client_without_buildkit_is_passed_over(tmp_path: Path, store: Store) -> None:
    useless = _client(tmp_path / "a", "28.2.2", 'echo "unknown flag: --builder" >&2; exit 125')
    good = _client(tmp_path / "b", "26.1.5", f'[ "$1" = buildx ] || exit 1\n{_BUILD}')
    found = find_combination(ENGINE, store, {"PATH": f"{useless.parent}:{good.parent}:/usr/bin:/bin"})
    assert (found.client, found.client_version, found.mode) == (good, "26.1.5", "buildx")


def test_an_old_client_builds_without_the_plugin(tmp_path: Path, store: Store) -> None:
    old = _client(
        tmp_path / "a", "20.10.24", f'[ "$1" = build ] && [ "$DOCKER_BUILDKIT" = 1 ] || exit 1\n{_BUILD}'
    )
    found = find_combination(ENGINE, store, {"PATH": "/usr/bin:/bin"}, (old,))
    assert found.mode == "buildkit"


def test_a_client_that_ends_well_without_a_result_is_no_client(tmp_path: Path, store: Store) -> None:
    liar = _client(tmp_path / "a", "26.1.5", "exit 0")
    with pytest.raises(ToolError) as caught:
        _find(store, liar)
    assert caught.value.reference == "docker-no-buildkit"


def test_a_result_with_other_content_is_refused(tmp_path: Path, store: Store) -> None:
    liar = _client(
        tmp_path / "a",
        "26.1.5",
        "echo no > /dev/null\n" + _BUILD.replace('"$output" marker', '"$output" Dockerfile'),
    )
    with pytest.raises(ToolError, match="no docker client here can build"):
        _find(store, liar)


def test_none_says_what_each_said_and_what_to_install(tmp_path: Path, store: Store) -> None:
    first = _client(tmp_path / "a", "28.2.2", 'echo "buildx component is missing" >&2; exit 1')
    with pytest.raises(ToolError) as caught:
        _find(store, first)
    assert "28.2.2" in caught.value.context
    assert "buildx component is missing" in caught.value.context
    assert "apt-get install" in caught.value.hint


def test_no_client_at_all(store: Store) -> None:
    with pytest.raises(ToolError, match="no docker client is installed"):
        _find(store)


def test_the_answer_is_remembered_until_the_client_changes(tmp_path: Path, store: Store) -> None:
    client = _client(tmp_path / "a", "26.1.5", _BUILD)
    calls = tmp_path / "a" / "calls"
    first = _find(store, client)
    asked = calls.read_text()
    assert _find(store, client) == first
    assert calls.read_text() == asked
    os.utime(client, (1, 1))
    _find(store, client)
    assert len(calls.read_text()) > len(asked)
