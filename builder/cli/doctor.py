"""What `goldsmith doctor` looks at: each program and service, its version, and how to get it."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from builder.errors import GoldsmithError
from builder.settings import KEY_ROLES, Settings
from builder.store import Store
from builder.tools import process

_SECONDS = 20
_DISK_MIN = 4 << 30  # bytes


@dataclass(frozen=True, slots=True)
class Item:
    """One thing: whether it is there, its version or place, whether it is needed, how to get it."""

    name: str
    ok: bool
    needed: bool
    found: str
    purpose: str
    install: str = ""

    def as_dict(self) -> dict[str, object]:
        """The item as plain data."""
        return asdict(self)


def examine(settings: Settings) -> tuple[Item, ...]:
    """Look at everything; nothing is started, installed or downloaded."""
    store = Store(settings.state)
    return tuple(
        item
        for part in (_programs, _mirror, _containers, _buildah, _scanners, _surroundings)
        for item in part(settings, store)
    )


def _programs(settings: Settings, _: Store) -> Iterator[Item]:
    yield Item("python", True, True, ".".join(map(str, _python_version())), "runs goldsmith")
    yield _program(settings, "apt-get", "apt", "resolves packages for a lock")
    yield _program(settings, "docker-registry", "docker-registry", "the storage registry")

    def extensions() -> str:
        from builder.cli.extending import common_checks, installed
        from builder.extensions import not_named

        brought = [*map(str, installed(settings).identities())]
        brought += [f"check {one} of the catalogue" for one in common_checks(settings)]
        found = ", ".join(brought) or "none"
        idle = not_named(settings.extensions)
        return found + (f"; installed, but not named and not loaded: {', '.join(idle)}" if idle else "")

    yield _asked("extensions", "what the catalogue and packages of GOLDSMITH_EXTENSIONS bring", extensions)


def _python_version() -> tuple[int, int, int]:
    import sys

    return sys.version_info[:3]


def _program(settings: Settings, name: str, package: str, purpose: str) -> Item:
    path = process.find(name, settings.child_environment)
    if path is None:
        return Item(name, False, True, "not installed", purpose, _apt(package))
    asked = process.run(
        [path, "--version"],
        environment=settings.child_environment,
        timeout_seconds=_SECONDS,
        ok=range(-64, 256),
    )
    words = (asked.text or asked.log).split()
    version = next((w.strip(",") for w in words if w.strip("v,")[:1].isdigit()), "")
    return Item(name, True, True, f"{version} at {path}".strip(), purpose)


def _mirror(settings: Settings, _: Store) -> Iterator[Item]:
    from builder.tools import mirror

    # Debian 13 names the same file .pgp as well.
    keyring = next(iter(sorted(Path("/usr/share/keyrings").glob("debian-archive-keyring.[gp]*"))), None)
    yield Item(
        "debian-archive-keyring",
        keyring is not None,
        True,
        str(keyring or "not installed"),
        "the archive's keys",
        "" if keyring else _apt("debian-archive-keyring"),
    )

    def found() -> str:
        chosen = mirror.find(settings.debian_mirror)
        source = "GOLDSMITH_DEBIAN_MIRROR" if settings.debian_mirror else "the host's apt sources"
        return f"{chosen.main} (from {source})"

    yield _asked("debian mirror", "where packages come from", found)


def _containers(settings: Settings, store: Store) -> Iterator[Item]:
    from builder.tools.docker_client import find_combination
    from builder.tools.docker_engine import Engine, find_engine
    from builder.tools.dockerd import INSTALL_HINT

    engine = find_engine(store, settings.child_environment)
    purpose = "runs the checks, and builds with --engine docker"
    if isinstance(engine, Engine):
        yield Item(
            "container engine", True, True, f"{engine.version} at {engine.host} ({engine.origin})", purpose
        )
        yield _asked(
            "docker client",
            "builds with BuildKit on that engine",
            lambda: str(find_combination(engine, store.create(), settings.child_environment)),
        )
        return
    startable = process.find("dockerd", settings.child_environment)
    if (
        engine.reference == "docker-no-engine"
        and startable
        and "DOCKER_HOST" not in settings.child_environment
    ):
        yield Item("container engine", True, True, f"not running; `goldsmith up` starts {startable}", purpose)
        clients = process.find_all("docker", settings.child_environment)
        named = ", ".join(map(str, clients)) or "not installed"
        yield Item(
            "docker client",
            bool(clients),
            True,
            f"{named} (which of them builds shows when an engine runs)" if clients else named,
            "builds with BuildKit",
            "" if clients else _apt("docker.io"),
        )
        return
    context = engine.context.replace("\n", "; ")
    hint = engine.hint if startable else INSTALL_HINT
    yield Item("container engine", False, True, f"{engine.message}: {context}", purpose, hint)


def _buildah(settings: Settings, _: Store) -> Iterator[Item]:
    from builder.tools import buildah

    def found() -> str:
        program = buildah.locate(settings.child_environment)
        with tempfile.TemporaryDirectory(prefix="goldsmith-buildah-") as place:
            buildah.prove(program, Path(place))
        return f"{program} at {program.path}"

    yield replace(_asked("buildah", "builds with --engine buildah, without a daemon", found), needed=False)


def _scanners(settings: Settings, store: Store) -> Iterator[Item]:
    from builder.tools import hadolint, trivy

    def trivy_found() -> str:
        found = trivy.locate(settings.trivy_binary, settings.child_environment)
        return f"{found.identity.version} at {found.path}"

    def hadolint_found() -> str:
        found = hadolint.locate(settings.hadolint_binary, settings.child_environment)
        return f"{found.version} at {found.path}"

    yield _asked("trivy", "scans for vulnerabilities, secrets and licences", trivy_found)
    yield _asked("hadolint", "lints the rendered Dockerfiles", hadolint_found)
    known = [p for p in store.db.iterdir() if p.is_dir()] if store.db.is_dir() else []
    source = settings.trivy_db or "where Trivy normally takes it"
    held = f"{len(known)} kept" if known else "none yet"
    yield Item(
        "vulnerability database", True, False, f"{held}; taken from {source}", "what the scanner knows"
    )


def _surroundings(settings: Settings, store: Store) -> Iterator[Item]:
    from builder.signing.keys import ROLES

    isolation = process.network_isolation()
    yield Item(
        "network isolation",
        bool(isolation),
        False,
        " ".join(isolation) or "the kernel refuses it",
        "takes the network from scanner and linter",
    )
    held = [f"{role}.pub" for role in KEY_ROLES if (store.keys / f"{role}.pub").exists()]
    missing = [role for role in ROLES if f"{role}.pub" not in held]  # a witness builds elsewhere
    yield Item(
        "signing keys",
        not missing,
        False,
        ", ".join([*held, *settings.key_uris.values()]) or "none yet",
        "sign images, decisions, approvals and the trust file",
        f"goldsmith init: it makes what is missing ({', '.join(missing)})" if missing else "",
    )
    existing = next(p for p in (settings.state, *settings.state.parents) if p.exists())
    free = shutil.disk_usage(existing).free
    writable = os.access(existing, os.W_OK)
    yield Item(
        "state directory",
        writable and free >= _DISK_MIN,
        True,
        f"{settings.state}, {free / (1 << 30):.0f} GiB free" + ("" if writable else ", not writable"),
        "keeps packages, images, keys and records",
        ""
        if writable and free >= _DISK_MIN
        else "set GOLDSMITH_STATE to a folder that you may write, with 4 GiB to spare",
    )


def _asked(name: str, purpose: str, question: Callable[[], str]) -> Item:
    try:
        return Item(name, True, True, question(), purpose)
    except GoldsmithError as error:
        found = error.message + (f": {error.context}" if error.context else "")
        return Item(name, False, True, found.replace("\n", "; "), purpose, error.hint)
    except OSError as error:  # such as a read-only state directory, which has a line of its own
        return Item(name, False, True, f"cannot be tried: {error}", purpose, "see the state directory's line")


def _apt(package: str) -> str:
    sudo = "" if os.geteuid() == 0 else "sudo "
    return f"{sudo}apt-get install --no-install-recommends {package}"
