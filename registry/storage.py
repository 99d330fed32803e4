"""The storage behind the mirror: CNCF Distribution on loopback, with its data in the state directory.

It is a plain process of this user. Its pid file also holds when that process began, so that
another process that got the same number later is never taken for it, and never ended.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import time
from dataclasses import dataclass
from pathlib import Path

import yaml

from builder.errors import RegistryError, ToolError, UsageError
from builder.oci.auth import host_name, is_loopback
from builder.settings import Settings
from builder.store import Store, file_tail, write_atomically
from builder.tools import process

_PROGRAMS = ("docker-registry", "registry")
_READY_SECONDS = 20
_STOP_SECONDS = 10
_POLL_SECONDS = 0.02
_LOG_TAIL = 1500  # bytes
# It takes 4 MB for each blob that it reads: with Go's own setting it collects garbage at each request.
_MEMORY = {"GOGC": "400"}


@dataclass(frozen=True, slots=True)
class Storage:
    """A storage registry: where it listens, its process, where its data and log are.

    `started` tells whether this call started it; `pid` is None when it does not run.
    """

    address: str
    pid: int | None
    data: Path
    log: Path
    started: bool = False

    def as_dict(self) -> dict[str, object]:
        """The same as plain data for `--json`."""
        return {
            "address": self.address,
            "running": self.pid is not None,
            "pid": self.pid,
            "data": str(self.data),
            "log": str(self.log),
            "started": self.started,
        }


def up(settings: Settings) -> Storage:
    """Start the storage registry, unless it runs already, and wait until it answers.

    Raises UsageError when `settings.registry` is not a loopback address with a port, ToolError
    when the program is missing, RegistryError when the port is taken or it does not come up.
    """
    host, port = _loopback(settings.registry)
    store = Store(settings.state).create()
    now = status(settings)
    if now.pid is not None:
        if _running_address(store) == settings.registry:
            _wait(now, store, host, port)
            return now
        down(settings)
    if _answers(host, port):
        raise RegistryError(
            f"{settings.registry} is taken by something else",
            context="a program that this state directory did not start listens there",
            hint="stop it, or set GOLDSMITH_REGISTRY to a free port such as 127.0.0.1:5711",
            reference="port-taken",
        )
    program = _program(settings)
    config = store.run / "registry.yml"
    now.data.mkdir(parents=True, exist_ok=True)
    write_atomically(config, _configuration(settings.registry, now.data).encode())
    pid = process.start_daemon(
        [program, "serve", config],
        environment={**settings.child_environment, **_MEMORY},
        log=now.log,
        directory=store.run,
    )
    record = {"pid": pid, "began": _began(pid), "address": settings.registry}
    write_atomically(_pid_file(store), json.dumps(record).encode())
    running = Storage(settings.registry, pid, now.data, now.log, started=True)
    try:
        _wait(running, store, host, port)
    except BaseException:
        down(settings)
        raise
    return running


def down(settings: Settings) -> Storage:
    """Stop the storage registry if this state directory started it; its data stays.

    Raises ToolError when it does not end.
    """
    store = Store(settings.state)
    handle = _open_process(store)
    if handle is not None:
        try:
            for number in (signal.SIGTERM, signal.SIGKILL):
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(handle, number)
                if _ended(handle, _STOP_SECONDS):
                    break
            else:
                raise ToolError("the storage registry does not end", context=_pid_file(store).read_text())
        finally:
            os.close(handle)
        _reap(store)
    _pid_file(store).unlink(missing_ok=True)
    return status(settings)


def status(settings: Settings) -> Storage:
    """Whether the storage registry of this state directory runs."""
    store = Store(settings.state)
    pid = None
    handle = _open_process(store)
    if handle is not None:
        os.close(handle)
        pid = _record(store)["pid"]
    address = (_running_address(store) if pid else None) or settings.registry
    return Storage(
        address,
        pid if isinstance(pid, int) else None,
        settings.state / "registry",
        store.run / "registry.log",
    )


def _configuration(address: str, data: Path) -> str:
    """Distribution's configuration (its document "Configuring a registry", version 0.1)."""
    return yaml.safe_dump(
        {
            "version": 0.1,
            "log": {"level": "warn", "accesslog": {"disabled": True}},
            "storage": {
                "filesystem": {"rootdirectory": str(data)},
                "redirect": {"disable": True},
                "delete": {"enabled": False},
            },
            # Upload addresses without a host: the client's own address is always right.
            "http": {"addr": address, "relativeurls": True},
        },
        sort_keys=True,
    )


def _loopback(address: str) -> tuple[str, int]:
    host, (_, _, port) = host_name(address), address.rpartition(":")
    if not is_loopback(host) or not port.isdigit() or not 0 < int(port) < 65536:
        raise UsageError(
            f"the storage registry listens on loopback only, not on {address}",
            hint="set GOLDSMITH_REGISTRY to something like 127.0.0.1:5710, or use a registry of your own",
        )
    return host, int(port)


def _program(settings: Settings) -> Path:
    for name in _PROGRAMS:
        found = process.find(name, settings.child_environment)
        if found:
            return found
    raise ToolError(
        "no registry program is installed",
        context=f"looked for {' and '.join(_PROGRAMS)} in PATH",
        hint="install the system's package docker-registry",
    )


def _wait(storage: Storage, store: Store, host: str, port: int) -> None:
    """Wait until the port accepts connections; raises RegistryError when the process ends first."""
    handle = _open_process(store)
    try:
        ends = time.monotonic() + _READY_SECONDS
        while not _answers(host, port):
            dead = handle is None or _ended(handle, _POLL_SECONDS)
            if dead or time.monotonic() > ends:
                raise RegistryError(
                    f"the storage registry {'ended' if dead else 'does not answer'} on {storage.address}",
                    context=file_tail(storage.log, _LOG_TAIL),
                    hint=f"see {storage.log}; GOLDSMITH_REGISTRY chooses another port",
                    reference="storage-not-ready",
                )
    finally:
        if handle is not None:
            os.close(handle)


def _answers(host: str, port: int) -> bool:
    try:
        with socket.create_connection((host, port), timeout=2):
            return True
    except OSError:
        return False


def _pid_file(store: Store) -> Path:
    return store.run / "registry.pid"


def _record(store: Store) -> dict[str, object]:
    try:
        record = json.loads(_pid_file(store).read_bytes())
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def _running_address(store: Store) -> str | None:
    address = _record(store).get("address")
    return address if isinstance(address, str) else None


def _open_process(store: Store) -> int | None:
    """A handle (pidfd) on the process that the pid file means; None when that one is gone.

    The handle is opened before the start time is compared, so the number cannot be given to
    another process in between.
    """
    record = _record(store)
    pid, began = record.get("pid"), record.get("began")
    if not isinstance(pid, int) or pid <= 1 or began is None:
        return None
    try:
        handle = os.pidfd_open(pid)
    except OSError:
        return None
    if _began(pid) != began:
        os.close(handle)
        return None
    return handle


def _began(pid: int) -> int | None:
    """When the process began, in clock ticks since boot (proc(5), stat field 22); None when dead."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])


def _ended(handle: int, seconds: float) -> bool:
    poller = select.poll()
    poller.register(handle, select.POLLIN)
    return bool(poller.poll(seconds * 1000))


def _reap(store: Store) -> None:
    """Take the exit code of our own child, when it is one."""
    pid = _record(store).get("pid")
    if isinstance(pid, int):
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
