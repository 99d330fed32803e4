"""The exported catalogue as a file: signed with the verdict key, verified before it is believed.

The file is a DSSE envelope whose payload is the catalogue as canonical JSON. Its payload type is
of its own, so that no attestation can stand for a catalogue, nor the other way round.
Source: DSSE protocol v1.0 (secure-systems-lab/dsse, protocol.md and envelope.md).
"""

from __future__ import annotations

import base64
import datetime as dt
from pathlib import Path

from pydantic import ValidationError

from builder.errors import GoldsmithError
from builder.model.digest import canonical_json
from builder.signing.keys import VERDICT, RoleSigner
from builder.signing.refusal import EvidenceRefused, strict_json
from builder.signing.statements import SIGNATURE_MAX, decode_base64, pae
from builder.signing.trust import Trust
from registry.devcheck.known import Known

PAYLOAD_TYPE = "application/vnd.goldsmith.catalogue.v1+json"
FILE_MAX = 64 << 20  # bytes
_SKEW = dt.timedelta(minutes=5)  # how far the clocks of exporter and reader may differ


class CatalogueRefused(GoldsmithError):
    """An exported catalogue cannot be believed: not signed by the verdict key, too old, or malformed."""


def encode(known: Known, signer: RoleSigner) -> bytes:
    """The signed file of a catalogue."""
    payload = canonical_json(known.model_dump(mode="json", by_alias=True))
    signature = signer.sign(pae(PAYLOAD_TYPE, payload))
    envelope = {
        "payloadType": PAYLOAD_TYPE,
        "payload": base64.b64encode(payload).decode(),
        "signatures": [{"keyid": signer.public.hint, "sig": base64.b64encode(signature).decode()}],
    }
    return canonical_json(envelope) + b"\n"


def decode(data: bytes, trust: Trust, now: dt.datetime) -> Known:
    """Read a file back: signature first, then the form, then the dates; raises CatalogueRefused."""
    try:
        envelope = strict_json(data, "catalogue", FILE_MAX)
        if set(envelope) != {"payloadType", "payload", "signatures"}:
            raise _refused("it is not an exported catalogue")
        if envelope["payloadType"] != PAYLOAD_TYPE:
            raise _refused("it holds something else", str(envelope["payloadType"])[:100])
        signatures = envelope["signatures"]
        if not isinstance(signatures, list) or len(signatures) != 1 or not isinstance(signatures[0], dict):
            raise _refused("it does not have exactly one signature")
        payload = decode_base64(envelope["payload"], "payload", FILE_MAX)
        signature = decode_base64(signatures[0].get("sig"), "signature", SIGNATURE_MAX)
        key = trust.find(VERDICT, signature, pae(PAYLOAD_TYPE, payload))
        if key is None:
            raise _refused(
                "its signature is not by a trusted verdict key, or it was changed",
                hint="get it anew with `goldsmith catalogue export`, and the right keys with --trust",
            )
        value = strict_json(payload, "catalogue", FILE_MAX)
    except EvidenceRefused as error:
        raise _refused(error.message, error.context) from None
    if value.get("schema") != 1:
        raise _refused("it is of another version", f"schema {str(value.get('schema'))[:20]}")
    try:
        known = Known.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise _refused("it is malformed", f"{where}: {first['msg']}"[:300]) from None
    dates = f"exported {known.exported.isoformat()}, valid until {known.valid_until.isoformat()}"
    if flaw := key.flaw(known.exported):
        raise _refused("it is signed by a key that did not hold then", f"{flaw}: {key.id}; {dates}")
    if known.exported > now + _SKEW:
        raise _refused("it is from the future", dates, "set the clock right")
    if known.valid_until <= now:
        raise _refused("it is too old", dates, "export it anew with `goldsmith catalogue export`")
    return known


def load(path: Path, trust: Trust, now: dt.datetime) -> Known:
    """The catalogue in a file; raises CatalogueRefused."""
    try:
        with open(path, "rb") as handle:
            data = handle.read(FILE_MAX + 1)
    except OSError as error:
        raise _refused(f"{path} cannot be read", error.strerror or str(error)) from None
    return decode(data, trust, now)


def _refused(message: str, context: str = "", hint: str = "") -> CatalogueRefused:
    hint = hint or "export it anew with `goldsmith catalogue export`"
    return CatalogueRefused(f"the catalogue is refused: {message}", context=context, hint=hint)
