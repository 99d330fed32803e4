"""The HTTP connections to a registry, with a deadline for a whole reply, however slowly it drips.

A socket's timeout holds for one receive only: a peer that sends a byte now and then is never
late. Here each receive gets what is left until the deadline.
"""

from __future__ import annotations

import http.client
import io
import socket
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from urllib3 import PoolManager

    from builder.oci.addresses import Addresses


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


def bounded_session(
    local: threading.local,
    read_seconds: float,
    ca_bundle: Path | None,
    addresses: Addresses | None = None,
) -> PoolManager:
    """Kept connections to few hosts, held to our limits; safe in threads.

    `local.ends` is the deadline of the calling thread's request. With `addresses`, only those that
    it gives for a name are connected to; it raises RegistryError for others. Nothing is taken from
    the environment, nothing is followed or repeated, cookies are unknown. It is urllib3 alone,
    without `requests` around it: that costs as much time for a small request as everything else
    together.
    """
    import certifi
    from urllib3 import HTTPConnectionPool, HTTPSConnectionPool, PoolManager
    from urllib3.connection import HTTPConnection, HTTPSConnection

    reply_class = deadline_response(local, read_seconds)

    class Plain(HTTPConnection):
        response_class = reply_class

        def _new_conn(self) -> socket.socket:
            return _connected(self, super()._new_conn, addresses)

    class Secure(HTTPSConnection):
        response_class = reply_class

        def _new_conn(self) -> socket.socket:
            return _connected(self, super()._new_conn, addresses)

    class PlainPool(HTTPConnectionPool):
        ConnectionCls = Plain

    class SecurePool(HTTPSConnectionPool):
        ConnectionCls = Secure

    bundle = str(ca_bundle) if ca_bundle else certifi.where()
    pools = PoolManager(num_pools=4, maxsize=16, cert_reqs="CERT_REQUIRED", ca_certs=bundle)
    pools.pool_classes_by_scheme = {"http": PlainPool, "https": SecurePool}
    return pools


def _connected(
    connection: Any, connect: Callable[[], socket.socket], addresses: Addresses | None
) -> socket.socket:
    """A socket to one of the addresses that were checked; certificates are compared with the name."""
    from urllib3.exceptions import HTTPError, NameResolutionError

    if addresses is None:
        return connect()
    name = connection._dns_host
    try:
        found = addresses.of(name, connection.port)
    except socket.gaierror as error:
        raise NameResolutionError(name, connection, error) from error
    failed: HTTPError | None = None
    for address in found:
        connection._dns_host = address
        try:
            return connect()
        except HTTPError as error:
            failed = error
        finally:
            connection._dns_host = name
    raise failed or NameResolutionError(name, connection, socket.gaierror("it has no address"))
