"""uvicorn's HTTP protocol with bounds: on connections, on a request's head, on what comes after it.

Who is beyond one of them is told so where HTTP has a status for it, and is cut off in any case;
the journal has a line for each.
"""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from registry.gate.bounds import Bounds
from registry.gate.denials import error_body
from registry.gate.journal import Journal

HEAD_MAX = 32 << 10  # bytes of request line and headers
BODY_MAX = 1 << 20  # bytes of a body, which nobody here wants
_STATUS = {
    400: "Bad Request",
    408: "Request Timeout",
    413: "Content Too Large",
    429: "Too Many Requests",
    431: "Request Header Fields Too Large",
    503: "Service Unavailable",
}


class BoundedProtocol(HttpToolsProtocol):
    """One connection; `bounded` makes the class for one gate."""

    bounds: ClassVar[Bounds] = Bounds()
    connections_max: ClassVar[int] = 1000
    journal: ClassVar[Journal]

    _timer: asyncio.TimerHandle | None = None
    _in_head = True
    _head_bytes = _body_bytes = 0
    _ended = False

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        if len(self.connections) > self.connections_max:
            self._end(503, "TOOMANYREQUESTS", "too many connections at a time", (b"retry-after: 5\r\n",))
            return
        self._arm()

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._ended:
            return
        if self._in_head:
            end = data.find(b"\r\n\r\n")
            self._head_bytes += len(data) if end < 0 else end + 4
            if self._head_bytes > HEAD_MAX:
                self._end(431, "UNSUPPORTED", "the head of the request is too large")
                return
        super().data_received(data)

    def send_400_response(self, msg: str) -> None:
        self._end(400, "UNSUPPORTED", "this is no HTTP request")

    def on_message_begin(self) -> None:
        if self._ended:
            return
        if self._timer is None:
            self._arm()
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        if not self._ended:
            super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._ended:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        if self._ended:
            return
        if self.parser.get_http_version() not in ("1.0", "1.1"):
            self._end(400, "UNSUPPORTED", "this is no HTTP 1 request")
            return
        if len(self.pipeline) >= self.bounds.pipelined:
            self._end(429, "TOOMANYREQUESTS", "too many requests before the first was answered")
            return
        # The timer goes on: the body, if there is one, has to end in time too.
        self._in_head, self._head_bytes, self._body_bytes = False, 0, 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        if self._body_bytes > BODY_MAX:
            self._end(413, "SIZE_INVALID", "nothing with a body is wanted here")
        if not self._ended:
            super().on_body(body)

    def on_message_complete(self) -> None:
        if self._ended:
            return
        self._disarm()
        self._in_head = True
        super().on_message_complete()

    def _arm(self) -> None:
        self._timer = self.loop.call_later(self.bounds.head_seconds, self._late)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _late(self) -> None:
        self._end(408, "UNSUPPORTED", "the request did not end in time")

    def _end(self, status: int, code: str, message: str, more: tuple[bytes, ...] = ()) -> None:
        """Say why, unless an answer is on its way, and close."""
        if self._ended:
            return
        self._ended = True
        self._disarm()
        client = self.client[0] if self.client else None
        self.journal.event("cut-off", status=status, cause=message, client=client)
        if self.cycle is None or self.cycle.response_complete:
            body = error_body(code, message)
            head = (
                f"HTTP/1.1 {status} {_STATUS[status]}\r\ncontent-type: application/json\r\n"
                f"connection: close\r\ncontent-length: {len(body)}\r\n"
            )
            self.transport.write(head.encode() + b"".join(more) + b"\r\n" + body)
        self.transport.close()


def bounded(bounds: Bounds, connections: int, journal: Journal) -> type[BoundedProtocol]:
    """The protocol of one gate."""
    fields = {"bounds": bounds, "connections_max": connections, "journal": journal}
    return type("GateProtocol", (BoundedProtocol,), fields)
