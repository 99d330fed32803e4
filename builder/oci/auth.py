"""Who may see our credentials: challenges, tokens by scope, and what is sent to whom.

Sources: RFC 9110 section 11 and RFC 7617 (Basic); Distribution, "Token Authentication
Specification" (Bearer). A token is kept for exactly the scope it was issued for.
"""

from __future__ import annotations

import base64
import ipaddress
import json
import os
import stat
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from builder.errors import RegistryError, UsageError
from builder.oci.issuer import Issuer
from builder.settings import wall_clock

_CHALLENGE_MAX = 4096  # characters
_TOKEN_MAX = 64 << 10  # characters
_CREDENTIALS_MAX = 16 << 10  # characters
READER = ".reader"  # after a host, the file of who only reads there
_ANY = ""  # in the place of a use


@dataclass(frozen=True, slots=True)
class Credentials:
    """A user name and a password (or token) for one registry."""

    username: str
    password: str = field(repr=False)

    @property
    def basic(self) -> str:
        """The value of an Authorization header (RFC 7617)."""
        return "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode()

    def header(self, use: str) -> str:
        """The same for whatever use."""
        return self.basic


Login = Credentials | Issuer


def credentials_for(
    folder: Path, host: str, *, writes: bool = True, now: Callable[[], float] = wall_clock
) -> Login | None:
    """Who we are at a registry, by the file `folder/HOST`; None without one.

    It holds the line `NAME:PASSWORD`, or a key with its certificate, by which we sign our tokens
    ourselves (see `oci/issuer.py`). Who does not write gets the one of `folder/HOST.reader`, if
    there is one, and signs for reading only. `now` gives seconds since the epoch. Raises UsageError
    when a file is malformed, or other users may read it.
    """
    if "/" in host or not host.strip("."):
        return None
    if not writes:
        found = _read_login(folder / (host + READER), writes=False, now=now)
        if found is not None:
            return found
    return _read_login(folder / host, writes=writes, now=now)


def _read_login(path: Path, *, writes: bool, now: Callable[[], float]) -> Login | None:
    try:
        with open(path, encoding="ascii") as handle:
            mode = os.fstat(handle.fileno()).st_mode
            text = handle.read(_CREDENTIALS_MAX)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"the credentials in {path} cannot be read", context=str(error)) from None
    if stat.S_IMODE(mode) & 0o077:
        raise UsageError(f"other users may read {path}", hint=f"chmod 600 {path}")
    if text.startswith("-----BEGIN "):
        try:
            return Issuer.parse(text.encode(), writes=writes, now=now)
        except UsageError as error:
            raise UsageError(f"{path}: {error.message}", hint=error.hint) from None
    name, _, password = text.strip().partition(":")
    if not name or not password or not text.strip().isprintable():
        raise UsageError(f"no credentials in {path}", hint="it holds one line, NAME:PASSWORD, or a key")
    return Credentials(name, password)


@dataclass(frozen=True, slots=True)
class Challenge:
    """What a 401 asks for: a scheme (`basic` or `bearer`), and for bearer where to get a token."""

    scheme: str
    realm: str = ""
    service: str = ""
    scope: str = ""

    @property
    def parameters(self) -> list[tuple[str, str]]:
        """The query of the token request: each scope is a parameter of its own."""
        service = [("service", self.service)] if self.service else []
        return service + [("scope", scope) for scope in self.scope.split()]


class Keyring:
    """The Authorization headers of one registry, by what they are good for; safe in threads."""

    def __init__(self, host: str, plain: bool, login: Login | None, token_hosts: frozenset[str]) -> None:
        self._plain = plain
        self._issuer = login if isinstance(login, Issuer) else None
        self._credentials = login if isinstance(login, Credentials) else None
        self._trusted = token_hosts | {host}
        self._headers: dict[str, str] = {}
        self._lock = threading.Lock()

    def header(self, use: str) -> str | None:
        """The Authorization header for a use (such as `pull candidate/python`), when one is known.

        Raises RegistryError for a use that our own login is not for.
        """
        if self._issuer is not None:
            return self._issuer.header(use)
        with self._lock:
            return self._headers.get(use) or self._headers.get(_ANY)

    def keep(self, use: str, header: str) -> None:
        """Remember the header for a use; a name with its password is good for every use."""
        with self._lock:
            self._headers[_ANY if header.startswith("Basic ") else use] = header

    def forget(self, use: str) -> None:
        """Drop a header that no longer works."""
        with self._lock:
            self._headers.pop(use, None)
            self._headers.pop(_ANY, None)

    @property
    def asks(self) -> bool:
        """Whether a 401 can be answered: who signs their own tokens has said all there is."""
        return self._issuer is None

    def basic(self) -> str | None:
        """The header for a Basic challenge; None without credentials."""
        return self._credentials.basic if self._credentials else None

    def token_address(self, challenge: Challenge) -> str:
        """The realm, if our credentials may be sent there; raises RegistryError."""
        try:
            parts = urlsplit(challenge.realm)
            host = parts.netloc
            good = parts.scheme == "https" or (
                parts.scheme == "http" and self._plain and is_loopback(host_name(host))
            )
        except ValueError:
            good, host = False, ""
        if not good or "@" in host or host not in self._trusted:
            raise RegistryError(
                "the registry sends us elsewhere for a token",
                context=f"realm {challenge.realm[:200]}",
                hint="if that host is right, add it to the registry's token hosts",
                reference="foreign-realm",
            )
        return challenge.realm


def parse_challenge(header: str | None) -> Challenge | None:
    """The challenge in a WWW-Authenticate header; None when there is none that we can answer."""
    if not header or len(header) > _CHALLENGE_MAX:
        return None
    from oras.auth.utils import parse_auth_header

    scheme = header.split(None, 1)[0].lower()
    if scheme == "basic":
        return Challenge("basic")
    found = parse_auth_header(header)
    if scheme != "bearer" or not found.realm:
        return None
    return Challenge("bearer", found.realm, found.service or "", found.scope or "")


def parse_token(data: bytes) -> str:
    """The token in the reply of a token server; raises RegistryError."""
    try:
        reply = json.loads(data)
        token = reply.get("token") or reply.get("access_token")
    except (ValueError, AttributeError, RecursionError):
        token = None
    if not isinstance(token, str) or not 0 < len(token) <= _TOKEN_MAX or not token.isprintable():
        raise RegistryError("the token server's reply holds no token", hint="ask the registry's operator")
    return token


def host_name(host: str) -> str:
    """The name in `NAME[:PORT]`, without the brackets of an IPv6 address."""
    return (urlsplit("//" + host).hostname or "").lower()


def is_loopback(name: str) -> bool:
    """Whether a host name means this machine, whatever a name server says."""
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
