"""The gate as a daemon: started once, started anew when its options change, stopped; nothing else is."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from builder.cli.main import run
from builder.errors import RegistryError, UsageError
from builder.settings import Settings
from builder.signing.keys import create_keys
from builder.store import Store
from registry.gate import daemon
from tests.demo_serving import address
from tests.support.gates import wait_for
from tests.support.ports import free_address
from tests.support.registry_simulator import simulator

ROOT = Path(__file__).parents[2]


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[Settings]:
    with simulator() as sim:
        made = Settings.load(
            {
                "PATH": os.environ["PATH"],
                "GOLDSMITH_CATALOGUE": str(ROOT),
                "GOLDSMITH_STATE": str(tmp_path / "state"),
                "GOLDSMITH_REGISTRY": sim.address,
            }
        )
        create_keys(Store(made.state).create().keys, {}, None)
        yield made
        daemon.down(made)


def listens(address: str) -> bool:
    host, _, port = address.rpartition(":")
    with socket.socket() as probe:
        return probe.connect_ex((host, int(port))) == 0


def test_a_gate_is_started_once_and_anew_for_other_options(settings: Settings) -> None:
    listen = free_address()
    first = daemon.up(settings, listen)
    assert first.started and listens(listen)
    again = daemon.up(settings, listen)
    assert (again.started, again.pid) == (False, first.pid)
    assert daemon.status(settings).address == listen
    other = daemon.up(settings, listen, accept_sample=True)
    assert other.started and other.pid != first.pid
    assert daemon.down(settings)
    wait_for(lambda: listens(listen), lambda there: not there)
    assert not daemon.down(settings)
    assert daemon.status(settings).pid is None


def test_a_port_that_is_taken_is_left_alone(settings: Settings) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(RegistryError, match="taken by something else"):
            daemon.up(settings, address)
        assert daemon.status(settings).pid is None
    with pytest.raises(UsageError):
        daemon.up(settings, "nowhere")


def test_the_demo_starts_it_where_the_settings_say(settings: Settings) -> None:
    wanted = free_address()
    assert address(replace(settings, mirror=wanted)) == wanted
    assert address(replace(settings, mirror="mirror.example")).startswith("127.0.0.1:")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        mirror = f"127.0.0.1:{taken.getsockname()[1]}"
        assert address(replace(settings, mirror=mirror)) != mirror


def test_who_serves_at_a_port_that_is_taken_is_told(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The server below ends the process by itself; that must not look like a closed pipe (141)."""
    for name, value in (("STATE", settings.state), ("REGISTRY", settings.registry), ("CATALOGUE", ROOT)):
        monkeypatch.setenv(f"GOLDSMITH_{name}", str(value))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        assert run(["serve", "--listen", address]) == 6
    said = capsys.readouterr().err
    assert f"error: nobody can be served at {address}" in said and "--listen" in said


@pytest.mark.parametrize("option", [("--accel", "blobs"), ("--link", "mirror.example")])
def test_an_address_that_nobody_could_follow_is_refused(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, option: tuple[str, str]
) -> None:
    for name, value in (("STATE", settings.state), ("REGISTRY", settings.registry), ("CATALOGUE", ROOT)):
        monkeypatch.setenv(f"GOLDSMITH_{name}", str(value))
    assert run(["serve", *option]) == 2


def test_a_gate_that_ends_at_once_is_told_with_its_log(settings: Settings) -> None:
    for key in Store(settings.state).keys.glob("*.pub"):
        key.unlink()
    with pytest.raises(RegistryError, match="the gate ended") as raised:
        daemon.up(settings, free_address())
    assert ".pub" in raised.value.context
    assert daemon.status(settings).pid is None
