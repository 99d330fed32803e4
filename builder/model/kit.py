"""The rebuild kit: all that an image was built of, as one artefact that is attached to its index.

Its layers are a document for the image and for each image below it (the oldest last), the packages
of all of them, one blob each, and the packages of the assembler in one file. A document depends on
the catalogue alone and a package on nothing, so kits share them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from builder.model.digest import Digest
from builder.model.image import Descriptor
from builder.model.lock import LockedPackage

KIT_TYPE = "application/vnd.goldsmith.kit.v1+json"
CONFIG_TYPE = "application/vnd.goldsmith.kit.config.v1+json"
DOCUMENT_TYPE = "application/vnd.goldsmith.kit.document.v1+json"
PACKAGE_TYPE = "application/vnd.debian.binary-package"
ASSEMBLER_TYPE = "application/vnd.goldsmith.kit.assembler.v1+tar"
TITLE_ANNOTATION = "org.opencontainers.image.title"


@dataclass(frozen=True, slots=True)
class KitDocument:
    """What one image was made of, beside its packages.

    `files` are the catalogue's by path, `rendered` the build contexts by platform, `parent` is the
    image below (its name in the catalogue) with the digest of its document.
    """

    ref: str
    parent: tuple[str, Digest] | None
    files: Mapping[str, bytes]
    rendered: Mapping[str, Mapping[str, bytes]]


@dataclass(frozen=True, slots=True)
class PackedKit:
    """A kit ready to be published: its manifest, and every blob as bytes or as a file."""

    manifest: bytes
    subject: Descriptor
    blobs: Mapping[Digest, bytes | Path] = field(repr=False)

    @property
    def digest(self) -> Digest:
        """The digest of the manifest."""
        return Digest.of(self.manifest)


def package_title(package: LockedPackage) -> str:
    """What a package's blob is called in a kit; for people, nothing is found by it."""
    return f"{package.name}_{package.version}_{package.architecture}.deb"
