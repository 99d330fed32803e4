"""A registry in memory, on the interface that verification uses; tests change one thing in it."""

from __future__ import annotations

import json
from collections import Counter

from builder.errors import RegistryError
from builder.model.digest import Digest
from builder.model.image import MANIFEST_TYPE, BuiltImage, Descriptor
from builder.model.reference import Reference
from builder.model.release import SignedImage, SignedManifest
from builder.oci.layout import read_blob

HOST = "127.0.0.1:5000"


class MemoryRegistry:
    """Manifests, tags and blobs by repository; counts what it was asked."""

    def __init__(self) -> None:
        self.manifests: dict[tuple[str, Digest], tuple[bytes, str]] = {}
        self.tags: dict[tuple[str, str], Digest] = {}
        self.blobs: dict[tuple[str, Digest], bytes] = {}
        self.asked: Counter[str] = Counter()
        self.down = False

    def store_image(self, repo: str, image: BuiltImage, tags: tuple[str, ...] = ()) -> None:
        """Layers, configurations, manifests and index of an image."""
        for platform in image.platforms:
            for blob in (platform.config, *(layer.blob for layer in platform.layers)):
                self.blobs[repo, blob.digest] = read_blob(image.layout, blob)
            self.put(repo, read_blob(image.layout, platform.manifest), platform.manifest.media_type)
        index = self.put(repo, read_blob(image.layout, image.index), image.index.media_type)
        for tag in tags:
            self.tags[repo, tag] = index

    def store(self, repo: str, *signed: SignedManifest) -> None:
        """Carriers with their blobs, under their tags."""
        for item in signed:
            for digest, data in item.blobs.items():
                self.blobs[repo, digest] = data
            digest = self.put(repo, item.manifest, item.media_type)
            if item.tag:
                self.tags[repo, item.tag] = digest

    def store_signed(self, repo: str, signed: SignedImage) -> None:
        """What a publication leaves behind."""
        tags = (signed.image.immutable_tag, signed.image.target.tag)
        self.store_image(repo, signed.image, tags)
        self.store(repo, *signed.signatures)

    def put(self, repo: str, data: bytes, media_type: str = MANIFEST_TYPE) -> Digest:
        """One manifest, by digest."""
        digest = Digest.of(data)
        self.manifests[repo, digest] = (data, media_type)
        return digest

    def drop_bundles(self, repo: str) -> None:
        """Forget all referrers."""
        for key, (data, _) in list(self.manifests.items()):
            if key[0] == repo and "subject" in json.loads(data):
                del self.manifests[key]

    def drop_tags(self, repo: str, *endings: str) -> None:
        """Forget signature tags."""
        for key in list(self.tags):
            if key[0] == repo and key[1].endswith(endings):
                del self.tags[key]

    def head_manifest(self, ref: Reference) -> Descriptor | None:
        self._ask("head")
        digest = ref.digest or self.tags.get((ref.name, ref.tag or ""))
        found = self.manifests.get((ref.name, digest)) if digest else None
        return Descriptor(found[1], digest, len(found[0])) if found and digest else None

    def get_manifest(self, ref: Reference) -> tuple[bytes, str, Digest]:
        self._ask("manifest")
        digest = ref.digest or self.tags.get((ref.name, ref.tag or ""))
        found = self.manifests.get((ref.name, digest)) if digest else None
        if not found or not digest:
            raise RegistryError(f"no manifest {ref}")
        return *found, digest

    def get_blob_bytes(self, repo: str, descriptor: Descriptor, limit: int) -> bytes:
        self._ask("blob")
        data = self.blobs.get((repo, descriptor.digest))
        if data is None or len(data) != descriptor.size or len(data) > limit:
            raise RegistryError(f"no blob {descriptor.digest} of that size")
        return data

    def has_blob(self, repo: str, digest: Digest, size: int | None = None) -> bool:
        self._ask("has")
        data = self.blobs.get((repo, digest))
        return data is not None and size in (None, len(data))

    def referrers(
        self, repo: str, subject: Digest, artifact_type: str | None = None
    ) -> tuple[Descriptor, ...]:
        self._ask("referrers")
        out = []
        for (name, digest), (data, media_type) in self.manifests.items():
            raw = json.loads(data)
            if name == repo and raw.get("subject", {}).get("digest") == subject:
                kind = raw.get("artifactType")
                out.append(Descriptor(media_type, digest, len(data), raw.get("annotations", {}), kind))
        return tuple(d for d in out if artifact_type in (None, d.artifact_type))

    def _ask(self, what: str) -> None:
        self.asked[what] += 1
        if self.down:
            raise RegistryError("the registry is down")
