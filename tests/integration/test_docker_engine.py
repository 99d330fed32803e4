"""A daemon of our own: started, used, stopped, and nothing of it left."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from builder.store import Store
from builder.tools import docker_engine
from builder.tools.docker_client import find_combination
from builder.tools.docker_engine import ensure_engine, find_engine
from builder.tools.dockerd import own_paths, stop_engine
from tests.support.engines import engine, environment
from tests.support.requires import tool

pytestmark = pytest.mark.integration


def _processes_naming(text: str) -> list[str]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            arguments = (folder / "cmdline").read_bytes()
        except OSError:
            continue
        if os.fsencode(text) in arguments:
            found.append(folder.name)
    return found


def test_start_use_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool("dockerd")
    tool("docker")
    if os.geteuid() != 0:
        pytest.skip("takes root")
    monkeypatch.setattr(docker_engine, "_SYSTEM_SOCKET", f"unix://{tmp_path}/none.sock")
    monkeypatch.setattr(docker_engine, "_start_service", lambda *_: None)
    own = environment() | {}
    own.pop("DOCKER_HOST", None)
    store = Store(tmp_path / "state").create()
    paths = own_paths(store)
    try:
        started = ensure_engine(store, own)
        assert started.origin == "own"
        assert ensure_engine(store, own) == started
        assert find_combination(started, store, own).mode in ("buildx", "buildkit")
        assert (paths.data / "image").is_dir() or (paths.data / "containerd").is_dir()
        assert stop_engine(store, own) is True
    finally:
        stop_engine(store, own)
    assert _processes_naming(str(paths.run)) == []
    assert not isinstance(find_engine(store, own), docker_engine.Engine)
    assert stop_engine(store, own) is False


def test_a_user_without_rights_is_told_so(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("takes root to give up root")
    with engine(tmp_path) as (found, store):
        if not found.host.startswith("unix://"):
            pytest.skip("the engine has no socket")
        groups = os.getgroups()
        os.setgroups([])
        os.setegid(65534)
        os.seteuid(65534)
        try:
            told = find_engine(store, {"DOCKER_HOST": found.host, "PATH": ""})
        finally:
            os.seteuid(0)
            os.setegid(os.getgid())
            os.setgroups(groups)
    assert isinstance(told, docker_engine.NoEngine)
    assert told.reference == "docker-no-rights"
