"""The rebuild kit: all that an image was built of, as one artefact that is attached to its index.

Its layers are a document for the image and for each image below it (the oldest last), the packages
of each of them in one file, and the packages of the assembler in one file. A document depends on
the catalogue alone and its packages on its locks, so the kits of a family of images share them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from builder.model.digest import Digest
from builder.model.image import Descriptor
from builder.model.platform import Platform

KIT_TYPE = "application/vnd.goldsmith.kit.v1+json"
CONFIG_TYPE = "application/vnd.goldsmith.kit.config.v1+json"
DOCUMENT_TYPE = "application/vnd.goldsmith.kit.document.v1+json"
PACKAGES_TYPE = "application/vnd.goldsmith.kit.packages.v1+tar"
ASSEMBLER_TYPE = "application/vnd.goldsmith.kit.assembler.v1+tar"
TITLE_ANNOTATION = "org.opencontainers.image.title"

Content = bytes | Path | tuple[bytes | Path, ...]  # a blob: bytes, a file, or parts one after the other


def assembler_title(platform: Platform) -> str:
    """What the file of the assembler's packages for machines of that platform is called."""
    return f"assembler-{platform.architecture}.tar"


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
    """A kit ready to be published: its manifest, and every blob."""

    manifest: bytes
    subject: Descriptor
    blobs: Mapping[Digest, Content] = field(repr=False)

    @property
    def digest(self) -> Digest:
        """The digest of the manifest."""
        return Digest.of(self.manifest)
