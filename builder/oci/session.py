"""The HTTP connections to a registry, with a deadline for a whole reply, however slowly it drips.

It is the standard library's client alone: around a request of a few hundred bytes, `urllib3` took
six times the processor time of everything else.

A socket's timeout holds for one receive only: a peer that sends a byte now and then is never
late. Here each receive gets what is left until the deadline.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import select
import socket
import ssl
import threading
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote, urlsplit

if TYPE_CHECKING:
    from email.message import Message

    from builder.oci.addresses import Addresses

_IDLE_MAX = 16  # connections to one host that are kept
_PLAIN = "!#$%&'()*+,-./:;=?@[]_~"  # what stays as it is in an address


class DeadlineReader(io.RawIOBase):
    """The receiving side of a socket; raises TimeoutError after `ends` (monotonic seconds)."""

    def __init__(self, raw: io.RawIOBase, sock: Any, ends: float, pause: float) -> None:
        self._raw = raw
        self._sock = sock
        self._ends = ends
        self._pause = pause

    def readable(self) -> bool:
        """Yes."""
        return True

    def readinto(self, buffer: Any) -> int | None:
        """As for any raw stream, but never beyond the deadline."""
        left = self._ends - time.monotonic()
        if left <= 0:
            raise TimeoutError("the reply took too long")
        self._sock.settimeout(min(left, self._pause))
        return self._raw.readinto(buffer)

    def close(self) -> None:
        """Let go of the socket."""
        if not self.closed:
            self._raw.close()
        super().close()


def deadline_response(local: threading.local, pause: float) -> type[http.client.HTTPResponse]:
    """A response class whose reads end at `local.ends`, and pause at most `pause` seconds each."""

    class Response(http.client.HTTPResponse):
        def __init__(self, sock: Any, *args: Any, **kwargs: Any) -> None:
            super().__init__(sock, *args, **kwargs)
            raw = self.fp.detach()
            self.fp = io.BufferedReader(DeadlineReader(raw, sock, local.ends, pause), 1 << 16)

    return Response


class Headers:
    """The header lines of a reply, by names in any case; those of one name are joined."""

    def __init__(self, lines: Message) -> None:
        self._lines = lines

    def get(self, name: str, default: str = "") -> str:
        """What a header says; `default` when it is not there."""
        found = self._lines.get_all(name)
        return ", ".join(map(str, found)) if found else default


class Exchange:
    """A reply whose body is to be read; `close` when done, so that its connection serves again."""

    def __init__(
        self, session: Session, place: tuple[str, str], connection: http.client.HTTPConnection
    ) -> None:
        self._session = session
        self._place = place
        self._connection = connection
        self._response = connection.getresponse()
        self.status = self._response.status
        self.headers = Headers(self._response.headers)

    def read(self, size: int) -> bytes:
        """At most `size` bytes, none at the end; raises OSError or HTTPException when it is cut."""
        data = self._response.read(size)
        if not data and self._response.length:
            raise http.client.IncompleteRead(b"", self._response.length)
        return data

    def close(self) -> None:
        """Let go of the connection; it is dropped when the body was not read to its end."""
        if self._response.isclosed() and self._connection.sock is not None:
            self._session.keep(self._place, self._connection)
        else:
            self._connection.close()
        self._response.close()


class Session:
    """Kept connections to few hosts, held to our limits; safe in threads.

    `local.ends` is the deadline of the calling thread's request. With `addresses`, only those that
    it gives for a name are connected to; it raises RegistryError for others. Nothing is taken from
    the environment, nothing is followed or repeated, cookies are unknown.
    """

    def __init__(
        self,
        local: threading.local,
        read_seconds: float,
        ca_bundle: Path | None,
        addresses: Addresses | None = None,
    ) -> None:
        self._reply_class = deadline_response(local, read_seconds)
        self._ca_bundle = ca_bundle
        self._addresses = addresses
        self._idle: dict[tuple[str, str], list[http.client.HTTPConnection]] = {}
        self._tls: ssl.SSLContext | None = None
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            for kept in self._idle.values():
                while kept:
                    kept.pop().close()

    def send(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: Iterable[bytes] | None,
        connect_seconds: float,
        read_seconds: float,
    ) -> Exchange:
        """One request; raises OSError, HTTPException, or RegistryError for a forbidden address."""
        parts = urlsplit(url)
        place = (parts.scheme, parts.netloc)
        target = (parts.path or "/") + ("?" + parts.query if parts.query else "")
        connection = self._kept(place) or self._connected(place, connect_seconds)
        try:
            connection.sock.settimeout(read_seconds)
            # Who refuses an upload may hang up before all of it was sent; the answer says why.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                connection.request(method, quote(target, safe=_PLAIN), body, dict(headers))
            return Exchange(self, place, connection)
        except BaseException:
            connection.close()
            raise

    def keep(self, place: tuple[str, str], connection: http.client.HTTPConnection) -> None:
        """Take back a connection whose reply was read to its end."""
        with self._lock:
            kept = self._idle.setdefault(place, [])
            if len(kept) < _IDLE_MAX:
                kept.append(connection)
                return
        connection.close()

    def _kept(self, place: tuple[str, str]) -> http.client.HTTPConnection | None:
        """A connection that is still good: nothing came on it, not even its end."""
        while True:
            with self._lock:
                kept = self._idle.get(place)
                connection = kept.pop() if kept else None
            if connection is None:
                return None
            poll = select.poll()
            poll.register(connection.sock, select.POLLIN)
            if not poll.poll(0):
                return connection
            connection.close()

    def _connected(self, place: tuple[str, str], connect_seconds: float) -> http.client.HTTPConnection:
        parts = urlsplit(f"//{place[1]}")
        host = parts.hostname or ""
        connection: Any
        if place[0] == "https":
            context = self._secure()
            connection = http.client.HTTPSConnection(
                host, parts.port, timeout=connect_seconds, context=context
            )
        else:
            connection = http.client.HTTPConnection(host, parts.port, timeout=connect_seconds)
        connection.response_class = self._reply_class
        if self._addresses is not None:
            connection._create_connection = self._dial
        try:
            connection.connect()
        except BaseException:
            connection.close()
            raise
        return connection  # type: ignore[no-any-return]

    def _dial(self, address: tuple[str, int], timeout: float, source: Any = None) -> socket.socket:
        """A socket to one of the addresses that were checked; certificates are compared with the name."""
        if self._addresses is None:
            return socket.create_connection(address, timeout, source)
        failed: OSError | None = None
        for found in self._addresses.of(*address):
            try:
                return socket.create_connection((found, address[1]), timeout, source)
            except OSError as error:
                failed = error
        raise failed or socket.gaierror("it has no address")

    def _secure(self) -> ssl.SSLContext:
        with self._lock:
            if self._tls is None:
                import certifi

                bundle = str(self._ca_bundle) if self._ca_bundle else certifi.where()
                self._tls = ssl.create_default_context(cafile=bundle)
                self._tls.minimum_version = ssl.TLSVersion.TLSv1_2
                self._tls.set_alpn_protocols(["http/1.1"])
            return self._tls
