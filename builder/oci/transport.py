"""How the registry client talks: one session, bounded time, few retries, one redirect rule.

Only `oci/client.py` uses this module. Every request has a deadline that holds for connecting,
sending, headers and body together; a reply that may pass (connection errors, 429, 500, 502, 503,
504) is tried again a few times within the same deadline. Credentials never leave the host.
"""

from __future__ import annotations

import contextlib
import io
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, BinaryIO, TypeVar
from urllib.parse import urljoin, urlsplit

from builder.errors import RegistryError
from builder.model.kit import Content
from builder.model.reference import Reference
from builder.oci.addresses import Addresses
from builder.oci.auth import Keyring, Login, host_name, is_loopback, parse_challenge, parse_token
from builder.oci.faults import RegistryRefused, Temporary, foreign, redacted, unreadable, why

if TYPE_CHECKING:
    from oras.container import Container

    from builder.oci.session import Exchange, Session

T = TypeVar("T")

_TEMPORARY = frozenset({429, 500, 502, 503, 504})
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_REDIRECTS_MAX = 3
_NO_TOKEN = frozenset({401, 403, 404})
_CHUNK = 1 << 18  # bytes
_AGENT = "goldsmith"
_PLACES_MAX = 10_000  # repositories whose addresses are kept
_ERROR_BODY_MAX = 64 << 10  # bytes of an error's body that are read
_TOKEN_BODY_MAX = 256 << 10  # bytes
_REST_MAX = 64 << 10  # bytes of an unwanted body that are read to keep the connection


@dataclass(frozen=True, slots=True)
class Limits:
    """How long and how often. An operation has `total_seconds` plus what its bytes may take."""

    connect_seconds: float = 5
    read_seconds: float = 30
    total_seconds: float = 90
    bytes_per_second_min: int = 128 << 10
    attempts: int = 4
    first_pause_seconds: float = 0.2
    pause_max_seconds: float = 10


class Body:
    """What is uploaded: bytes, a file, or parts of both kinds, read anew for each try, never as a whole.

    Raises RegistryError when a file cannot be read.
    """

    def __init__(self, source: Content) -> None:
        self._parts = source if isinstance(source, tuple) else (source,)
        try:
            self.size = sum(len(p) if isinstance(p, bytes) else p.stat().st_size for p in self._parts)
        except OSError as error:
            raise unreadable(error) from None
        self.ends = float("inf")

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[bytes]:
        for part in self._parts:
            with self._open(part) as handle:
                while chunk := self._next(handle):
                    yield chunk

    def _open(self, part: bytes | Path) -> BinaryIO:
        try:
            return io.BytesIO(part) if isinstance(part, bytes) else open(part, "rb")
        except OSError as error:
            raise unreadable(error) from None

    def _next(self, handle: BinaryIO) -> bytes:
        if time.monotonic() > self.ends:
            raise TimeoutError("the upload took too long")
        try:
            return handle.read(_CHUNK)
        except OSError as error:
            raise unreadable(error) from None


class Reply:
    """An answer whose body is read at most once, in pieces, within the deadline."""

    def __init__(self, response: Exchange, where: str, url: str) -> None:
        self._response = response
        self.where = where
        self.status = response.status
        self.url = url
        self.headers = response.headers

    def __enter__(self) -> Reply:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        # A small rest is read, so that the connection can serve again; a large one is dropped.
        if kind is None:
            with contextlib.suppress(RegistryError):
                self.read(_REST_MAX)
        self._response.close()

    def chunks(self) -> Iterator[bytes]:
        """The body in pieces; raises Temporary when it is cut or too slow."""
        from http.client import HTTPException

        try:
            while chunk := self._response.read(_CHUNK):
                yield chunk
        except (HTTPException, OSError) as error:
            raise Temporary("the connection to the registry broke", f"{self.where}: {why(error)}") from None

    def read(self, limit: int) -> bytes:
        """The whole body; raises RegistryError when it has more than `limit` bytes."""
        parts, size = [], 0
        for chunk in self.chunks():
            parts.append(chunk)
            size += len(chunk)
            if size > limit:
                raise RegistryError(
                    f"the registry sends more than {limit} bytes",
                    context=self.where,
                    hint="such a reply is never needed; look at what answers at this address",
                    reference="reply-too-large",
                )
        return b"".join(parts)


class Transport:
    """The HTTP side of one registry; safe to use from several threads."""

    def __init__(
        self,
        host: str,
        *,
        credentials: Login | None = None,
        limits: Limits | None = None,
        ca_bundle: Path | None = None,
        token_hosts: frozenset[str] = frozenset(),
        redirect_hosts: frozenset[str] = frozenset(),
        foreign: bool = False,
        sleep: Callable[[float], None] | None = None,
    ) -> None:
        self.host = host
        self.limits = limits or Limits()
        self.plain = is_loopback(host_name(host))
        self._keyring = Keyring(host, self.plain, credentials, token_hosts)
        self._redirect_hosts = redirect_hosts
        self._ca_bundle = ca_bundle
        self._addresses = Addresses() if foreign else None
        self._sleep: Callable[[float], object] = sleep or threading.Event().wait
        self._made: Session | None = None
        self._lock = threading.Lock()
        self._local = threading.local()
        self._places: dict[str, Container] = {}

    @property
    def root(self) -> str:
        """The address of the registry, without a path."""
        return f"{'http' if self.plain else 'https'}://{self.host}"

    def place(self, repo: str) -> Container:
        """The addresses of a repository, from oras; raises RegistryError for a malformed name."""
        if repo in self._places:
            return self._places[repo]
        from oras.container import Container

        try:
            name = Reference(self.host, repo).name
        except ValueError as error:
            hint = "names are lower-case words, joined by '-' and '/'"
            raise RegistryError(str(error), hint=hint) from None
        place = Container(f"{self.host}/{name}")
        if (place.registry, place.api_prefix) != (self.host, name):  # its grammar is looser than ours
            raise RegistryError(f"not a registry with a port or a domain: {self.host}")
        if len(self._places) < _PLACES_MAX:
            self._places[repo] = place
        return place

    def retrying(self, action: Callable[[float], T], size: int = 0) -> T:
        """Run `action(ends)` until it does not raise Temporary, within count and time.

        `ends` is the deadline (monotonic seconds), `size` the bytes that will be moved.
        """
        limits = self.limits
        ends = time.monotonic() + limits.total_seconds + size / limits.bytes_per_second_min
        for attempt in range(1, limits.attempts + 1):
            try:
                return action(ends)
            except Temporary as error:
                pause = limits.first_pause_seconds * 4 ** (attempt - 1)
                pause = min(max(error.retry_after or 0, pause), limits.pause_max_seconds)
                if attempt == limits.attempts or time.monotonic() + pause >= ends:
                    tries = "1 try" if attempt == 1 else f"{attempt} tries"
                    error.message = f"{error.message} ({tries})"
                    error.args = (error.message,)
                    raise
            self._sleep(pause)
        raise RegistryError("no attempt was allowed")

    def send(
        self,
        ends: float,
        method: str,
        url: str,
        *,
        use: str,
        ok: tuple[int, ...],
        headers: Mapping[str, str] | None = None,
        body: Body | None = None,
    ) -> Reply:
        """One request with authentication and redirects; the caller closes the reply.

        `url` is an address with or without its scheme (as oras gives them), or a path; `use`
        names what the request needs a token for. Raises Temporary, RegistryRefused for a status
        that is not in `ok`, or RegistryError.
        """
        reply = self._authenticated(
            ends, method, self._own(self._absolute(url)), use, dict(headers or {}), body
        )
        for _ in range(_REDIRECTS_MAX):
            if reply.status not in _REDIRECTS or reply.status in ok or method not in ("GET", "HEAD"):
                break
            with reply:
                target = self._redirect(reply)
            if urlsplit(target).netloc == self.host:
                reply = self._authenticated(ends, method, target, use, dict(headers or {}), None)
            else:
                reply = self._once(ends, method, target, dict(headers or {}), None)
        if reply.status in ok:
            return reply
        with reply:
            raise self._refusal(reply, method)

    def location(self, reply: Reply) -> str:
        """The Location of a reply, absolute; raises RegistryError when it is on another host."""
        return self._own(urljoin(reply.url, reply.headers.get("Location", "")))

    def _absolute(self, url: str) -> str:
        if url.startswith(self.host + "/"):
            return self.root.removesuffix(self.host) + url
        return urljoin(self.root, url)

    def _own(self, url: str) -> str:
        parts = urlsplit(url)
        if f"{parts.scheme}://{parts.netloc}" != self.root:
            raise foreign(self.host, url)
        return url

    def _redirect(self, reply: Reply) -> str:
        target = urljoin(reply.url, reply.headers.get("Location", ""))
        parts = urlsplit(target)
        secure = parts.scheme == "https" or (self.plain and parts.scheme == "http")
        if not secure or parts.netloc not in self._redirect_hosts | {self.host}:
            raise foreign(self.host, target)
        return target

    def _authenticated(
        self, ends: float, method: str, url: str, use: str, headers: dict[str, str], body: Body | None
    ) -> Reply:
        known = self._keyring.header(use)
        reply = self._once(ends, method, url, _with(headers, known), body)
        if reply.status != 401 or not self._keyring.asks:
            return reply
        with reply:
            self._keyring.forget(use)
            header = self._answer(ends, reply.headers.get("WWW-Authenticate"))
            if header is None:
                raise self._refusal(reply, method)
        again = self._once(ends, method, url, _with(headers, header), body)
        if again.status != 401:
            self._keyring.keep(use, header)
        return again

    def _answer(self, ends: float, challenge_header: str | None) -> str | None:
        challenge = parse_challenge(challenge_header)
        if challenge is None:
            return None
        if challenge.scheme == "basic":
            return self._keyring.basic()
        from urllib.parse import urlencode

        address = self._keyring.token_address(challenge)
        query = urlencode(challenge.parameters)
        url = address + ("&" if urlsplit(address).query else "?") + query
        with self._once(ends, "GET", url, _with({}, self._keyring.basic()), None) as reply:
            if reply.status in _NO_TOKEN and self._keyring.basic() is None:
                return None  # what was asked for first needs a login
            if reply.status != 200:
                raise self._refusal(reply, "GET")
            return "Bearer " + parse_token(reply.read(_TOKEN_BODY_MAX))

    def _once(self, ends: float, method: str, url: str, headers: dict[str, str], body: Body | None) -> Reply:
        """One exchange, nothing followed or repeated; raises Temporary."""
        import ssl
        from http.client import HTTPException

        where = f"{method} {redacted(url)}"
        left = ends - time.monotonic()
        if left <= 0:
            raise Temporary("the registry did not answer in time", where)
        self._local.ends = ends
        sent = {"Accept": "*/*", "Accept-Encoding": "identity", "User-Agent": _AGENT, **headers}
        if body is not None:
            body.ends = ends
            sent["Content-Length"] = str(body.size)
        connect, read = min(self.limits.connect_seconds, left), min(self.limits.read_seconds, left)
        try:
            response = self._session().send(method, url, sent, body, connect, read)
        except ssl.SSLError as error:
            raise RegistryError(
                "the registry's certificate is not trusted",
                context=f"{where}: {why(error)}",
                hint="give the CA certificate of the registry",
            ) from None
        except (HTTPException, OSError) as error:
            late = isinstance(error, TimeoutError)
            message = f"the registry {'did not answer in time' if late else 'cannot be reached'}"
            raise Temporary(message, f"{where}: {why(error)}") from None
        return Reply(response, where, url)

    def _session(self) -> Session:
        with self._lock:
            if self._made is None:
                from builder.oci.session import Session

                self._made = Session(self._local, self.limits.read_seconds, self._ca_bundle, self._addresses)
            return self._made

    def _refusal(self, reply: Reply, method: str) -> RegistryError:
        context = f"{reply.where}: {reply.status} {_error_text(reply) if method != 'HEAD' else ''}".rstrip()
        if reply.status in _TEMPORARY:
            after = reply.headers.get("Retry-After", "")
            seconds = float(after) if after.isascii() and after.isdigit() and len(after) < 10 else None
            return Temporary(f"the registry answered {reply.status}", context, seconds)
        hints = {
            401: "log in: at GOLDSMITH_REGISTRY by NAME:PASSWORD in the file credentials/HOST of the state "
            "directory, for `goldsmith import` by GOLDSMITH_UPSTREAM_USER, elsewhere by `docker login` "
            "(its file is read, its helpers are not)",
            403: "the account may not do this; ask the registry's operator",
            404: "look at the name and the tag or digest",
        }
        hint = hints.get(reply.status, "look at the registry's log")
        return RegistryRefused(reply.status, f"the registry answered {reply.status}", context, hint)


def _with(headers: dict[str, str], authorization: str | None) -> dict[str, str]:
    return {**headers, "Authorization": authorization} if authorization else headers


def _error_text(reply: Reply) -> str:
    """The registry's own words (distribution specification 1.1, "Error codes"), capped."""
    try:
        body = reply.read(_ERROR_BODY_MAX)
    except RegistryError:
        return ""
    try:
        first = json.loads(body)["errors"][0]
        return f"{first.get('code', '')}: {first.get('message', '')}"[:500]
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return body[:200].decode("utf-8", "replace")
