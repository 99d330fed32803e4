"""Finish: platform images → the image whose index digest is its identity; and read it back."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path

from builder.errors import RegistryError
from builder.model.digest import Digest
from builder.model.image import (
    INDEX_TYPE,
    BuiltImage,
    Descriptor,
    Layer,
    PlatformImage,
    Target,
)
from builder.model.lock import LockedPackage, LockSection
from builder.model.platform import Platform
from builder.oci.layout import (
    read_blob_json,
    read_layout_index,
    read_manifest,
    write_blob,
    write_layout_index,
)
from builder.oci.manifest import index_bytes, parse_digest

_HISTORY = "goldsmith: "


def finish(target: Target, images: tuple[PlatformImage, ...], input_hash: Digest, version: str) -> BuiltImage:
    """Write the index over all platforms, sorted, into their common layout."""
    layout = images[0].layout
    data = index_bytes([x.manifest for x in sorted(images, key=lambda x: x.platform)])
    index = Descriptor(INDEX_TYPE, write_blob(layout, data), len(data))
    write_layout_index(layout, [index])
    return BuiltImage(target, layout, index, images, input_hash, version)


def without(image: BuiltImage, left_out: Collection[Platform]) -> BuiltImage:
    """The image with fewer platforms: another index over the same manifests, beside the first one.

    Its input hash, and so its immutable tag, is another one too: the same image with all its
    platforms can still be published later.
    """
    if not left_out:
        return image
    kept = tuple(x for x in image.platforms if x.platform not in left_out)
    data = index_bytes([x.manifest for x in sorted(kept, key=lambda x: x.platform)])
    index = Descriptor(INDEX_TYPE, write_blob(image.layout, data), len(data))
    every = [x.platform for x in image.platforms]
    input_hash = input_of(image.input_hash, [x.platform for x in kept], every)
    return replace(image, index=index, platforms=kept, input_hash=input_hash)


def input_of(input_hash: Digest, platforms: Collection[Platform], of: Collection[Platform]) -> Digest:
    """The input hash of an image that has only these `platforms` of those that it was defined for."""
    if set(platforms) == set(of):
        return input_hash
    return Digest.of_json({"input": input_hash, "platforms": sorted(map(str, platforms))})


def reread(
    target: Target,
    layout: Path,
    input_hash: Digest,
    version: str,
    locks: Mapping[Platform, LockSection],
    packages: Mapping[Platform, tuple[LockedPackage, ...]],
) -> BuiltImage:
    """The image in a finished layout; raises RegistryError when the layout is damaged."""
    (index,) = read_layout_index(layout)
    manifests = read_manifest(layout, index).manifests
    images = []
    for descriptor in manifests:
        if descriptor.platform is None or descriptor.platform not in locks:
            raise RegistryError(f"the layout {layout} has other platforms than the lock", hint="remove it")
        platform = descriptor.platform
        images.append(platform_image(layout, descriptor, platform, locks[platform], packages[platform]))
    return BuiltImage(target, layout, index, tuple(images), input_hash, version)


def platform_image(
    layout: Path,
    descriptor: Descriptor,
    platform: Platform,
    lock: LockSection,
    packages: tuple[LockedPackage, ...],
) -> PlatformImage:
    """The image of one platform in a layout; raises RegistryError when it is not of the form that ours have.

    What it says of its layers (diff_id, group) is not compared with them.
    """
    manifest = read_manifest(layout, descriptor)
    if manifest.config is None:
        raise RegistryError(f"the manifest {descriptor.digest} has no configuration", hint=f"remove {layout}")
    config = read_blob_json(layout, manifest.config)
    try:
        diff_ids = [parse_digest(d, "diff_id") for d in config["rootfs"]["diff_ids"]]
        groups = [str(h["created_by"]).removeprefix(_HISTORY) for h in config["history"]]
        named = zip(manifest.layers, diff_ids, groups, strict=True)
        layers = tuple(Layer(blob, diff_id, group) for blob, diff_id, group in named)
    except (KeyError, TypeError, ValueError):
        raise RegistryError(
            "the configuration does not say of each layer what it is",
            context=str(manifest.config.digest),
            hint="the image was not made by this tool, or was changed",
            reference="manifest-refused",
        ) from None
    return PlatformImage(platform, layout, descriptor, manifest.config, layers, lock, packages)
