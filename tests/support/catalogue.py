"""A small, sound catalogue in a folder, to be spoilt by tests."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import yaml

Document = dict[str, Any]


def image(name: str, **changes: Any) -> Document:
    """The content of an `image.yaml`."""
    return {
        "schema": 1,
        "name": name,
        "title": f"The image {name}",
        "owner": "team",
        "template": "debian-runtime",
        "streams": {"1": stream()},
        **changes,
    }


def stream(*packages: str, **changes: Any) -> Document:
    """One stream of an `image.yaml`."""
    return {
        "suite": "trixie",
        "packages": list(packages) or ["hello"],
        "end_of_life": "2030-01-31",
        **changes,
    }


def write(root: Path, *images: Document, builder: Document | None = None) -> Path:
    """Write a catalogue below `root`; returns `root`."""
    partials = root / "templates" / "_partials"
    partials.mkdir(parents=True, exist_ok=True)
    (partials / "assemble.sh.j2").write_text("#!/bin/sh\n")
    (root / "templates" / "debian-runtime.Dockerfile.j2").write_text("FROM scratch\n")
    (root / "images").mkdir(exist_ok=True)
    for document in images:
        folder = root / "images" / document["name"]
        folder.mkdir()
        (folder / "image.yaml").write_text(yaml.safe_dump(document))
        (folder / "checks.yaml").write_text("schema: 1\nfiles: [{path: /etc/os-release}]\n")
    if builder:
        (root / "templates" / "builder.yaml").write_text(yaml.safe_dump(builder))
    return root


def small_copy(source: Path, catalogue: Path) -> Path:
    """The templates, base and Python of a catalogue, each with one stream alone."""
    shutil.copytree(source / "templates", catalogue / "templates")
    for image, stream in (("base", "13"), ("python", "3.13")):
        shutil.copytree(source / "images" / image, catalogue / "images" / image)
        narrow(catalogue / "images" / image, stream)
    return catalogue


def narrow(folder: Path, stream: str) -> None:
    """Keep one stream of an image, as runtime image for linux/amd64: the others cost minutes."""
    definition, checks = folder / "image.yaml", folder / "checks.yaml"
    document = yaml.safe_load(definition.read_text())
    document["streams"] = {stream: document["streams"][stream]}
    document["streams"][stream].pop("dev", None)
    document |= {"variants": ["runtime"], "platforms": ["linux/amd64"]}
    definition.write_text(yaml.safe_dump(document, sort_keys=False))
    document = yaml.safe_load(checks.read_text())
    for kind in ("commands", "files"):
        kept = [c for c in document.get(kind, []) if stream in c.get("streams", [stream])]
        document[kind] = kept
    checks.write_text(yaml.safe_dump(document, sort_keys=False))
