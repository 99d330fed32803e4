"""A synthetic catalogue of any size with locks, to be planned and built without an archive."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping
from pathlib import Path

import yaml

from builder.model.catalogue import Catalogue
from builder.model.lock import ImageLock, LockedPackage, LockSection, ParentPin
from builder.model.platform import Platform
from builder.stages.define import load_catalogue
from builder.stages.lock import intent, lock_path
from tests.support.catalogue import image, stream

ROOT = Path(__file__).parents[2]


def package(name: str, version: str) -> LockedPackage:
    """A package that nobody has; its hash follows from name and version."""
    sha = hashlib.sha256(f"{name} {version}".encode()).hexdigest()
    path = f"pool/main/{name[0]}/{name}/{name}_{version}_amd64.deb"
    return LockedPackage(name, version, "amd64", sha, 1000, path, name, version)


def define(root: Path, parents: Mapping[str, str | None]) -> Path:
    """Write definitions, one for each name with its parent, and the real templates."""
    if not (root / "templates").exists():
        shutil.copytree(ROOT / "templates", root / "templates")
    for name, parent in parents.items():
        folder = root / "images" / name
        folder.mkdir(parents=True, exist_ok=True)
        above = {"from": parent} if parent else {}
        document = image(name, streams={"1": stream(f"{name}-app")}, **above)
        (folder / "image.yaml").write_text(yaml.safe_dump(document))
        (folder / "checks.yaml").write_text("schema: 1\nfiles: [{path: /etc/os-release}]\n")
    return root


def lock(root: Path, versions: Mapping[str, str] | None = None, packages: int = 3) -> Catalogue:
    """Lock every image to `packages` packages of its own: NAME-app, NAME-1, … at version 1.

    `versions` says which packages have another one.
    """
    catalogue = load_catalogue(root)
    platform = Platform("linux", "amd64")
    sections: dict[str, LockSection] = {}
    for target in catalogue.targets():
        name = target.definition.name
        names = sorted([f"{name}-app", *(f"{name}-{n}" for n in range(1, packages))])
        parent = catalogue.parent(target)
        pin = None
        if parent:
            pin = ParentPin(parent.ref, parent.variant, sections[parent.ref].digest)
        found = tuple(package(n, (versions or {}).get(n, "1")) for n in names)
        section = LockSection("1", target.variant, platform, "trixie", intent(target), pin, found)
        sections[target.ref] = section
        lock_path(catalogue, name).write_text(ImageLock((section,)).text())
    return catalogue
