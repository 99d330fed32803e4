"""The programs that judge our output: real ones from Debian, unpacked privately, never installed.

`cosign(2)` and `cosign(3)` return paths of ready programs. The packages come from the Debian
mirror of this machine, verified against the signed index, into a cache folder (by default
`.goldsmith/oracles` beside the sources). Without a mirror a test is skipped, or fails in CI.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
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
    tool("apt-get")
    dpkg = tool("dpkg-deb")
    folder = Path(os.environ.get("GOLDSMITH_ORACLES") or _ROOT / ".goldsmith" / "oracles")
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
    root = found.parents[2]
    if not (root / "libraries").is_dir():
        folder = root.parents[1]
        settings = Settings.load(directory=_ROOT, needs_catalogue=False)
        store, dpkg = Store(folder).create(), tool("dpkg-deb")
        try:
            mirror = find(settings.debian_mirror)
            apt = _PatientApt(store.apt, mirror, settings.child_environment)
            libraries = [p for p in apt.resolve(suite, "amd64", [name]) if p.name.startswith("lib")]
            pool = Pool(store, lambda: mirror, settings.child_environment)
            pool.fetch(libraries)
            with store.scratch("libraries") as work:
                for package in libraries:
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
    folder = root / "libraries" / "usr" / "lib" / "x86_64-linux-gnu"
    return folder / "ld-linux-x86-64.so.2", "--library-path", folder, found
