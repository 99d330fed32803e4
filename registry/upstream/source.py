"""Where an image comes from: one interface over registries, layouts and archives."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from builder.errors import RegistryError, UsageError
from builder.model.digest import Digest
from builder.model.image import Descriptor
from builder.model.reference import Reference
from builder.oci.client import RegistryClient
from builder.oci.layout import (
    blob_path,
    create_layout,
    read_blob,
    read_layout_index,
    replacing,
    verified_chunks,
)
from builder.oci.manifest import INDEX_TYPES, MANIFEST_MAX, MANIFEST_TYPES
from registry.upstream.archive import Archive
from registry.upstream.docker import convert
from registry.upstream.refusal import refuse

REGISTRY, LAYOUT, ARCHIVE = "registry", "oci-layout", "docker-archive"


class Source(Protocol):
    """An image somewhere else. `origin` is what provenance and ledger call it, without its digest."""

    kind: str
    origin: str
    root: Descriptor

    def read(self, descriptor: Descriptor) -> bytes:
        """A manifest or configuration of at most 4 MiB; raises unless size and digest agree."""

    def fetch(self, descriptor: Descriptor, layout: Path) -> None:
        """Bring a blob into a layout of ours; raises unless size and digest agree."""


class RegistrySource:
    """An image in a registry, by digest; every byte comes by its digest."""

    kind = REGISTRY

    def __init__(self, client: RegistryClient, reference: Reference) -> None:
        if reference.digest is None:
            found = client.head_manifest(reference)
            hint = f"goldsmith import {reference.repository}@{found.digest}" if found else "there is none"
            raise UsageError("an import names a digest: tags move", context=str(reference), hint=hint)
        if reference.tag is not None:
            _same_image(client, reference, reference.digest)
        self.origin = reference.repository
        self._client, self._repo = client, reference.name
        data, media_type, digest = client.get_manifest(reference.with_digest(reference.digest))
        self.root = Descriptor(media_type, digest, len(data))

    def read(self, descriptor: Descriptor) -> bytes:
        """A manifest or configuration, by digest."""
        if descriptor.media_type not in (*MANIFEST_TYPES, *INDEX_TYPES):
            return self._client.get_blob_bytes(self._repo, descriptor, MANIFEST_MAX)
        where = self._client.reference(self._repo, digest=descriptor.digest)
        data, media_type, _ = self._client.get_manifest(where)
        if (media_type, len(data)) != (descriptor.media_type, descriptor.size):
            refuse(
                "manifest-refused", "the index describes a manifest otherwise than it is", context=str(where)
            )
        return data

    def fetch(self, descriptor: Descriptor, layout: Path) -> None:
        """Download a blob."""
        self._client.get_blob(self._repo, descriptor, blob_path(layout, descriptor.digest))


def _same_image(client: RegistryClient, reference: Reference, digest: Digest) -> None:
    """Who names tag and digest means one image: of two, nobody can tell which was meant."""
    found = client.head_manifest(reference.with_tag(reference.tag or ""))
    if found is None or found.digest != digest:
        refuse(
            "digest-mismatch",
            f"the tag {reference.tag} is another image than the digest",
            context=f"the tag is {found.digest if found else 'not there'}, the digest is {digest}",
            hint=f"goldsmith import {reference.repository}@{digest}, if the digest is meant",
        )


class LayoutSource:
    """An image in the folder of an OCI layout."""

    kind = LAYOUT

    def __init__(self, layout: Path, digest: Digest | None = None, *, kind: str = LAYOUT) -> None:
        self.kind = self.origin = kind
        self._layout = layout
        self.root = choose(read_layout_index(layout), digest)

    def read(self, descriptor: Descriptor) -> bytes:
        """A manifest or configuration."""
        return read_blob(self._layout, descriptor)

    def fetch(self, descriptor: Descriptor, layout: Path) -> None:
        """Copy a blob."""
        with replacing(blob_path(layout, descriptor.digest)) as out:
            for chunk in verified_chunks(self._layout, descriptor):
                out.write(chunk)


class ArchiveSource:
    """An image in a tar of an OCI layout; nothing of it is unpacked but blobs, by their digests."""

    kind = LAYOUT

    def __init__(self, archive: Archive, digest: Digest | None = None) -> None:
        self.origin = LAYOUT
        self._archive = archive
        self.root = choose(archive.layout_index(), digest)

    def read(self, descriptor: Descriptor) -> bytes:
        """A manifest or configuration."""
        return self._archive.blob(descriptor, MANIFEST_MAX)

    def fetch(self, descriptor: Descriptor, layout: Path) -> None:
        """Copy a blob."""
        self._archive.copy_blob(descriptor, blob_path(layout, descriptor.digest))


def open_file(path: Path, digest: Digest | None, work: Path) -> Source:
    """The image in a layout's folder, a layout's tar, or a docker archive.

    `digest` chooses one of several; `work` is an empty folder of ours, where a docker archive is
    converted. Raises UsageError, ImportRefused or RegistryError.
    """
    if path.is_dir():
        return LayoutSource(path, digest)
    archive = Archive(path)
    if archive.has("index.json") and archive.has("oci-layout"):
        return ArchiveSource(archive, digest)
    if not archive.has("manifest.json"):
        raise UsageError(
            f"{path} is neither an OCI layout nor a docker archive",
            hint="docker save, skopeo copy and oras write such files",
        )
    layout = create_layout(work / "converted")
    convert(archive, layout)
    return LayoutSource(layout, digest, kind=ARCHIVE)


def choose(found: tuple[Descriptor, ...], digest: Digest | None) -> Descriptor:
    """The image that a layout holds, or the one of that digest; raises UsageError."""
    images = [d for d in found if d.media_type in (*MANIFEST_TYPES, *INDEX_TYPES)]
    chosen = {d.digest: d for d in images if digest in (None, d.digest)}
    if not chosen:
        raise RegistryError("the layout does not hold that image", context=str(digest or "it is empty"))
    if len(chosen) > 1:
        raise UsageError(
            "the layout holds several images",
            context="\n".join(
                f"{d.digest} {d.annotations.get('org.opencontainers.image.ref.name', '')[:200]}"
                for d in list(chosen.values())[:20]
            ),
            hint="name one: PATH@sha256:…",
        )
    return next(iter(chosen.values()))
