"""Channel records in the registry: signed by the verdict's key, one bundle on each manifest of an image.

They make the state of a digest readable from the registry alone. Raises as its client does.
"""

from __future__ import annotations

from collections.abc import Sequence

from builder.model.channel import ChannelRecord
from builder.model.digest import Digest
from builder.model.image import Descriptor
from builder.model.reference import Reference
from builder.model.release import SignedManifest
from builder.oci.client import RegistryClient
from builder.oci.manifest import parse_manifest
from builder.signing import channels, cosign_parse
from builder.signing.claims import calls_back
from builder.signing.collect import Registry, manifest_at
from builder.signing.cosign_formats import (
    BUNDLE_PREDICATE_ANNOTATION,
    BUNDLE_TYPE,
    EMPTY,
    SignedStatement,
    bundle_referrer,
)
from builder.signing.keys import VERDICT, RoleSigner
from builder.signing.predicates import CHANNEL_TYPE, timestamp
from builder.signing.refusal import refuse
from builder.signing.statements import (
    PAYLOAD_TYPE,
    STATEMENT_V1,
    pae,
    parse_statement,
    statement,
)
from builder.signing.trust import Trust

_RECORD_MAX = 64 << 10  # bytes of a bundle with a record


def signed_record(record: ChannelRecord, subject: Descriptor, key: RoleSigner) -> SignedManifest:
    """The referrer that carries the record on `subject` (the index, or one of its platforms)."""
    payload = statement(STATEMENT_V1, subject.digest, CHANNEL_TYPE, channels.encode(record))
    signed = SignedStatement(CHANNEL_TYPE, payload, key.sign(pae(PAYLOAD_TYPE, payload)))
    return bundle_referrer(subject, signed, key.public.hint, timestamp(record.at))


def put_record(
    client: RegistryClient, repo: str, record: ChannelRecord, subject: Descriptor, key: RoleSigner
) -> None:
    """Put the record on `subject`; where the registry does not list it by itself, list it.

    An earlier record gives way in a listing that is ours to write.
    """
    item = signed_record(record, subject, key)
    put_content(client, repo, item)
    attach(client, repo, [item], subject.digest)


def put_content(
    client: RegistryClient, repo: str, item: SignedManifest, known: Registry | None = None
) -> None:
    """Upload what a record consists of; nobody sees it yet. `known` tells which blobs are there."""
    for digest, data in item.blobs.items():
        # The empty configuration is there as soon as there is any bundle.
        if data != EMPTY or not (known or client).has_blob(repo, digest, len(data)):
            client.put_blob(repo, data, digest)


def attach(
    client: RegistryClient,
    repo: str,
    items: Sequence[SignedManifest],
    subject: Digest,
    known: Registry | None = None,
) -> None:
    """Let records that were uploaded be seen, in their order; `known` tells what was listed just before."""
    unlisted = [i for i in items if not client.put_referrer(repo, i.manifest, i.media_type)]
    if unlisted:
        enlist(client, repo, unlisted, subject, known)


def enlist(
    client: RegistryClient,
    repo: str,
    items: Sequence[SignedManifest],
    subject: Digest,
    known: Registry | None = None,
) -> None:
    """List records whose manifests are there, in a registry that does not do it by itself."""
    listed, entries = known.referrers(repo, subject) if known else None, [i.entry for i in items]
    client.put_referrers_fallback(repo, subject, entries, replace_same_kind=True, listed=listed)


def read_back(client: RegistryClient, repo: str, item: SignedManifest) -> None:
    """Read a record that was put as everybody will; that it is listed, is seen where that is done."""
    client.get_manifest(client.reference(repo, digest=item.digest))
    for blob in parse_manifest(item.manifest, item.media_type).layers:
        client.check_blob(repo, blob)


def read_record(
    registry: Registry, where: Reference, image: Digest, trust: Trust, subject: Digest | None = None
) -> ChannelRecord | None:
    """The newest record on an image in a repository (`where`) that a verdict's key signed in its time.

    `subject` is the manifest that carries it: the image's index, or one of its platforms. None
    when there is no record. Raises EvidenceRefused when one is by another key, of another
    manifest, or malformed.
    """
    subject = subject or image
    found = []
    for listed in registry.referrers(where.name, subject, BUNDLE_TYPE)[: cosign_parse.REFERRERS_MAX]:
        if listed.annotations.get(BUNDLE_PREDICATE_ANNOTATION, CHANNEL_TYPE) != CHANNEL_TYPE:
            continue
        manifest, _, _ = manifest_at(registry, where.with_digest(listed.digest))
        part = cosign_parse.bundle_layer(manifest, subject)
        if part.predicate_type != CHANNEL_TYPE:
            continue
        envelope = cosign_parse.parse_bundle(registry.get_blob_bytes(where.name, part.blob, _RECORD_MAX))
        key = trust.find(VERDICT, envelope.signature, envelope.signed_bytes)
        if key is None:
            refuse(
                "signature-invalid", "a channel record is not by a trusted verdict key", context=str(where)
            )
        said = parse_statement(envelope.payload)
        if said.subject != subject or said.predicate_type != CHANNEL_TYPE:
            refuse("subject-mismatch", "a channel record is of another manifest", context=str(said.subject))
        record = channels.decode(said.predicate)
        if calls_back(said) or not key.flaw(record.at):
            found.append(record)
    return channels.newest(found, image)
