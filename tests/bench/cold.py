"""`cold_pipeline`: ours for python, against the usual script, on the same downloaded packages.

The usual script: `docker build` with apt-get install (from a local archive of the same files, so
that no network is timed), Trivy SBOM, Trivy scan, `docker push`, cosign sign and attest.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

from builder.model.lock import LockedPackage
from builder.pipeline.prepare import prepare
from builder.tools.deb import read_control
from builder.tools.trivy import binary
from tests.bench.scene import Scene, Stopwatch
from tests.support.oracles import cosign

_DOCKERFILE = """\
FROM goldsmith-bench-debian
COPY archive /archive
RUN echo 'deb [trusted=yes] file:/archive ./' > /etc/apt/sources.list \\
 && rm -rf /etc/apt/sources.list.d/* && apt-get update -q \\
 && apt-get install -y -q --no-install-recommends {packages} \\
 && rm -rf /var/lib/apt/lists/*
USER 65532
ENTRYPOINT ["/usr/bin/python3.13"]
"""


def measure(scene: Scene) -> Iterator[tuple[str, float, str, float]]:
    """Seconds of each, from nothing built; packages, database, engine and registry are at hand."""
    workshop = scene.workshop()
    targets = [workshop.catalogue.find("base:13"), workshop.catalogue.find("python:3.13")]
    for target in targets:
        for context in prepare(workshop.catalogue, target).contexts.values():
            workshop.pool.fetch(context.lock.packages)
    requested = sorted({name for target in targets for name in target.stream.packages})
    packages = _closure(scene, requested)
    workshop.pool.fetch(packages)
    database = scene.tools().database  # unpacked before the clock runs
    with Stopwatch() as ours:
        scene.run()
    with scene.store.scratch("bench") as work:
        _base_image(scene)
        context = work / "context"
        _archive(scene, packages, context / "archive")
        names = " ".join(name for name in requested if name != "base-files")
        (context / "Dockerfile").write_text(_DOCKERFILE.format(packages=names))
        with Stopwatch() as usual:
            _usual(scene, work, context, database.cache_dir)
    yield "cold_pipeline", ours.seconds, "s", usual.seconds


def _usual(scene: Scene, work: Path, context: Path, cache: Path) -> None:
    name = f"{scene.settings.registry}/usual/python:3.13"
    docker, trivy, signer = scene.docker.client, binary(None, scene.settings.child_environment), cosign(2)
    scene.peer(
        [docker, "build", "--no-cache", "--network=none", "-q", "-t", name, context], DOCKER_BUILDKIT="1"
    )
    common = [
        "--cache-dir",
        cache,
        "--skip-db-update",
        "--skip-java-db-update",
        "--skip-version-check",
        "--offline-scan",
        "-q",
    ]
    for form, scanners in (
        ("cyclonedx", []),
        ("spdx-json", []),
        ("json", ["--scanners", "vuln,secret,license"]),
    ):
        scene.peer([trivy, "image", *common, *scanners, "--format", form, "--output", work / form, name])
    scene.peer([docker, "push", "-q", name])
    digest = scene.peer([docker, "inspect", "-f", "{{index .RepoDigests 0}}", name]).text.strip()
    environment = {"COSIGN_PASSWORD": "bench", "HOME": str(work)}
    scene.peer([signer, "generate-key-pair", "--output-key-prefix", work / "key"], **environment)
    key = ["--key", work / "key.key", "--yes", "--tlog-upload=false"]
    scene.peer([signer, "sign", *key, digest], **environment)
    for kind, form in (("cyclonedx", "cyclonedx"), ("spdxjson", "spdx-json"), ("vuln", "json")):
        scene.peer(
            [signer, "attest", *key, "--type", kind, "--predicate", work / form, digest], **environment
        )


def _closure(scene: Scene, requested: list[str]) -> tuple[LockedPackage, ...]:
    """What apt installs for the same request: ours, and the dependencies that ours leaves out."""
    from builder.tools import mirror
    from builder.tools.apt import Apt

    found = mirror.find(scene.settings.debian_mirror)
    archive = Apt(scene.store.apt, found, scene.settings.child_environment)
    return archive.resolve("trixie", "amd64", requested)


def _archive(scene: Scene, packages: tuple[LockedPackage, ...], folder: Path) -> None:
    """A flat archive of the very packages that ours is built of."""
    folder.mkdir(parents=True)
    pool = scene.workshop().pool
    index = []
    for package in packages:
        path = pool.path(package)
        name = f"{package.name}_{package.sha256[:12]}.deb"
        shutil.copyfile(path, folder / name)
        control = read_control(path).control.rstrip("\n")
        index.append(f"{control}\nFilename: ./{name}\nSize: {package.size}\nSHA256: {package.sha256}\n")
    (folder / "Packages").write_text("\n".join(index))


def _base_image(scene: Scene) -> None:
    """A minimal Debian 13 with apt in the engine, made with debootstrap; not timed."""
    from builder.tools import mirror
    from builder.tools.apt import KEYRING

    found = scene.peer([scene.docker.client, "image", "ls", "-q", "goldsmith-bench-debian"])
    if found.text.strip():
        return
    address = mirror.find(scene.settings.debian_mirror).main
    with scene.store.scratch("debian") as work:
        scene.peer(
            ["debootstrap", "--variant=minbase", f"--keyring={KEYRING}", "trixie", work / "root", address]
        )
        scene.peer(["tar", "-C", work / "root", "-cf", work / "root.tar", "."])
        scene.peer([scene.docker.client, "import", work / "root.tar", "goldsmith-bench-debian"])
