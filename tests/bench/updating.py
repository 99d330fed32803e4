"""`delta_openssl`: the bytes that a client of python pulls when nothing but OpenSSL was updated.

The package is Debian's own with a higher version: every file in it has other bytes and a later time,
as after a rebuild. The locks of base and python name the new one, both images are built again, and
what `goldsmith delta` counts is the figure: layers, configuration, manifest and index. The peer is the
new package itself, as apt would download it, which xz compresses better than any layer may be.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from builder.cli.wiring import Workshop
from builder.model.image import BuiltImage
from builder.model.lock import ImageLock, LockedPackage, LockSection
from builder.pipeline.prepare import prepare
from builder.pipeline.timing import Stages
from builder.report import Silent
from builder.stages.define import load_catalogue
from builder.store import file_digest
from registry.diff.compare import pulled_bytes
from registry.diff.local import built_image
from tests.bench.scene import ENGINES, Scene

_SOURCE = "openssl"
_LATER = 86_400  # seconds


def measure(scene: Scene) -> Iterator[tuple[str, float, str, float]]:
    """Bytes of each, for every platform of the image together."""
    before = scene.workshop()
    old = _build(before)
    catalogue = scene.state / "updated"
    shutil.copytree(before.catalogue.root, catalogue)
    workshop = Workshop(scene.settings, load_catalogue(catalogue), scene.store)
    updated: dict[str, LockedPackage] = {}
    with scene.store.scratch("update") as work:
        pins: dict[tuple[str, str, str], LockSection] = {}
        for name in ("base", "python"):
            path = workshop.catalogue.directory(name) / "image.lock"
            sections = []
            for section in ImageLock.parse(path.read_text()).sections:
                new = _updated(scene, workshop, section, pins, updated, work)
                pins[f"{name}:{section.stream}", section.variant, str(section.platform)] = new
                sections.append(new)
            path.write_text(ImageLock(tuple(sections)).text())
    new_image = _build(workshop)
    facts = built_image(old), built_image(new_image)
    ours = sum(pulled_bytes(*facts, platform) for platform in facts[1].platforms)
    yield "delta_openssl", ours, "B", sum(package.size for package in updated.values())


def _build(workshop: Workshop) -> BuiltImage:
    target = workshop.catalogue.find("python:3.13")
    chain = [
        prepare(workshop.catalogue, t) for t in (*reversed(workshop.catalogue.ancestors(target)), target)
    ]
    return workshop.builder(ENGINES).chain(chain, lambda ref: Stages(ref, Silent()))[0]


def _updated(
    scene: Scene,
    workshop: Workshop,
    section: LockSection,
    pins: dict[tuple[str, str, str], LockSection],
    updated: dict[str, LockedPackage],
    work: Path,
) -> LockSection:
    """The section with the new packages, and with its parent's new section."""
    packages = []
    for package in section.packages:
        if package.source == _SOURCE and package.sha256 not in updated:
            updated[package.sha256] = _repacked(scene, workshop, package, work)
        packages.append(updated.get(package.sha256, package))
    parent = section.parent
    if parent:
        below = pins[parent.image, parent.variant, str(section.platform)]
        parent = replace(parent, section=below.digest)
    return replace(section, packages=tuple(packages), parent=parent)


def _repacked(scene: Scene, workshop: Workshop, package: LockedPackage, work: Path) -> LockedPackage:
    """The package at its next version, in the pool: other bytes in every file, other times."""
    folder, file = work / package.name, work / f"{package.name}.deb"
    scene.peer(["dpkg-deb", "-R", workshop.pool.path(package), folder])
    version = f"{package.version}+fixed1"
    control = folder / "DEBIAN" / "control"
    control.write_text(
        control.read_text().replace(f"\nVersion: {package.version}\n", f"\nVersion: {version}\n")
    )
    files = [p for p in sorted(folder.rglob("*")) if p.is_file() and not p.is_symlink()]
    newest = int(max(p.stat().st_mtime for p in files))
    for path in files:
        if "DEBIAN" not in path.parts:
            with open(path, "ab") as out:
                out.write(f"\n{version}\n".encode())
    environment = {"SOURCE_DATE_EPOCH": str(newest + _LATER)}
    for path in folder.rglob("*"):
        os.utime(path, (newest + _LATER, newest + _LATER), follow_symlinks=False)
    scene.peer(["dpkg-deb", "-Zxz", "--root-owner-group", "-b", folder, file], **environment)
    sha256 = file_digest(file).hex
    new = replace(package, version=version, sha256=sha256, size=file.stat().st_size, source_version=version)
    shutil.copyfile(file, scene.store.pool / f"{sha256}.deb")
    return new
