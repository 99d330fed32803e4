"""Container engines: find one that answers, or have one started."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from builder.errors import ToolError
from builder.store import Store
from builder.tools.dockerd import NoEngine, own_paths, root_prefix, start_own, start_service

_SYSTEM_SOCKET = "unix:///var/run/docker.sock"
_ANSWER_SECONDS = 20

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
        if found.reference == "docker-no-rights":
            raise found
        raise NoEngine(
            "the engine that DOCKER_HOST names does not answer",
            context=found.context,
            hint="start it, or unset DOCKER_HOST to use an engine of this machine",
        )
    root = root_prefix(environment)
    if root is None:
        raise _without_root(found)
    with _starting(store):
        again = find_engine(store, environment)
        if isinstance(again, Engine):
            return again
        if found.reference != "docker-no-rights" and (engine := _start_service(store, root, environment)):
            return engine
        start_own(store, root, environment, lambda host: isinstance(ask(host, "own"), Engine))
        started = ask(own_paths(store).host, "own")
        if isinstance(started, Engine):
            return started
        raise NoEngine("the engine went away at once", context=started.reason)


def _without_root(found: NoEngine) -> NoEngine:
    if found.reference == "docker-no-rights":
        return found
    return NoEngine(
        "no container engine answers, and this user cannot start one: it is neither root, "
        "nor may it use sudo without a password",
        context=found.context,
        hint="run sudo -v first if you have sudo; or let an administrator start the engine and add you "
        "to the group docker; without an engine, goldsmith build --engine direct still builds",
        reference=found.reference,
    )


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


@contextlib.contextmanager
def _starting(store: Store) -> Iterator[None]:
    store.create()
    with open(store.run / "docker.lock", "a") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _start_service(store: Store, root: tuple[str, ...], environment: Mapping[str, str]) -> Engine | None:
    if not start_service(store, root, environment):
        return None
    answer = ask(_SYSTEM_SOCKET, "system")
    return answer if isinstance(answer, Engine) else None
