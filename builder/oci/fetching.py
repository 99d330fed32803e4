"""From a registry into an OCI layout: an image by its digest, with or without its layers."""

from __future__ import annotations

from pathlib import Path

from builder.model.digest import Digest
from builder.oci.client import RegistryClient
from builder.oci.layout import blob_path, create_layout, read_manifest, write_blob, write_layout_index
from builder.oci.manifest import INDEX_TYPES, parse_manifest


def fetch_layout(client: RegistryClient, repo: str, digest: Digest, folder: Path) -> None:
    """Fetch an image's index, platforms, configurations and layers; raises RegistryError.

    Everything is checked by its digest as it comes. `folder` is a layout when this returns.
    """
    create_layout(folder)
    reference = client.reference(repo, digest=digest)
    data, media_type, _ = client.get_manifest(reference)
    index = parse_manifest(data, media_type)
    write_blob(folder, data)
    waiting = list(index.manifests) if index.media_type in INDEX_TYPES else []
    for entry in waiting:
        platform, _, _ = client.get_manifest(client.reference(repo, digest=entry.digest))
        write_blob(folder, platform)
        for blob in read_manifest(folder, entry).blobs:
            if not blob_path(folder, blob.digest).exists():
                client.get_blob(repo, blob, blob_path(folder, blob.digest))
    described = client.head_manifest(reference)
    if described is not None:
        write_layout_index(folder, [described])
