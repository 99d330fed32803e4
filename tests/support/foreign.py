"""Images that others made: layouts, docker archives and registries, sound or with one thing wrong."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from builder.model.digest import Digest, canonical_json
from builder.model.image import CONFIG_TYPE, INDEX_TYPE, LAYER_TYPE, MANIFEST_TYPE
from builder.oci.layout import LAYOUT_FILE, blob_path, create_layout, write_blob
from tests.support.debian import debian_files
from tests.support.images import layer_tar
from tests.support.registry_simulator import Simulator

DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"


def system_files() -> dict[str, bytes]:
    """A Debian root file system as others make it, with accounts."""
    return {**debian_files(), "etc/passwd": b"root:x:0:0::/root:/bin/bash\napp:x:1000:1000::/:/bin/sh\n"}


@dataclass
class Foreign:
    """One platform: its layers (uncompressed tars), and its configuration as JSON data."""

    layers: list[bytes] = field(default_factory=lambda: [layer_tar(system_files()), layer_tar({"app": b"x"})])
    architecture: str = "amd64"
    config: dict[str, Any] = field(default_factory=dict)
    manifest: dict[str, Any] = field(default_factory=dict)
    docker: bool = False
    packed: list[bytes] | None = None

    def config_bytes(self) -> bytes:
        """The configuration; `config` replaces parts of it."""
        return canonical_json(
            {
                "architecture": self.architecture,
                "os": "linux",
                "created": "2026-01-01T00:00:00Z",
                "config": {"User": "1000", "Env": ["PATH=/usr/bin"], "Cmd": ["/app"]},
                "rootfs": {"type": "layers", "diff_ids": [str(Digest.of(x)) for x in self.layers]},
                "history": [{"created_by": "x"} for _ in self.layers],
                **self.config,
            }
        )

    def blobs(self) -> list[bytes]:
        """The compressed layers."""
        return self.packed or [gzip.compress(x, mtime=0) for x in self.layers]

    def manifest_bytes(self) -> bytes:
        """The manifest; `manifest` replaces parts of it."""
        kinds = (DOCKER_CONFIG, DOCKER_LAYER) if self.docker else (CONFIG_TYPE, LAYER_TYPE)
        return canonical_json(
            {
                "schemaVersion": 2,
                "mediaType": self.media_type,
                "config": described(self.config_bytes(), kinds[0]),
                "layers": [described(x, kinds[1]) for x in self.blobs()],
                **self.manifest,
            }
        )

    @property
    def media_type(self) -> str:
        """The manifest's media type."""
        return DOCKER_MANIFEST if self.docker else MANIFEST_TYPE

    def entry(self) -> dict[str, Any]:
        """The platform in an index."""
        platform = {"os": "linux", "architecture": self.architecture}
        return {**described(self.manifest_bytes(), self.media_type), "platform": platform}


def described(data: bytes, media_type: str) -> dict[str, Any]:
    """A descriptor as JSON data."""
    return {"mediaType": media_type, "digest": str(Digest.of(data)), "size": len(data)}


def attestation() -> tuple[bytes, dict[str, Any]]:
    """What BuildKit puts beside the platforms: a manifest of no platform, and its entry."""
    manifest = canonical_json(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "config": described(b"{}", CONFIG_TYPE),
            "layers": [described(b"{}", "application/vnd.in-toto+json")],
        }
    )
    unknown = {"os": "unknown", "architecture": "unknown"}
    kind = {"vnd.docker.reference.type": "attestation-manifest"}
    return manifest, {**described(manifest, MANIFEST_TYPE), "platform": unknown, "annotations": kind}


def index_of(*platforms: Foreign, extra: Sequence[dict[str, Any]] = ()) -> bytes:
    """An index over platforms."""
    return canonical_json(
        {
            "schemaVersion": 2,
            "mediaType": INDEX_TYPE,
            "manifests": [*(p.entry() for p in platforms), *extra],
        }
    )


def write_layout(folder: Path, *platforms: Foreign, index: bytes | None = None) -> Path:
    """A layout: of one platform its manifest is the root, else an index."""
    layout = create_layout(folder)
    for one in platforms:
        for data in (one.config_bytes(), one.manifest_bytes(), *one.blobs()):
            write_blob(layout, data)
    if index is None and len(platforms) == 1:
        root = described(platforms[0].manifest_bytes(), platforms[0].media_type)
    else:
        data = index or index_of(*platforms)
        write_blob(layout, data)
        root = described(data, INDEX_TYPE)
    listing = {"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": [root]}
    (layout / "index.json").write_bytes(canonical_json(listing))
    return layout


def write_registry(sim: Simulator, repo: str, *platforms: Foreign, index: bytes | None = None) -> Digest:
    """The same in a registry; returns the root's digest."""
    blobs = sim.blobs.setdefault(repo, {})
    for one in platforms:
        for data in (one.config_bytes(), *one.blobs()):
            blobs[Digest.of(data)] = data
        sim.put(repo, one.manifest_bytes(), one.media_type)
    if index is None and len(platforms) == 1:
        return Digest.of(platforms[0].manifest_bytes())
    return sim.put(repo, index or index_of(*platforms), INDEX_TYPE, "1.0")


def tar_of(files: Mapping[str, bytes], links: Mapping[str, str] | None = None) -> bytes:
    """A tar with files in that order, and symbolic links."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        for name, target in (links or {}).items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, target
            tar.addfile(info)
    return out.getvalue()


def docker_archive(path: Path, one: Foreign, **entry: Any) -> Path:
    """What `docker save` of an older Docker writes."""
    config = one.config_bytes()
    names = [f"{Digest.of(x).hex}/layer.tar" for x in one.layers]
    listed = {"Config": f"{Digest.of(config).hex}.json", "RepoTags": ["app:1"], "Layers": names, **entry}
    files = {f"{Digest.of(config).hex}.json": config, **dict(zip(names, one.layers, strict=True))}
    path.write_bytes(tar_of({**files, "manifest.json": json.dumps([listed]).encode()}))
    return path


def layout_archive(path: Path, layout: Path) -> Path:
    """A layout as one tar, with Docker's `manifest.json` beside it, as newer Dockers save."""
    files = {str(p.relative_to(layout)): p.read_bytes() for p in sorted(layout.rglob("*")) if p.is_file()} | {
        "oci-layout": LAYOUT_FILE,
        "manifest.json": b"[]",
    }
    path.write_bytes(tar_of(files))
    return path


def spoil(layout: Path, digest: Digest) -> None:
    """Flip a byte of a blob."""
    path = blob_path(layout, digest)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
