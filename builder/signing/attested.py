"""Single statements that are attached to a manifest as bundles, read one kind at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from builder.errors import GoldsmithError
from builder.model.digest import Digest
from builder.model.reference import Reference
from builder.signing import cosign_parse
from builder.signing.collect import Registry, manifest_at
from builder.signing.cosign_formats import BUNDLE_PREDICATE_ANNOTATION, BUNDLE_TYPE
from builder.signing.predicates import PROVENANCE_TYPE, Provenance, parse_provenance
from builder.signing.refusal import refuse
from builder.signing.statements import Statement, parse_statement

_PROVENANCE_MAX = 16 << 20  # bytes

Believes = Callable[[bytes, bytes], bool]  # signature (DER), signed bytes


@dataclass(frozen=True, slots=True)
class Attested:
    """A statement that is believed, and the digest of the referrer that carries it."""

    carrier: Digest
    statement: Statement


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


def _promises(annotations: object, kind: str) -> bool:
    promised = annotations.get(BUNDLE_PREDICATE_ANNOTATION, kind) if isinstance(annotations, dict) else kind
    return bool(promised == kind)
