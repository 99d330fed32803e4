"""The HTTP connections to a registry, with a deadline for a whole reply, however slowly it drips.

A socket's timeout holds for one receive only: a peer that sends a byte now and then is never
late. Here each receive gets what is left until the deadline.
"""

from __future__ import annotations

import http.client
import io
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from urllib3 import PoolManager


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


def bounded_session(local: threading.local, read_seconds: float, ca_bundle: Path | None) -> PoolManager:
    """Kept connections to few hosts, held to our limits; safe in threads.

    `local.ends` is the deadline of the calling thread's request. Nothing is taken from the
    environment, nothing is followed or repeated, cookies are unknown. It is urllib3 alone, without
    `requests` around it: that costs as much time for a small request as everything else together.
    """
    import certifi
    from urllib3 import HTTPConnectionPool, HTTPSConnectionPool, PoolManager
    from urllib3.connection import HTTPConnection, HTTPSConnection

    reply_class = deadline_response(local, read_seconds)

    class Plain(HTTPConnection):
        response_class = reply_class

    class Secure(HTTPSConnection):
        response_class = reply_class

    class PlainPool(HTTPConnectionPool):
        ConnectionCls = Plain

    class SecurePool(HTTPSConnectionPool):
        ConnectionCls = Secure

    bundle = str(ca_bundle) if ca_bundle else certifi.where()
    pools = PoolManager(num_pools=4, maxsize=16, cert_reqs="CERT_REQUIRED", ca_certs=bundle)
    pools.pool_classes_by_scheme = {"http": PlainPool, "https": SecurePool}
    return pools
