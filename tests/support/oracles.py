"""The programs that judge our output: real ones from Debian, unpacked privately, never installed.

`cosign(2)` and `cosign(3)` return paths of ready programs. The packages come from the Debian
mirror of this machine, verified against the signed index, into a cache folder (by default
`.goldsmith/oracles` beside the sources). Without a mirror a test is skipped, or fails in CI.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

from builder.errors import GoldsmithError
from builder.settings import Settings
from builder.store import Store
from builder.tools import process
from builder.tools.apt import Apt
from builder.tools.mirror import find
from builder.tools.pool import Pool
from tests.support.requires import missing, tool

_ROOT = Path(__file__).resolve().parents[2]
_UNPACK_SECONDS = 120
# Which release packages which major version of cosign.
_COSIGN = {2: "trixie", 3: "forky"}


class _PatientApt(Apt):
    """Takes an index past its date too: mirrors may keep an old state of a release in the making.

    The index is signed all the same, and nothing of it gets into an image.
    """

    def _run(self, suite: str, architecture: str, argv: Sequence[str], seconds: float) -> process.Completed:
        patient = [argv[0], "-o", "Acquire::Check-Valid-Until=false", *argv[1:]]
        return super()._run(suite, architecture, patient, seconds)


@cache
def cosign(major: int) -> Path:
    """The cosign CLI of that major version."""
    return program("cosign", _COSIGN[major])


@cache
def program(name: str, suite: str, package: str | None = None) -> Path:
    """`usr/bin/NAME` of a Debian package (by default of the same name) of a release, unpacked.

    Only this package is unpacked, none of its dependencies: it has to run with what is here.
    """
    return unpacked(package or name, suite) / "usr" / "bin" / name


@cache
def unpacked(package: str, suite: str) -> Path:
    """The files of one Debian package of a release, below a folder of our own."""
    with _turn():
        return _unpack(package, suite)


@contextlib.contextmanager
def _turn() -> Iterator[None]:
    """One process after the other: groups of tests run side by side and share the folder."""
    folder = _folder()
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "turn", "w") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        yield


def _folder() -> Path:
    return Path(os.environ.get("GOLDSMITH_ORACLES") or _ROOT / ".goldsmith" / "oracles")


def _unpack(package: str, suite: str) -> Path:
    tool("apt-get")
    dpkg = tool("dpkg-deb")
    folder = _folder()
    settings = Settings.load(directory=_ROOT, needs_catalogue=False)
    environment = settings.child_environment
    store = Store(folder).create()
    target = folder / "unpacked" / f"{suite}-{package}"
    if target.is_dir():
        return target
    try:
        mirror = find(settings.debian_mirror)
        apt = _PatientApt(store.apt, mirror, environment)
        apt.update(suite, "amd64")
        (locked,) = (p for p in apt.resolve(suite, "amd64", [package]) if p.name == package)
        pool = Pool(store, lambda: mirror, environment)
        pool.fetch([locked])
        with store.scratch("unpack") as work:
            process.run(
                [dpkg, "-x", pool.path(locked), work / "root"],
                environment=environment,
                timeout_seconds=_UNPACK_SECONDS,
            )
            target.parent.mkdir(parents=True, exist_ok=True)
            if not target.exists():
                (work / "root").rename(target)
        return target
    except GoldsmithError as error:
        missing(f"{package} of {suite} cannot be had: {error.message} ({error.context[:300]})")
        raise


@cache
def foreign(name: str, suite: str) -> tuple[str | Path, ...]:
    """The start of a command line for a program of a newer release, with that release's own libraries."""
    found = program(name, suite)
    folder = _libraries(name, suite)
    return folder / "ld-linux-x86-64.so.2", "--library-path", folder, found


@cache
def buildah() -> Path:
    """A folder for the PATH with `buildah`: this machine's, or that of Debian 12, unpacked.

    It starts itself again, so that it has to run with the loader of this machine: libc stays the host's.
    """
    here = shutil.which("buildah")
    if here:
        return Path(here).parent
    found = program("buildah", "bookworm")
    libraries = _libraries("buildah", "bookworm", but=("libc6", "libgcc-s1", "libcrypt1"))
    folder = found.parents[2] / "bin"
    folder.mkdir(exist_ok=True)
    script = folder / "buildah"
    script.write_text(f'#!/bin/sh\nLD_LIBRARY_PATH="{libraries}" exec "{found}" "$@"\n')
    script.chmod(0o755)
    return folder


def _libraries(name: str, suite: str, but: Sequence[str] = ()) -> Path:
    """The folder of all libraries that a package of a release depends on, unpacked beside it."""
    root = unpacked(name, suite)
    with _turn():
        _bring_libraries(root, name, suite, but)
    return root / "libraries" / "usr" / "lib" / "x86_64-linux-gnu"


def _bring_libraries(root: Path, name: str, suite: str, but: Sequence[str]) -> None:
    if not (root / "libraries").is_dir():
        folder = root.parents[1]
        settings = Settings.load(directory=_ROOT, needs_catalogue=False)
        store, dpkg = Store(folder).create(), tool("dpkg-deb")
        try:
            mirror = find(settings.debian_mirror)
            apt = _PatientApt(store.apt, mirror, settings.child_environment)
            wanted = [
                p
                for p in apt.resolve(suite, "amd64", [name])
                if p.name.startswith("lib") and p.name not in but
            ]
            pool = Pool(store, lambda: mirror, settings.child_environment)
            pool.fetch(wanted)
            with store.scratch("libraries") as work:
                for package in wanted:
                    process.run(
                        [dpkg, "-x", pool.path(package), work / "libraries"],
                        environment=settings.child_environment,
                        timeout_seconds=_UNPACK_SECONDS,
                    )
                (work / "libraries").rename(root / "libraries")
        except GoldsmithError as error:
            missing(
                f"the libraries of {name} of {suite} cannot be had: {error.message} ({error.context[:300]})"
            )
