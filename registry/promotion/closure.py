"""The closure of an image: index, platforms, signatures, attestations, SBOMs; read at once, copied by digest.

A Closure answers verification from what was read of one repository in one go, several requests at a
time; what it has not read, it asks the registry for. Every byte was hashed by the client.

Where the registry's own folder is on this machine, what is there can be read from that (`near`), without
a request for each of dozens of small things.

What an earlier reading found elsewhere can be told to the next one (`Brought`): content is what its
digest says wherever it lies, so a blob that was hashed there is only looked for here. Tags, listings
and the image's own manifests are always read anew; so is everything that was not written just now.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from builder.model.digest import Digest
from builder.model.image import Descriptor
from builder.model.kit import KIT_TYPE
from builder.model.reference import Reference
from builder.oci.client import RegistryClient
from builder.oci.faults import RegistryRefused
from builder.oci.manifest import Manifest, parse_manifest
from builder.signing.collect import Registry
from builder.signing.cosign_formats import (
    BUNDLE_PREDICATE_ANNOTATION,
    BUNDLE_TYPE,
    PREDICATE_ANNOTATION,
    attestation_tag,
    signature_tag,
)
from builder.signing.cosign_parse import REFERRERS_MAX, signature_layers
from builder.signing.memo import Memo
from builder.signing.predicates import APPROVAL_TYPE, DECIDED_TYPES, REBUILD_TYPE, ROLE_OF
from builder.signing.statements import SIMPLE_SIGNING_MAX

_THREADS = 8
_AHEAD_MAX = 64  # things of one kind that are read ahead; verification judges larger numbers
_BLOB_AHEAD_MAX = 8 << 20  # bytes
_KITS_MAX = 8

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Brought:
    """What is known when an image is read where it was copied to: `blobs` are hashed bytes by digest.

    `placed` are the blobs, with their sizes, and `written` the manifests, with their types, that the
    registry confirmed to have there in this run, by their digests.
    """

    blobs: Mapping[Digest, bytes] = field(default_factory=dict)
    placed: Mapping[Digest, int] = field(default_factory=dict)
    written: Mapping[Digest, tuple[bytes, str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Copied:
    """What a copy wrote: how many manifests and listings, and what is there since (as in `Brought`)."""

    manifests: int = 0
    placed: Mapping[Digest, int] = field(default_factory=dict)
    written: Mapping[Digest, tuple[bytes, str]] = field(default_factory=dict)


class Closure:
    """What was read of one image in one repository; on the interface that verification uses."""

    def __init__(
        self,
        client: RegistryClient,
        repo: str,
        image: Digest,
        near: Registry | None = None,
        memo: Memo | None = None,
    ) -> None:
        self.client = client
        self._registry: Registry = near or client
        self.repo = repo
        self.image = image
        self.manifests: dict[Digest, tuple[bytes, str]] = {}
        self.tags: dict[str, Digest | None] = {}
        self.listed: dict[Digest, tuple[Descriptor, ...]] = {}
        self.blobs: dict[Digest, bytes] = {}
        self._sizes: dict[Digest, int] = {}
        self._parsed: dict[Digest, Manifest] = {}
        self._memo = memo or Memo()

    @classmethod
    def read(
        cls,
        client: RegistryClient,
        repo: str,
        image: Digest,
        brought: Brought | None = None,
        near: Registry | None = None,
        memo: Memo | None = None,
    ) -> Closure:
        """Read an image (its index digest) with all that is attached; raises RegistryError.

        `memo` has what this run read before.
        """
        # Asked once, and not for each listing; a listing by such an API is in no folder that we know.
        if client.supports_referrers(repo):
            near = None
        here = cls(client, repo, image, near, memo)
        here._fetch(image)
        # Files are read one after the other: there is nothing to wait for.
        with ThreadPoolExecutor(1 if near else _THREADS, thread_name_prefix="closure") as pool:
            jobs: list[Callable[[], None]] = [
                lambda d=d: here._fetch(d)  # type: ignore[misc]
                for d in here.subjects[1:]
            ]
            for subject in here.subjects:
                jobs += [
                    lambda s=subject: here._list(s),  # type: ignore[misc]
                    lambda s=subject: here._fetch_tag(signature_tag(s)),  # type: ignore[misc]
                    lambda s=subject: here._fetch_tag(attestation_tag(s)),  # type: ignore[misc]
                ]
            _all(pool, jobs)
            bundles = {
                d.digest for listed in here.listed.values() for d in listed if d.artifact_type == BUNDLE_TYPE
            }
            kits = [d.digest for d in here.listed[image] if d.artifact_type == KIT_TYPE][:_KITS_MAX]
            wanted = [*sorted(bundles)[:REFERRERS_MAX], *kits]
            if brought:
                here.manifests |= {d: brought.written[d] for d in wanted if d in brought.written}
                wanted = [d for d in wanted if d not in brought.written]
            _all(pool, [lambda d=d: here._fetch(d) for d in wanted])  # type: ignore[misc]
            content = here._blobs_of(here.subjects)
            if brought:  # of the image itself every blob is looked for, of its evidence what is in doubt
                evidence = {b.digest for b in here._blobs_of(here.carriers)} - {b.digest for b in content}
                here._sizes = {d: n for d, n in brought.placed.items() if d in evidence}
            said = {b.digest: b for d in here.carriers for b in here.manifest(d).layers}
            said |= {c.digest: c for d in here.subjects if (c := here.manifest(d).config)}
            small = {d: b for d, b in list(said.items())[: 4 * _AHEAD_MAX] if b.size <= _BLOB_AHEAD_MAX}
            _all(
                pool,
                [
                    *(lambda b=b: here._fetch_blob(b, brought) for b in small.values()),
                    *(
                        lambda b=b: here._look_for(b)
                        for b in content[: 4 * _AHEAD_MAX]
                        if b.digest not in small
                    ),
                ],
            )
        return here

    @property
    def subjects(self) -> tuple[Digest, ...]:
        """The index, then its platforms."""
        return (self.image, *(d.digest for d in self.manifest(self.image).manifests[:_AHEAD_MAX]))

    @property
    def carriers(self) -> tuple[Digest, ...]:
        """The manifests of signatures and attestations that were read."""
        others = (*self.subjects, *self.kits)
        return tuple(d for d in self.manifests if d not in others)

    @property
    def kits(self) -> tuple[Digest, ...]:
        """The manifests that say they are rebuild kits; a provenance names the one that counts."""
        return tuple(d for d in self.manifests if self.manifest(d).artifact_type == KIT_TYPE)

    def manifest(self, digest: Digest) -> Manifest:
        """A manifest that was read."""
        if digest not in self._parsed:
            self._parsed[digest] = self._memo.of(parse_manifest, *self.manifests[digest])
        return self._parsed[digest]

    def descriptor(self, digest: Digest) -> Descriptor:
        """A manifest that was read, as its listing says it."""
        data, media_type = self.manifests[digest]
        manifest = self.manifest(digest)
        return Descriptor(media_type, digest, len(data), manifest.annotations, manifest.artifact_type)

    def bundles(self, subject: Digest) -> tuple[Digest, ...]:
        """The bundles of a subject that say something to us, approvals too; but for what was decided here."""
        found = []
        for digest in dict.fromkeys(d.digest for d in self.listed.get(subject, ())):
            if digest in self.manifests:
                kind = self.manifest(digest).annotations.get(BUNDLE_PREDICATE_ANNOTATION)
                known = kind in ROLE_OF and kind not in DECIDED_TYPES
                if known or kind in (APPROVAL_TYPE, REBUILD_TYPE):
                    found.append(digest)
        return tuple(found)

    def kinds(self, subject: Digest) -> frozenset[str]:
        """The types of what is attached to a subject, as the carriers promise them."""
        found = [self.manifest(d).annotations.get(BUNDLE_PREDICATE_ANNOTATION) for d in self.bundles(subject)]
        carrier = self.tags.get(attestation_tag(subject))
        if carrier is not None:
            found += [x.annotations.get(PREDICATE_ANNOTATION) for x in self.manifest(carrier).layers]
        return frozenset(kind for kind in found if kind)

    # the interface of verification

    def head_manifest(self, ref: Reference) -> Descriptor | None:
        """What the reference points to."""
        digest = ref.digest or self.tags.get(ref.tag or "")
        if ref.name == self.repo and digest in self.manifests and digest is not None:
            return self.descriptor(digest)
        if ref.name == self.repo and ref.digest is None and self.tags.get(ref.tag or "", "") is None:
            return None
        return self._registry.head_manifest(ref)

    def get_manifest(self, ref: Reference) -> tuple[bytes, str, Digest]:
        """A manifest's bytes, media type and digest."""
        if ref.name == self.repo and ref.digest in self.manifests and ref.digest is not None:
            return *self.manifests[ref.digest], ref.digest
        return self._registry.get_manifest(ref)

    def get_blob_bytes(self, repo: str, descriptor: Descriptor, limit: int) -> bytes:
        """A small blob's bytes."""
        data = self.blobs.get(descriptor.digest)
        if repo == self.repo and data is not None and len(data) == descriptor.size <= limit:
            return data
        return self._registry.get_blob_bytes(repo, descriptor, limit)

    def has_blob(self, repo: str, digest: Digest, size: int | None = None) -> bool:
        """Whether the blob is there, with that size."""
        if repo == self.repo and digest in self._sizes and size in (None, self._sizes[digest]):
            return True
        return self._registry.has_blob(repo, digest, size)

    def referrers(
        self, repo: str, subject: Digest, artifact_type: str | None = None
    ) -> tuple[Descriptor, ...]:
        """What refers to a manifest."""
        if repo != self.repo or subject not in self.listed:
            return self._registry.referrers(repo, subject, artifact_type)
        return tuple(d for d in self.listed[subject] if artifact_type in (None, d.artifact_type))

    # reading

    @staticmethod
    def read_signatures(client: RegistryClient, ref: Reference) -> list[tuple[bytes, bytes]]:
        """The payloads of a signature tag with their signatures; raises EvidenceRefused when malformed."""
        data, media_type, _ = client.get_manifest(ref)
        return [
            (client.get_blob_bytes(ref.name, layer.blob, SIMPLE_SIGNING_MAX), layer.signature)
            for layer in signature_layers(parse_manifest(data, media_type))
        ]

    def _fetch(self, digest: Digest) -> None:
        data, media_type, _ = self._registry.get_manifest(self.client.reference(self.repo, digest=digest))
        self.manifests[digest] = (data, media_type)

    def _fetch_tag(self, tag: str) -> None:
        try:
            data, media_type, digest = self._registry.get_manifest(self.client.reference(self.repo, tag))
        except RegistryRefused as error:
            if error.status != 404:
                raise
            self.tags[tag] = None
            return
        self.manifests[digest] = (data, media_type)
        self.tags[tag] = digest

    def _list(self, subject: Digest) -> None:
        self.listed[subject] = self._registry.referrers(self.repo, subject)

    def _fetch_blob(self, blob: Descriptor, brought: Brought | None) -> None:
        known = brought.blobs.get(blob.digest) if brought else None
        if known is not None and self.has_blob(self.repo, blob.digest, len(known)):
            self.blobs[blob.digest] = known
        else:
            self.blobs[blob.digest] = self._registry.get_blob_bytes(self.repo, blob, _BLOB_AHEAD_MAX)
        self._sizes[blob.digest] = blob.size

    def _look_for(self, blob: Descriptor) -> None:
        if self._registry.has_blob(self.repo, blob.digest, blob.size):
            self._sizes[blob.digest] = blob.size

    def _blobs_of(self, manifests: Iterable[Digest]) -> list[Descriptor]:
        blobs = {b.digest: b for d in manifests if d in self.manifests for b in self.manifest(d).blobs}
        return list(blobs.values())


def copy(
    closure: Closure, repo: str, work: Path, kits: frozenset[Digest] = frozenset(), is_new: bool = False
) -> Copied:
    """Copy an image with its attestations, and those `kits` that it has, to another repository.

    By digest, and of blobs only links, where the registry can: nothing visible changes but the
    evidence. The signature tags are not copied: they name the repository. When the image `is_new`
    there, nothing is there of it, and nothing is asked for. Raises RegistryError.
    """
    client = closure.client
    subjects, bundles = closure.subjects, {s: closure.bundles(s) for s in closure.subjects}
    bundles[closure.image] += tuple(d for d in closure.kits if d in kits)
    carried = [d for found in bundles.values() for d in found]
    tags = {t: d for s in subjects if (d := closure.tags.get(t := attestation_tag(s)))}

    def is_missing(digest: Digest) -> bool:
        return client.head_manifest(client.reference(repo, digest=digest)) is None

    def points_elsewhere(tag: str) -> bool:
        there = client.head_manifest(client.reference(repo, tag))
        return there is None or there.digest != tags[tag]

    with ThreadPoolExecutor(_THREADS, thread_name_prefix="copy") as pool:
        wanted = list(dict.fromkeys((*subjects, *carried)))
        missing, moving = set(wanted), list(tags)
        if not is_new:
            missing = {d for d, gone in zip(wanted, pool.map(is_missing, wanted), strict=True) if gone}
            moving = [t for t, other in zip(tags, pool.map(points_elsewhere, tags), strict=True) if other]
        blobs = closure._blobs_of([*(d for d in wanted if d in missing), *(tags[t] for t in moving)])
        _each(pool, lambda blob: _link(closure, repo, blob, work), blobs)
        puts: list[tuple[Digest, str | None]] = [(d, None) for d in (*subjects[1:], *carried) if d in missing]
        puts += [(tags[t], t) for t in moving]
        _each(pool, lambda put: _put(closure, repo, *put), puts)
        if closure.image in missing:
            _put(closure, repo, closure.image, None)
        written = len(missing) + len(moving)
        if not client.supports_referrers(repo):
            listed = {s: () if is_new else client.referrers(repo, s) for s in subjects}
            written += sum(
                _each(pool, lambda s: _list_anew(closure, repo, s, bundles[s], listed[s]), subjects)
            )
    put = {d: closure.manifests[d] for d in carried if d in missing}
    return Copied(written, {b.digest: b.size for b in blobs}, put)


def _link(closure: Closure, repo: str, blob: Descriptor, work: Path) -> None:
    client = closure.client
    if client.mount_blob(repo, blob.digest, closure.repo):
        return
    if blob.digest in closure.blobs:
        client.put_blob(repo, closure.blobs[blob.digest], blob.digest)
        return
    path = work / blob.digest.hex
    try:
        client.get_blob(closure.repo, blob, path)
        client.put_blob(repo, path, blob.digest)
    finally:
        path.unlink(missing_ok=True)


def _put(closure: Closure, repo: str, digest: Digest, tag: str | None) -> None:
    data, media_type = closure.manifests[digest]
    where = closure.client.reference(repo, tag, None if tag else digest)
    closure.client.put_manifest(where, data, media_type)


def _list_anew(
    closure: Closure,
    repo: str,
    subject: Digest,
    bundles: tuple[Digest, ...],
    listed: tuple[Descriptor, ...],
) -> bool:
    """List exactly these bundles, and the records that were `listed`; whether that was news."""
    kinds = {d.digest: d.annotations.get(BUNDLE_PREDICATE_ANNOTATION) for d in listed}
    # What witnesses attested here stays, too.
    wanted = {*bundles, *(d for d, kind in kinds.items() if kind == REBUILD_TYPE)}
    if {d for d, kind in kinds.items() if kind not in DECIDED_TYPES} == wanted:
        return False
    entries = [closure.descriptor(d) for d in bundles]
    entries += [d for d in listed if d.digest in wanted - set(bundles)]
    closure.client.put_referrers_fallback(repo, subject, entries, replace_same_kind=True, listed=listed)
    return True


def _each(pool: ThreadPoolExecutor, action: Callable[[T], R], items: Iterable[T]) -> list[R]:
    return list(pool.map(action, items))


def _all(pool: ThreadPoolExecutor, jobs: list[Callable[[], None]]) -> None:
    _each(pool, lambda job: job(), jobs)
