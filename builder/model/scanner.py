"""Further scanners that a team brings: what one is given, and what it has to answer."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from builder.model.digest import Digest
from builder.model.evidence import Finding
from builder.model.extension import ExtensionIdentity
from builder.model.platform import Platform


@dataclass(frozen=True, slots=True)
class Scanned:
    """One platform of an image, to be scanned: its manifest's digest, and where to read it.

    `layout` is an OCI layout with this platform alone, `cyclonedx` its SBOM, `packages` are its
    packages (NAME=VERSION), `work` is an empty folder.
    """

    name: str
    digest: Digest
    platform: Platform
    layout: Path
    cyclonedx: Path
    packages: tuple[str, ...]
    work: Path


@dataclass(frozen=True, slots=True)
class Scanner:
    """A scanner beside ours: gives every finding, or raises when it could not look.

    `identity` is set by who loads it.
    """

    id: str
    title: str
    scan: Callable[[Scanned], Iterable[Finding]]
    identity: ExtensionIdentity | None = None
