"""Admission: whether an image of the storage is served, and what belongs to it.

The procedure; the numbers stand in the code:

 1. The image is what a tag of a served repository points to. From here on its digest is what it
    is; a manifest that no tag reaches was never published.
 2. The whole verification of `builder.signing.verify` passes at that digest, at today's time:
    signatures and attestations by the keys of their roles, an approving, unexpired verdict by
    the verdict key on this index and these platforms, not older than one that was seen before.
 3. In a repository of promoted images (`promoted`), the newest channel record puts it on a
    channel that is served. What was withdrawn or put into quarantine has failed in step 2.
 4. What is served are the bytes that verification read, hashed once more. They are kept; the
    storage is not asked for them again.
 5. Of what is attached, only that belongs to the image which was believed: the signature tag,
    the attestation tag and the bundles whose every layer has a type that we know (step 2 has
    checked by whom those are signed), the rebuild kit that the provenance names, and what trusted
    witnesses say of rebuilds. Carriers with a stranger's configuration are left out.
 6. The blobs are those that the kept manifests name, with their sizes, and no others.
 7. The signed verdict is kept, so that it can be proved again without the storage.
 8. The end of life is read from the configuration's label, a deprecation from the record.
 9. Approved; or denied with the first flaw as a typed reason. What could not be looked at is
    "temporarily-unverifiable" and never an approval. A crash is a denial too.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from builder.errors import GoldsmithError, RegistryError
from builder.model.channel import Channel, ChannelRecord
from builder.model.digest import Digest
from builder.model.image import Descriptor
from builder.model.kit import KIT_TYPE
from builder.model.reference import Reference
from builder.oci.faults import RegistryRefused
from builder.oci.manifest import Manifest, parse_json, parse_manifest
from builder.signing import cosign_parse
from builder.signing.collect import Registry
from builder.signing.cosign_formats import (
    BUNDLE_PREDICATE_ANNOTATION,
    BUNDLE_TYPE,
    DSSE_TYPE,
    EMPTY,
    PREDICATE_ANNOTATION,
    SIMPLE_SIGNING_TYPE,
    attestation_tag,
    carrier_config,
    signature_tag,
)
from builder.signing.keys import VERDICT
from builder.signing.predicates import REBUILD_TYPE, ROLE_OF, VERDICT_TYPE, timestamp
from builder.signing.rebuilds import carriers_of
from builder.signing.refusal import EvidenceRefused, refuse
from builder.signing.statements import ENVELOPE_MAX, Envelope, parse_statement
from builder.signing.trust import OUT_OF_PERIOD, REVOKED, Trust, Use
from builder.signing.verdicts import decode
from builder.signing.verification import Verification, named_kits
from builder.signing.verify import published_verdict, verify
from registry.gate.decision import Approved, Denied, Held, Reason
from registry.gate.witness import Witness
from registry.promotion.channels import SERVED
from registry.promotion.records import read_record

MALFORMED = "manifest-refused"  # as the parser of manifests calls it
END_OF_LIFE_LABEL = "dev.goldsmith.end-of-life"
_CONFIG_MAX = 4 << 20  # bytes
_BUNDLE_MAX = ENVELOPE_MAX + 4096  # bytes

# How verification's own words map to ours; every other flaw means that nobody we trust made it.
_REASONS = {
    "verdict-denies": Reason.POLICY,
    "sample-database": Reason.POLICY,
    "not-scanned": Reason.POLICY,
    "withdrawn": Reason.WITHDRAWN,
    "key-revoked": Reason.WITHDRAWN,
    "quarantined": Reason.WITHDRAWN,
    "not-promoted": Reason.NOT_CURATED,
    "verdict-expired": Reason.EXPIRED,
    "verdict-from-the-future": Reason.UNVERIFIABLE,
    "verdict-replayed": Reason.UNVERIFIABLE,
}


def admit(
    reference: Reference,
    registry: Registry,
    trust: Trust,
    now: dt.datetime,
    *,
    accept_sample: bool = False,
    promoted: bool = False,
    seen: Callable[[Digest], dt.datetime | None] = lambda digest: None,
    mark: str = "",
) -> Approved | Denied:
    """Carry out the procedure above for `reference` (with its digest, and a tag that points there)."""
    witness = Witness(registry)
    try:
        # 2. everything that can be verified is verified
        proof = verify(reference, witness, trust, now, accept_sample=accept_sample, seen=seen)
        # 3. somebody decided that it is served here
        record = proof.channel
        if promoted and (record is None or record.channel not in SERVED):
            refuse("not-promoted", "the image was not promoted", context=str(record and record.channel))
        return _closure(reference, proof, witness, trust, now, mark)
    except EvidenceRefused as error:
        reason = _REASONS.get(error.reference, Reason.NOT_CURATED)
        return _denied(reason, error, now, reference, witness, trust)
    except GoldsmithError as error:  # 9. what could not be looked at
        # Of the bytes that have the digest, nobody will ever make a manifest.
        hopeless = error.reference == MALFORMED and reference.digest not in witness.manifests
        reason = Reason.NOT_CURATED if hopeless else Reason.UNVERIFIABLE
        return _denied(reason, error, now, reference, witness, trust)
    except Exception as error:  # noqa: BLE001 - 9. a crash of the verifier is a denial
        known = frozenset({reference.digest} if reference.digest else ())
        cause = f"the verifier failed: {type(error).__name__}"
        return Denied(Reason.UNVERIFIABLE, cause, now, "verifier-crashed", digests=known)


def _closure(
    reference: Reference,
    proof: Verification,
    witness: Witness,
    trust: Trust,
    now: dt.datetime,
    mark: str,
) -> Approved:
    # 4. the image's own manifests
    manifests = {m.digest: _held(m.digest, witness) for m in proof.manifests}
    tags: dict[str, Digest] = {}
    referrers: dict[Digest, tuple[Descriptor, ...]] = {}
    for subject in (m.digest for m in proof.manifests):
        # 5. what is attached to each
        for tag, kind in (
            (signature_tag(subject), SIMPLE_SIGNING_TYPE),
            (attestation_tag(subject), DSSE_TYPE),
        ):
            if tag in witness.tags and _believed_carrier(_parsed(witness.tags[tag], witness), kind):
                tags[tag] = witness.tags[tag]
        listed = tuple(_believed_bundles(subject, witness))
        if subject == proof.digest:
            listed += (
                *_named_kits(reference, proof, witness),
                *_rebuilds(reference, proof, witness, trust, now),
            )
        referrers[subject] = listed
        # 6. their blobs come with them
        for digest in (*(tags[t] for t in tags), *(d.digest for d in listed)):
            manifests.setdefault(digest, _held(digest, witness))
    return Approved(
        repository=reference.name,
        index=proof.digest,
        ref=proof.verdict.ref,
        issued_at=proof.verdict.issued_at,
        expires_at=proof.verdict.expires_at,
        end_of_life=_end_of_life(reference, proof, witness),
        manifests=tuple(manifests.values()),
        tags=tags,
        referrers=referrers,
        envelope=_envelope(reference, proof, witness, trust),
        mark=mark,
        deprecated=_deprecation(proof.channel),
        uses=proof.uses,
    )


def prove_again(approved: Approved, trust: Trust) -> bool:
    """Whether the kept verdict still says what the closure says, by the keys of today; no I/O.

    The keys that the evidence rests on hold for it still, by the trust of today.
    Index and platforms are bound to the verdict by their digests, everything by its own hash.
    """
    payload, signature = approved.envelope
    if trust.find(VERDICT, signature, Envelope(payload, signature).signed_bytes) is None:
        return False
    if any(trust.flaw(use) for use in approved.uses):
        return False
    # Signed by our own key, and parsed strictly when it was admitted: plain reading will do.
    said = json.loads(payload)
    verdict = said["predicate"]
    judged = {verdict["digest"], *verdict["sboms"]}
    attached = {*approved.tags.values(), *(d.digest for found in approved.referrers.values() for d in found)}
    return (
        said["predicateType"] == VERDICT_TYPE
        and said["subject"][0]["digest"] == {"sha256": approved.index.hex}
        and verdict["approved"] is True
        and verdict["ref"] == approved.ref
        and verdict["issuedAt"] == timestamp(approved.issued_at)
        and verdict["expiresAt"] == timestamp(approved.expires_at)
        and approved.ref.partition(":")[0] == approved.repository.rpartition("/")[2]
        and approved.index in judged
        and judged >= {h.digest for h in approved.manifests} - attached
        and all(hashlib.sha256(h.data).hexdigest() == h.digest[7:] for h in approved.manifests)
    )


class Resting(Protocol):
    """An approval, as far as keys concern it."""

    @property
    def uses(self) -> frozenset[Use]:
        """The keys that its evidence rests on."""

    @property
    def digests(self) -> frozenset[Digest]:
        """Its manifests."""


def no_longer(approved: Resting, trust: Trust, now: dt.datetime) -> Denied:
    """The refusal of an image whose evidence rests on a key that no longer holds for it."""
    flaws = {use.key: trust.flaw(use) for use in approved.uses}
    lost = [k for k in trust.keys if flaws.get(k.id)]
    revoked = [k for k in lost if flaws[k.id] == REVOKED and k.revoked_at is not None]
    concerned = approved.digests
    if not revoked:
        cause = "it is signed by a key that is no longer trusted"
        return Denied(Reason.NOT_CURATED, cause, now, OUT_OF_PERIOD, digests=concerned)
    one = revoked[0]
    since = timestamp(one.revoked_at) if one.revoked_at else ""
    cause = f"it is signed by a {one.role} key that was revoked, for what it says from {since} on" + (
        f": {one.why}" if one.why else ""
    )
    return Denied(Reason.WITHDRAWN, cause, now, REVOKED, digests=concerned)


def _held(digest: Digest, witness: Witness) -> Held:
    data, media_type = witness.manifests[digest]
    if Digest.of(data) != digest:
        raise RegistryError("a manifest changed while it was held", context=digest)
    blobs = {b.digest: b.size for b in parse_manifest(data, media_type).blobs}
    return Held(digest, media_type, data, blobs)


def _parsed(digest: Digest, witness: Witness) -> Manifest | None:
    if digest not in witness.manifests:
        return None
    return parse_manifest(*witness.manifests[digest])


def _believed_carrier(manifest: Manifest | None, kind: str) -> bool:
    """5. a `.sig` or `.att` with nothing of a stranger in it."""
    if manifest is None or manifest.config is None:
        return False
    if manifest.config.digest != Digest.of(carrier_config([x.digest for x in manifest.layers])):
        return False
    if kind == SIMPLE_SIGNING_TYPE:
        return all(x.media_type == kind for x in manifest.layers)
    return all(x.annotations.get(PREDICATE_ANNOTATION) in ROLE_OF for x in manifest.layers)


def _believed_bundles(subject: Digest, witness: Witness) -> Iterator[Descriptor]:
    """5. the bundles of types that we know, described by what they are and not by the listing."""
    listed = witness.listed.get(subject, ())
    for digest in dict.fromkeys(d.digest for d in listed if d.artifact_type == BUNDLE_TYPE):
        manifest = _parsed(digest, witness)
        if manifest is None or manifest.config is None or manifest.config.digest != Digest.of(EMPTY):
            continue
        if manifest.annotations.get(BUNDLE_PREDICATE_ANNOTATION) in ROLE_OF:
            data, media_type = witness.manifests[digest]
            yield Descriptor(media_type, digest, len(data), manifest.annotations, manifest.artifact_type)


def _named_kits(reference: Reference, proof: Verification, witness: Witness) -> Iterator[Descriptor]:
    """5. the kit, by the digest that the builder signed; one that is gone takes no image with it."""
    listed = {d.digest for d in witness.listed.get(proof.digest, ()) if d.artifact_type == KIT_TYPE}
    for digest in sorted(listed & named_kits(proof)):
        try:
            data, media_type, _ = witness.get_manifest(reference.with_digest(digest))
        except RegistryRefused as error:
            if error.status != 404:
                raise
            continue
        manifest = parse_manifest(data, media_type)
        yield Descriptor(media_type, digest, len(data), manifest.annotations, manifest.artifact_type)


def _rebuilds(
    reference: Reference, proof: Verification, witness: Witness, trust: Trust, now: dt.datetime
) -> Iterator[Descriptor]:
    """5. the rebuild attestations by keys of witnesses that held."""
    listed = [d.digest for d in witness.listed.get(proof.digest, ()) if d.artifact_type == BUNDLE_TYPE]
    found = ((digest, _parsed(digest, witness)) for digest in listed)
    if not any(m and m.annotations.get(BUNDLE_PREDICATE_ANNOTATION) == REBUILD_TYPE for _, m in found):
        return
    for digest in carriers_of(witness, reference.with_digest(proof.digest), trust, now):
        manifest = _parsed(digest, witness)
        if manifest is not None:
            data, kind = witness.manifests[digest]
            yield Descriptor(kind, digest, len(data), manifest.annotations, manifest.artifact_type)


def _envelope(
    reference: Reference, proof: Verification, witness: Witness, trust: Trust
) -> tuple[bytes, bytes]:
    """7. the envelope of the verdict that governs, from either form."""
    for blob, read in _verdict_blobs(proof.digest, witness):
        data = witness.get_blob_bytes(reference.name, blob, _BUNDLE_MAX)
        envelope = read(data)
        statement = parse_statement(envelope.payload)
        if statement.predicate_type != VERDICT_TYPE or statement.subject != proof.digest:
            continue
        if decode(statement.predicate) == proof.verdict and trust.verifies(
            VERDICT, envelope.signature, envelope.signed_bytes, proof.verdict.issued_at
        ):
            return envelope.payload, envelope.signature
    raise RegistryError("the verdict cannot be read a second time", context=str(reference))


def _verdict_blobs(
    subject: Digest, witness: Witness
) -> Iterator[tuple[Descriptor, Callable[[bytes], Envelope]]]:
    tag = attestation_tag(subject)
    attestations = _parsed(witness.tags[tag], witness) if tag in witness.tags else None
    if attestations is not None:
        for part in cosign_parse.attestation_layers(attestations):
            if part.predicate_type == VERDICT_TYPE:
                yield part.blob, cosign_parse.parse_attestation
    for listed in witness.listed.get(subject, ()):
        manifest = _parsed(listed.digest, witness)
        if manifest and manifest.annotations.get(BUNDLE_PREDICATE_ANNOTATION) == VERDICT_TYPE:
            yield manifest.layers[0], cosign_parse.parse_bundle


def _end_of_life(reference: Reference, proof: Verification, witness: Witness) -> dt.date | None:
    """8. the label of the first platform; all are built from one definition. Of an import, what was said."""
    imports = [p.imported for m in proof.manifests for p in m.provenances if p.imported is not None]
    if imports:
        return imports[-1].end_of_life
    for one in proof.manifests:
        manifest = _parsed(one.digest, witness)
        if manifest is not None and manifest.config is not None:
            data = witness.get_blob_bytes(reference.name, manifest.config, _CONFIG_MAX)
            execution: Any = parse_json(data, "configuration").get("config")
            labels = execution.get("Labels") if isinstance(execution, dict) else None
            text = labels.get(END_OF_LIFE_LABEL) if isinstance(labels, dict) else None
            try:
                return dt.date.fromisoformat(text) if isinstance(text, str) else None
            except ValueError:
                return None
    return None


def _deprecation(record: ChannelRecord | None) -> str:
    """8. what somebody decided about the image's end."""
    if record is None or record.channel is not Channel.DEPRECATED:
        return ""
    instead = f"; use {record.replacement}" if record.replacement else ""
    return f"{record.ref} is deprecated since {timestamp(record.at)}: {record.why}{instead}"


def _decided(
    flaw: str, reference: Reference, witness: Witness, trust: Trust, now: dt.datetime
) -> tuple[dt.datetime, str, str]:
    """Since when a refusal holds, the cause and the replacement that were decided."""
    try:
        if flaw == "verdict-expired":
            return published_verdict(reference, witness, trust).expires_at, "", ""
        if flaw in ("withdrawn", "quarantined") and reference.digest is not None:
            record = read_record(witness, reference, reference.digest, trust)
            if record is not None:
                return record.at, f"{flaw}: {record.why}", record.replacement
    except GoldsmithError:
        pass
    return now, "", ""


def _denied(
    reason: Reason,
    error: GoldsmithError,
    now: dt.datetime,
    reference: Reference,
    witness: Witness,
    trust: Trust,
) -> Denied:
    """The refusal, for the manifest itself and all that it lists."""
    concerned = {reference.digest} if reference.digest else set()
    for data, media_type in witness.manifests.values():
        manifest = parse_manifest(data, media_type)
        if manifest.is_index and Digest.of(data) == reference.digest:
            concerned |= {d.digest for d in manifest.manifests}
    first = error.context.splitlines()[0] if error.context else ""
    cause = (
        f"{error.message} ({first})"
        if first and (reason is Reason.POLICY or error.reference == REVOKED)
        else error.message
    )
    since, decided, replacement = _decided(error.reference, reference, witness, trust, now)
    return Denied(
        reason, decided or cause, since, error.reference, error.hint, frozenset(concerned), replacement
    )
