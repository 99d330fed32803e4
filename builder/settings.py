"""The one place that reads the environment and the clock; everything else is told.

Settings come from environment variables `GOLDSMITH_*` and are frozen for the run.
"""

from __future__ import annotations

import datetime as dt
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from builder.errors import UsageError

KEY_ROLES = ("root", "builder", "verdict", "approver", "witness")

_NOTIFY = "GOLDSMITH_NOTIFY_"  # + TARGET
_CATALOGUE_DEPTH_MAX = 32  # folders looked at upwards

# What a child process may see of our environment: nothing that changes what it prints.
_CHILD_ENVIRONMENT = (
    "PATH",
    "HOME",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "DOCKER_HOST",
    "DOCKER_CONFIG",
    "DOCKER_CERT_PATH",
    "DOCKER_TLS_VERIFY",
    "http_proxy",
    "https_proxy",
    "no_proxy",
)


@dataclass(frozen=True, slots=True)
class Settings:
    """What a run knows of its surroundings. `now` is read once and is the time of the whole run."""

    catalogue: Path
    state: Path
    now: dt.datetime
    registry: str
    debian_mirror: str | None
    trivy_db: str | None
    trivy_binary: str | None
    hadolint_binary: str | None
    key_uris: Mapping[str, str]
    passphrase: str | None = field(repr=False)
    child_environment: Mapping[str, str]
    policy: str
    token: str | None = field(default=None, repr=False)
    debian_keyring: str | None = None
    upstream_user: str | None = None
    upstream_password: str | None = field(default=None, repr=False)
    mirror: str = "127.0.0.1:5700"
    extensions: tuple[str, ...] = ()
    notify_addresses: Mapping[str, str] = field(default_factory=dict, repr=False)

    @classmethod
    def load(
        cls,
        environ: Mapping[str, str] | None = None,
        directory: Path | None = None,
        now: dt.datetime | None = None,
        needs_catalogue: bool = True,
    ) -> Settings:
        """Read the surroundings; raises UsageError when there is no catalogue.

        `GOLDSMITH_CATALOGUE` names the catalogue, otherwise the nearest folder upwards that
        holds `images/` and `templates/`. The state is kept in `GOLDSMITH_STATE`, otherwise in
        `.goldsmith` beside the catalogue. A command that can do without one
        (`needs_catalogue=False`) takes the working directory in its place.
        """
        env = os.environ if environ is None else environ
        here = (directory or _working_directory()).absolute()
        try:
            catalogue = find_catalogue(env, here)
        except UsageError:
            if needs_catalogue:
                raise
            catalogue = here
        state = Path(env.get("GOLDSMITH_STATE") or catalogue / ".goldsmith").absolute()
        return cls(
            catalogue=catalogue,
            state=state,
            now=(now or dt.datetime.now(dt.UTC)).replace(microsecond=0),
            registry=env.get("GOLDSMITH_REGISTRY") or "127.0.0.1:5710",
            mirror=env.get("GOLDSMITH_MIRROR") or "127.0.0.1:5700",
            debian_mirror=env.get("GOLDSMITH_DEBIAN_MIRROR") or None,
            trivy_db=env.get("GOLDSMITH_TRIVY_DB") or None,
            trivy_binary=env.get("GOLDSMITH_TRIVY") or None,
            hadolint_binary=env.get("GOLDSMITH_HADOLINT") or None,
            key_uris={
                role: env[f"GOLDSMITH_{role.upper()}_KEY"]
                for role in KEY_ROLES
                if env.get(f"GOLDSMITH_{role.upper()}_KEY")
            },
            passphrase=env.get("GOLDSMITH_KEY_PASSPHRASE") or None,
            child_environment=_child_environment(env),
            policy=env.get("GOLDSMITH_POLICY") or "baseline",
            token=env.get("GOLDSMITH_TOKEN") or None,
            debian_keyring=env.get("GOLDSMITH_DEBIAN_KEYRING") or None,
            upstream_user=env.get("GOLDSMITH_UPSTREAM_USER") or None,
            upstream_password=env.get("GOLDSMITH_UPSTREAM_PASSWORD") or None,
            extensions=tuple((env.get("GOLDSMITH_EXTENSIONS") or "").replace(",", " ").split()),
            notify_addresses={
                name.removeprefix(_NOTIFY).lower().replace("_", "-"): value
                for name, value in env.items()
                if name.startswith(_NOTIFY) and value
            },
        )


def _working_directory() -> Path:
    try:
        return Path.cwd()
    except FileNotFoundError:
        raise UsageError("the working directory is gone", hint="go to a folder that exists") from None


def wall_clock() -> float:
    """Seconds since the epoch: for services, which outlive the time of a run."""
    return time.time()


def find_catalogue(env: Mapping[str, str], directory: Path) -> Path:
    """The catalogue's folder: `GOLDSMITH_CATALOGUE`, or the nearest one from `directory` upwards."""
    named = env.get("GOLDSMITH_CATALOGUE")
    if named:
        path = Path(named).absolute()
        if not _is_catalogue(path):
            raise UsageError(
                f"GOLDSMITH_CATALOGUE names {path}, which is not a catalogue",
                hint="a catalogue is a folder with images/ and templates/ in it",
            )
        return path
    for folder in [directory, *directory.parents][:_CATALOGUE_DEPTH_MAX]:
        if _is_catalogue(folder):
            return folder
    raise UsageError(
        f"no catalogue in {directory} or above it",
        hint="go to a folder with images/ and templates/ in it, or set GOLDSMITH_CATALOGUE",
    )


def _is_catalogue(path: Path) -> bool:
    # Not Path.is_dir: that raises where we may not look.
    return os.path.isdir(path / "images") and os.path.isdir(path / "templates")


def _child_environment(env: Mapping[str, str]) -> dict[str, str]:
    child = {name: env[name] for name in _CHILD_ENVIRONMENT if name in env}
    path = child.get("PATH", "").split(os.pathsep) if child.get("PATH") else []
    for folder in ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"):
        if folder not in path:
            path.append(folder)
    return {**child, "PATH": os.pathsep.join(path), "LC_ALL": "C.UTF-8", "TZ": "UTC"}
