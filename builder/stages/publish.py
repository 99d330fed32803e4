"""Publish: a signed image goes to the registry so that nobody ever sees half of it.

In: a SignedImage. Out: a PublishedImage. Order: blobs, platform manifests, index, the rebuild
kit, signatures and attestations, all read back; then the immutable tag; the floating tag last. A
run that was cut anywhere is completed by the next one: what is there is not sent again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from builder.errors import PolicyDenied, RegistryError
from builder.model.digest import Digest
from builder.model.image import MANIFEST_TYPE, BuiltImage, Descriptor, Target
from builder.model.kit import KIT_TYPE, Content, PackedKit
from builder.model.reference import Reference
from builder.model.release import PublishedImage, SignedImage, SignedManifest
from builder.oci.client import RegistryClient
from builder.oci.layout import blob_path, read_blob
from builder.oci.manifest import parse_manifest

CANDIDATE = "candidate"
_THREADS = 8

T = TypeVar("T")
R = TypeVar("R")


def repository(target: Target, prefix: str = CANDIDATE) -> str:
    """The repository of a target's images: `candidate/python`."""
    return f"{prefix}/{target.definition.name}"


def find_published(
    client: RegistryClient, target: Target, immutable_tag: str, prefix: str = CANDIDATE
) -> Digest | None:
    """The digest that was published for this input, if that was completed; else None.

    Completed means: the immutable tag is there and the floating tag, which is written last,
    points to the same digest. Raises RegistryError when the registry cannot tell.
    """
    repo = repository(target, prefix)
    immutable = client.head_manifest(client.reference(repo, immutable_tag))
    if immutable is None:
        return None
    floating = client.head_manifest(client.reference(repo, target.tag))
    return immutable.digest if floating and floating.digest == immutable.digest else None


def publish(
    signed: SignedImage, client: RegistryClient, repository_prefix: str = CANDIDATE
) -> PublishedImage:
    """Publish the image with its evidence and move its tags; idempotent and resumable.

    Raises PolicyDenied when the verdict is no approval of this very image, and RegistryError when
    the registry fails or holds something else; then no tag was moved.
    """
    image = signed.image
    if not signed.verdict.approved or signed.verdict.digest != image.digest:
        raise PolicyDenied(
            f"{image.target.ref} has no approval",
            context=f"the verdict is for {signed.verdict.digest}, the image is {image.digest}",
            hint="goldsmith why says what has to change",
        )
    repo = repository(image.target, repository_prefix)
    immutable = client.reference(repo, image.immutable_tag)
    _refuse_moved(client, immutable, image.digest)

    layers, configs = _layers(image), _unique(p.config for p in image.platforms)
    sent = push_image(image, client, repository_prefix)
    attached = signed.signatures
    if signed.kit is not None:
        sent += _push_kit(client, repo, signed.kit, _parent(image.target, repository_prefix))
        attached = (*attached, _carried(signed.kit))
    sent += _push_evidence(client, repo, attached)
    _read_back(client, repo, image, (*layers, *configs))
    _read_back_evidence(client, repo, attached)

    _refuse_moved(client, immutable, image.digest)  # another publisher may have been faster
    index = read_blob(image.layout, image.index)
    for tag in (image.immutable_tag, image.target.tag):
        _tag(client, client.reference(repo, tag), index, image.index)
    return PublishedImage(
        reference=str(client.reference(repo, digest=image.digest)),
        digest=image.digest,
        tags=(image.immutable_tag, image.target.tag),
        uploaded_bytes=sent,
    )


def push_image(image: BuiltImage, client: RegistryClient, repository_prefix: str = CANDIDATE) -> int:
    """Push what an image consists of, by digest: no tag, no signature, so nobody sees it yet.

    Returns the bytes sent; raises RegistryError.
    """
    repo = repository(image.target, repository_prefix)
    parent = _parent(image.target, repository_prefix)
    sent = 0
    for blobs in (_layers(image), _unique(p.config for p in image.platforms)):
        sent += _push_blobs(client, repo, image, blobs, parent)
    return sent + _push_manifests(client, repo, image)


def _layers(image: BuiltImage) -> tuple[Descriptor, ...]:
    return _unique(layer.blob for p in image.platforms for layer in p.layers)


def _refuse_moved(client: RegistryClient, ref: Reference, digest: Digest) -> None:
    there = client.head_manifest(ref)
    if there is not None and there.digest != digest:
        raise RegistryError(
            f"the immutable tag {ref} already points to another image",
            context=f"there: {there.digest}\nours:  {digest}",
            hint="the same input gave another digest: find out why with a second build; never move the tag",
            reference="immutable-tag",
        )


def _parent(target: Target, prefix: str) -> str | None:
    name = target.definition.parent
    return f"{prefix}/{name.partition(':')[0]}" if name else None


def _push_blobs(
    client: RegistryClient, repo: str, image: BuiltImage, blobs: Sequence[Descriptor], parent: str | None
) -> int:
    """Upload what is missing, or link it from the parent's repository; returns the bytes sent."""

    def push(blob: Descriptor) -> int:
        if client.has_blob(repo, blob.digest, blob.size):
            return 0
        return client.put_blob(repo, blob_path(image.layout, blob.digest), blob.digest, parent)

    return sum(_each(push, blobs))


def _push_manifests(client: RegistryClient, repo: str, image: BuiltImage) -> int:
    """Platform manifests, then the index, all by digest; returns the bytes sent."""
    sent = 0
    for descriptor in (*(p.manifest for p in image.platforms), image.index):
        ref = client.reference(repo, digest=descriptor.digest)
        if client.head_manifest(ref) is None:
            client.put_manifest(ref, read_blob(image.layout, descriptor), descriptor.media_type)
            sent += descriptor.size
    return sent


def _push_kit(client: RegistryClient, repo: str, kit: PackedKit, parent: str | None) -> int:
    """What a kit consists of, where the repository lacks it; returns the bytes sent.

    Of a kit whose manifest is there, every blob is.
    """
    if client.head_manifest(client.reference(repo, digest=kit.digest)) is not None:
        return 0

    def push(blob: tuple[Digest, Content]) -> int:
        return 0 if client.has_blob(repo, blob[0]) else client.put_blob(repo, blob[1], blob[0], parent)

    return sum(_each(push, kit.blobs.items()))


def _carried(kit: PackedKit) -> SignedManifest:
    """The kit's manifest as what is attached to the index; its blobs are there already."""
    return SignedManifest(kit.manifest, MANIFEST_TYPE, {}, subject=kit.subject, artifact_type=KIT_TYPE)


def _push_evidence(client: RegistryClient, repo: str, signatures: Sequence[SignedManifest]) -> int:
    """Signatures and attestations: blobs, manifests, then the listings; returns the bytes sent."""

    def is_there(item: SignedManifest) -> bool:
        found = client.head_manifest(client.reference(repo, item.tag, None if item.tag else item.digest))
        return found is not None and found.digest == item.digest

    def push_blob(blob: tuple[Digest, bytes]) -> int:
        return client.put_blob(repo, blob[1], blob[0])

    def push_manifest(item: SignedManifest) -> bool:
        """Returns whether the registry listed it by itself."""
        if item.subject is None:
            client.put_manifest(client.reference(repo, item.tag), item.manifest, item.media_type)
            return True
        return client.put_referrer(repo, item.manifest, item.media_type)

    there = _each(is_there, signatures)
    missing = [item for item, known in zip(signatures, there, strict=True) if not known]
    # A manifest that is there has its blobs: the registry does not take it without them.
    sent = sum(_each(push_blob, {d: b for item in missing for d, b in item.blobs.items()}.items()))
    listed = iter(_each(push_manifest, missing))
    unlisted: dict[Digest, list[Descriptor]] = {}
    for item, known in zip(signatures, there, strict=True):
        by_registry = next(listed) if not known else item.subject and client.supports_referrers(repo)
        if item.subject and not by_registry:
            unlisted.setdefault(item.subject.digest, []).append(item.entry)
    # One write for each subject: of two writers to such an index, one is lost.
    _each(
        lambda one: client.put_referrers_fallback(repo, one[0], one[1], replace_same_kind=True),
        unlisted.items(),
    )
    return sent + sum(len(item.manifest) for item in missing)


def _read_back(client: RegistryClient, repo: str, image: BuiltImage, blobs: Sequence[Descriptor]) -> None:
    """Read everything that a client of the image will read, and compare it with its digests."""
    for descriptor in (image.index, *(p.manifest for p in image.platforms)):
        client.get_manifest(client.reference(repo, digest=descriptor.digest))
    _each(lambda blob: client.check_blob(repo, blob), blobs)


def _read_back_evidence(client: RegistryClient, repo: str, signatures: Sequence[SignedManifest]) -> None:
    """Read everything that a verifier will read: by tag, by the list of referrers, and the blobs."""

    def check(item: SignedManifest) -> None:
        ref = client.reference(repo, item.tag, None if item.tag else item.digest)
        if client.get_manifest(ref)[2] != item.digest:
            raise _vanished(f"{ref} is not the manifest that was just written")

    _each(check, signatures)
    # A kit's packages are not read again: the registry hashed them, and refuses a manifest without them.
    small = [item for item in signatures if item.artifact_type != KIT_TYPE]
    blobs = _unique(blob for item in small for blob in parse_manifest(item.manifest).blobs)
    _each(lambda blob: client.check_blob(repo, blob), blobs)
    for subject in {item.subject.digest for item in signatures if item.subject}:
        listed = {d.digest for d in client.referrers(repo, subject)}
        ours = {item.digest for item in signatures if item.subject and item.subject.digest == subject}
        if not ours <= listed:
            raise _vanished(f"{len(ours - listed)} referrers of {subject} are not listed")


def _tag(client: RegistryClient, ref: Reference, data: bytes, index: Descriptor) -> None:
    there = client.head_manifest(ref)
    if there is None or there.digest != index.digest:
        client.put_manifest(ref, data, index.media_type)
        if client.get_manifest(ref)[2] != index.digest:
            raise _vanished(f"{ref} was written, but it points to another image")


def _unique(descriptors: Iterable[Descriptor]) -> tuple[Descriptor, ...]:
    return tuple({d.digest: d for d in descriptors}.values())


def _each(action: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """Do something with each item in a few threads; the first error ends it."""
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="publish") as pool:
        return list(pool.map(action, items))


def _vanished(context: str) -> RegistryError:
    return RegistryError(
        "what was published cannot be read back",
        context=context,
        hint="another publisher may be at work, or the storage loses data; run the command again",
        reference="not-readable",
    )
