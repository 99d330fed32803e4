"""Rebuild attestations: what a witness signs who built a published image again and got the same.

There is no such statement about a rebuild that gave something else: the predicate has no field for
it. Like approvals they are no part of what verification demands; promotion may. Whoever reads them
takes those that count, and leaves the others: a stranger's attestation harms no image.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping
from typing import Any

from builder.model.digest import Digest, canonical_json
from builder.model.image import Descriptor
from builder.model.platform import Platform
from builder.model.reference import Reference
from builder.model.release import SignedManifest
from builder.model.witness import Rebuild, Witness
from builder.oci.faults import RegistryRefused
from builder.signing.attested import carriers, read_carrier
from builder.signing.collect import Registry, manifest_at
from builder.signing.cosign_formats import SignedStatement, bundle_referrer
from builder.signing.keys import WITNESS, RoleSigner
from builder.signing.predicates import REBUILD_TYPE, mapping, parse_time, text, timestamp
from builder.signing.refusal import EvidenceRefused, quoted, refuse
from builder.signing.statements import PAYLOAD_TYPE, STATEMENT_V1, pae, statement
from builder.signing.trust import Trust

_WHAT = "rebuild attestation"
_SIZE_MAX = 256 << 10  # bytes of a bundle
_FIELDS = {"ref", "kit", "inputHash", "engine", "tools", "platforms", "at", "result"}
_TOOLS_MAX = 50
_TEXT_MAX = 200  # characters
_RESULT = "reproduced"
_SKEW = dt.timedelta(minutes=5)  # how far the clocks of witness and reader may differ


def encode(rebuild: Rebuild) -> bytes:
    """The predicate as canonical JSON; the subject is in the statement around it."""
    return canonical_json(
        {
            "ref": rebuild.ref,
            "kit": str(rebuild.kit),
            "inputHash": str(rebuild.input_hash),
            "engine": rebuild.engine,
            "tools": dict(rebuild.tools),
            "platforms": {str(p): str(d) for p, d in rebuild.platforms.items()},
            "at": timestamp(rebuild.at),
            "result": _RESULT,
        }
    )


def decode(predicate: Mapping[str, Any], subject: Digest) -> Rebuild:
    """Read a predicate about `subject` back; raises EvidenceRefused for what we would not have written."""
    if set(predicate) != _FIELDS or predicate["result"] != _RESULT:
        unknown = quoted(sorted(set(predicate) ^ _FIELDS) or predicate.get("result"))
        refuse("predicate-malformed", f"the {_WHAT} has other fields, or another result", context=unknown)
    tools, platforms = mapping(predicate, "tools", _WHAT), mapping(predicate, "platforms", _WHAT)
    texts = (*tools, *tools.values(), predicate["ref"], predicate["engine"])
    if len(tools) > _TOOLS_MAX or not all(isinstance(t, str) and 0 < len(t) <= _TEXT_MAX for t in texts):
        refuse("predicate-malformed", f"the {_WHAT}'s texts are malformed")
    try:
        kit, input_hash = (Digest(text(predicate, key, _WHAT)) for key in ("kit", "inputHash"))
        made = {Platform.parse(name): Digest(str(one)) for name, one in platforms.items()}
    except ValueError as error:
        refuse("predicate-malformed", f"the {_WHAT} is malformed", context=quoted(str(error)))
    at = parse_time(predicate, "at", _WHAT)
    return Rebuild(subject, predicate["ref"], kit, input_hash, predicate["engine"], tools, made, at)


def signed_rebuild(rebuild: Rebuild, subject: Descriptor, key: RoleSigner) -> SignedManifest:
    """The referrer that carries the attestation on `subject`, the image's index."""
    if key.role != WITNESS or subject.digest != rebuild.digest:
        raise ValueError("a rebuild is attested by a witness, of the image that was rebuilt")
    payload = statement(STATEMENT_V1, subject.digest, REBUILD_TYPE, encode(rebuild))
    signed = SignedStatement(REBUILD_TYPE, payload, key.sign(pae(PAYLOAD_TYPE, payload)))
    return bundle_referrer(subject, signed, key.public.hint, timestamp(rebuild.at))


def witnesses(registry: Registry, where: Reference, trust: Trust, now: dt.datetime) -> tuple[Witness, ...]:
    """Who built the image at `where` (its digest is the index) again, by the attestations that count.

    A witness's key held when it signed; the digests are those that the index lists. Each is there once for
    each engine, with its oldest attestation. What does not count is left out. Raises RegistryError when
    the registry cannot tell.
    """
    index, _, _ = manifest_at(registry, where)
    listed = {d.platform: d.digest for d in index.manifests}
    found = [w for w, _ in _read(registry, where, trust, now) if w.rebuild.platforms == listed]
    ordered = sorted(found, key=lambda w: (w.rebuild.at, w.key, w.rebuild.engine))
    first: dict[tuple[str, str], Witness] = {}
    for witness in ordered:
        first.setdefault((witness.key, witness.rebuild.engine), witness)
    return tuple(first.values())


def carriers_of(registry: Registry, where: Reference, trust: Trust, now: dt.datetime) -> tuple[Digest, ...]:
    """The referrers that carry what a trusted witness signed."""
    return tuple(carrier for _, carrier in _read(registry, where, trust, now))


def _read(
    registry: Registry, where: Reference, trust: Trust, now: dt.datetime
) -> Iterator[tuple[Witness, Digest]]:
    if where.digest is None:
        raise ValueError("rebuilds are of digests")
    for carrier in carriers(registry, where, REBUILD_TYPE):
        try:
            found = _believed(registry, where, where.digest, carrier, trust)
        except EvidenceRefused:
            continue
        except RegistryRefused as error:
            if error.status != 404:
                raise
            continue
        if found is not None and found.rebuild.at <= now + _SKEW:
            yield found, carrier


def _believed(
    registry: Registry, where: Reference, subject: Digest, carrier: Digest, trust: Trust
) -> Witness | None:
    keys = []

    def believes(signature: bytes, data: bytes) -> bool:
        keys.append(trust.find(WITNESS, signature, data))
        return keys[-1] is not None

    said = read_carrier(registry, where, carrier, REBUILD_TYPE, _SIZE_MAX, believes).statement
    rebuild, key = decode(said.predicate, subject), keys[-1]
    return Witness(key.id, rebuild) if key is not None and not key.flaw(rebuild.at) else None
