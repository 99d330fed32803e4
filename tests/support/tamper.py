"""An image of ours with one thing changed, so that its cause can be looked for."""

from __future__ import annotations

import gzip
import io
import json
import shutil
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from builder.model.digest import Digest, canonical_json
from builder.model.image import BuiltImage, Descriptor, Layer, PlatformImage
from builder.oci.layout import blob_path, write_blob, write_layout_index
from builder.oci.manifest import index_bytes

Members = list[tuple[tarfile.TarInfo, bytes]]


def with_file(image: BuiltImage, name: str, content: bytes, folder: Path) -> BuiltImage:
    """The image with other content of one file, the same size or not."""

    def change(members: Members) -> Members:
        out = []
        for info, data in members:
            if info.name == name:
                info.size = len(content)
            out.append((info, content if info.name == name else data))
        return out

    return with_members(image, change, folder)


def with_members(image: BuiltImage, change: Callable[[Members], Members], folder: Path) -> BuiltImage:
    """The image with its last layer's entries changed, written to `folder`."""
    shutil.copytree(image.layout, folder)
    platforms = tuple(_platform(replace(p, layout=folder), change) for p in image.platforms)
    data = index_bytes([p.manifest for p in platforms])
    index = replace(image.index, digest=write_blob(folder, data), size=len(data))
    write_layout_index(folder, [index])
    return replace(image, layout=folder, platforms=platforms, index=index)


def with_configuration(
    image: BuiltImage, change: Callable[[dict[str, Any]], None], folder: Path
) -> BuiltImage:
    """The image with its configurations changed, written to `folder`."""

    def platform(one: PlatformImage) -> PlatformImage:
        config = json.loads(blob_path(folder, one.config.digest).read_bytes())
        change(config)
        described = _rewritten(folder, one.config, config)
        manifest = json.loads(blob_path(folder, one.manifest.digest).read_bytes())
        manifest["config"] = described.as_dict()
        return replace(
            one, layout=folder, config=described, manifest=_rewritten(folder, one.manifest, manifest)
        )

    shutil.copytree(image.layout, folder)
    platforms = tuple(platform(p) for p in image.platforms)
    data = index_bytes([p.manifest for p in platforms])
    index = replace(image.index, digest=write_blob(folder, data), size=len(data))
    return replace(image, layout=folder, platforms=platforms, index=index)


def _platform(image: PlatformImage, change: Callable[[Members], Members]) -> PlatformImage:
    old = image.layers[-1]
    tar = _written(change(_members(blob_path(image.layout, old.blob.digest))))
    packed = gzip.compress(tar, mtime=0)
    blob = replace(old.blob, digest=write_blob(image.layout, packed), size=len(packed))
    layer = Layer(blob, Digest.of(tar), old.group)
    config = json.loads(blob_path(image.layout, image.config.digest).read_bytes())
    config["rootfs"]["diff_ids"][-1] = str(layer.diff_id)
    described = _rewritten(image.layout, image.config, config)
    manifest = json.loads(blob_path(image.layout, image.manifest.digest).read_bytes())
    manifest["config"], manifest["layers"][-1] = described.as_dict(), blob.as_dict()
    return replace(
        image,
        layers=(*image.layers[:-1], layer),
        config=described,
        manifest=_rewritten(image.layout, image.manifest, manifest),
    )


def _rewritten(layout: Path, old: Descriptor, value: object) -> Descriptor:
    data = canonical_json(value)
    return replace(old, digest=write_blob(layout, data), size=len(data))


def _members(path: Path) -> Members:
    with tarfile.open(path) as tar:
        return [(m, f.read() if (f := tar.extractfile(m)) else b"") for m in tar]


def _written(members: Members) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for info, content in members:
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()
