"""Explain: a published image that is not what was rebuilt → the first difference, from the index inwards.

What is published is believed as little as a kit: it is fetched within limits, and what cannot be read is
itself the difference.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from builder.errors import RegistryError
from builder.model.image import BuiltImage, Descriptor
from builder.model.platform import Platform
from builder.model.reference import Reference
from builder.oci.client import RegistryClient
from builder.oci.layout import blob_path, create_layout, write_blob
from builder.oci.manifest import MANIFEST_MAX, parse_manifest
from builder.stages.compare import LAYER_MAX, Difference, explain, first_layers
from builder.stages.finish import platform_image


def explained(
    client: RegistryClient,
    where: Reference,
    published: Mapping[Platform, Descriptor],
    image: BuiltImage,
    folder: Path,
) -> tuple[Difference, ...]:
    """The first difference between the image at `where` and ours of the same platforms.

    `published` are the manifests that its index lists. Files go to `folder`. Raises RegistryError when
    something cannot be had.
    """
    ours = {x.platform: x for x in image.platforms}
    other = [p for p in sorted(ours) if ours[p].manifest.digest != published[p].digest]
    if not other:
        return (Difference("index", "the index", ("content",), "the same manifests, listed otherwise"),)
    shown = ", ".join(map(str, other))
    first = Difference("index", "the index", ("content",), f"manifests of {shown}")
    twin = ours[other[0]]
    where = where.with_digest(published[twin.platform].digest)
    described = _fetched(client, where, twin.platform, folder)
    try:
        theirs = platform_image(folder, described, twin.platform, twin.lock, twin.packages)
    except RegistryError as error:  # all of it is here, so it is malformed
        return (
            first,
            Difference("manifest", f"the manifest of {twin.platform}", ("content",), error.message),
        )
    layer = (first_layers(theirs, twin) or (None, None))[0]
    if layer is not None and layer.blob.size <= LAYER_MAX:
        client.get_blob(where.name, layer.blob, blob_path(folder, layer.blob.digest))
    return (first, *explain(theirs, twin))


def _fetched(client: RegistryClient, where: Reference, platform: Platform, folder: Path) -> Descriptor:
    """Bring a published manifest and its configuration into a layout, and describe the manifest."""
    create_layout(folder)
    data, media_type, digest = client.get_manifest(where)
    write_blob(folder, data)
    config = parse_manifest(data, media_type).config
    if config is not None and config.size <= MANIFEST_MAX:
        write_blob(folder, client.get_blob_bytes(where.name, config, MANIFEST_MAX))
    return Descriptor(media_type, digest, len(data), platform=platform)
