"""Tokens for a registry that trusts a key of ours: signed here, for one use each, nobody is asked for them.

Sources: Distribution, "Token Authentication Implementation" (the claims and what `access` means);
RFC 7515 section 4.1.6: the certificate goes with the token (`x5c`), which every version of
Distribution finds in its `rootcertbundle`.
"""

from __future__ import annotations

import datetime as dt
import secrets
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from builder.errors import RegistryError, UsageError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509 import Certificate

ISSUER, SERVICE = "goldsmith", "goldsmith-storage"
LIFE_SECONDS = 300
_EARLY_SECONDS = 30  # clocks of two machines may differ
_KEPT_MAX = 256  # tokens
_CERTIFICATE_DAYS, _RENEWED_DAYS = 3650, 365
_NAMES = {True: "writer", False: "reader"}


class Issuer:
    """A writer or a reader of a registry, with the key that signs its tokens.

    A reader signs for reading alone. `now` gives seconds since the epoch. Safe in threads.
    """

    def __init__(
        self,
        key: ec.EllipticCurvePrivateKey,
        certificate: Certificate,
        *,
        writes: bool,
        now: Callable[[], float],
    ) -> None:
        import base64

        from cryptography.hazmat.primitives.serialization import Encoding

        self._key = key
        self._chain = [base64.b64encode(certificate.public_bytes(Encoding.DER)).decode()]
        self._writes = writes
        self._now = now
        self._kept: dict[str, tuple[str, float]] = {}

    @classmethod
    def parse(cls, pem: bytes, *, writes: bool, now: Callable[[], float]) -> Issuer:
        """From a private key (P-256, PKCS8) and its certificate in one PEM; raises UsageError."""
        from cryptography import x509
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ec

        try:
            key = serialization.load_pem_private_key(pem, None)
            certificate = x509.load_pem_x509_certificate(pem)
        except (ValueError, TypeError):
            raise UsageError("no private key with its certificate", hint=_MAKE) from None
        if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name != "secp256r1":
            raise UsageError("the key is not of the curve P-256", hint=_MAKE)
        if certificate.public_key() != key.public_key():
            raise UsageError("the certificate is of another key", hint=_MAKE)
        return cls(key, certificate, writes=writes, now=now)

    def header(self, use: str) -> str:
        """The Authorization header for a use; raises RegistryError when a reader would write."""
        now = self._now()
        kept = self._kept.get(use)
        if kept is not None and 0 <= now - kept[1] < LIFE_SECONDS / 2:
            return kept[0]
        header = "Bearer " + self._sign(use, now)
        if len(self._kept) >= _KEPT_MAX:
            self._kept.clear()
        self._kept[use] = (header, now)
        return header

    def _sign(self, use: str, now: float) -> str:
        import jwt

        access = access_of(use)
        if not self._writes and any(set(one["actions"]) - {"pull", "*"} for one in access):
            raise RegistryError(
                "a reader of the storage does not write", context=use, reference="reader-writes"
            )
        at = int(now)
        claims = {
            "iss": ISSUER,
            "aud": SERVICE,
            "sub": _NAMES[self._writes],
            "iat": at,
            "nbf": at - _EARLY_SECONDS,
            "exp": at + LIFE_SECONDS,
            "jti": secrets.token_hex(8),
            "access": access,
        }
        return jwt.encode(claims, self._key, algorithm="ES256", headers={"x5c": self._chain})


_MAKE = "start the storage again (goldsmith registry up), or make one as docs/guide/operate.md says"


def access_of(use: str) -> list[dict[str, Any]]:
    """What a token grants for a use of the client: no more than that use needs.

    `ping`, `catalog`, `pull REPO`, `push REPO`, `push REPO mount OTHER`, `cancel REPO`.
    """
    match use.split(" "):
        case ["ping"]:
            return []
        case ["catalog"]:
            return [{"type": "registry", "name": "catalog", "actions": ["*"]}]
        case ["pull", repo]:
            return [_repository(repo, "pull")]
        case ["push", repo]:
            return [_repository(repo, "pull", "push")]
        case ["push", repo, "mount", other]:
            return [_repository(repo, "pull", "push"), _repository(other, "pull")]
        case ["cancel", repo]:
            return [_repository(repo, "delete")]
    raise ValueError(f"not a use: {use!r}")


def new_pem(now: dt.datetime, *, writes: bool) -> bytes:
    """A new key with its own certificate, as `Issuer.parse` reads it."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"goldsmith storage {_NAMES[writes]}")])
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=_CERTIFICATE_DAYS))
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return private + certificate.public_bytes(serialization.Encoding.PEM)


def is_good(pem: bytes, now: dt.datetime) -> bool:
    """Whether it is a key with its certificate which lasts for a year more."""
    from cryptography import x509

    try:
        Issuer.parse(pem, writes=False, now=lambda: 0.0)
    except UsageError:
        return False
    ends = x509.load_pem_x509_certificate(pem).not_valid_after_utc
    return ends > now + dt.timedelta(days=_RENEWED_DAYS)


def certificate_of(pem: bytes) -> bytes:
    """The public half: what the storage is given."""
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding

    return x509.load_pem_x509_certificate(pem).public_bytes(Encoding.PEM)


def _repository(name: str, *actions: str) -> dict[str, Any]:
    return {"type": "repository", "name": name, "actions": list(actions)}
