"""Fetch an image from its source into a layout of ours, and refuse what is no sound image.

The platform manifests, their configurations and layers keep their bytes and digests. The index is
ours: it lists the platforms that we know and leaves out what is none, such as the attestation
manifests of BuildKit. The numbers stand in the code:

 1. The root is an image manifest, or an index of image manifests; an index in an index is refused.
 2. Platforms: each at most once; all that we know of, or exactly those that were asked for.
 3. A platform's manifest has the media types of an image, 1 to 127 layers within the limits, and no
    table of contents for any of them.
 4. Its configuration is of that platform, names one diff_id for each layer, and its times are times.
 5. Blobs come by digest into the layout; each is there whole or not at all.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from builder.model.digest import Digest
from builder.model.image import CONFIG_TYPE, INDEX_TYPE, Descriptor, Layer
from builder.model.platform import Platform
from builder.oci.layout import blob_path, create_layout, write_blob, write_layout_index
from builder.oci.manifest import (
    MANIFEST_MAX,
    MANIFEST_TYPES,
    Manifest,
    index_bytes,
    parse_digest,
    parse_json,
    parse_manifest,
)
from registry.upstream.refusal import quoted, refuse
from registry.upstream.source import Source
from registry.upstream.tree import LAYER_TYPES

_CONFIG_TYPES = (CONFIG_TYPE, "application/vnd.docker.container.image.v1+json")
_LAYERS_MAX = 127
_BLOB_MAX, _IMAGE_MAX = 16 << 30, 32 << 30  # bytes, compressed
_LEFT_OUT_SHOWN = 50
# A table of contents beside the layer's tar: snapshotters that use one (eStargz, zstd:chunked, nydus)
# show the files that it names, whatever the layer holds that everybody else unpacks and scanners read.
_TABLES = ("containerd.io/snapshot/", "io.github.containers.zstd-chunked.")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)", re.ASCII)


@dataclass(frozen=True, slots=True)
class FetchedPlatform:
    """One platform in the layout; `config` is the parsed configuration, `manifest` has its platform."""

    platform: Platform
    manifest: Descriptor
    config_blob: Descriptor
    config: dict[str, Any]
    layers: tuple[Layer, ...]


@dataclass(frozen=True, slots=True)
class Fetched:
    """An image in a layout: our index, its platforms, and the digests that the index leaves out."""

    layout: Path
    source: Descriptor
    index: Descriptor
    platforms: tuple[FetchedPlatform, ...]
    left_out: tuple[Digest, ...]


def fetch(
    source: Source,
    layout: Path,
    wanted: Collection[Platform] = (),
    told: Callable[[str], None] = lambda text: None,
) -> Fetched:
    """Carry out the procedure above; `told` hears of each platform.

    Raises ImportRefused for what is no sound image, RegistryError for what cannot be fetched.
    """
    create_layout(layout)
    # 1. the root
    root = parse_manifest(source.read(source.root), source.root.media_type)
    if not root.is_index:
        platform = _platform_of(_config(source, _sound(root, source.root.digest)))
        entries: dict[Platform, Descriptor] = {platform: source.root}
        left_out: list[Digest] = []
    else:
        entries, left_out = _entries(root)
    # 2. its platforms
    if missing := sorted(set(wanted) - set(entries)):
        refuse(
            "platform-missing",
            f"the image is not made for {', '.join(map(str, missing))}",
            context=f"it has {', '.join(map(str, sorted(entries))) or 'none that we know'}",
            hint="leave --platform out, or name one that there is",
        )
    chosen = {p: d for p, d in entries.items() if not wanted or p in wanted}
    left_out += [d.digest for p, d in entries.items() if p not in chosen]
    if not chosen:
        refuse(
            "platform-missing", "the image is made for no platform that we know", context=source.root.digest
        )
    platforms = []
    for platform in sorted(chosen):
        told(str(platform))
        platforms.append(_platform(source, platform, chosen[platform], layout))
    data = index_bytes([p.manifest for p in platforms])
    index = Descriptor(INDEX_TYPE, write_blob(layout, data), len(data))
    write_layout_index(layout, [index])
    return Fetched(layout, source.root, index, tuple(platforms), tuple(left_out[:_LEFT_OUT_SHOWN]))


def _entries(root: Manifest) -> tuple[dict[Platform, Descriptor], list[Digest]]:
    entries: dict[Platform, Descriptor] = {}
    left_out: list[Digest] = []
    for entry in root.manifests:
        if entry.media_type not in MANIFEST_TYPES:
            refuse(
                "nested-index", "the index lists something that is no image manifest", context=entry.digest
            )
        if entry.platform is None:
            left_out.append(entry.digest)
        elif entry.platform in entries:
            refuse("ambiguous-index", f"the index lists {entry.platform} twice", context=entry.digest)
        else:
            entries[entry.platform] = entry
    return entries, left_out


def _platform(source: Source, platform: Platform, entry: Descriptor, layout: Path) -> FetchedPlatform:
    data = source.read(entry)
    manifest = _sound(parse_manifest(data, entry.media_type), entry.digest)  # 3.
    config = _config(source, manifest)
    if _platform_of(config) != platform:
        refuse("other-platform", f"the configuration is not of {platform}", context=entry.digest)
    diff_ids = _diff_ids(config, len(manifest.layers))  # 4.
    _check_history(config, len(manifest.layers))
    _check_times(config)
    if manifest.config is None:
        refuse("not-an-image", "the manifest has no configuration")
    # 5. the blobs, before the manifests that name them
    for blob in {b.digest: b for b in manifest.blobs}.values():
        if not blob_path(layout, blob.digest).exists():
            source.fetch(blob, layout)
    write_blob(layout, data)
    return FetchedPlatform(
        platform,
        Descriptor(entry.media_type, entry.digest, len(data), platform=platform),
        manifest.config,
        config,
        tuple(
            Layer(blob, diff_id, f"layer-{number}")
            for number, (blob, diff_id) in enumerate(zip(manifest.layers, diff_ids, strict=True), 1)
        ),
    )


def _sound(manifest: Manifest, digest: Digest) -> Manifest:
    """3. an image, and not some other artefact."""
    if manifest.is_index:
        refuse("nested-index", "the index lists another index", context=digest)
    kind = manifest.config.media_type if manifest.config else "none"
    if kind not in _CONFIG_TYPES or manifest.artifact_type or manifest.subject:
        refuse("not-an-image", "this is no image", context=f"{digest}: {manifest.artifact_type or kind}")
    if not 1 <= len(manifest.layers) <= _LAYERS_MAX:
        refuse("layer-count", f"an image has 1 to {_LAYERS_MAX} layers, this {len(manifest.layers)}")
    for layer in manifest.layers:
        if layer.media_type not in LAYER_TYPES:
            refuse(
                "layer-type",
                "a layer is of a type that is not taken",
                context=f"{layer.digest}: {layer.media_type}",
                hint="gzip, zstd and plain tar are; skopeo copy --dest-compress-format gzip packs it anew",
            )
        if tables := [a for a in sorted(layer.annotations) if a.startswith(_TABLES)]:
            refuse(
                "table-of-contents",
                "a layer comes with a table of contents that some engines believe instead of the layer",
                context=f"{layer.digest}: {quoted(tables[0])}",
                hint="skopeo copy --dest-compress-format gzip --dest-force-compress-format leaves it out",
            )
        if not 0 < layer.size <= _BLOB_MAX:
            refuse(
                "too-large", "a layer is empty or too large", context=f"{layer.digest}: {layer.size} bytes"
            )
    if sum(layer.size for layer in manifest.layers) > _IMAGE_MAX:
        refuse("too-large", f"the image has more than {_IMAGE_MAX} bytes")
    return manifest


def _config(source: Source, manifest: Manifest) -> dict[str, Any]:
    if manifest.config is None or manifest.config.size > MANIFEST_MAX:
        refuse("too-large", f"the configuration is larger than {MANIFEST_MAX} bytes")
    return parse_json(source.read(manifest.config), "configuration")


def _platform_of(config: dict[str, Any]) -> Platform:
    system, architecture = config.get("os"), config.get("architecture")
    try:
        return Platform(str(system), str(architecture))
    except ValueError:
        refuse(
            "platform-missing",
            "the image is made for no platform that we know",
            context=quoted(f"{system}/{architecture}"),
        )


def _diff_ids(config: dict[str, Any], count: int) -> list[Digest]:
    rootfs = config.get("rootfs")
    found = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
    if not isinstance(rootfs, dict) or rootfs.get("type") != "layers" or not isinstance(found, list):
        refuse("diff-id", "the configuration names no layers")
    if len(found) != count:
        refuse("diff-id", f"the configuration names {len(found)} layers, the manifest {count}")
    return [parse_digest(d, "diff_id") for d in found]


def _check_history(config: dict[str, Any], count: int) -> None:
    """The history, where there is one, tells of as many layers as there are."""
    history = config.get("history")
    if history is None or history == []:
        return
    if not isinstance(history, list) or not all(isinstance(h, dict) for h in history):
        refuse("malformed-config", "the configuration's history is no list of entries")
    told = sum(h.get("empty_layer") is not True for h in history)
    if told != count:
        refuse("malformed-config", f"the history tells of {told} layers, the manifest of {count}")


def _check_times(config: dict[str, Any]) -> None:
    """Times, where there are any, are times: engines refuse the whole configuration otherwise.

    Which times is no matter: reproducible builds say 1970, and nothing of ours rests on them.
    """
    for entry in (config, *(config.get("history") or ())):
        created = entry.get("created")
        if created is not None and not (isinstance(created, str) and _TIME.fullmatch(created)):
            refuse("malformed-config", "the configuration has a time that is none", context=quoted(created))
