"""The storage behind the mirror: CNCF Distribution on loopback, with its data in the state directory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import yaml

from builder.errors import RegistryError, ToolError, UsageError
from builder.oci.auth import READER, host_name, is_loopback
from builder.oci.issuer import ISSUER, SERVICE, certificate_of, is_good, new_pem
from builder.settings import Settings
from builder.store import Store, read_file, write_atomically
from builder.tools import process
from registry.storage.daemon import READY_SECONDS, STOP_SECONDS, Daemon, answers

_PROGRAMS = ("docker-registry", "registry")
_READY_SECONDS = READY_SECONDS
_STOP_SECONDS = STOP_SECONDS
# It takes 4 MB for each blob that it reads: with Go's own setting it collects garbage at each request.
_MEMORY = {"GOGC": "400"}
_LOGIN_MAX = 16 << 10  # bytes


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

    A `closed` one asks everybody for a token by one of the keys that are made here, in the folder of
    credentials, a writer's and a reader's; an open one is for tests. Raises UsageError when
    `settings.registry` is not a loopback address with a port, ToolError when the program is missing,
    RegistryError when the port is taken or it does not come up.
    """
    host, port = _loopback(settings.registry)
    store = Store(settings.state).create()
    daemon, now = _daemon(store), status(settings)
    asks = "token" if closed else ""
    if now.pid is not None:
        if (daemon.noted("address"), daemon.noted("asks")) == (settings.registry, asks):
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
    trusted = _make_logins(store, settings) if closed else None
    write_atomically(config, _configuration(settings.registry, now.data, trusted).encode())
    environment = {**settings.child_environment, **_MEMORY}
    pid = daemon.start([program, "serve", config], environment, address=settings.registry, asks=asks)
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


def _make_logins(store: Store, settings: Settings) -> Path:
    """Make the keys of writer and reader, once; returns the file of the certificates for the storage.

    What was there before and is no such key (a password of an earlier version) gives way.
    """
    trusted = store.run / "registry.crt"
    certificates = []
    for suffix, writes in (("", True), (READER, False)):
        path = store.credentials / f"{settings.registry}{suffix}"
        try:
            store.credentials.mkdir(mode=0o700, exist_ok=True)
            pem = read_file(path, _LOGIN_MAX) if path.exists() else b""
        except OSError as error:
            raise ToolError(f"cannot use {path}", context=str(error)) from None
        if not is_good(pem, settings.now):
            pem = new_pem(settings.now, writes=writes)
            write_atomically(path, pem, mode=0o600)
        certificates.append(certificate_of(pem))
    write_atomically(trusted, b"".join(certificates))
    (store.run / "registry.users").unlink(missing_ok=True)
    return trusted


def _configuration(address: str, data: Path, trusted: Path | None) -> str:
    """Distribution's configuration (its document "Configuring a registry", version 0.1)."""
    # Our clients sign their tokens themselves: nothing listens at the realm, where others are sent.
    token = {"realm": f"http://{address}/token", "service": SERVICE, "issuer": ISSUER}
    auth = {"auth": {"token": {**token, "rootcertbundle": str(trusted)}}} if trusted else {}
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
