"""A docker archive becomes an OCI image: the same archive gives the same digest, everywhere.

Source: Docker image specification 1.2, "Combined Image JSON + Filesystem Changeset Format"
(`docker save`). Configurations stay as they are; layers are packed by our pinned compressor.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from builder.errors import UsageError
from builder.model.digest import Digest
from builder.model.image import CONFIG_TYPE, LAYER_TYPE, MANIFEST_TYPE, Descriptor
from builder.oci.compress import compress
from builder.oci.layout import blob_path, write_blob, write_layout_index
from builder.oci.manifest import MANIFEST_MAX, manifest_bytes, parse_digest, parse_json
from registry.upstream.archive import Archive
from registry.upstream.refusal import quoted, refuse

_LAYERS_MAX = 127
_TOTAL_MAX = 32 << 30  # bytes of all layers


def convert(archive: Archive, layout: Path) -> Descriptor:
    """Write the archive's one image into the layout, and its manifest into the layout's index.

    Raises ImportRefused when the archive contradicts itself, UsageError when it holds several images.
    """
    entry = _entry(archive)
    config = archive.small(_name(entry.get("Config"), "Config"))
    names = entry.get("Layers")
    if not isinstance(names, list) or not 1 <= len(names) <= _LAYERS_MAX:
        refuse("malformed-archive", f"the archive does not list 1 to {_LAYERS_MAX} layers")
    rootfs = parse_json(config, "configuration").get("rootfs")
    stated = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
    if not isinstance(stated, list) or len(stated) != len(names):
        refuse("diff-id", "the configuration has other layers than the archive")
    layers, total = [], 0
    for name, diff_id in zip(names, stated, strict=True):
        blob, size = _layer(archive, _name(name, "layer"), parse_digest(diff_id, "diff_id"), layout)
        layers.append(blob)
        total += size
        if total > _TOTAL_MAX:
            refuse("too-large", f"the archive's layers have more than {_TOTAL_MAX} bytes")
    described = Descriptor(CONFIG_TYPE, write_blob(layout, config), len(config))
    data = manifest_bytes(described, layers)
    manifest = Descriptor(MANIFEST_TYPE, write_blob(layout, data), len(data))
    write_layout_index(layout, [manifest])
    return manifest


def _entry(archive: Archive) -> dict[str, Any]:
    data = archive.small("manifest.json", MANIFEST_MAX)
    # A list, which the strict parser takes only inside an object.
    entries = parse_json(b'{"images":' + data + b"}", "manifest.json")["images"]
    if not isinstance(entries, list) or not all(isinstance(e, dict) for e in entries) or not entries:
        refuse("malformed-archive", "manifest.json lists no image")
    if len(entries) > 1:
        tags = ", ".join(json.dumps(e.get("RepoTags"))[:80] for e in entries[:10])
        raise UsageError("the archive holds several images", context=tags, hint="docker save one image")
    found: dict[str, Any] = entries[0]
    return found


def _layer(archive: Archive, name: str, diff_id: Digest, layout: Path) -> tuple[Descriptor, int]:
    temporary = layout / "blobs" / f".layer.{os.getpid()}"
    seen = 0

    def chunks() -> Any:
        nonlocal seen
        for chunk in archive.chunks(name):
            seen += len(chunk)
            yield chunk

    try:
        digest, size, plain = compress(chunks(), temporary)
        if plain != diff_id:
            refuse("diff-id", "a layer has other content than its diff_id says", context=quoted(name))
        os.replace(temporary, blob_path(layout, digest))
    finally:
        temporary.unlink(missing_ok=True)
    return Descriptor(LAYER_TYPE, digest, size), seen


def _name(value: object, what: str) -> str:
    if not isinstance(value, str) or len(value) > 4096:
        refuse("malformed-archive", f"manifest.json names no {what}", context=quoted(value))
    return value
