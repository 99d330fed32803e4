"""Import a bundle on the other side: everything is verified again, with nothing but keys of one's own.

The procedure, for each image; the numbers stand in the code:

 1. The bundle is a layout whose `index.json` names manifests; sizes and counts are bounded. Keys and
    verdicts that lie in it are for people: nothing is believed of them.
 2. The image is verified from the bundle alone, as a consumer does, at today's date.
 3. It is on a channel that is served, by a signed record.
 4. Every byte of it is read and compared with its digest; what an older bundle brought has to be there.
 5. Its immutable tag means no other image here, and what its floating tag points to was not decided
    later: an older bundle puts nothing back.
 6. Blobs, platforms, index; then the evidence that verification believed and the rebuild kit that it
    names, and no stranger's.
 7. It is verified where it arrived.
 8. The ledger of this side, where it has one to sign, says who brought it, in which bundle; then
    the immutable tag, then the floating one.

An image that fails is left out with the reason; the others go on. A run that was cut is completed
by the next one; before 8 nobody who asks for a name sees anything of it.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from builder.errors import GoldsmithError, PolicyDenied, RegistryError
from builder.model.digest import Digest
from builder.model.image import Descriptor
from builder.model.kit import KIT_TYPE
from builder.model.reference import Reference
from builder.oci.client import RegistryClient
from builder.oci.faults import RegistryRefused, Temporary
from builder.oci.layout import replacing
from builder.oci.manifest import Manifest, parse_manifest
from builder.signing.cosign_formats import (
    BUNDLE_PREDICATE_ANNOTATION,
    BUNDLE_TYPE,
    attestation_tag,
    signature_tag,
)
from builder.signing.predicates import REBUILD_TYPE, ROLE_OF
from builder.signing.rebuilds import carriers_of
from builder.signing.refusal import refuse
from builder.signing.trust import Trust
from builder.signing.verification import Verification, named_kits
from builder.signing.verify import verify
from registry.audit.ledger import Entry
from registry.bundles.reader import Bundle, Wanted
from registry.bundles.recorded import Register
from registry.promotion.channels import SERVED
from registry.promotion.records import read_record


@dataclass(frozen=True, slots=True)
class Arrival:
    """What became of one image: where it is, or why it was left out; `changed` when it was news.

    `entry` is what the ledger of this side says of it; None where it has none.
    """

    name: str
    digest: Digest
    tags: tuple[str, ...]
    reference: Reference
    changed: bool = False
    refused: GoldsmithError | None = None
    entry: Entry | None = None


@dataclass(frozen=True)
class Desk:
    """Where bundles arrive: the registry, keys of one's own, and the time of the run.

    `seen` tells the newest time of a verdict that was seen on a digest before; `register` is where
    arrivals are entered.
    """

    client: RegistryClient
    trust: Trust
    now: dt.datetime
    work: Path
    accept_sample: bool = False
    seen: Callable[[Digest], dt.datetime | None] = lambda digest: None
    register: Register | None = None


def take_in(
    desk: Desk, bundle: Bundle, told: Callable[[str], None] = lambda text: None
) -> tuple[Arrival, ...]:
    """Carry out the procedure above for each image of a bundle.

    Raises ImportRefused when the bundle itself is malformed, and RegistryError when the registry
    here fails; what is wrong with one image is in its Arrival.
    """
    bundle.elsewhere = desk.client.has_blob
    done = []
    for wanted in bundle.wanted(desk.client.host):
        told(f"{wanted.reference.name}:{wanted.tags[-1]}")
        done.append(_arrive(desk, bundle, wanted))
    return tuple(done)


def _arrive(desk: Desk, bundle: Bundle, wanted: Wanted) -> Arrival:
    where, digest = wanted.reference, wanted.reference.digest
    if digest is None:
        refuse("malformed-bundle", "an image of the bundle has no digest", context=str(where))
    name = f"{where.name}:{where.tag}"
    at = Reference(where.host, where.name, None, digest)
    try:
        # 2. and 3. what it is, by the bundle alone
        found = _believed(desk, where, bundle)
        tags = _tags(found, wanted)
        # 4. every byte
        for blob in _content(bundle, at, found):
            _check(desk, bundle, where.name, blob)
        # 5. what is here
        _refuse_older(desk, where, tags, found)
        changed = _copy(desk, bundle, at, found)  # 6.
        _believed(desk, at, desk.client)  # 7.
    except (RegistryRefused, Temporary):
        raise  # the registry here, not the bundle
    except (PolicyDenied, RegistryError) as error:
        return Arrival(name, digest, wanted.tags, at, refused=error)
    entry = (
        desk.register.enter(name, digest, bundle.digest) if desk.register and bundle.digest else None
    )  # 8.
    moved = [_tag(desk, bundle, at, tag) for tag in tags]
    return Arrival(name, digest, tags, at, changed or any(moved), entry=entry)


def _believed(desk: Desk, where: Reference, registry: Bundle | RegistryClient) -> Verification:
    found = verify(where, registry, desk.trust, desk.now, accept_sample=desk.accept_sample, seen=desk.seen)
    if found.digest != found.verdict.digest:
        refuse("one-platform", "the bundle names one platform of an image", context=str(where))
    if found.channel is None or found.channel.channel not in SERVED:
        refuse("not-promoted", f"{found.verdict.ref} was not promoted", context=str(where))
    return found


def _tags(found: Verification, wanted: Wanted) -> tuple[str, ...]:
    """The tags that the evidence names; the bundle may not name others."""
    immutable = {p.immutable_tag for m in found.manifests for p in m.provenances}
    tags = (*sorted(immutable), found.verdict.ref.partition(":")[2])
    if set(wanted.tags) != set(tags):
        refuse(
            "other-name",
            "the bundle gives the image other tags than its evidence",
            context=", ".join(wanted.tags),
        )
    return tags


def _content(bundle: Bundle, at: Reference, found: Verification) -> Iterator[Descriptor]:
    for digest in (*(proof.digest for proof in found.manifests), *_kits(bundle, at, found)):
        yield from _parsed(bundle, at, digest).blobs


def _kits(bundle: Bundle, at: Reference, found: Verification) -> tuple[Digest, ...]:
    """The kits that are in the bundle, of those that the provenance names."""
    listed = bundle.referrers(at.name, found.digest, KIT_TYPE)
    return tuple(d.digest for d in listed if d.digest in named_kits(found))


def _rebuilds(desk: Desk, bundle: Bundle, at: Reference) -> tuple[Digest, ...]:
    """What witnesses attested whom we trust here."""
    return carriers_of(bundle, at, desk.trust, desk.now)


def _check(desk: Desk, bundle: Bundle, repo: str, blob: Descriptor) -> None:
    """4. read it, or see that an older bundle brought it."""
    chunks = bundle.chunks(blob)
    if chunks is None:
        desk.client.check_blob(repo, blob)
        return
    for _ in chunks:
        pass


def _refuse_older(desk: Desk, where: Reference, tags: tuple[str, ...], found: Verification) -> None:
    """5. tags keep their meaning, and go forward only."""
    client = desk.client
    for tag in tags[:-1]:
        there = client.head_manifest(client.reference(where.name, tag))
        if there is not None and there.digest != found.digest:
            refuse(
                "immutable-tag",
                f"the immutable tag {tag} belongs to another image here",
                context=there.digest,
            )
    there = client.head_manifest(client.reference(where.name, tags[-1]))
    if there is None or there.digest == found.digest or found.channel is None:
        return
    at = client.reference(where.name, digest=there.digest)
    record = read_record(client, at, there.digest, desk.trust)
    if record is not None and record.sequence > found.channel.sequence:
        refuse(
            "older-bundle",
            f"{found.verdict.ref} points to what was decided later",
            context=f"here: {there.digest}, decision {record.sequence}; the bundle: {found.channel.sequence}",
            hint="import the newest bundle; an older one puts nothing back",
        )


def _copy(desk: Desk, bundle: Bundle, at: Reference, found: Verification) -> bool:
    """6. content first, evidence after it; whether anything was missing."""
    client, repo, changed = desk.client, at.name, False
    for blob in {b.digest: b for b in _content(bundle, at, found)}.values():
        changed |= _put_blob(desk, bundle, repo, blob)
    for proof in (*found.manifests[1:], found.manifests[0]):
        changed |= _put_manifest(desk, bundle, at.with_digest(proof.digest))[0]
    for proof in found.manifests:
        subject = proof.digest
        for tag in (signature_tag(subject), attestation_tag(subject)):
            if (carrier := bundle.head_manifest(client.reference(repo, tag))) is not None:
                for blob in _parsed(bundle, at, carrier.digest).blobs:
                    changed |= _put_blob(desk, bundle, repo, blob)
                changed |= _tag(desk, bundle, at.with_digest(carrier.digest), tag)
        more = () if subject != found.digest else (*_kits(bundle, at, found), *_rebuilds(desk, bundle, at))
        changed |= _put_bundles(desk, bundle, at, subject, more)
    return changed


def _put_bundles(
    desk: Desk, bundle: Bundle, at: Reference, subject: Digest, more: tuple[Digest, ...]
) -> bool:
    """6. the referrers of types that we know, and `more`; verification has seen who signed or named them."""
    changed, unlisted = False, []
    for listed in bundle.referrers(at.name, subject):
        kind = listed.annotations.get(BUNDLE_PREDICATE_ANNOTATION)
        if listed.digest not in more and (listed.artifact_type != BUNDLE_TYPE or kind not in ROLE_OF):
            continue
        for blob in _parsed(bundle, at, listed.digest).blobs:
            changed |= _put_blob(desk, bundle, at.name, blob)
        new, by_registry = _put_manifest(desk, bundle, at.with_digest(listed.digest))
        changed |= new
        if not by_registry:
            unlisted.append(listed)
    if unlisted:
        there = {d.digest: d for d in desk.client.referrers(at.name, subject)}
        if not {d.digest for d in unlisted} <= there.keys():
            # What witnesses attested here stays: it is not what the bundle's attestations replace.
            known = {d.digest for d in unlisted}
            ours = [d for digest, d in there.items() if _is_rebuild(d) and digest not in known]
            desk.client.put_referrers_fallback(at.name, subject, [*unlisted, *ours], replace_same_kind=True)
            changed = True
    return changed


def _is_rebuild(listed: Descriptor) -> bool:
    return listed.annotations.get(BUNDLE_PREDICATE_ANNOTATION) == REBUILD_TYPE


def _put_manifest(desk: Desk, bundle: Bundle, at: Reference) -> tuple[bool, bool]:
    """Whether it was missing, and whether the registry lists it (if it has a subject) by itself."""
    client = desk.client
    data, media_type, _ = bundle.get_manifest(at)
    if client.head_manifest(at) is not None:
        return False, client.supports_referrers(at.name)
    if parse_manifest(data, media_type).subject is not None:
        return True, client.put_referrer(at.name, data, media_type)
    client.put_manifest(at, data, media_type)
    return True, True


def _put_blob(desk: Desk, bundle: Bundle, repo: str, blob: Descriptor) -> bool:
    if desk.client.has_blob(repo, blob.digest, blob.size):
        return False
    chunks = bundle.chunks(blob)
    if chunks is None:
        raise RegistryError(
            "the bundle lacks a blob", context=blob.digest, hint="import the older bundle first"
        )
    path = desk.work / blob.digest.hex
    try:
        with replacing(path) as out:
            for chunk in chunks:
                out.write(chunk)
        desk.client.put_blob(repo, path, blob.digest)
    finally:
        path.unlink(missing_ok=True)
    return True


def _tag(desk: Desk, bundle: Bundle, at: Reference, tag: str) -> bool:
    """Let a tag point there; whether it did not before. Read back."""
    client, ref = desk.client, desk.client.reference(at.name, tag)
    there = client.head_manifest(ref)
    if there is not None and there.digest == at.digest:
        return False
    data, media_type, _ = bundle.get_manifest(at)
    client.put_manifest(ref, data, media_type)
    if client.get_manifest(ref)[2] != at.digest:
        raise RegistryError(
            "what was written cannot be read back",
            context=str(ref),
            hint="another writer may be at work; run the command again",
            reference="not-readable",
        )
    return True


def _parsed(bundle: Bundle, at: Reference, digest: Digest) -> Manifest:
    data, media_type, _ = bundle.get_manifest(at.with_digest(digest))
    return parse_manifest(data, media_type)
