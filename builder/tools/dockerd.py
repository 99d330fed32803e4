"""A Docker daemon of our own: its paths, starting it, and stopping exactly that process.

Its data is in the state directory and its socket in a short folder below /run, beside whatever
else runs on this machine: no bridge, no packet filter rules, a containerd namespace of its own.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from builder.errors import ToolError
from builder.model.digest import Digest
from builder.store import Store, file_tail, write_atomically
from builder.tools import process

_START_SECONDS = 60
_STOP_SECONDS = 30
_POLL_SECONDS = 0.05
_LOG_TAIL = 2000  # bytes
_SYSTEMD = Path("/run/systemd/system")
_SERVICE, _SERVICE_RECORD = "docker", "docker-service.pid"

INSTALL_HINT = "install an engine: apt-get install --no-install-recommends docker.io"


class NoEngine(ToolError):
    """No container engine answers, and none could be started."""


@dataclass(frozen=True, slots=True)
class OwnPaths:
    """Where our own daemon keeps things; the socket's folder is short (a socket has 107 bytes)."""

    run: Path
    data: Path
    config: Path
    log: Path

    @property
    def socket(self) -> Path:
        """The daemon's socket."""
        return self.run / "docker.sock"

    @property
    def host(self) -> str:
        """The daemon's address."""
        return f"unix://{self.socket}"

    @property
    def pidfile(self) -> Path:
        """Where the daemon writes its pid."""
        return self.run / "docker.pid"


def own_paths(store: Store) -> OwnPaths:
    """The paths of the daemon of one state directory."""
    root = store.root.resolve()
    name = Digest.of(os.fsencode(root)).short
    return OwnPaths(
        run=Path(f"/run/goldsmith-{name}"),
        data=root / "docker",
        config=root / "run" / "docker.json",
        log=root / "run" / "docker.log",
    )


def own_pid(paths: OwnPaths) -> int | None:
    """The pid of our running daemon; None when it does not run (any more)."""
    try:
        pid = int(paths.pidfile.read_text())
        arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except (OSError, ValueError):
        return None
    # An ended process that nobody has waited for has no command line.
    mine = os.fsencode(f"--pidfile={paths.pidfile}")
    return pid if mine in arguments else None


def root_prefix(environment: Mapping[str, str]) -> tuple[str, ...] | None:
    """What goes before a command to run it as root: nothing, or sudo; None when neither works."""
    if os.geteuid() == 0:
        return ()
    sudo = process.find("sudo", environment)
    if sudo is None:
        return None
    asked = process.run([sudo, "-n", "true"], environment=environment, timeout_seconds=10, ok=range(256))
    return (str(sudo), "-n") if asked.returncode == 0 else None


def start_own(
    store: Store, root: tuple[str, ...], environment: Mapping[str, str], answers: Callable[[str], bool]
) -> None:
    """Start a daemon for this state directory and wait until `answers` says yes to its address.

    `root` is what goes before a command to run it as root. Raises NoEngine when it ends or does
    not answer in time, with the end of its log.
    """
    dockerd = process.find("dockerd", environment)
    if dockerd is None:
        raise NoEngine("no container engine answers, and dockerd is not installed", hint=INSTALL_HINT)
    paths = own_paths(store)
    paths.config.write_text("{}\n")
    process.run([*root, "mkdir", "-p", "-m", "0755", paths.run], environment=environment, timeout_seconds=10)
    namespace = paths.run.name
    pid = process.start_daemon(
        [
            *root,
            dockerd,
            f"--config-file={paths.config}",
            f"--data-root={paths.data}",
            f"--exec-root={paths.run}/x",
            f"--pidfile={paths.pidfile}",
            f"--host={paths.host}",
            f"--group={os.getgid()}",
            f"--containerd-namespace={namespace}",
            f"--containerd-plugins-namespace={namespace}-plugins",
            "--bridge=none",
            "--iptables=false",
            "--ip6tables=false",
            "--log-level=warn",
        ],
        environment=environment,
        log=paths.log,
    )
    _await_answer(paths, pid, answers)


def _await_answer(paths: OwnPaths, pid: int, answers: Callable[[str], bool]) -> None:
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        raise _not_started(paths) from None
    try:
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline:
            if answers(paths.host):
                return
            if _wait_for_end(handle, _POLL_SECONDS):
                break
        else:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                signal.pidfd_send_signal(handle, signal.SIGTERM)
    finally:
        os.close(handle)
    _reap(pid)
    raise _not_started(paths)


def _not_started(paths: OwnPaths) -> NoEngine:
    return NoEngine(
        "dockerd could not be started",
        context=file_tail(paths.log, _LOG_TAIL),
        hint=f"see {paths.log}; without an engine: goldsmith build --engine direct",
    )


def _wait_for_end(handle: int, seconds: float) -> bool:
    """Whether the process of a pid handle ended within `seconds` (pidfd_open(2): it gets readable)."""
    return bool(select.select([handle], [], [], seconds)[0])


def _reap(pid: int) -> None:
    """Take the exit code of a child of ours, so that no dead entry stays."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)


def start_service(store: Store, root: tuple[str, ...], environment: Mapping[str, str]) -> bool:
    """Start the system's own service; False where there is no systemd, or it does not start.

    What was started is written down, so that `stop_engine` stops it again.
    """
    systemctl = process.find("systemctl", environment)
    if systemctl is None or not _SYSTEMD.is_dir():
        return False
    started = process.run(
        [*root, systemctl, "start", _SERVICE],
        environment=environment,
        timeout_seconds=_START_SECONDS,
        ok=range(256),
    )
    if started.returncode != 0:
        return False
    write_atomically(store.run / _SERVICE_RECORD, _service_pid(systemctl, environment).encode())
    return True


def _service_pid(systemctl: Path, environment: Mapping[str, str]) -> str:
    shown = process.run(
        [systemctl, "show", "--property=MainPID", "--value", _SERVICE],
        environment=environment,
        timeout_seconds=10,
    )
    return shown.text.strip()


def _stop_service(store: Store, environment: Mapping[str, str]) -> bool:
    record, systemctl = store.run / _SERVICE_RECORD, process.find("systemctl", environment)
    root = root_prefix(environment)
    if not record.is_file() or systemctl is None or root is None:
        return False
    pid = record.read_text().strip()
    record.unlink()
    # Somebody else may have started it anew: then it is theirs.
    if pid in ("", "0") or _service_pid(systemctl, environment) != pid:
        return False
    process.run(
        [*root, systemctl, "stop", f"{_SERVICE}.socket", _SERVICE],
        environment=environment,
        timeout_seconds=_START_SECONDS,
    )
    return True


def stop_engine(store: Store, environment: Mapping[str, str]) -> bool:
    """Stop the daemon (or the service) that was started for this state directory; False when none was.

    The process is the one of our pid file, and only if it is a dockerd that was started with
    that very file. Raises ToolError when it does not end.
    """
    paths = own_paths(store)
    pid = own_pid(paths)
    if pid is None:
        return _stop_service(store, environment)
    with contextlib.ExitStack() as stack:
        try:
            handle = os.pidfd_open(pid)
        except ProcessLookupError:
            return False
        stack.callback(os.close, handle)
        # The handle is taken first, so the process cannot be another one afterwards.
        if own_pid(paths) != pid:
            return False
        try:
            signal.pidfd_send_signal(handle, signal.SIGTERM)
        except PermissionError:
            root = root_prefix(environment)
            if root is None:
                raise ToolError(
                    f"the engine (pid {pid}) belongs to root", hint=f"run: sudo kill {pid}"
                ) from None
            process.run([*root, "kill", str(pid)], environment=environment, timeout_seconds=10)
        if not _wait_for_end(handle, _STOP_SECONDS):
            raise ToolError(f"the engine (pid {pid}) did not stop", hint=f"see {paths.log}")
    _reap(pid)
    return True
