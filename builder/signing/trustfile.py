"""The trust file: which keys hold when, signed by the root key.

A DSSE envelope (secure-systems-lab/dsse, protocol.md and envelope.md, v1.0) around canonical JSON,
under a payload type of its own, so that nothing else that root signed can stand for it:

    {"schema": 1, "version": N, "keys": [{"id", "role", "pem", "notBefore", "notAfter",
     "revokedAt", "why"}, …]}

`id` is the SHA-256 of the key's DER SubjectPublicKeyInfo, in hexadecimal. Times are RFC 3339 UTC
to the second, or null; `notAfter` still holds, `revokedAt` no longer does. `version` only grows.
Beside `keys` stands `expires`, where the file has an end: who is kept from the newest file believes
the old one no longer than that (as in The Update Framework, section 6: timestamp). Files of before
have none.
"""

from __future__ import annotations

import base64
import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from builder.errors import GoldsmithError, PolicyDenied, UsageError
from builder.model.digest import canonical_json
from builder.signing.keys import APPROVER, BUILDER, VERDICT, WITNESS, PublicKey, RoleSigner
from builder.signing.refusal import strict_json
from builder.signing.statements import SIGNATURE_MAX, decode_base64, pae
from builder.store import read_file

PAYLOAD_TYPE = "application/vnd.goldsmith.trust.v1+json"
FILE_MAX = 256 << 10  # bytes
KEYS_MAX = 200
WHY_MAX = 500  # characters
_VERSION_MAX = 1 << 31
_ROLES = (BUILDER, VERDICT, APPROVER, WITNESS)  # root is what signs; it cannot vouch for itself
_FIELDS = {"id", "role", "pem", "notBefore", "notAfter", "revokedAt", "why"}
_TIME = "%Y-%m-%dT%H:%M:%SZ"


class TrustRefused(PolicyDenied):
    """A trust file was looked at and cannot be believed."""


@dataclass(frozen=True, slots=True)
class TrustedKey:
    """A key with its period; None is without end. `why` says why it was revoked."""

    key: PublicKey
    not_before: dt.datetime | None = None
    not_after: dt.datetime | None = None
    revoked_at: dt.datetime | None = None
    why: str = ""

    @property
    def id(self) -> str:
        """The key's id."""
        return self.key.id

    @property
    def role(self) -> str:
        """The role's name."""
        return self.key.role

    def flaw(self, at: dt.datetime, *, dated: bool = True) -> str:
        """Why the key does not hold at `at`; empty when it does.

        A time that the signed statement does not say itself (`dated` False) is ended by a
        revocation only.
        """
        if self.revoked_at is not None and at >= self.revoked_at:
            return "key-revoked"
        outside = (self.not_before and at < self.not_before) or (self.not_after and at > self.not_after)
        return "key-out-of-period" if dated and outside else ""


@dataclass(frozen=True, slots=True)
class TrustContent:
    """What a trust file says."""

    version: int
    keys: tuple[TrustedKey, ...]
    expires: dt.datetime | None = None


def encode(content: TrustContent, root: RoleSigner) -> bytes:
    """The signed file; raises TrustRefused when it could not be read back, ToolError as signing does."""
    payload = canonical_json(
        {
            "schema": 1,
            "version": content.version,
            **({"expires": _text(content.expires)} if content.expires else {}),
            "keys": [
                {
                    "id": k.id,
                    "role": k.role,
                    "pem": k.key.pem.decode(),
                    "notBefore": _text(k.not_before),
                    "notAfter": _text(k.not_after),
                    "revokedAt": _text(k.revoked_at),
                    "why": k.why,
                }
                for k in content.keys
            ],
        }
    )
    signature = base64.b64encode(root.sign(pae(PAYLOAD_TYPE, payload))).decode()
    data = canonical_json(
        {
            "payload": base64.b64encode(payload).decode(),
            "payloadType": PAYLOAD_TYPE,
            "signatures": [{"keyid": root.public.hint, "sig": signature}],
        }
    )
    decode(data, root.public)
    return data + b"\n"


def decode(data: bytes, root: PublicKey) -> TrustContent:
    """Read a file: the signature first, then everything else; raises TrustRefused."""
    try:
        payload = _verified(strict_json(data, "trust file", FILE_MAX), root)
        return _content(strict_json(payload, "trust file", FILE_MAX), root)
    except TrustRefused:
        raise
    except (GoldsmithError, ValueError, KeyError, TypeError, AttributeError) as error:
        said = error.message if isinstance(error, GoldsmithError) else str(error)
        refuse("is malformed", said[:200])


def read(path: Path) -> bytes:
    """The bytes of a trust file; raises UsageError when there is none of a sensible size."""
    try:
        return read_file(path, FILE_MAX)
    except OSError as error:
        raise UsageError(f"cannot read {path}", context=error.strerror or str(error)) from None


def refuse(what: str, context: str, reference: str = "trust-refused") -> NoReturn:
    """Raise TrustRefused."""
    raise TrustRefused(
        f"the trust file {what}",
        context=context,
        hint="bring root.pub and the newest trust.json from where the keys are kept "
        "(`goldsmith keys export`)",
        reference=reference,
    )


def refuse_expired(expires: dt.datetime | None, now: dt.datetime) -> None:
    """Pass while the file holds; raises TrustRefused after its end."""
    if expires is not None and now > expires:
        raise TrustRefused(
            "the trust file has expired: keys may have been revoked since",
            context=f"it held until {_text(expires)}",
            hint="`goldsmith keys renew` where the keys are kept, `goldsmith keys export` for all others",
            reference="trust-expired",
        )


def _verified(envelope: Mapping[str, Any], root: PublicKey) -> bytes:
    if set(envelope) != {"payload", "payloadType", "signatures"} or envelope["payloadType"] != PAYLOAD_TYPE:
        refuse("is malformed", "not a trust file")
    signatures = envelope["signatures"]
    if not isinstance(signatures, list) or len(signatures) != 1 or set(signatures[0]) != {"keyid", "sig"}:
        refuse("is malformed", "it does not have exactly one signature")
    payload = decode_base64(envelope["payload"], "payload", FILE_MAX)
    if not root.verifies(
        decode_base64(signatures[0]["sig"], "signature", SIGNATURE_MAX), pae(PAYLOAD_TYPE, payload)
    ):
        refuse("is not signed by root.pub, or was changed", f"root key {root.id}")
    return payload


def _content(value: Mapping[str, Any], root: PublicKey) -> TrustContent:
    if set(value) - {"expires"} != {"schema", "version", "keys"} or value["schema"] != 1:
        raise ValueError(f"another form than schema 1: {str(value.get('schema'))[:20]}")
    version, listed = value["version"], value["keys"]
    if type(version) is not int or not 1 <= version <= _VERSION_MAX:
        raise ValueError("a version is a number from 1 on")
    if not isinstance(listed, list) or len(listed) > KEYS_MAX:
        raise ValueError(f"no list of at most {KEYS_MAX} keys")
    keys = tuple(_key(one) for one in listed)
    ids = [k.id for k in keys]
    if len(set(ids)) != len(ids) or root.id in ids:
        raise ValueError("a key stands in it twice, or under two roles")
    if missing := {BUILDER, VERDICT} - {k.role for k in keys}:
        raise ValueError(f"no key of the role {', '.join(sorted(missing))}")
    expires = _time(value["expires"]) if "expires" in value else None
    if "expires" in value and expires is None:
        raise ValueError("an end is a time, or is left out")
    return TrustContent(version, keys, expires)


def _key(value: Mapping[str, Any]) -> TrustedKey:
    if set(value) != _FIELDS or value["role"] not in _ROLES:
        raise ValueError("a key has missing or unknown fields, or another role")
    pem, why = value["pem"], value["why"]
    if not isinstance(why, str) or len(why) > WHY_MAX:
        raise ValueError("a reason is no text, or too long")
    key = PublicKey.parse(value["role"], pem.encode(), "trust file")
    if key.pem.decode() != pem or key.id != value["id"]:
        raise ValueError("a key is not what its id says")
    found = TrustedKey(
        key, _time(value["notBefore"]), _time(value["notAfter"]), _time(value["revokedAt"]), why
    )
    if found.not_before and found.not_after and found.not_after < found.not_before:
        raise ValueError("a period ends before it begins")
    return found


def _time(value: Any) -> dt.datetime | None:
    if value is None:
        return None
    found = dt.datetime.strptime(value, _TIME).replace(tzinfo=dt.UTC)
    if _text(found) != value:
        raise ValueError("a time is not written to the second")
    return found


def _text(value: dt.datetime | None) -> str | None:
    return None if value is None else value.astimezone(dt.UTC).strftime(_TIME)
