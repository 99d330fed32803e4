"""Sync: a vulnerability database from elsewhere in, our own copy of it out: checked, signed, pinned.

In: an artefact (registry, layout, tar, folder). Out: a `Pin`. What is refused leaves everything as it
was: the pin, the tag, and the database behind them, until its age limit ends the verdicts.
Conditions, numbered as in the code:

 1. whole file, schema 2, from the past, not older than the policy allows;
 2. not older than the one that is pinned;
 3. at most a tenth smaller than the one that is pinned;
 4. the scanner finds the canary of each release with it.

Order of writing: blobs, manifest by digest, signed statement, all read back; then the tag; the pin last.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from builder.errors import ToolError
from builder.model.digest import Digest, canonical_json
from builder.model.evidence import DatabaseIdentity
from builder.model.image import MANIFEST_TYPE, Descriptor
from builder.model.reference import Reference
from builder.oci.client import RegistryClient
from builder.oci.compress import compress
from builder.oci.manifest import manifest_bytes, parse_manifest
from builder.oci.tarformat import END, TarEntry, header, padding
from builder.signing import cosign_parse
from builder.signing.cosign_formats import BUNDLE_TYPE, SignedStatement, bundle_referrer
from builder.signing.keys import RoleSigner
from builder.signing.predicates import timestamp
from builder.signing.statements import PAYLOAD_TYPE, STATEMENT_V1, pae, parse_statement, statement
from builder.store import Store, write_atomically
from builder.tools.canary import plant
from builder.tools.strict_json import load_object
from builder.tools.trivy import Trivy
from builder.tools.trivy_db import check_age, check_file, forget, identify
from builder.tools.trivy_db_source import LAYER_TYPE, Artefact, database_layer, resolve

REPOSITORY, TAG = "goldsmith/trivy-db", "2"
DATABASE_TYPE = "https://goldsmith.dev/attestations/database/v1"
SHRINK_MAX = 0.1  # of the pinned one's size
CANARY_SECONDS = 300.0
_CONFIG_TYPE = "application/vnd.aquasec.trivy.config.v1+json"
_CONFIG = b"{}"
_CHUNK = 1 << 20  # bytes
_BUNDLE_MAX = 64 << 10  # bytes
_METADATA_MAX = 1 << 20  # bytes
_KEPT = "the database that is pinned stays in use until its age limit"
# Whether a verdict's key made this signature over these bytes.
Verifies = Callable[[bytes, bytes], bool]


@dataclass(frozen=True, slots=True)
class Pin:
    """The database that scans use: where it is in our registry, and what it was made of.

    `upstream` is the digest of the artefact as it came from `source`, `asked` how that was named;
    `size` is that of the unpacked database in bytes; the times are RFC 3339.
    """

    reference: str
    upstream: str
    source: str
    asked: str | None
    updated_at: str
    size: int
    synced_at: str
    sample: bool = False

    @property
    def digest(self) -> Digest:
        """The digest of the manifest in our registry."""
        return Digest(self.reference.rpartition("@")[2])


def read_pin(store: Store) -> Pin | None:
    """The pin of the last good sync; None when there is none. Raises ToolError when it is damaged."""
    path = _pin_path(store)
    if not path.exists():
        return None
    try:
        pin = Pin(**load_object(path, size_max=4096, what="the database's pin"))
        Reference.parse(pin.reference)
        if not isinstance(pin.size, int) or pin.digest is None:
            raise ValueError("no size")
    except (ToolError, TypeError, ValueError, AttributeError) as error:
        raise ToolError(
            "the pin of the vulnerability database is damaged",
            context=f"{path}: {error}",
            hint="remove the file, and run `goldsmith db sync`",
            reference="database-pin",
        ) from None
    return pin


def sync(
    source: str | None,
    *,
    store: Store,
    client: RegistryClient,
    trivy: Trivy,
    signer: Callable[[], RoleSigner],
    releases: Sequence[str],
    now: dt.datetime,
    age_days_max: float,
) -> tuple[Pin, bool]:
    """Take the database of a source (None: where Trivy normally takes it) into our registry.

    Returns the pin, and whether it is another one than before. `releases` are those whose
    canaries must be found (`debian 13`). Raises ToolError when the database is refused,
    RegistryError when the registry fails; either way nothing has changed.
    """
    before, artefact = read_pin(store), resolve(source, store.credentials)
    if before and before.upstream == artefact.digest and _is_there(client, before):
        pin = replace(before, source=artefact.source, asked=source)
        if pin != before:
            _keep(store, pin)
        check_age(pin, now, age_days_max)  # a source that gives the same for ever is no success
        return pin, False
    with store.scratch("database") as work:
        folder = work / "cache" / "db"
        folder.mkdir(parents=True)
        artefact.unpack(folder)
        identity, size = _examine(artefact, folder, before, now, age_days_max)  # 1, 2, 3
        for release in releases:  # 4
            _canary(release, folder.parent, trivy, work)
        reference = _publish(client, folder, work, identity, signer(), now)
    pin = Pin(
        reference=str(reference),
        upstream=str(artefact.digest),
        source=artefact.source,
        asked=source,
        updated_at=identity.updated_at,
        size=size,
        synced_at=timestamp(now),
        sample=identity.sample,
    )
    _keep(store, pin)
    if before and before.reference != pin.reference:
        forget(store, before.reference)
    return pin, True


def signed_database(
    client: RegistryClient, reference: Reference, verifies: Verifies
) -> tuple[Digest, dict[str, Any]]:
    """The digest behind a reference and what its signed statement says.

    Raises ToolError when no statement on it is signed by a key that `verifies`.
    """
    descriptor = client.head_manifest(reference)
    if descriptor is None:
        raise ToolError(f"there is no database at {reference}", reference="database-unsigned")
    for listed in client.referrers(reference.name, descriptor.digest, BUNDLE_TYPE)[
        : cosign_parse.REFERRERS_MAX
    ]:
        data, media_type, _ = client.get_manifest(reference.with_digest(listed.digest))
        part = cosign_parse.bundle_layer(parse_manifest(data, media_type), descriptor.digest)
        if part.predicate_type != DATABASE_TYPE:
            continue
        bundle = cosign_parse.parse_bundle(client.get_blob_bytes(reference.name, part.blob, _BUNDLE_MAX))
        said = parse_statement(bundle.payload)
        if verifies(bundle.signature, bundle.signed_bytes) and (said.subject, said.predicate_type) == (
            descriptor.digest,
            DATABASE_TYPE,
        ):
            return descriptor.digest, dict(said.predicate)
    raise ToolError(
        f"the database at {reference} is not signed by a key that is trusted",
        context=str(descriptor.digest),
        hint=f"name the folder with the keys of who mirrors it; {_KEPT}",
        reference="database-unsigned",
    )


def _keep(store: Store, pin: Pin) -> None:
    write_atomically(_pin_path(store), json.dumps(asdict(pin), sort_keys=True, indent=1).encode())


def _pin_path(store: Store) -> Path:
    return store.db / "pin.json"


def _is_there(client: RegistryClient, pin: Pin) -> bool:
    """Whether the registry still has the pinned database under its tag."""
    reference = Reference.parse(pin.reference)
    if reference.host != client.reference(REPOSITORY, TAG).host:
        return False  # the registry is another one by now
    found = client.head_manifest(client.reference(REPOSITORY, TAG))
    return found is not None and found.digest == pin.digest


def _examine(
    artefact: Artefact, folder: Path, before: Pin | None, now: dt.datetime, age_days_max: float
) -> tuple[DatabaseIdentity, int]:
    """Conditions 1 to 3, cheapest first; returns what the database is and its size in bytes."""
    check_file(folder / "trivy.db")
    metadata = load_object(folder / "metadata.json", size_max=_METADATA_MAX, what="the database's metadata")
    identity = identify(metadata, artefact.digest, artefact.source)
    check_age(identity, now, age_days_max)
    size = (folder / "trivy.db").stat().st_size
    if before and not before.sample:
        if identity.sample:
            raise _refusal("it is a sample", artefact.source, "database-sample")
        if identity.updated_at < before.updated_at:
            told = f"pinned: {before.updated_at}, offered: {identity.updated_at}"
            raise _refusal("it is older than the one that is pinned", told, "database-older")
        if size < (1 - SHRINK_MAX) * before.size:
            told = f"pinned: {before.size} bytes, offered: {size} bytes"
            raise _refusal(f"it shrank by more than {SHRINK_MAX:.0%}", told, "database-shrunk")
    return identity, size


def _canary(release: str, cache: Path, trivy: Trivy, work: Path) -> None:
    _, missing = plant(release, cache, trivy, work, CANARY_SECONDS)
    if missing:
        told = f"{release}: {', '.join(missing)}"
        raise _refusal("Trivy does not find the canary with it", told, "database-canary")


def _publish(
    client: RegistryClient,
    folder: Path,
    work: Path,
    identity: DatabaseIdentity,
    signer: RoleSigner,
    now: dt.datetime,
) -> Reference:
    """Push the database and its signed statement, read both back, then move the tag."""
    archive = work / "db.tar.gz"
    digest, size, _ = compress(_tar(folder), archive)
    layer = Descriptor(LAYER_TYPE, digest, size, {"org.opencontainers.image.title": "db.tar.gz"})
    config = Descriptor(_CONFIG_TYPE, Digest.of(_CONFIG), len(_CONFIG))
    manifest = manifest_bytes(config, [layer])
    pushed = Descriptor(MANIFEST_TYPE, Digest.of(manifest), len(manifest))
    reference = client.reference(REPOSITORY, digest=pushed.digest)
    client.put_blob(REPOSITORY, _CONFIG, config.digest)
    if not client.has_blob(REPOSITORY, layer.digest, layer.size):
        client.put_blob(REPOSITORY, archive, layer.digest)
    client.put_manifest(reference, manifest, MANIFEST_TYPE)
    client.check_blob(REPOSITORY, layer)
    _sign(client, pushed, identity, signer, now)
    signed_database(client, reference, signer.public.verifies)
    client.put_manifest(client.reference(REPOSITORY, TAG), manifest, MANIFEST_TYPE)
    data, media_type, _ = client.get_manifest(reference)
    database_layer(parse_manifest(data, media_type), str(reference))
    return reference


def _sign(
    client: RegistryClient,
    subject: Descriptor,
    identity: DatabaseIdentity,
    signer: RoleSigner,
    now: dt.datetime,
) -> None:
    said = {
        "upstream": identity.digest,
        "source": identity.source,
        "updatedAt": identity.updated_at,
        "schema": identity.schema,
        "sample": identity.sample,
        "syncedAt": timestamp(now),
    }
    payload = statement(STATEMENT_V1, subject.digest, DATABASE_TYPE, canonical_json(said))
    signed = SignedStatement(DATABASE_TYPE, payload, signer.sign(pae(PAYLOAD_TYPE, payload)))
    item = bundle_referrer(subject, signed, signer.public.hint, timestamp(now))
    for digest, data in item.blobs.items():
        client.put_blob(REPOSITORY, data, digest)
    if not client.put_referrer(REPOSITORY, item.manifest, item.media_type):
        entry = Descriptor(
            item.media_type,
            item.digest,
            len(item.manifest),
            annotations=dict(item.annotations or {}),
            artifact_type=item.artifact_type,
        )
        client.put_referrers_fallback(REPOSITORY, subject.digest, [entry], replace_same_kind=True)


def _tar(folder: Path) -> Iterator[bytes]:
    """The two files as Trivy's archive: the same files give the same bytes."""
    for name in ("metadata.json", "trivy.db"):
        size = (folder / name).stat().st_size
        yield header(TarEntry(name, "0", 0o644, 0, 0, size, 0))
        with open(folder / name, "rb") as handle:
            while chunk := handle.read(_CHUNK):
                yield chunk
        yield padding(size)
    yield END


def _refusal(message: str, context: str, reference: str) -> ToolError:
    return ToolError(
        f"the vulnerability database is not taken: {message}",
        context=context,
        hint=f"find out why at its source; {_KEPT}",
        reference=reference,
    )
