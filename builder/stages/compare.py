"""Compare two builds of one input: say whether they are the same image, and if not, why.

From the outside in: manifest, configuration, layers in their order, entries in theirs. Content
(diff_ids) is told apart from compression (blob digests), and the first differing file is named with
its cause: time, order, content, mode, owner, kind or link.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from typing import IO, Any

from builder.model.digest import canonical_json
from builder.model.image import Layer, PlatformImage
from builder.oci.layout import read_blob, read_blob_json, read_manifest
from builder.oci.rootfs import layer_members

_CHUNK = 1 << 16  # bytes
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


@dataclass(frozen=True, slots=True)
class _Entry:
    """What a layer says of one path; `sha256` is that of a file's content."""

    header: tuple[object, ...]
    size: int
    sha256: str


def explain(one: PlatformImage, other: PlatformImage) -> tuple[Difference, ...]:
    """What differs between two images of one platform, outermost first; the last one is the cause.

    Empty when they are the same to the byte. The layers' blobs that differ have to be in both
    layouts. Raises RegistryError when one is damaged.
    """
    if one.manifest.digest == other.manifest.digest:
        return ()
    found = [_manifest(one, other), *_configuration(one, other)]
    for layer, twin in zip_longest(one.layers, other.layers):
        if layer is None or twin is None or layer.group != twin.group:
            names = [f"layer {x.group}" if x else "no further layer" for x in (layer, twin)]
            same = {x.group for x in one.layers} == {x.group for x in other.layers}
            cause = "order" if same else "content"
            found.append(Difference("layer", names[0], (cause,), f"the other one has {names[1]} here"))
            break
        if layer.blob.digest != twin.blob.digest:
            found += _layer(one, layer, other, twin)
            break
    return tuple(found)


def differences(one: PlatformImage, other: PlatformImage) -> tuple[str, ...]:
    """What differs between two images, layer by layer, in words; empty when they are the same."""
    if one.manifest.digest == other.manifest.digest:
        return ()
    found = [str(x) for x in _configuration(one, other)]
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


def _configuration(one: PlatformImage, other: PlatformImage) -> list[Difference]:
    """The configuration, but for what follows from the layers."""
    if one.config.digest == other.config.digest:
        return []
    a, b = read_blob_json(one.layout, one.config), read_blob_json(other.layout, other.config)
    keys = sorted(k for k in {**a, **b} if a.get(k) != b.get(k) and k not in _DERIVED)
    if not keys:
        if a != b:
            return []
        written = [read_blob(x.layout, x.config) for x in (one, other)]
        cause = "order" if canonical_json(a) in written else "content"
        return [
            Difference("configuration", "the configuration", (cause,), "the same values, written otherwise")
        ]
    causes = ("time",) if keys == ["created"] else ("content",)
    return [Difference("configuration", "the configuration", causes, ", ".join(keys))]


def _layer(one: PlatformImage, layer: Layer, other: PlatformImage, twin: Layer) -> list[Difference]:
    where = f"layer {layer.group}"
    if layer.diff_id == twin.diff_id:
        detail = "the same content, compressed differently"
        return [Difference("layer", where, ("compression",), detail)]
    entry = _first(one, layer, other, twin)
    return [
        Difference("layer", where, entry.causes, f"{layer.blob.digest.short}, {twin.blob.digest.short}"),
        entry,
    ]


def _first(one: PlatformImage, layer: Layer, other: PlatformImage, twin: Layer) -> Difference:
    """The first path, in alphabetical order, of which the layers say something else."""
    a, b = dict(_entries(one, layer)), dict(_entries(other, twin))
    for path in sorted({**a, **b}):
        if path not in a or path not in b:
            return Difference("entry", f"/{path}", ("content",), "it is only in one of them")
        if a[path] != b[path]:
            causes = _causes(a[path], b[path])
            detail = ", ".join(_seen(a[path], b[path], causes))
            return Difference("entry", f"/{path}", causes, detail)
    for x, y in zip(a, b, strict=True):
        if x != y:
            return Difference("entry", f"/{x}", ("order",), f"the other one has /{y} in its place")
    return Difference("entry", f"layer {layer.group}", ("content",), "the same entries, written otherwise")


def _causes(a: _Entry, b: _Entry) -> tuple[str, ...]:
    causes = [name for name, x, y in zip(_HEADER, a.header, b.header, strict=True) if x != y]
    return (*(("content",) if (a.size, a.sha256) != (b.size, b.sha256) else ()), *causes)


def _seen(a: _Entry, b: _Entry, causes: tuple[str, ...]) -> Iterator[str]:
    said = dict(zip(_HEADER, zip(a.header, b.header, strict=True), strict=True))
    for cause in causes:
        if cause == "content":
            yield f"{a.size} and {b.size} bytes, sha256 {a.sha256[:12]} and {b.sha256[:12]}"
        elif cause == "mode":
            yield " and ".join(f"{mode:o}" for mode in said[cause] if isinstance(mode, int))
        else:
            yield " and ".join(repr(x)[:100] for x in said[cause])


def _entries(image: PlatformImage, layer: Layer) -> Iterator[tuple[str, _Entry]]:
    for member, content in layer_members(image, layer):
        pax = {k: v for k, v in member.pax_headers.items() if "xattr" in k}
        owner = (member.uid, member.gid, member.uname, member.gname)
        header = (member.type, member.mode, owner, member.mtime, member.linkname, tuple(sorted(pax.items())))
        yield member.name, _Entry(header, member.size, _hash(content) if content else "")


def _hash(content: IO[bytes]) -> str:
    sha = hashlib.sha256()
    while chunk := content.read(_CHUNK):
        sha.update(chunk)
    return sha.hexdigest()
