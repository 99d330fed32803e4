"""The storage registry's life, with a program that behaves badly in its place."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from builder.errors import RegistryError, ToolError, UsageError
from builder.settings import Settings
from registry.storage import service
from tests.support.ports import free_address

SERVER = """#!{python}
import os, socket, sys, time
open({log!r}, "a").write(" ".join(sys.argv[1:]) + "\\n")
{before}
host, port = "127.0.0.1", {port}
server = socket.create_server((host, port))
while True:
    server.accept()[0].close()
"""


@pytest.fixture
def port() -> int:
    return int(free_address().rpartition(":")[2])


@pytest.fixture
def settings(tmp_path: Path, port: int) -> Iterator[Settings]:
    (tmp_path / "bin").mkdir()
    for folder in ("images", "templates"):
        (tmp_path / folder).mkdir()
    made = Settings.load(
        {"PATH": str(tmp_path / "bin"), "GOLDSMITH_REGISTRY": f"127.0.0.1:{port}"}, directory=tmp_path
    )
    # Only the fake may be found, whatever this machine has.
    made = replace(made, child_environment={"PATH": str(tmp_path / "bin")})
    yield made
    service.down(made)


def program(settings: Settings, before: str = "", name: str = "docker-registry") -> Path:
    folder = Path(settings.child_environment["PATH"])
    port = settings.registry.rpartition(":")[2]
    log = folder.parent / "calls"
    path = folder / name
    path.write_text(SERVER.format(python=sys.executable, log=str(log), before=before, port=port))
    path.chmod(0o755)
    return log


def test_it_starts_once_and_stops(settings: Settings) -> None:
    log = program(settings)
    first = service.up(settings)
    assert first.started
    assert first.pid is not None
    second = service.up(settings)
    assert (second.pid, second.started) == (first.pid, False)
    assert len(log.read_text().splitlines()) == 1
    assert service.status(settings).pid == first.pid
    assert service.down(settings).pid is None
    assert service.down(settings).pid is None
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", int(settings.registry.rpartition(":")[2])), timeout=1)


def test_the_other_name_of_the_program_is_found(settings: Settings) -> None:
    program(settings, name="registry")
    assert service.up(settings).started


def test_the_configuration_keeps_data_in_the_state_directory(settings: Settings) -> None:
    log = program(settings)
    service.up(settings)
    config = Path(log.read_text().split()[1])
    assert config.is_relative_to(settings.state)
    text = config.read_text()
    assert f"rootdirectory: {settings.state / 'registry'}" in text
    assert f"addr: {settings.registry}" in text


def test_a_missing_program_is_named(settings: Settings) -> None:
    with pytest.raises(ToolError, match="no registry program") as caught:
        service.up(settings)
    assert "docker-registry" in caught.value.hint


def test_a_taken_port_is_told(settings: Settings) -> None:
    log = program(settings)
    host, _, port = settings.registry.rpartition(":")
    with (
        socket.create_server((host, int(port))),
        pytest.raises(RegistryError, match="taken by something else") as caught,
    ):
        service.up(settings)
    assert "GOLDSMITH_REGISTRY" in caught.value.hint
    assert not log.exists()


def test_a_program_that_ends_is_told_with_its_log(settings: Settings) -> None:
    program(settings, before="sys.exit('configuration error: no such driver')")
    with pytest.raises(RegistryError, match="ended") as caught:
        service.up(settings)
    assert "no such driver" in caught.value.context
    assert service.status(settings).pid is None


def test_a_program_that_never_listens_is_stopped(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(service, "_READY_SECONDS", 0.5)
    program(settings, before=f"open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid())); time.sleep(60)")
    with pytest.raises(RegistryError, match="does not answer"):
        service.up(settings)
    pid = int((tmp_path / "pid").read_text())
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_recycled_pid_is_never_killed(settings: Settings) -> None:
    """The pid file's number belongs to another process now: this one."""
    program(settings)
    service.up(settings)
    pid_file = settings.state / "run" / "registry.pid"
    record = json.loads(pid_file.read_text())
    pid_file.write_text(json.dumps(record | {"pid": os.getpid()}))
    assert service.status(settings).pid is None
    service.down(settings)
    os.kill(record["pid"], 0)  # the real one is still there
    pid_file.write_text(json.dumps(record))


@pytest.mark.parametrize(
    "text", ["", "12", "{}", "[]", '{"pid": -1, "began": 1}', '{"pid": "x"}', '{"pid": 1, "began": 1}']
)
def test_a_damaged_pid_file_kills_nothing(settings: Settings, text: str) -> None:
    program(settings)
    (settings.state / "run").mkdir(parents=True)
    (settings.state / "run" / "registry.pid").write_text(text)
    assert service.status(settings).pid is None
    assert service.down(settings).pid is None


def test_a_killed_registry_is_started_again(settings: Settings) -> None:
    program(settings)
    first = service.up(settings)
    assert first.pid is not None
    os.kill(first.pid, signal.SIGKILL)
    os.waitpid(first.pid, 0)
    second = service.up(settings)
    assert second.started
    assert second.pid != first.pid


def test_a_stubborn_program_is_ended(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "_STOP_SECONDS", 0.5)
    program(settings, before="import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)")
    pid = service.up(settings).pid
    assert pid is not None
    service.down(settings)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


@pytest.mark.parametrize(
    "address", ["registry.example.org:5000", "0.0.0.0:5000", "127.0.0.1", "127.0.0.1:99999"]
)
def test_only_loopback_is_served(settings: Settings, address: str) -> None:
    with pytest.raises(UsageError, match="loopback"):
        service.up(replace(settings, registry=address))
