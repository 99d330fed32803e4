"""The storage behind the mirror: CNCF Distribution on loopback, with its data in the state directory."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from pathlib import Path

import yaml

from builder.errors import RegistryError, ToolError, UsageError
from builder.oci.auth import Credentials, credentials_for, host_name, is_loopback
from builder.settings import Settings
from builder.store import Store, write_atomically
from builder.tools import process
from registry.storage.daemon import READY_SECONDS, STOP_SECONDS, Daemon, answers

_PROGRAMS = ("docker-registry", "registry")
_READY_SECONDS = READY_SECONDS
_STOP_SECONDS = STOP_SECONDS
# It takes 4 MB for each blob that it reads: with Go's own setting it collects garbage at each request.
_MEMORY = {"GOGC": "400"}
_USER = "goldsmith"
_COST = 4


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


def up(settings: Settings, *, closed: bool = False) -> Storage:
    """Start the storage registry, unless it runs already, and wait until it answers.

    A `closed` one asks everybody for the user that is made here, in the folder of credentials; an
    open one is for tests. Raises UsageError when `settings.registry` is not a loopback address with
    a port, ToolError when the program is missing, RegistryError when the port is taken or it does
    not come up.
    """
    host, port = _loopback(settings.registry)
    store = Store(settings.state).create()
    daemon, now = _daemon(store), status(settings)
    if now.pid is not None:
        if (daemon.noted("address"), daemon.noted("closed")) == (settings.registry, closed):
            _wait(daemon, host, port, settings.registry)
            return now
        down(settings)
    if answers(host, port):
        raise RegistryError(
            f"{settings.registry} is taken by something else",
            context="a program that this state directory did not start listens there",
            hint="stop it, or set GOLDSMITH_REGISTRY to a free port such as 127.0.0.1:5711",
            reference="port-taken",
        )
    program = _program(settings)
    config = store.run / "registry.yml"
    now.data.mkdir(parents=True, exist_ok=True)
    users = _make_user(store, settings.registry) if closed else None
    write_atomically(config, _configuration(settings.registry, now.data, users).encode())
    environment = {**settings.child_environment, **_MEMORY}
    pid = daemon.start([program, "serve", config], environment, address=settings.registry, closed=closed)
    try:
        _wait(daemon, host, port, settings.registry)
    except BaseException:
        down(settings)
        raise
    return Storage(settings.registry, pid, now.data, now.log, started=True)


def down(settings: Settings) -> Storage:
    """Stop the storage registry if this state directory started it; its data stays.

    Raises ToolError when it does not end.
    """
    _daemon(Store(settings.state)).stop(_STOP_SECONDS)
    return status(settings)


def status(settings: Settings) -> Storage:
    """Whether the storage registry of this state directory runs."""
    daemon = _daemon(Store(settings.state))
    pid = daemon.pid
    address = daemon.noted("address") if pid else None
    return Storage(
        address if isinstance(address, str) else settings.registry,
        pid,
        settings.state / "registry",
        daemon.log,
    )


def _daemon(store: Store) -> Daemon:
    return Daemon(store, "registry", "the storage registry")


def _wait(daemon: Daemon, host: str, port: int, address: str) -> None:
    hint = "GOLDSMITH_REGISTRY chooses another port"
    daemon.wait(lambda: answers(host, port), address, _READY_SECONDS, hint)


def _make_user(store: Store, address: str) -> Path:
    """Make our user, once; returns the file in which the storage knows it.

    The hash has the least cost that there is: it is computed for each request, and what it guards
    are 256 random bits, which nobody guesses however quick a try is.
    """
    import bcrypt

    known = credentials_for(store.credentials, address)
    if known is None:
        try:
            store.credentials.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise ToolError(f"cannot write {store.credentials}", context=str(error)) from None
        known = Credentials(_USER, secrets.token_urlsafe(32))
        line = f"{known.username}:{known.password}\n"
        write_atomically(store.credentials / address, line.encode(), mode=0o600)
    users = store.run / "registry.users"
    hashed = bcrypt.hashpw(known.password.encode(), bcrypt.gensalt(rounds=_COST))
    write_atomically(users, f"{known.username}:{hashed.decode()}\n".encode(), mode=0o600)
    return users


def _configuration(address: str, data: Path, users: Path | None) -> str:
    """Distribution's configuration (its document "Configuring a registry", version 0.1)."""
    auth = {"auth": {"htpasswd": {"realm": "goldsmith", "path": str(users)}}} if users else {}
    return yaml.safe_dump(
        {
            **auth,
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
