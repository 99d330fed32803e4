"""Tiny valid images for tests: a real OCI layout, and the values that travel with it."""

from __future__ import annotations

import datetime as dt
import gzip
import io
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from builder.model.definition import ChecksDefinition, ImageDefinition
from builder.model.digest import Digest, canonical_json
from builder.model.image import (
    CONFIG_TYPE,
    INDEX_TYPE,
    LAYER_TYPE,
    MANIFEST_TYPE,
    BuiltImage,
    Descriptor,
    ImageConfig,
    Layer,
    PlatformImage,
    Target,
)
from builder.model.lock import LockedPackage, LockSection
from builder.model.platform import Platform
from builder.model.release import SignedImage, SignedManifest
from builder.model.verdict import Verdict
from builder.oci.layout import create_layout, write_blob, write_layout_index
from builder.oci.manifest import config_bytes, index_bytes, manifest_bytes

NOW = dt.datetime(2026, 3, 1, 12, 0, 0, tzinfo=dt.UTC)
AMD64 = Platform("linux", "amd64")
BUNDLE_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"


def target(name: str = "python", stream: str = "3.13", parent: str | None = "base") -> Target:
    """A target as the catalogue would give it."""
    definition = ImageDefinition.model_validate(
        {
            "schema": 1,
            "name": name,
            "title": f"{name} for tests",
            "owner": "platform-team",
            **({"from": parent} if parent else {}),
            "template": "debian-runtime",
            "streams": {
                stream: {
                    "suite": "trixie",
                    "packages": ("hello",),
                    "end_of_life": dt.date(2029, 10, 31),
                }
            },
        }
    )
    return Target(
        definition, ChecksDefinition.model_validate({"schema": 1}), Path("images") / name, stream, "runtime"
    )


def package(name: str = "hello", version: str = "2.10-5") -> LockedPackage:
    """A locked package."""
    return LockedPackage(
        name,
        version,
        "amd64",
        "ab" * 32,
        1234,
        f"pool/main/h/{name}/{name}_{version}_amd64.deb",
        name,
        version,
    )


def section(
    stream: str = "3.13", platform: Platform = AMD64, packages: Sequence[LockedPackage] | None = None
) -> LockSection:
    """A section of a lock."""
    chosen = (package(),) if packages is None else tuple(packages)
    return LockSection(stream, "runtime", platform, "trixie", Digest.of(b"intent"), None, chosen)


def layer_tar(files: Mapping[str, bytes]) -> bytes:
    """A small layer as an uncompressed tar."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, data in sorted(files.items()):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def add_layer(layout: Path, files: Mapping[str, bytes], group: str = "app") -> Layer:
    """Write one layer into the layout."""
    tar = layer_tar(files)
    compressed = gzip.compress(tar, mtime=0)
    digest = write_blob(layout, compressed)
    return Layer(Descriptor(LAYER_TYPE, digest, len(compressed)), Digest.of(tar), group)


def platform_image(
    layout: Path,
    layers: Sequence[Layer],
    platform: Platform = AMD64,
    lock: LockSection | None = None,
    labels: Mapping[str, str] | None = None,
) -> PlatformImage:
    """Write configuration and manifest of one platform into the layout."""
    config = config_bytes(
        ImageConfig("65532:65532", {"PATH": "/usr/bin"}, ("/hello",), None, "/", labels or {"title": "test"}),
        platform,
        NOW,
        [x.diff_id for x in layers],
        [x.group for x in layers],
    )
    config_descriptor = Descriptor(CONFIG_TYPE, write_blob(layout, config), len(config))
    manifest = manifest_bytes(config_descriptor, [x.blob for x in layers])
    return PlatformImage(
        platform=platform,
        layout=layout,
        manifest=Descriptor(MANIFEST_TYPE, write_blob(layout, manifest), len(manifest), platform=platform),
        config=config_descriptor,
        layers=tuple(layers),
        lock=lock or section(platform=platform),
        packages=(package(),),
    )


def built_image(
    folder: Path,
    name: str = "python",
    files: Sequence[Mapping[str, bytes]] = ({"etc/os-release": b"base\n"}, {"hello": b"hello\n"}),
    platforms: Sequence[Platform] = (AMD64,),
    version: str = "3.13.5",
    input_hash: Digest | None = None,
    labels: Mapping[str, str] | None = None,
) -> BuiltImage:
    """A whole canonical image in a new layout at `folder`, one layer for each of `files`."""
    layout = create_layout(folder)
    layers = [add_layer(layout, content, f"group-{n}") for n, content in enumerate(files)]
    images = tuple(platform_image(layout, layers, platform, labels=labels) for platform in platforms)
    index = index_bytes([x.manifest for x in images])
    descriptor = Descriptor(INDEX_TYPE, write_blob(layout, index), len(index))
    write_layout_index(layout, [descriptor])
    return BuiltImage(
        target=target(name, parent="base" if name != "base" else None),
        layout=layout,
        index=descriptor,
        platforms=images,
        input_hash=input_hash or Digest.of(index),
        version=version,
    )


def verdict(image: BuiltImage) -> Verdict:
    """An approval."""
    return Verdict(
        digest=image.digest,
        ref=image.target.ref,
        approved=True,
        policy="baseline",
        policy_digest=Digest.of(b"policy"),
        issued_at=NOW,
        expires_at=NOW + dt.timedelta(days=7),
        database=None,
        sboms={},
        rules=(),
    )


def signed_image(image: BuiltImage) -> SignedImage:
    """The image with manifests of the right form (not with true signatures): tags and referrers."""
    subjects = [image.index, *(x.manifest for x in image.platforms)]
    return SignedImage(image, verdict(image), tuple(m for s in subjects for m in carriers(s)))


def carriers(subject: Descriptor, mark: str = "") -> tuple[SignedManifest, ...]:
    """`.sig`, `.att` and one bundle referrer for `subject`; `mark` changes their content."""
    plain = replace(subject, platform=None, annotations={})
    tag = f"sha256-{subject.digest.hex}"
    return (
        _carrier(f"signature{mark} of {subject.digest}".encode(), tag=f"{tag}.sig"),
        _carrier(f"attestations{mark} of {subject.digest}".encode(), tag=f"{tag}.att"),
        _carrier(f"bundle{mark} of {subject.digest}".encode(), subject=plain),
    )


def _carrier(payload: bytes, tag: str | None = None, subject: Descriptor | None = None) -> SignedManifest:
    empty = b"{}"
    config = Descriptor("application/vnd.oci.empty.v1+json", Digest.of(empty), len(empty))
    annotations = {"dev.sigstore.bundle.predicateType": "https://example.org/test"} if subject else {}
    document = {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "config": config.as_dict(),
        "layers": [Descriptor(BUNDLE_TYPE, Digest.of(payload), len(payload)).as_dict()],
        **(
            {"subject": subject.as_dict(), "artifactType": BUNDLE_TYPE, "annotations": annotations}
            if subject
            else {}
        ),
    }
    return SignedManifest(
        manifest=canonical_json(document),
        media_type=MANIFEST_TYPE,
        blobs={Digest.of(empty): empty, Digest.of(payload): payload},
        tag=tag,
        subject=subject,
        artifact_type=BUNDLE_TYPE if subject else None,
        annotations=annotations or None,
    )
