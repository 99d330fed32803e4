"""A bundle as a registry to verify from: a layout that came from outside, read as if by an enemy.

Keys and verdicts that lie in it are for people: nothing is believed of them. Sizes and counts are
bounded, names are only looked up, and every byte is hashed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from builder.errors import RegistryError, UsageError
from builder.model.digest import Digest
from builder.model.image import Descriptor
from builder.model.reference import Reference
from builder.oci.layout import blob_path, read_blob, read_layout_index, verified_chunks
from builder.oci.manifest import (
    INDEX_TYPES,
    MANIFEST_MAX,
    MANIFEST_TYPES,
    Manifest,
    parse_json,
    parse_manifest,
)
from registry.upstream.archive import Archive
from registry.upstream.refusal import quoted, refuse

BUNDLE_KIND = "application/vnd.goldsmith.bundle.v1+json"
CONTENTS_TYPE = "application/vnd.goldsmith.bundle.contents.v1+json"
NAME_ANNOTATION = "org.opencontainers.image.ref.name"
_MANIFESTS_BYTES_MAX = 128 << 20  # bytes of all manifests of a bundle
_IMAGES_MAX = 1000
_TAGS_MAX = 8


@dataclass(frozen=True, slots=True)
class Wanted:
    """An image that the bundle says it holds; nothing of it is believed yet."""

    reference: Reference
    tags: tuple[str, ...]


class Bundle:
    """A bundle's manifests and blobs, on the interface that verification uses; every byte hashed."""

    def __init__(self, entries: tuple[Descriptor, ...], source: Blobs) -> None:
        self._source = source
        self.manifests: dict[Digest, Descriptor] = {}
        self._names: dict[str, Digest] = {}
        self._referrers: dict[Digest, list[Descriptor]] = {}
        self.left_out: frozenset[Digest] = frozenset()
        self.contents: dict[str, Any] = {}
        self.digest: Digest | None = None
        self.elsewhere: Callable[[str, Digest, int | None], bool] = lambda repo, digest, size: False
        self._read_entries(entries)
        if self.digest is None:
            refuse("no-bundle", "this layout is no bundle", hint="goldsmith export writes bundles")

    @property
    def digests(self) -> frozenset[Digest]:
        """Every blob that is in it."""
        return self._source.digests()

    def _read_entries(self, entries: tuple[Descriptor, ...]) -> None:
        total = 0
        waiting = list(entries)
        while waiting:
            entry = waiting.pop()
            name = entry.annotations.get(NAME_ANNOTATION)
            if name and self._names.setdefault(name, entry.digest) != entry.digest:
                refuse("ambiguous-bundle", "the bundle gives a name twice", context=quoted(name))
            if entry.media_type not in (*MANIFEST_TYPES, *INDEX_TYPES):
                refuse("malformed-bundle", "the bundle's index names no manifest", context=entry.media_type)
            if entry.digest in self.manifests:
                continue
            total += entry.size
            if total > _MANIFESTS_BYTES_MAX:
                refuse("too-large", f"the bundle's manifests have more than {_MANIFESTS_BYTES_MAX} bytes")
            manifest = parse_manifest(self._source.read(entry, MANIFEST_MAX), entry.media_type)
            self.manifests[entry.digest] = entry
            waiting += manifest.manifests
            if manifest.subject is not None:
                described = Descriptor(
                    entry.media_type, entry.digest, entry.size, manifest.annotations, manifest.artifact_type
                )
                self._referrers.setdefault(manifest.subject.digest, []).append(described)
            if manifest.artifact_type == BUNDLE_KIND:
                self._read_contents(manifest, entry.digest)

    def _read_contents(self, manifest: Manifest, digest: Digest) -> None:
        listing = next((x for x in manifest.layers if x.media_type == CONTENTS_TYPE), None)
        if listing is None or self.digest is not None:
            refuse("malformed-bundle", "the bundle says twice, or not at all, what it holds")
        self.digest = digest
        self.contents = parse_json(self._source.read(listing, MANIFEST_MAX), "bundle's contents")
        skipped = self.contents.get("leftOut")
        if not isinstance(skipped, list):
            refuse("malformed-bundle", "the bundle's contents are malformed")
        try:
            self.left_out = frozenset(Digest(str(d)) for d in skipped)
        except ValueError:
            refuse("malformed-bundle", "the bundle's contents are malformed")

    def wanted(self, host: str) -> tuple[Wanted, ...]:
        """The images that the bundle says it holds, under their names in the registry `host`."""
        images = self.contents.get("images")
        if self.contents.get("schema") != 1 or not isinstance(images, list) or len(images) > _IMAGES_MAX:
            refuse("malformed-bundle", f"the bundle does not list at most {_IMAGES_MAX} images")
        return tuple(_wanted(host, image) for image in images)

    # the interface of verification

    def head_manifest(self, ref: Reference) -> Descriptor | None:
        """What the reference points to."""
        digest = ref.digest or self._names.get(f"{ref.name}:{ref.tag}")
        return self.manifests.get(digest) if digest else None

    def get_manifest(self, ref: Reference) -> tuple[bytes, str, Digest]:
        """A manifest's bytes, media type and digest."""
        entry = self.head_manifest(ref)
        if entry is None:
            raise RegistryError("the bundle lacks a manifest", context=str(ref), hint="export it again")
        return self._source.read(entry, MANIFEST_MAX), entry.media_type, entry.digest

    def get_blob_bytes(self, repo: str, descriptor: Descriptor, limit: int) -> bytes:
        """A small blob's bytes."""
        return self._source.read(descriptor, limit)

    def has_blob(self, repo: str, digest: Digest, size: int | None = None) -> bool:
        """Whether the blob is in the bundle, or an older one brought it here."""
        found = self._source.size(digest)
        if found is None:
            return digest in self.left_out and self.elsewhere(repo, digest, size)
        return size in (None, found)

    def referrers(
        self, repo: str, subject: Digest, artifact_type: str | None = None
    ) -> tuple[Descriptor, ...]:
        """What refers to a manifest."""
        found = self._referrers.get(subject, ())
        return tuple(d for d in found if artifact_type in (None, d.artifact_type))

    def chunks(self, descriptor: Descriptor) -> Iterator[bytes] | None:
        """A blob's bytes, checked at their end; None when it is not in the bundle."""
        if self._source.size(descriptor.digest) is None:
            return None
        return self._source.chunks(descriptor)


class Blobs:
    """The blobs of a bundle that is a folder."""

    def __init__(self, layout: Path) -> None:
        self._layout = layout

    def read(self, descriptor: Descriptor, limit: int) -> bytes:
        """A small blob's bytes, checked."""
        return read_blob(self._layout, descriptor, limit)

    def chunks(self, descriptor: Descriptor) -> Iterator[bytes]:
        """A blob's bytes, checked at the end."""
        return verified_chunks(self._layout, descriptor)

    def size(self, digest: Digest) -> int | None:
        """A blob's size; None when it is not there."""
        path = blob_path(self._layout, digest)
        return path.stat().st_size if path.is_file() else None

    def digests(self) -> frozenset[Digest]:
        """All that are there."""
        names = (p.name for p in (self._layout / "blobs" / "sha256").iterdir())
        return frozenset(Digest(f"sha256:{n}") for n in names if len(n) == 64)


class ArchivedBlobs(Blobs):
    """The blobs of a bundle that is a tar."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive

    def read(self, descriptor: Descriptor, limit: int) -> bytes:
        """A small blob's bytes, checked."""
        return self._archive.blob(descriptor, limit)

    def chunks(self, descriptor: Descriptor) -> Iterator[bytes]:
        """A blob's bytes, checked at the end."""
        return self._archive.verified(descriptor)

    def size(self, digest: Digest) -> int | None:
        """A blob's size; None when it is not there."""
        return self._archive.size(f"blobs/sha256/{digest.hex}")

    def digests(self) -> frozenset[Digest]:
        """All that are there."""
        return self._archive.blobs()


def open_bundle(path: Path) -> Bundle:
    """A bundle in a folder or a tar; raises ImportRefused, RegistryError or UsageError."""
    if path.is_dir():
        return Bundle(read_layout_index(path), Blobs(path))
    archive = Archive(path)
    if not archive.has("oci-layout"):
        raise UsageError(f"{path} is no bundle", hint="goldsmith export writes bundles")
    return Bundle(archive.layout_index(), ArchivedBlobs(archive))


def _wanted(host: str, image: object) -> Wanted:
    """1. an entry of the contents; names and tags are checked here."""
    if not isinstance(image, dict):
        refuse("malformed-bundle", "the bundle's contents are malformed")
    tags = image.get("tags")
    if not isinstance(tags, list) or not 1 <= len(tags) <= _TAGS_MAX:
        refuse("malformed-bundle", "an image of the bundle has no tags, or too many")
    try:
        repository = str(image.get("repository"))
        digest = Digest(str(image.get("digest")))
        references = [Reference(host, repository, str(tag), digest) for tag in tags]
    except ValueError as error:
        refuse("malformed-bundle", "an image of the bundle has no proper name", context=str(error)[:200])
    if "/" in repository:
        refuse("malformed-bundle", "an image of the bundle is not for consumers", context=quoted(repository))
    return Wanted(references[-1], tuple(r.tag or "" for r in references))
