"""The gate as a daemon of a state directory, before the storage of the same one."""

from __future__ import annotations

import socket
import sys
from dataclasses import dataclass
from pathlib import Path

import builder
from builder.errors import RegistryError, UsageError
from builder.oci.auth import READER
from builder.settings import Settings
from builder.store import Store
from registry.storage.daemon import READY_SECONDS, Daemon, answers

LISTEN = "127.0.0.1:5700"


@dataclass(frozen=True, slots=True)
class RunningGate:
    """A gate: where it listens, its process (None: it does not run), its log."""

    address: str
    pid: int | None
    log: Path
    started: bool = False

    def as_dict(self) -> dict[str, object]:
        """The same as plain data for `--json`."""
        return {
            "address": self.address,
            "running": self.pid is not None,
            "pid": self.pid,
            "log": str(self.log),
            "started": self.started,
        }


def up(settings: Settings, listen: str = LISTEN, *, accept_sample: bool = False) -> RunningGate:
    """Start a gate that serves what was promoted, unless it runs already, and wait until it is ready.

    One that runs with other options, before another storage, or with an earlier login there, is started
    anew. Raises UsageError
    for an address that is none, RegistryError when the port is taken or it does not get ready.
    """
    host, _, port = listen.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise UsageError(f"not an address to listen at: {listen[:100]!r}", hint=f"such as {LISTEN}")
    store = Store(settings.state).create()
    daemon = _daemon(store)
    options = ["--listen", listen, "--storage", settings.registry]
    options += ["--accept-sample"] if accept_sample else []
    login = _login_made(store, settings.registry)
    noted = (daemon.noted("options"), daemon.noted("login"))
    if (pid := daemon.pid) is not None and noted == (options, login):
        _wait(daemon, host, int(port), listen)
        return RunningGate(listen, pid, daemon.log)
    daemon.stop()
    if answers(host, int(port)):
        raise RegistryError(
            f"{listen} is taken by something else",
            context="a program that this state directory did not start listens there",
            hint="stop it, or choose another address for the gate",
            reference="port-taken",
        )
    environment = {
        **settings.child_environment,
        "GOLDSMITH_CATALOGUE": str(settings.catalogue),
        "GOLDSMITH_STATE": str(settings.state),
        "GOLDSMITH_REGISTRY": settings.registry,
        "PYTHONPATH": str(Path(builder.__file__).resolve().parents[1]),
    }
    argv = [sys.executable, "-m", "builder", "serve", *options]
    pid = daemon.start(argv, environment, address=listen, options=options, login=login)
    try:
        _wait(daemon, host, int(port), listen)
    except BaseException:
        daemon.stop()
        raise
    return RunningGate(listen, pid, daemon.log, started=True)


def down(settings: Settings) -> bool:
    """Stop the gate of this state directory, which answers what it is asked first; whether it ran."""
    return _daemon(Store(settings.state)).stop()


def status(settings: Settings) -> RunningGate:
    """Whether the gate of this state directory runs, and where."""
    daemon = _daemon(Store(settings.state))
    pid = daemon.pid
    address = daemon.noted("address") if pid else None
    return RunningGate(address if isinstance(address, str) else LISTEN, pid, daemon.log)


def _daemon(store: Store) -> Daemon:
    return Daemon(store, "gate", "the gate")


def _login_made(store: Store, host: str) -> int:
    """When its login at the storage was written (nanoseconds since the epoch), 0 without one."""
    try:
        return (store.credentials / f"{host}{READER}").stat().st_mtime_ns
    except OSError:
        return 0


def _wait(daemon: Daemon, host: str, port: int, address: str) -> None:
    daemon.wait(lambda: _is_ready(host, port), address, READY_SECONDS)


def _is_ready(host: str, port: int) -> bool:
    try:
        with socket.create_connection((host, port), timeout=2) as asked:
            asked.sendall(f"GET /readyz HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
            return b" 200 " in asked.recv(64)
    except OSError:
        return False
