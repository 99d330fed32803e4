"""Export: promoted images with all that proves them, as one OCI layout for networks that reach nothing.

The layout is an ordinary one: each image under its names (`python:3.13`), its `.sig` and `.att` tags
beside it, its bundles as referrers. One more manifest (`bundle`) lists what is inside, for people and
for the import on the other side, which believes none of it: it verifies with keys of its own.

The same images, evidence and keys give the same bytes. Source: OCI image specification 1.1,
image-layout.md; the annotation `org.opencontainers.image.ref.name` as oras and skopeo read it.
"""

from __future__ import annotations

import datetime as dt
import shutil
import tarfile
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from builder.errors import ToolError, UsageError
from builder.model.digest import Digest, canonical_json
from builder.model.image import MANIFEST_TYPE, Descriptor
from builder.model.reference import Reference
from builder.oci.client import RegistryClient
from builder.oci.layout import (
    blob_path,
    create_layout,
    verify_layout,
    write_blob,
    write_layout_index,
)
from builder.signing.cosign_formats import (
    BUNDLE_PREDICATE_ANNOTATION,
    EMPTY,
    EMPTY_TYPE,
    attestation_tag,
    signature_tag,
)
from builder.signing.predicates import DECIDED_TYPES, timestamp
from builder.signing.refusal import refuse
from builder.signing.trust import Trust
from builder.signing.verdicts import encode
from builder.signing.verification import Verification, named_kits
from builder.signing.verify import resolve, verify
from registry.bundles.reader import BUNDLE_KIND, CONTENTS_TYPE, NAME_ANNOTATION, open_bundle
from registry.promotion.channels import SERVED
from registry.promotion.closure import Closure

VERDICT_BLOB_TYPE = "application/vnd.goldsmith.verdict.v1+json"
KEY_TYPE = "application/x-pem-file"
TITLE_ANNOTATION = "org.opencontainers.image.title"
BUNDLE_NAME = "bundle"


@dataclass(frozen=True, slots=True)
class Packed:
    """One image in a bundle: its repository, tags and digest, and until when its verdict holds."""

    repository: str
    ref: str
    digest: Digest
    tags: tuple[str, ...]
    policy: str
    expires_at: dt.datetime

    def as_dict(self) -> dict[str, Any]:
        """The image in the list of contents."""
        return {
            "repository": self.repository,
            "ref": self.ref,
            "digest": str(self.digest),
            "tags": list(self.tags),
            "policy": self.policy,
            "expiresAt": timestamp(self.expires_at),
        }


@dataclass(frozen=True, slots=True)
class Exported:
    """A bundle that was written: where, its digest (of the manifest `bundle`), and what is in it."""

    path: Path
    digest: Digest
    images: tuple[Packed, ...]
    left_out: int
    size: int


def export(
    client: RegistryClient,
    references: Sequence[Reference],
    trust: Trust,
    public: Mapping[str, bytes],
    now: dt.datetime,
    to: Path,
    *,
    base: Path | None = None,
    accept_sample: bool = False,
    kits: bool = True,
) -> Exported:
    """Write a bundle to `to`: a folder that is not there yet, or a file that ends in `.tar`.

    Each image is verified as a consumer does, and has to be on a channel that is served. `public`
    are the files of public keys, for people. With `base`, an older bundle, its blobs are left out.
    Without `kits`, nobody on the other side can build the images again.
    Raises EvidenceRefused, RegistryError, UsageError, ToolError; then nothing was written.
    """
    if to.exists():
        raise UsageError(f"{to} is there already", hint="name a new file or folder")
    known = _blobs_in(base) if base else frozenset()
    try:
        work = Path(tempfile.mkdtemp(prefix=f".{to.name}.", dir=to.absolute().parent))
    except OSError as error:
        raise ToolError(f"cannot write {to.parent}", context=str(error)) from None
    try:
        layout = create_layout(work / "layout")
        entries: dict[str, Descriptor] = {}
        extra: dict[str, tuple[str, bytes]] = {name: (KEY_TYPE, data) for name, data in public.items()}
        packed, left_out = [], set()
        for reference in sorted(set(references), key=str):
            closure, found = _verified(client, reference, trust, now, accept_sample)
            image = _packed(reference.name, found)
            packed.append(image)
            named = tuple(d for d in closure.kits if kits and d in named_kits(found))
            entries |= _write_manifests(layout, closure, image, named)
            left_out |= _write_blobs(layout, closure, known, named)
            extra[f"verdicts/{image.digest.hex}.json"] = (VERDICT_BLOB_TYPE, encode(found.verdict))
        described = _describe(layout, packed, extra, left_out)
        write_layout_index(layout, [entries[key] for key in sorted(entries)] + [described])
        if not left_out:
            verify_layout(layout)
        size = _finish(layout, to)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return Exported(to, described.digest, tuple(packed), len(left_out), size)


def _verified(
    client: RegistryClient, reference: Reference, trust: Trust, now: dt.datetime, accept_sample: bool
) -> tuple[Closure, Verification]:
    digest = resolve(reference, client)
    closure = Closure.read(client, reference.name, digest)
    found = verify(reference, closure, trust, now, accept_sample=accept_sample)
    if found.digest != found.verdict.digest:
        refuse(
            "one-platform", "this is one platform of an image", context=str(reference), hint="name the image"
        )
    if found.channel is None or found.channel.channel not in SERVED:
        refuse(
            "not-promoted",
            f"{found.verdict.ref} was not promoted",
            context=str(reference),
            hint=f"goldsmith promote {found.verdict.ref}",
        )
    return closure, found


def _packed(repository: str, found: Verification) -> Packed:
    immutable = {p.immutable_tag for m in found.manifests for p in m.provenances}
    tags = (*sorted(immutable), found.verdict.ref.partition(":")[2])
    verdict = found.verdict
    return Packed(repository, verdict.ref, found.digest, tags, verdict.policy, verdict.expires_at)


def _write_manifests(
    layout: Path, closure: Closure, image: Packed, kits: tuple[Digest, ...]
) -> dict[str, Descriptor]:
    """The index and what is attached to it and to its platforms; entries of `index.json` by sort key."""
    entries: dict[str, Descriptor] = {}

    def add(digest: Digest, tag: str | None) -> None:
        found = closure.descriptor(digest)
        bare = Descriptor(found.media_type, digest, found.size, artifact_type=found.artifact_type)
        if tag is None:
            entries[f"~{digest}"] = replace(bare, annotations=found.annotations)
        else:
            name = f"{image.repository}:{tag}"
            entries[name] = replace(bare, annotations={NAME_ANNOTATION: name})

    for tag in image.tags:
        add(image.digest, tag)
    for subject in closure.subjects:
        for tag in (signature_tag(subject), attestation_tag(subject)):
            if (found := closure.tags.get(tag)) is not None:
                add(found, tag)
        for digest in (*closure.bundles(subject), *_records(closure, subject)):
            add(digest, None)
    for digest in kits:
        add(digest, None)
    for digest in {*closure.subjects, *(d.digest for d in entries.values())}:
        write_blob(layout, closure.manifests[digest][0])
    return entries


def _records(closure: Closure, subject: Digest) -> Iterable[Digest]:
    """The records of what was decided on a subject."""
    for digest in dict.fromkeys(d.digest for d in closure.listed.get(subject, ())):
        if digest in closure.manifests:
            kind = closure.manifest(digest).annotations.get(BUNDLE_PREDICATE_ANNOTATION)
            if kind in DECIDED_TYPES:
                yield digest


def _write_blobs(
    layout: Path, closure: Closure, known: frozenset[Digest], kits: tuple[Digest, ...]
) -> set[Digest]:
    """Every blob of the closure, each checked; returns those that are left out for the base has them."""
    left_out = set()
    for digest in (*closure.subjects, *closure.carriers, *kits):
        for blob in closure.manifest(digest).blobs:
            path = blob_path(layout, blob.digest)
            if path.exists():
                continue
            if blob.digest in closure.blobs:
                write_blob(layout, closure.blobs[blob.digest])
            elif blob.digest in known:
                left_out.add(blob.digest)
            else:
                closure.client.get_blob(closure.repo, blob, path)
    return left_out


def _describe(
    layout: Path, packed: Sequence[Packed], extra: Mapping[str, tuple[str, bytes]], left_out: set[Digest]
) -> Descriptor:
    """The manifest that says what the bundle holds; its files are for people."""
    contents = canonical_json(
        {"schema": 1, "images": [p.as_dict() for p in packed], "leftOut": sorted(map(str, left_out))}
    )
    files = {"contents.json": (CONTENTS_TYPE, contents), **dict(sorted(extra.items()))}
    layers = [
        Descriptor(kind, write_blob(layout, data), len(data), {TITLE_ANNOTATION: title})
        for title, (kind, data) in files.items()
    ]
    config = Descriptor(EMPTY_TYPE, write_blob(layout, EMPTY), len(EMPTY))
    manifest = canonical_json(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "artifactType": BUNDLE_KIND,
            "config": config.as_dict(),
            "layers": [x.as_dict() for x in layers],
        }
    )
    digest = write_blob(layout, manifest)
    return Descriptor(MANIFEST_TYPE, digest, len(manifest), {NAME_ANNOTATION: BUNDLE_NAME}, BUNDLE_KIND)


def _blobs_in(base: Path) -> frozenset[Digest]:
    """What an older bundle holds, or has left out itself."""
    bundle = open_bundle(base)
    return bundle.digests | bundle.left_out


def _finish(layout: Path, to: Path) -> int:
    """Put the layout in its place, whole: as a folder, or as a tar with its names in order."""
    files = sorted(p for p in layout.rglob("*") if p.is_file())
    if to.suffix == ".tar":
        packed = layout.parent / "bundle.tar"
        with tarfile.open(packed, "w", format=tarfile.USTAR_FORMAT) as tar:
            for path in files:
                info = tarfile.TarInfo(str(path.relative_to(layout)))
                info.size, info.mode = path.stat().st_size, 0o644
                with open(path, "rb") as handle:
                    tar.addfile(info, handle)
        layout = packed
    size = sum(p.stat().st_size for p in files)
    try:
        if to.suffix != ".tar":
            layout.chmod(0o755)
        layout.rename(to)
    except OSError as error:
        raise ToolError(f"cannot write {to}", context=str(error)) from None
    return size
