"""The files of two images, read from their layers: kind, mode, owner, content."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from builder.model.image import Descriptor, Layer, PlatformImage
from builder.model.lock import LockSection
from builder.model.platform import Platform
from builder.oci.client import RegistryClient
from builder.oci.layout import blob_path, create_layout
from builder.oci.rootfs import Node, image_tree
from registry.diff.facts import ImageFacts, PlatformFacts

_KINDS = {"0": "file", "1": "hard link", "2": "link", "5": "directory"}


def trees(
    client: RegistryClient, repo: str, image: ImageFacts, work: Path
) -> Mapping[str, Mapping[str, str]]:
    """By platform, each path and what is there, as text; layers are fetched into the folder `work`.

    Raises RegistryError when a layer cannot be had or is not what its digest says.
    """
    layout = create_layout(work)
    out = {}
    for name, facts in image.platforms.items():
        for layer in facts.layers:
            path = blob_path(layout, layer.digest)
            if not path.exists():
                client.get_blob(repo, layer, path)
        out[name] = tree_texts(image_tree(platform_image(facts, layout)))
    return out


def tree_texts(tree: Mapping[str, Node]) -> Mapping[str, str]:
    """Each path of a root file system, and what is there, as text."""
    return {f"/{path}": _said(node) for path, node in tree.items()}


def platform_image(facts: PlatformFacts, layout: Path) -> PlatformImage:
    """As much of an image as its files need."""
    platform = Platform.parse(facts.platform)
    nothing = LockSection("-", "runtime", platform, "trixie", facts.digest, None, ())
    layers = tuple(Layer(b, d, "") for b, d in zip(facts.layers, facts.diff_ids, strict=True))
    manifest = Descriptor("", facts.digest, facts.manifest_size)
    return PlatformImage(platform, layout, manifest, facts.config_blob, layers, nothing, ())


def _said(node: Node) -> str:
    owner = f"{node.mode:04o} {node.uid}:{node.gid}"
    kind = _KINDS.get(node.kind, node.kind)
    if node.link:
        return f"{kind} to {node.link}"
    attributes = "".join(f" {name}" for name in sorted(node.xattrs))
    return f"{kind} {owner}{attributes}" + (f" {node.size} bytes {node.sha256[:12]}" if node.sha256 else "")
