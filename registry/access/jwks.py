"""The keys of an issuer: fetched through one bounded door, kept, and renewed when they change.

Sources: RFC 7517 (JSON Web Key Sets); OpenID Connect Discovery 1.0, section 4. Nothing is
followed, nothing is taken from the environment, and only the issuer's configured addresses (or
those that its discovery document names) are asked, and only where `builder/oci/addresses.py` lets
a name lead. Nothing that a token says is ever fetched.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from builder.errors import RegistryError, ToolError
from builder.oci.addresses import Addresses
from builder.oci.session import Exchange, Session
from builder.tools.strict_json import parse_object
from registry.access.rules import Issuer, is_address

RENEW_SECONDS = 600  # keys are asked for again after this
KEEP_SECONDS = 24 * 3600  # and are believed no longer than this while they cannot be
RETRY_SECONDS = 5  # at least from one try to the next
_BYTES_MAX = 256 << 10
_KEYS_MAX = 100
_TOTAL_SECONDS, _READ_SECONDS, _CONNECT_SECONDS = 10, 5, 3
_RSA_BITS_MIN = 2048
_DISCOVERY = "/.well-known/openid-configuration"

Fetch = Callable[[str, Path | None], bytes]
PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey


class IssuerAway(Exception):
    """The issuer does not answer, or with something that is no set of keys."""


@dataclass(frozen=True, slots=True)
class Key:
    """One key of an issuer: for one algorithm, under an id (empty when it has none)."""

    id: str
    algorithm: str
    public: PublicKey


class IssuerKeys:
    """The keys of one issuer; `find` is asked from any thread, `refresh` waits for the network."""

    def __init__(
        self, issuer: Issuer, fetch: Fetch | None = None, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self.issuer = issuer
        self._fetch, self._monotonic = fetch or fetched, monotonic
        self._turn = threading.Lock()
        self._keys: tuple[Key, ...] = ()
        self._fetched = self.tried = float("-inf")
        self._wanted = False
        self.problem = "they were not asked for yet"

    def find(self, number: str, algorithm: str) -> Key | None:
        """The key of that id (or the only one, for a token without) for an algorithm.

        Raises IssuerAway when no keys are known that are young enough.
        """
        if self._monotonic() - self._fetched > KEEP_SECONDS:
            raise IssuerAway(f"the keys of {self.issuer.name} cannot be had: {self.problem}")
        fit = [k for k in self._keys if k.algorithm == algorithm and number in ("", k.id)]
        return fit[0] if len(fit) == 1 else None

    def want(self) -> bool:
        """Ask for a refresh; False when there was one a moment ago."""
        if self._monotonic() - self.tried < RETRY_SECONDS:
            return False
        self._wanted = True
        return True

    def due(self) -> bool:
        """Whether it is time for a refresh: keys are old, or one is missing."""
        now = self._monotonic()
        old = now - self._fetched > RENEW_SECONDS
        return (self._wanted or old) and now - self.tried >= RETRY_SECONDS

    def refresh(self) -> bool:
        """Fetch the keys; whether that succeeded. Those before stay when it does not."""
        with self._turn:
            try:
                found = parse_keys(self._fetch(self._address(), self._ca), self.issuer)
            except IssuerAway as error:
                self.problem = str(error)
                return False
            else:
                self._keys, self._fetched, self.problem = found, self._monotonic(), ""
                return True
            finally:
                self._wanted, self.tried = False, self._monotonic()

    @property
    def _ca(self) -> Path | None:
        return Path(self.issuer.ca_file) if self.issuer.ca_file else None

    def _address(self) -> str:
        if self.issuer.jwks is not None:
            return self.issuer.jwks
        said = _object(self._fetch(self.issuer.issuer.rstrip("/") + _DISCOVERY, self._ca))
        address = said.get("jwks_uri")
        if said.get("issuer") != self.issuer.issuer:
            raise IssuerAway("its discovery document is of another issuer")
        if not isinstance(address, str) or not is_address(address):
            raise IssuerAway("its discovery document names no address of keys that may be asked")
        return address


def parse_keys(data: bytes, issuer: Issuer) -> tuple[Key, ...]:
    """The usable public keys of a set (RFC 7517, section 5); raises IssuerAway when there is none."""
    listed = _object(data).get("keys")
    if not isinstance(listed, list) or len(listed) > _KEYS_MAX:
        raise IssuerAway("its answer is no set of keys")
    found = [key for item in listed if isinstance(item, dict) for key in _usable(item, issuer)]
    if not found:
        raise IssuerAway("it has no key that can be used here")
    return tuple(found)


def _usable(item: Mapping[str, Any], issuer: Issuer) -> list[Key]:
    number, use, named = item.get("kid", ""), item.get("use", "sig"), item.get("alg")
    algorithm = {"RSA": "RS256", "EC": "ES256"}.get(str(item.get("kty")))
    if algorithm not in issuer.algorithms or "d" in item or use != "sig" or not isinstance(number, str):
        return []
    if named not in (None, algorithm):
        return []
    try:
        key = jwt.PyJWK.from_dict(dict(item), algorithm).key
    except (jwt.PyJWTError, ValueError, TypeError, KeyError):
        return []
    strong = isinstance(key, rsa.RSAPublicKey) and key.key_size >= _RSA_BITS_MIN
    if strong or (isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1)):
        return [Key(number, str(algorithm), key)]
    return []


def fetched(address: str, ca_file: Path | None) -> bytes:
    """What stands at an address, within bounds of size and time; raises IssuerAway."""
    local = threading.local()
    local.ends = time.monotonic() + _TOTAL_SECONDS
    try:
        with Session(local, _READ_SECONDS, ca_file, Addresses()) as session:
            asked = {"Accept": "application/json", "Accept-Encoding": "identity"}
            reply = session.send("GET", address, asked, None, _CONNECT_SECONDS, _READ_SECONDS)
            with contextlib.closing(reply):
                if reply.status != 200:
                    raise IssuerAway(f"it answered {reply.status}")
                data = _read(reply)
    except RegistryError as error:
        raise IssuerAway(error.message) from None
    except (HTTPException, OSError, ValueError) as error:
        raise IssuerAway(f"it did not answer ({type(error).__name__})") from None
    return data


def _read(reply: Exchange) -> bytes:
    parts, size = [], 0
    while chunk := reply.read(_BYTES_MAX + 1 - size):
        parts.append(chunk)
        size += len(chunk)
        if size > _BYTES_MAX:
            raise IssuerAway("its answer is too large")
    return b"".join(parts)


def _object(data: bytes) -> dict[str, Any]:
    try:
        return parse_object(data, size_max=_BYTES_MAX, what="issuer's answer")
    except ToolError as error:
        raise IssuerAway(error.message) from None
