"""Compare two builds of one input: say whether they are the same image, and if not, why.

From the outside in: manifest, configuration, layers in their order, entries in theirs. Content
(diff_ids) is told apart from compression (blob digests), and the first differing file is named with
its cause: time, order, content, mode, owner, kind or link.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from builder.model.digest import canonical_json
from builder.model.image import Layer, PlatformImage
from builder.oci.layer_entries import Entry, LayerEntries, LayerRefused, read_entries
from builder.oci.layout import read_blob, read_blob_json, read_manifest

LAYER_MAX = 4 << 30  # bytes of a published layer that is fetched to be looked into
_HEADER = ("kind", "mode", "owner", "time", "link", "attributes")
_DERIVED = ("rootfs", "history")  # of a configuration: these follow from the layers


@dataclass(frozen=True, slots=True)
class Difference:
    """One difference: at which level, where, and which causes were seen; `detail` is for people."""

    level: str  # manifest, configuration, layer, entry
    where: str
    causes: tuple[str, ...]
    detail: str = ""

    def as_dict(self) -> dict[str, Any]:
        """The difference as JSON data."""
        return {"level": self.level, "where": self.where, "causes": list(self.causes), "detail": self.detail}

    def __str__(self) -> str:
        detail = f" ({self.detail})" if self.detail else ""
        return f"{self.where} differs in {', '.join(self.causes)}{detail}"


def explain(one: PlatformImage, other: PlatformImage) -> tuple[Difference, ...]:
    """What differs between two images of one platform, outermost first; the last one is the cause.

    Empty when they are the same to the byte. `other` is ours and gives the layers their names; nothing
    that `one` says of its layers is believed. The blobs of `first_layers` have to be in both layouts,
    unless they are larger than LAYER_MAX. Raises RegistryError when one is damaged.
    """
    if one.manifest.digest == other.manifest.digest:
        return ()
    same = [x.blob.digest for x in one.layers] == [x.blob.digest for x in other.layers]
    found = [_manifest(one, other), *_configuration(one, other, () if same else _DERIVED)]
    pair = first_layers(one, other)
    if pair is None:
        return tuple(found)
    layer, twin = pair
    if layer is None or twin is None or _in_another_order(one, other):
        names = [f"layer {x.group}" if x else "no further layer" for x in (twin, layer)]
        cause = "order" if layer and twin else "content"
        found.append(Difference("layer", names[0], (cause,), f"the other one has {names[1]} here"))
    else:
        found += _layer(one, layer, other, twin)
    return tuple(found)


def first_layers(one: PlatformImage, other: PlatformImage) -> tuple[Layer | None, Layer | None] | None:
    """The first two layers in the same place that differ; None for one that is not there."""
    pairs = zip_longest(one.layers, other.layers)
    return next((p for p in pairs if not (p[0] and p[1] and p[0].blob.digest == p[1].blob.digest)), None)


def _in_another_order(one: PlatformImage, other: PlatformImage) -> bool:
    return sorted(x.blob.digest for x in one.layers) == sorted(x.blob.digest for x in other.layers)


def differences(one: PlatformImage, other: PlatformImage) -> tuple[str, ...]:
    """What differs between two images, layer by layer, in words; empty when they are the same."""
    if one.manifest.digest == other.manifest.digest:
        return ()
    found = [str(x) for x in _configuration(one, other, _DERIVED)]
    groups = {x.group: x for x in other.layers}
    for layer in one.layers:
        twin = groups.pop(layer.group, None)
        if twin is None:
            found.append(f"only one of them has a layer {layer.group}")
        elif twin.diff_id != layer.diff_id:
            seen = read_entries(one.layout, layer.blob), read_entries(other.layout, twin.blob)
            found.append(f"layer {layer.group}: {_first(f'layer {layer.group}', *seen)}")
        elif twin.blob.digest != layer.blob.digest:
            found.append(f"layer {layer.group}: the same content, compressed differently")
    found += [f"only one of them has a layer {group}" for group in groups]
    return tuple(found) or ("the manifests differ in their annotations",)


def _manifest(one: PlatformImage, other: PlatformImage) -> Difference:
    a, b = read_manifest(one.layout, one.manifest), read_manifest(other.layout, other.manifest)
    parts = [
        name
        for name, x, y in (
            ("configuration", one.config, other.config),
            ("layers", [x.blob for x in one.layers], [x.blob for x in other.layers]),
            ("annotations", a.annotations, b.annotations),
        )
        if x != y
    ]
    return Difference("manifest", f"the manifest of {one.platform}", ("content",), ", ".join(parts))


def _configuration(one: PlatformImage, other: PlatformImage, left_out: tuple[str, ...]) -> list[Difference]:
    """The configuration, but for what follows from layers that differ."""
    if one.config.digest == other.config.digest:
        return []
    a, b = read_blob_json(one.layout, one.config), read_blob_json(other.layout, other.config)
    keys = sorted(k for k in {**a, **b} if a.get(k) != b.get(k) and k not in left_out)
    if not keys:
        if a != b:
            return []
        written = [read_blob(x.layout, x.config) for x in (one, other)]
        cause = "order" if canonical_json(a) in written else "content"
        return [
            Difference("configuration", "the configuration", (cause,), "the same values, written otherwise")
        ]
    causes = ("time",) if _only_times(a, b, keys) else ("content",)
    return [Difference("configuration", "the configuration", causes, ", ".join(keys))]


def _only_times(a: dict[str, Any], b: dict[str, Any], keys: list[str]) -> bool:
    """Whether the configurations are the same but for when they say that they were made."""
    return set(keys) <= {"created", "history"} and _untimed(a.get("history")) == _untimed(b.get("history"))


def _untimed(history: Any) -> Any:
    if not isinstance(history, list):
        return history
    return [
        {k: v for k, v in one.items() if k != "created"} if isinstance(one, dict) else one for one in history
    ]


def _layer(one: PlatformImage, layer: Layer, other: PlatformImage, twin: Layer) -> list[Difference]:
    where = f"layer {twin.group}"
    if layer.blob.size > LAYER_MAX:
        detail = f"{layer.blob.size} and {twin.blob.size} bytes: larger than what is looked into"
        return [Difference("layer", where, ("content",), detail)]
    try:
        a, b = read_entries(one.layout, layer.blob), read_entries(other.layout, twin.blob)
    except LayerRefused as error:
        return [Difference("layer", where, ("content",), error.message)]
    lies = [x for x, seen in ((layer, a), (twin, b)) if x.diff_id != seen.diff_id]
    said = "".join(f"; its configuration says diff_id {x.diff_id.short}, which it is not" for x in lies)
    if a.diff_id == b.diff_id:
        detail = f"the same content, compressed differently{said}"
        return [Difference("layer", where, ("compression",), detail)]
    entry = _first(where, a, b)
    detail = f"{layer.blob.digest.short}, {twin.blob.digest.short}{said}"
    return [Difference("layer", where, entry.causes, detail), entry]


def _first(where: str, one: LayerEntries, other: LayerEntries) -> Difference:
    """The first path, in alphabetical order, of which the layers say something else."""
    a, b = one.entries, other.entries
    for path in sorted({**a, **b}):
        if path not in a or path not in b:
            return Difference("entry", f"/{path}", ("content",), "it is only in one of them")
        if a[path] != b[path]:
            causes = _causes(a[path], b[path])
            detail = ", ".join(_seen(a[path], b[path], causes))
            return Difference("entry", f"/{path}", causes, detail)
        if (path in one.repeated) != (path in other.repeated):
            return Difference("entry", f"/{path}", ("content",), "it is there twice in one of them")
    for x, y in zip(a, b, strict=True):
        if x != y:
            return Difference("entry", f"/{x}", ("order",), f"the other one has /{y} in its place")
    return Difference("entry", where, ("content",), "the same entries, written otherwise")


def _causes(a: Entry, b: Entry) -> tuple[str, ...]:
    causes = [name for name, x, y in zip(_HEADER, a.header, b.header, strict=True) if x != y]
    return (*(("content",) if (a.size, a.sha256) != (b.size, b.sha256) else ()), *causes)


def _seen(a: Entry, b: Entry, causes: tuple[str, ...]) -> Iterator[str]:
    said = dict(zip(_HEADER, zip(a.header, b.header, strict=True), strict=True))
    for cause in causes:
        if cause == "content":
            yield f"{a.size} and {b.size} bytes, sha256 {a.sha256[:12]} and {b.sha256[:12]}"
        elif cause == "mode":
            yield " and ".join(f"{mode:o}" for mode in said[cause] if isinstance(mode, int))
        else:
            yield " and ".join(repr(x)[:100] for x in said[cause])
