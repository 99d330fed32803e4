"""Targets, build contexts and built images: what travels from `define` to `normalise`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from builder.model.assembly import NOTHING, LeftOut
from builder.model.definition import (
    CatalogueCheck,
    ChecksDefinition,
    CommandCheck,
    FileCheck,
    ImageDefinition,
    RunStep,
    Stream,
)
from builder.model.digest import Digest
from builder.model.extension import ExtensionIdentity
from builder.model.lock import LockedPackage, LockSection
from builder.model.platform import Platform
from builder.model.waiver import Waiver

MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
INDEX_TYPE = "application/vnd.oci.image.index.v1+json"
CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar+gzip"

APPENDED = "appended"  # to the same file of the image below
JAVA_TRUST_STORE = "java-trust-store"  # how a generated file is derived: `stages/derive.py`


@dataclass(frozen=True, slots=True)
class Made:
    """What steps of extensions make of one stream, and whose they are."""

    entries: Mapping[Platform, tuple[GeneratedEntry, ...]] = field(default_factory=dict)
    by: tuple[ExtensionIdentity, ...] = ()


@dataclass(frozen=True, slots=True)
class Target:
    """One image to build: a stream and a variant of a definition, on all its platforms.

    `waivers` are those that concern it, its own and its parents'; `files` the contents that
    its streams' `files` name, by path in the image's folder; `common` the catalogue's checks for all
    images, by id; `made` what steps of extensions make.
    """

    definition: ImageDefinition
    checks: ChecksDefinition
    directory: Path
    stream_name: str
    variant: str
    waivers: tuple[Waiver, ...] = ()
    files: Mapping[str, bytes] = field(default_factory=dict)
    common: Mapping[str, CatalogueCheck] = field(default_factory=dict)
    made: Made = field(default_factory=Made)

    @property
    def stream(self) -> Stream:
        """The stream's part of the definition."""
        return self.definition.streams[self.stream_name]

    @property
    def tag(self) -> str:
        """The floating tag: `3.13`, `3.13-dev`."""
        return self.stream_name + ("" if self.variant == "runtime" else f"-{self.variant}")

    @property
    def ref(self) -> str:
        """The name in the catalogue: `python:3.13`."""
        return f"{self.definition.name}:{self.tag}"

    def command_checks(self, platform: Platform) -> tuple[CommandCheck, ...]:
        """The command checks that apply."""
        return tuple(c for c in self.checks.commands if c.applies(self.variant, self.stream_name, platform))

    def file_checks(self, platform: Platform) -> tuple[FileCheck, ...]:
        """The file checks that apply."""
        return tuple(c for c in self.checks.files if c.applies(self.variant, self.stream_name, platform))

    @property
    def declared_checks(self) -> dict[str, Any]:
        """All that is declared of checks, as JSON data: a part of the release key."""
        own: dict[str, Any] = self.checks.model_dump(mode="json", by_alias=True)
        common = {i: check.model_dump(mode="json", by_alias=True) for i, check in self.common.items()}
        return {**own, "common": common} if common else own

    @property
    def platforms(self) -> tuple[Platform, ...]:
        """The platforms, sorted."""
        return tuple(sorted(Platform.parse(p) for p in self.definition.platforms))


@dataclass(frozen=True, slots=True)
class Descriptor:
    """An OCI content descriptor (image specification 1.1, descriptor.md); `size` in bytes."""

    media_type: str
    digest: Digest
    size: int
    annotations: Mapping[str, str] = field(default_factory=dict)
    artifact_type: str | None = None
    platform: Platform | None = None

    def as_dict(self) -> dict[str, Any]:
        """The descriptor as JSON data."""
        out: dict[str, Any] = {
            "mediaType": self.media_type,
            "digest": str(self.digest),
            "size": self.size,
        }
        if self.artifact_type:
            out["artifactType"] = self.artifact_type
        if self.platform:
            out["platform"] = {
                "architecture": self.platform.architecture,
                "os": self.platform.os,
            }
        if self.annotations:
            out["annotations"] = dict(sorted(self.annotations.items()))
        return out


@dataclass(frozen=True, slots=True)
class ImageConfig:
    """What a container of the image starts with; the template writes the same into the Dockerfile."""

    user: str
    environment: Mapping[str, str]
    entrypoint: tuple[str, ...] | None
    command: tuple[str, ...] | None
    working_directory: str
    labels: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class GeneratedEntry:
    """A file, directory or link that no package brings, at an absolute `path`.

    `kind` is "file", "directory" or "link"; `content` is the file's bytes, `target` the link's.
    A file that is `derived` is made of the parent when the image is built; its name says how. Of an
    appended one, `content` is what comes after the parent's.
    """

    path: str
    kind: str
    mode: int
    owner: int = 0
    content: bytes = b""
    target: str = ""
    derived: str = ""


@dataclass(frozen=True, slots=True)
class BuildContext:
    """A rendered build for one platform: the Dockerfile and small files, and what it binds.

    `files` are the rendered files by path in the context. The packages come from the pool by
    their SHA-256 in `lock`. `entries` is what the rendered files add to the root file system,
    as data. `parent` is the finished image that this one is built on. `epoch` is
    SOURCE_DATE_EPOCH: the newest file time inside the locked packages, in seconds. `depth` is
    the number of images below this one. `left_out` is what is left out of packages'
    files. `database` holds the files of the parent that its packages share, by
    path; this image's packages continue them. `runs` are the programs that are run at the end.
    """

    ref: str
    platform: Platform
    lock: LockSection
    files: Mapping[str, bytes]
    entries: tuple[GeneratedEntry, ...]
    config: ImageConfig
    depth: int
    parent: PlatformImage | None = None
    epoch: int = 0
    left_out: LeftOut = NOTHING
    database: Mapping[str, bytes] = field(default_factory=dict)
    runs: tuple[RunStep, ...] = ()

    @property
    def has_parent(self) -> bool:
        """Whether the image is built on another one."""
        return self.depth > 0


@dataclass(frozen=True, slots=True)
class RawImage:
    """What an engine made: a root file system as an uncompressed tar, not yet canonical.

    `whole` says whether the tar holds the parent's files too, or only what comes on top.
    """

    context: BuildContext
    rootfs: Path
    whole: bool
    engine: str
    engine_version: str


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer: its compressed blob, the digest of its tar (diff_id), and its package group."""

    blob: Descriptor
    diff_id: Digest
    group: str


@dataclass(frozen=True, slots=True)
class PlatformImage:
    """One platform of a built image, inside the OCI layout at `layout`."""

    platform: Platform
    layout: Path
    manifest: Descriptor
    config: Descriptor
    layers: tuple[Layer, ...]
    lock: LockSection
    # The closure's packages: the parent's and this section's, sorted by name.
    packages: tuple[LockedPackage, ...]

    @property
    def compressed_bytes(self) -> int:
        """The size of what a client pulls: layers, config and manifest, in bytes."""
        return sum(x.blob.size for x in self.layers) + self.config.size + self.manifest.size


@dataclass(frozen=True, slots=True)
class BuiltImage:
    """A canonical image: an OCI layout whose index digest is the identity."""

    target: Target
    layout: Path
    index: Descriptor
    platforms: tuple[PlatformImage, ...]
    input_hash: Digest
    version: str
    imported: bool = False  # others made it: there is no Dockerfile and no lock of ours

    @property
    def digest(self) -> Digest:
        """The identity of the image: the digest of its index."""
        return self.index.digest

    @property
    def immutable_tag(self) -> str:
        """`VERSION-INPUT`: one tag for each digest, never moved."""
        return f"{self.version}-{self.input_hash.short}"
