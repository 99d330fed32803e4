"""Compare two builds of one input: say whether they are the same image, and if not, why.

Content (diff_ids) is told apart from compression (blob digests), and the first differing file
is named with its cause.
"""

from __future__ import annotations

from builder.model.image import Layer, PlatformImage
from builder.oci.layout import read_blob_json
from builder.oci.rootfs import layer_members


def differences(one: PlatformImage, other: PlatformImage) -> tuple[str, ...]:
    """What differs between two images, in words; empty when they are the same to the byte."""
    if one.manifest.digest == other.manifest.digest:
        return ()
    found = []
    if one.config.digest != other.config.digest:
        a, b = read_blob_json(one.layout, one.config), read_blob_json(other.layout, other.config)
        keys = sorted(k for k in {**a, **b} if a.get(k) != b.get(k) and k not in ("rootfs", "history"))
        found += [f"the configuration differs in {', '.join(keys)}"] if keys else []
    groups = {x.group: x for x in other.layers}
    for layer in one.layers:
        twin = groups.pop(layer.group, None)
        if twin is None:
            found.append(f"only one of them has a layer {layer.group}")
        elif twin.diff_id != layer.diff_id:
            found.append(f"layer {layer.group}: {_first(one, layer, other, twin)}")
        elif twin.blob.digest != layer.blob.digest:
            found.append(f"layer {layer.group}: the same content, compressed differently")
    found += [f"only one of them has a layer {group}" for group in groups]
    return tuple(found) or ("the manifests differ in their annotations",)


def _first(one: PlatformImage, layer: Layer, other: PlatformImage, twin: Layer) -> str:
    a, b = _headers(one, layer), _headers(other, twin)
    for path in sorted({**a, **b}):
        if path not in a or path not in b:
            return f"/{path} is only in one of them"
        if a[path] != b[path]:
            names = ("kind", "mode", "owner", "size", "time", "link")
            causes = [n for n, x, y in zip(names, a[path], b[path], strict=True) if x != y]
            return f"/{path} differs in {', '.join(causes)}"
    return "the same headers, so the content of a file"


def _headers(image: PlatformImage, layer: Layer) -> dict[str, tuple[object, ...]]:
    return {
        m.name: (m.type, m.mode, (m.uid, m.gid), m.size, m.mtime, m.linkname)
        for m, _ in layer_members(image, layer)
    }
