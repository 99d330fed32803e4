"""Finding and starting engines, against sockets and programs that misbehave."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from builder.store import Store
from builder.tools import docker_engine, dockerd, process
from builder.tools.docker_engine import ensure_engine, find_engine
from builder.tools.dockerd import NoEngine, own_paths, stop_engine


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "state").create()


@pytest.fixture(autouse=True)
def no_system_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(docker_engine, "_SYSTEM_SOCKET", f"unix://{tmp_path}/none.sock")


@contextlib.contextmanager
def _server(path: Path, answer: bytes) -> Iterator[None]:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()

        def serve() -> None:
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                with connection, contextlib.suppress(OSError):
                    connection.recv(4096)
                    connection.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join()


def _fake_dockerd(folder: Path, body: str) -> dict[str, str]:
    folder.mkdir()
    program = folder / "dockerd"
    program.write_text(f"#!/bin/sh\n{body}\n")
    program.chmod(0o755)
    return {"PATH": f"{folder}:/usr/bin:/bin"}


def test_nothing_there_names_each_address_and_what_to_do(store: Store) -> None:
    found = find_engine(store, {"PATH": ""})
    assert isinstance(found, NoEngine)
    assert found.reference == "docker-no-engine"
    assert "none.sock: no such socket" in found.context
    assert found.hint


def test_missing_rights_are_told_apart(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: socket.socket, address: str) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    found = find_engine(store, {"PATH": ""})
    assert isinstance(found, NoEngine)
    assert found.reference == "docker-no-rights"
    assert "group docker" in found.hint and "--engine direct" in found.hint
    # The same when one engine is named: to start it would not help.
    with pytest.raises(NoEngine, match="no rights"):
        ensure_engine(store, {"DOCKER_HOST": "unix:///run/somebody.sock", "PATH": ""})


def test_without_rights_and_without_sudo_nothing_is_started(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(NoEngine) as caught:
        ensure_engine(store, {"PATH": ""})
    assert "neither root" in caught.value.message
    assert "group docker" in caught.value.hint and "--engine direct" in caught.value.hint


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}",
        b"HTTP/1.1 500 no\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        b"\xff" * 100,
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\n[1,2]",
    ],
    ids=["closed", "empty object", "error 500", "garbage", "list"],
)
def test_a_socket_that_is_no_engine_is_a_reason(store: Store, tmp_path: Path, answer: bytes) -> None:
    path = tmp_path / "odd.sock"
    with _server(path, answer):
        found = find_engine(store, {"DOCKER_HOST": f"unix://{path}"})
    assert isinstance(found, NoEngine)
    assert str(path) in found.context


def test_a_named_engine_that_is_silent_is_not_replaced(store: Store, tmp_path: Path) -> None:
    environment = {"DOCKER_HOST": f"unix://{tmp_path}/away.sock", "PATH": os.environ["PATH"]}
    with pytest.raises(NoEngine) as caught:
        ensure_engine(store, environment)
    assert "DOCKER_HOST" in caught.value.message + caught.value.hint
    assert not own_paths(store).pidfile.exists()


def test_an_engine_that_ends_at_once_shows_its_log(store: Store, tmp_path: Path, as_root: None) -> None:
    environment = _fake_dockerd(tmp_path / "bin", "echo 'failed to mount: no space left' >&2; exit 1")
    with pytest.raises(NoEngine) as caught:
        ensure_engine(store, environment)
    assert "no space left" in caught.value.context


def test_without_dockerd_the_command_that_installs_it_is_named(store: Store, as_root: None) -> None:
    with pytest.raises(NoEngine) as caught:
        ensure_engine(store, {"PATH": "/nonexistent"})
    assert "apt-get install" in caught.value.hint


def test_only_the_process_of_our_pid_file_is_stopped(store: Store, tmp_path: Path) -> None:
    paths = own_paths(store)
    stranger = process.start_daemon(
        ["/bin/sleep", "60"], environment={"PATH": "/usr/bin:/bin"}, log=tmp_path / "log"
    )
    try:
        paths.run.mkdir(parents=True)
        paths.pidfile.write_text(str(stranger))
        assert stop_engine(store, {"PATH": ""}) is False
        os.kill(stranger, 0)
    finally:
        os.kill(stranger, 9)
        os.waitpid(stranger, 0)
        paths.pidfile.unlink()
        paths.run.rmdir()


def test_stopping_what_was_never_started(store: Store) -> None:
    assert stop_engine(store, {"PATH": ""}) is False


@pytest.fixture
def as_root() -> None:
    if os.geteuid() != 0:
        pytest.skip("starts a daemon, which takes root")


def test_the_socket_fits_whatever_the_length_of_the_state_directory(tmp_path: Path) -> None:
    deep = Store(tmp_path / ("x" * 200))
    assert len(str(own_paths(deep).socket)) < 100


def _fake_systemctl(folder: Path, pid: str) -> dict[str, str]:
    folder.mkdir()
    program = folder / "systemctl"
    program.write_text(
        f'#!/bin/sh\necho "$*" >>{folder}/calls\n[ "$1" != show ] || cat {folder}/pid\n[ "$2" != broken ]\n'
    )
    program.chmod(0o755)
    (folder / "pid").write_text(pid)
    return {"PATH": f"{folder}:/usr/bin:/bin"}


@pytest.mark.parametrize(("later", "stopped"), [("4711", True), ("4712", False)])
def test_a_service_is_stopped_if_it_is_still_the_one_we_started(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, as_root: None, later: str, stopped: bool
) -> None:
    monkeypatch.setattr(dockerd, "_SYSTEMD", tmp_path)
    environment = _fake_systemctl(tmp_path / "bin", "4711")
    assert dockerd.start_service(store, (), environment) is True
    (tmp_path / "bin" / "pid").write_text(later)
    assert stop_engine(store, environment) is stopped
    calls = (tmp_path / "bin" / "calls").read_text()
    assert ("stop docker.socket docker" in calls) is stopped
    assert stop_engine(store, environment) is False


def test_without_systemd_no_service_is_started(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dockerd, "_SYSTEMD", tmp_path / "none")
    environment = _fake_systemctl(tmp_path / "bin", "4711")
    assert dockerd.start_service(store, (), environment) is False
    assert not (tmp_path / "bin" / "calls").exists()
