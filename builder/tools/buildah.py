"""buildah: where it is, whether it can build here, and building a root file system with it.

It works in folders of ours alone: storage, configuration, policy and home are below the folder
that the caller names, so that neither what the host configured nor what its users keep is read
or changed. Source of options and variables: buildah-build(1), containers-storage.conf(5),
containers.conf(5), containers-policy.json(5).
"""

from __future__ import annotations

import contextlib
import os
import re
import resource
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from builder.errors import ToolError
from builder.tools import process

_OLDEST = (1, 28)  # what was tried; `--output` is younger than what Debian 11 has
_VERSION = re.compile(r"buildah version ([0-9]+)\.([0-9]+)([0-9A-Za-z.+~-]{0,40})")
_SECONDS = 30
_FREE_SECONDS = 120
_SOMEBODY = "65532:65532"
_LIMIT = 20_000  # files, processes
_RUN_HINT = "as a user, buildah takes newuidmap and a range in /etc/subuid; --engine direct takes no rights"
INSTALL_HINT = (
    "apt-get install --no-install-recommends buildah (for users other than root: uidmap, too), "
    "or build without it: goldsmith build --engine direct"
)


@dataclass(frozen=True, slots=True)
class Buildah:
    """One buildah program; `search` is the PATH of its runs."""

    path: Path
    version: str
    search: str

    def __str__(self) -> str:
        return f"{self.version} (chroot isolation, vfs storage)"


def locate(environment: Mapping[str, str]) -> Buildah:
    """The first `buildah` in PATH; raises ToolError when there is none, or it is too old."""
    path = process.find("buildah", environment)
    if path is None:
        raise ToolError("buildah is not installed", hint=INSTALL_HINT, reference="buildah-missing")
    search = environment.get("PATH", "/usr/bin:/bin")
    asked = process.run(
        [path, "--version"], environment={"PATH": search}, timeout_seconds=_SECONDS, hint=INSTALL_HINT
    )
    match = _VERSION.match(asked.text)
    if not match:
        raise ToolError(f"{path} does not say its version", context=asked.text[:200], hint=INSTALL_HINT)
    if (int(match[1]), int(match[2])) < _OLDEST:
        wanted = ".".join(map(str, _OLDEST))
        raise ToolError(
            f"buildah {match[1]}.{match[2]} is too old: {wanted} is the oldest that was tried",
            context=str(path),
            hint="use that of Debian 12 or younger, or --engine direct",
            reference="buildah-missing",
        )
    return Buildah(path, f"{match[1]}.{match[2]}{match[3]}", search)


def prove(buildah: Buildah, place: Path) -> None:
    """Raise ToolError when this user cannot have the namespaces that a build takes.

    Images have files of more than one user, so that users have to be mapped, too. `place` is a folder
    for buildah's storage.
    """
    (proof := place / "proof").touch()
    try:
        process.run(
            [*_closed(buildah, place), "chown", _SOMEBODY, proof],
            environment=_environment(buildah, place),
            timeout_seconds=_SECONDS,
        )
    except ToolError as error:
        raise ToolError(
            "buildah cannot make the namespaces of a build here",
            context=error.context or error.message,
            hint=_RUN_HINT,
            reference="buildah-no-rights",
        ) from None


def build_tar(
    buildah: Buildah,
    context: Path,
    output: Path,
    place: Path,
    *,
    epoch: int,
    timeout_seconds: float,
    show: bool = False,
) -> None:
    """Build the folder `context` without a network; its root file system is written to `output`.

    `place` is a folder for buildah's storage; `remove` takes it away. `epoch` is SOURCE_DATE_EPOCH in
    seconds. Raises ToolError when the build fails or leaves no tar.
    """
    (policy := place / "policy.json").write_text('{"default": [{"type": "reject"}]}')
    process.run_live(
        [
            *_closed(buildah, place),
            buildah.path,
            *_storage(place),
            "build",
            f"--signature-policy={policy}",
            "--pull-never",
            "--network=none",
            "--layers=false",
            f"--timestamp={epoch}",
            *_limits(),
            f"--output=type=tar,dest={output}",
            context,
        ],
        environment=_environment(buildah, place),
        timeout_seconds=timeout_seconds,
        show=show,
        hint=_RUN_HINT,
    )
    if not output.is_file() or output.stat().st_size == 0:
        raise ToolError("the build ended without a result", context=f"buildah {buildah}")


def remove(buildah: Buildah, place: Path) -> None:
    """Remove a storage; what other users of our range own goes only from inside a user namespace."""
    if os.geteuid() != 0 and place.is_dir():
        with contextlib.suppress(ToolError):
            process.run(
                [buildah.path, *_storage(place), "unshare", "rm", "-rf", place / "root", place / "run"],
                environment=_environment(buildah, place),
                timeout_seconds=_FREE_SECONDS,
            )
    shutil.rmtree(place, ignore_errors=True)


def _closed(buildah: Buildah, place: Path) -> list[str | Path]:
    """A network, mounts and processes of its own, all of which end with it, however it ends.

    `--network=none` alone does not take the network in chroot isolation, and a killed build would leave
    mounts and children behind. As a user, buildah gives us the user namespace that this takes.
    """
    unshare = shutil.which("unshare", path="/usr/bin:/bin") or "unshare"
    spaces = ["--net", "--mount", "--propagation=private", "--pid", "--mount-proc", "--fork", "--kill-child"]
    inside: tuple[str | Path, ...] = () if os.geteuid() == 0 else (buildah.path, *_storage(place), "unshare")
    return [*inside, unshare, *spaces]


def _storage(place: Path) -> list[str]:
    # Of all drivers only vfs works on every file system, as root and as anybody else.
    return [f"--root={place / 'root'}", f"--runroot={place / 'run'}", "--storage-driver=vfs"]


def _limits() -> list[str]:
    """Limits for the steps, low enough for everybody: otherwise buildah tries to raise ours."""
    found = []
    for name, number in (("nofile", resource.RLIMIT_NOFILE), ("nproc", resource.RLIMIT_NPROC)):
        soft, hard = (
            _LIMIT if x == resource.RLIM_INFINITY else min(x, _LIMIT) for x in resource.getrlimit(number)
        )
        found.append(f"--ulimit={name}={soft}:{hard}")
    return found


def _environment(buildah: Buildah, place: Path) -> dict[str, str]:
    for folder in ("home", "tmp", "runtime"):
        (place / folder).mkdir(mode=0o700, parents=True, exist_ok=True)
    files = {"storage.conf": '[storage]\ndriver = "vfs"\n', "containers.conf": "", "registries.conf": ""}
    for name, text in files.items():
        (place / name).write_text(text)
    return {
        "PATH": buildah.search,
        "LC_ALL": "C.UTF-8",
        "HOME": str(place / "home"),
        "TMPDIR": str(place / "tmp"),
        "XDG_RUNTIME_DIR": str(place / "runtime"),
        "BUILDAH_ISOLATION": "chroot",
        "CONTAINERS_STORAGE_CONF": str(place / "storage.conf"),
        "CONTAINERS_CONF": str(place / "containers.conf"),
        "CONTAINERS_REGISTRIES_CONF": str(place / "registries.conf"),
    }
