"""Single statements that are attached to a manifest, read by their kinds and not all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from builder.errors import GoldsmithError
from builder.model.digest import Digest
from builder.model.reference import Reference
from builder.oci.faults import RegistryRefused
from builder.oci.manifest import Manifest, parse_manifest
from builder.signing import cosign_parse
from builder.signing.claims import believed
from builder.signing.collect import BUNDLES, TAGS, Attached, PromisedEnvelope, Registry, manifest_at
from builder.signing.cosign_formats import BUNDLE_PREDICATE_ANNOTATION, BUNDLE_TYPE, attestation_tag
from builder.signing.predicates import PROVENANCE_TYPE, Provenance, parse_provenance
from builder.signing.refusal import refuse
from builder.signing.statements import ENVELOPE_MAX, Statement, parse_statement
from builder.signing.trust import Trust

_PROVENANCE_MAX = 16 << 20  # bytes
_ENVELOPES_MAX = 128 << 20  # bytes of what is read of one manifest

Believes = Callable[[bytes, bytes], bool]  # signature (DER), signed bytes


@dataclass(frozen=True, slots=True)
class Attested:
    """A statement that is believed, and the digest of the referrer that carries it."""

    carrier: Digest
    statement: Statement


def statements(
    registry: Registry,
    where: Reference,
    trust: Trust,
    kinds: frozenset[str],
    *,
    tagged: bool | None = None,
) -> tuple[Statement, ...]:
    """What trusted keys say of a manifest (`where` with its digest), of these kinds alone.

    In one form: the tag `.att` where there is one (`tagged` tells, when it is known), otherwise the
    bundles. Raises EvidenceRefused for what is not by the key of its role, of another manifest, or
    not of the type that its carrier promises.
    """
    if where.digest is None:
        raise ValueError("statements are about digests")
    carrier = None if tagged is False else _tagged(registry, where, where.digest, required=bool(tagged))
    form, parse = (TAGS, cosign_parse.parse_attestation) if carrier else (BUNDLES, cosign_parse.parse_bundle)
    parts = cosign_parse.attestation_layers(carrier) if carrier else _bundles(registry, where, kinds)
    wanted = [p for p in parts if p.predicate_type is None or p.predicate_type in kinds]
    if sum(p.blob.size for p in wanted) > _ENVELOPES_MAX:
        refuse("too-large", f"more than {_ENVELOPES_MAX} bytes are attached to one manifest")
    envelopes = tuple(
        PromisedEnvelope(
            parse(registry.get_blob_bytes(where.name, p.blob, ENVELOPE_MAX + 4096)), p.predicate_type
        )
        for p in wanted
    )
    return believed(Attached(form, (), envelopes), where.digest, trust)


def read_carrier(
    registry: Registry, where: Reference, carrier: Digest, kind: str, size_max: int, believes: Believes
) -> Attested:
    """The statement in one referrer of `where` (its digest is the subject), of at most `size_max` bytes.

    Raises EvidenceRefused unless it is of that kind, about that subject, and `believes` its
    signature; RegistryError when it cannot be had.
    """
    if where.digest is None:
        raise ValueError("statements are about digests")
    manifest, _, _ = manifest_at(registry, where.with_digest(carrier))
    part = cosign_parse.bundle_layer(manifest, where.digest)
    if part.predicate_type != kind:
        refuse("wrong-predicate-type", "an attestation is not what was looked for", context=str(carrier))
    if part.blob.size > size_max:
        refuse("too-large", f"an attestation is larger than {size_max} bytes", context=str(carrier))
    envelope = cosign_parse.parse_bundle(registry.get_blob_bytes(where.name, part.blob, size_max))
    if not believes(envelope.signature, envelope.signed_bytes):
        refuse("signature-invalid", "an attestation is not by a trusted key", context=f"{kind}\n{where}")
    said = parse_statement(envelope.payload)
    if said.subject != where.digest or said.predicate_type != kind:
        refuse("subject-mismatch", "an attestation is of another manifest", context=str(said.subject))
    return Attested(carrier, said)


def carriers(registry: Registry, where: Reference, kind: str) -> Iterator[Digest]:
    """The referrers of `where` that promise a statement of that kind; a listing is only a claim."""
    if where.digest is None:
        raise ValueError("statements are about digests")
    listed = registry.referrers(where.name, where.digest, BUNDLE_TYPE)[: cosign_parse.REFERRERS_MAX]
    for one in dict.fromkeys(listed_.digest for listed_ in listed if _promises(listed_.annotations, kind)):
        manifest, _, _ = manifest_at(registry, where.with_digest(one))
        if manifest.annotations.get(BUNDLE_PREDICATE_ANNOTATION) == kind:
            yield one


def provenances(registry: Registry, where: Reference, believes: Believes) -> tuple[Provenance, ...]:
    """What is attested of the origin of what `where` points to; nothing when it cannot be believed.

    For those who are content with less when it is missing; `verify` is not.
    """
    try:
        found = registry.head_manifest(where)
        if found is None:
            return ()
        subject = where.with_digest(found.digest)
        return tuple(
            parse_provenance(
                read_carrier(
                    registry, subject, one, PROVENANCE_TYPE, _PROVENANCE_MAX, believes
                ).statement.predicate
            )
            for one in carriers(registry, subject, PROVENANCE_TYPE)
        )
    except GoldsmithError:
        return ()


def _tagged(registry: Registry, where: Reference, subject: Digest, *, required: bool) -> Manifest | None:
    try:
        data, media_type, _ = registry.get_manifest(where.with_tag(attestation_tag(subject)))
    except RegistryRefused as error:
        if error.status != 404 or required:
            raise
        return None
    return parse_manifest(data, media_type)


def _bundles(
    registry: Registry, where: Reference, kinds: frozenset[str]
) -> tuple[cosign_parse.StatementBlob, ...]:
    subject = where.digest
    if subject is None:
        raise ValueError("statements are about digests")
    listed = registry.referrers(where.name, subject, BUNDLE_TYPE)
    if len(listed) > cosign_parse.REFERRERS_MAX:
        refuse("too-many", f"more than {cosign_parse.REFERRERS_MAX} referrers on one manifest")
    found = []
    for one in {d.digest: d for d in listed}.values():
        promised = one.annotations.get(BUNDLE_PREDICATE_ANNOTATION)
        if promised is None or promised in kinds:
            manifest, _, _ = manifest_at(registry, where.with_digest(one.digest))
            found.append(cosign_parse.bundle_layer(manifest, subject))
    return tuple(found)


def _promises(annotations: object, kind: str) -> bool:
    promised = annotations.get(BUNDLE_PREDICATE_ANNOTATION, kind) if isinstance(annotations, dict) else kind
    return bool(promised == kind)
