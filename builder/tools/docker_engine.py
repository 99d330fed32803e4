"""Container engines: find one that answers, or start one of our own, and stop only that.

Ours is a plain `dockerd` with its data in the state directory and its socket in a short folder
below /run, beside whatever else runs on this machine: no bridge, no packet filter rules, and
a containerd namespace of its own.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import socket
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from builder.errors import ToolError
from builder.model.digest import Digest
from builder.store import Store
from builder.tools import process

_SYSTEM_SOCKET = "unix:///var/run/docker.sock"
_ANSWER_SECONDS = 20
_START_SECONDS = 60
_STOP_SECONDS = 30
_POLL_SECONDS = 0.05
_LOG_TAIL = 2000  # bytes

INSTALL_HINT = "install an engine: apt-get install --no-install-recommends docker.io"
RIGHTS_HINT = (
    "become a member of the group docker (sudo usermod -aG docker $USER, then log in anew), "
    "or build without an engine: goldsmith build --engine direct"
)


@dataclass(frozen=True, slots=True)
class Engine:
    """An engine that answered: its address, version, own id, and where it came from."""

    host: str
    version: str
    id: str
    origin: str  # "DOCKER_HOST", "system" or "own"


@dataclass(frozen=True, slots=True)
class Silence:
    """An address that gave no engine, and why; `denied` when only the rights are missing."""

    host: str
    reason: str
    denied: bool = False


class NoEngine(ToolError):
    """No container engine answers, and none could be started."""


def find_engine(store: Store, environment: Mapping[str, str]) -> Engine | NoEngine:
    """The first engine that answers: `DOCKER_HOST`, our own, the system's.

    Nothing is started. The returned error tells for each address why it is not used. Where
    `DOCKER_HOST` is set, no other address is tried.
    """
    silent: list[Silence] = []
    for origin, host in _addresses(store, environment):
        answer = ask(host, origin)
        if isinstance(answer, Engine):
            return answer
        silent.append(answer)
    denied = any(s.denied for s in silent)
    return NoEngine(
        "no rights to use the container engine" if denied else "no container engine answers",
        context="\n".join(f"{s.host}: {s.reason}" for s in silent),
        hint=RIGHTS_HINT if denied else "goldsmith up starts one; goldsmith doctor says what is missing",
        reference="docker-no-rights" if denied else "docker-no-engine",
    )


def ensure_engine(store: Store, environment: Mapping[str, str]) -> Engine:
    """An engine that answers, started if need be; raises NoEngine with what to do.

    With systemd the system's own service is started, otherwise (or when that fails) a daemon
    of ours. Both need root, or sudo without a password.
    """
    found = find_engine(store, environment)
    if isinstance(found, Engine):
        return found
    if "DOCKER_HOST" in environment:
        raise NoEngine(
            "the engine that DOCKER_HOST names does not answer",
            context=found.context,
            hint="start it, or unset DOCKER_HOST to use an engine of this machine",
        )
    root = _root_prefix(environment)
    if root is None:
        raise found
    with _starting(store):
        again = find_engine(store, environment)
        if isinstance(again, Engine):
            return again
        if found.reference != "docker-no-rights" and (engine := _start_service(root, environment)):
            return engine
        return _start_own(store, root, environment)


def stop_engine(store: Store, environment: Mapping[str, str]) -> bool:
    """Stop the daemon that `ensure_engine` started; False when there is none.

    The process is the one of our pid file, and only if it is a dockerd that was started with
    that very file. Raises ToolError when it does not end.
    """
    paths = own_paths(store)
    pid = own_pid(paths)
    if pid is None:
        return False
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
            root = _root_prefix(environment)
            if root is None:
                raise ToolError(
                    f"the engine (pid {pid}) belongs to root", hint=f"run: sudo kill {pid}"
                ) from None
            process.run([*root, "kill", str(pid)], environment=environment, timeout_seconds=10)
    deadline = time.monotonic() + _STOP_SECONDS
    while own_pid(paths) == pid:
        if time.monotonic() > deadline:
            raise ToolError(f"the engine (pid {pid}) did not stop", hint=f"see {paths.log}")
        time.sleep(_POLL_SECONDS)
    _ended(pid)
    return True


def connect(engine: Engine, timeout_seconds: float = 60) -> Any:
    """A docker SDK client of an engine; raises ToolError when it does not answer any more."""
    import docker
    from docker.errors import DockerException

    try:
        return docker.DockerClient(base_url=engine.host, timeout=int(timeout_seconds), version="auto")
    except (DockerException, OSError) as error:
        raise ToolError("the container engine does not answer", context=f"{engine.host}: {error}") from None


def ask(host: str, origin: str) -> Engine | Silence:
    """Ask the engine at an address who it is."""
    refused = _socket_problem(host)
    if refused:
        return refused
    import docker
    from docker.errors import DockerException

    try:
        client = docker.DockerClient(base_url=host, timeout=_ANSWER_SECONDS, version="auto")
        try:
            info = client.info()
            version = str(info["ServerVersion"])[:40]
            return Engine(host, version, str(info.get("ID", ""))[:100], origin)
        finally:
            client.close()
    except (DockerException, OSError, KeyError, TypeError, ValueError) as error:
        # requests' errors are OSErrors; an answer that is no Docker engine's is a Key- or ValueError
        return Silence(host, str(error)[:300] or type(error).__name__)


def _socket_problem(host: str) -> Silence | None:
    if not host.startswith("unix://"):
        return None
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(_ANSWER_SECONDS)
        try:
            probe.connect(host.removeprefix("unix://"))
        except PermissionError:
            return Silence(host, "permission denied", denied=True)
        except FileNotFoundError:
            return Silence(host, "no such socket")
        except OSError as error:
            return Silence(host, error.strerror or str(error))
    return None


def _addresses(store: Store, environment: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    if environment.get("DOCKER_HOST"):
        yield "DOCKER_HOST", environment["DOCKER_HOST"]
        return
    yield "own", own_paths(store).host
    yield "system", _SYSTEM_SOCKET
    rootless = Path(f"/run/user/{os.getuid()}/docker.sock")
    if rootless.exists():
        yield "system", f"unix://{rootless}"


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


@contextlib.contextmanager
def _starting(store: Store) -> Iterator[None]:
    store.create()
    with open(store.run / "docker.lock", "a") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _root_prefix(environment: Mapping[str, str]) -> tuple[str, ...] | None:
    if os.geteuid() == 0:
        return ()
    sudo = process.find("sudo", environment)
    if sudo is None:
        return None
    asked = process.run([sudo, "-n", "true"], environment=environment, timeout_seconds=10, ok=range(256))
    return (str(sudo), "-n") if asked.returncode == 0 else None


def _start_service(root: tuple[str, ...], environment: Mapping[str, str]) -> Engine | None:
    systemctl = process.find("systemctl", environment)
    if systemctl is None or not Path("/run/systemd/system").is_dir():
        return None
    started = process.run(
        [*root, systemctl, "start", "docker"],
        environment=environment,
        timeout_seconds=_START_SECONDS,
        ok=range(256),
    )
    answer = ask(_SYSTEM_SOCKET, "system") if started.returncode == 0 else None
    return answer if isinstance(answer, Engine) else None


def _start_own(store: Store, root: tuple[str, ...], environment: Mapping[str, str]) -> Engine:
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
    return _await_own(paths, pid)


def _await_own(paths: OwnPaths, pid: int) -> Engine:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        if _socket_problem(paths.host) is None:
            answer = ask(paths.host, "own")
            if isinstance(answer, Engine):
                return answer
        if _ended(pid):
            break
        time.sleep(_POLL_SECONDS)
    else:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGTERM)
    with open(paths.log, "rb") as log:
        log.seek(max(0, paths.log.stat().st_size - _LOG_TAIL))
        said = log.read().decode("utf-8", "replace")
    raise NoEngine(
        "dockerd could not be started",
        context=said.strip(),
        hint=f"see {paths.log}; without an engine: goldsmith build --engine direct",
    )


def _ended(pid: int) -> bool:
    with contextlib.suppress(ChildProcessError):
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    return not Path(f"/proc/{pid}").exists()
