"""What the gate tells: one JSON line for each event, and counters for Prometheus.

Lines are collected and written by `flush`, so that a request does not wait for the disk.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_TEXT_MAX = 400  # characters of a hostile text in a line
_PLAIN = re.compile(r"[A-Za-z0-9/:._@-]{0,400}")  # what JSON need not escape
_IDENTITIES_MAX = 1000  # that have a counter of their own
_LINES_MAX = 20_000  # kept between two flushes; what is more is counted and dropped


class Journal:
    """Structured events; `write` takes finished lines, `stamp` gives the time as text."""

    def __init__(
        self, write: Callable[[str], None], stamp: Callable[[], str], *, requests: bool = True
    ) -> None:
        self._write, self._stamp, self.requests = write, stamp, requests
        self._lines: list[str] = []
        self._dropped = 0

    def event(self, event: str, **fields: Any) -> None:
        """Note an event; texts are cut, and never interpreted by a terminal (JSON escapes)."""
        if len(self._lines) >= _LINES_MAX:
            self._dropped += 1
            return
        short = {k: v[:_TEXT_MAX] if isinstance(v, str) else v for k, v in fields.items() if v is not None}
        self._lines.append(json.dumps({"time": self._stamp(), "event": event, **short}))

    def request(
        self,
        number: str,
        method: str,
        path: str,
        status: int,
        sent: int,
        seconds: float,
        client: str,
        who: str = "",
    ) -> None:
        """Note a request: the same as an event, in the time that there is for it."""
        if _PLAIN.fullmatch(path) is None or not method.isalpha() or len(self._lines) >= _LINES_MAX:
            ms = round(seconds * 1000, 2)
            self.event(
                "request",
                id=number,
                method=method,
                path=path,
                status=status,
                bytes=sent,
                ms=ms,
                client=client,
                who=who,
            )
            return
        self._lines.append(
            f'{{"time": "{self._stamp()}", "event": "request", "id": "{number}", "method": "{method}", '
            f'"path": "{path}", "status": {status}, "bytes": {sent}, "ms": {seconds * 1000:.2f}, '
            f'"client": "{client}", "who": "{who}"}}'
        )

    def flush(self) -> None:
        """Write what was noted; what cannot be written is counted, and told when it can."""
        if self._dropped:
            dropped, self._dropped = self._dropped, 0
            self._lines.append(
                json.dumps({"time": self._stamp(), "event": "lines-dropped", "count": dropped})
            )
        lines, self._lines = self._lines, []
        if lines:
            try:
                self._write("\n".join(lines) + "\n")
            except OSError:  # a full disk behind the log does not stop the gate
                self._dropped += len(lines)


class Metrics:
    """The counters of one gate, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "goldsmith_gate_requests",
            "Requests by route and status",
            ("route", "status"),
            registry=self.registry,
        )
        self.seconds = Histogram(
            "goldsmith_gate_request_seconds",
            "Time to the end of the answer",
            ("route",),
            buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 2, 10, 60),
            registry=self.registry,
        )
        self.denials = Counter(
            "goldsmith_gate_denials", "Refusals by reason", ("reason",), registry=self.registry
        )
        self.blob_bytes = Counter(
            "goldsmith_gate_blob_bytes", "Bytes of blobs handed out", registry=self.registry
        )
        self.wrong_bytes = Counter(
            "goldsmith_gate_wrong_bytes", "Blobs of the storage with another digest", registry=self.registry
        )
        self.in_flight = Gauge("goldsmith_gate_in_flight", "Requests being answered", registry=self.registry)
        self.images = Gauge(
            "goldsmith_gate_images", "Images by decision", ("decision",), registry=self.registry
        )
        self.storage_up = Gauge(
            "goldsmith_gate_storage_up",
            "Whether the last look at the storage succeeded",
            registry=self.registry,
        )
        self.look_seconds = Gauge(
            "goldsmith_gate_look_seconds", "Duration of the last look at the storage", registry=self.registry
        )
        self.unauthenticated = Counter(
            "goldsmith_gate_unauthenticated",
            "Requests without an identity, by cause",
            ("cause",),
            registry=self.registry,
        )
        self.identities = Counter(
            "goldsmith_gate_identity_requests",
            "Requests by identity",
            ("identity",),
            registry=self.registry,
        )
        self._identities: dict[str, Any] = {}
        self._children: dict[tuple[str, int], tuple[Any, Any]] = {}

    def answered(self, route: str, status: int, seconds: float) -> None:
        """Count one answer."""
        child = self._children.get((route, status))
        if child is None:
            child = (self.requests.labels(route, str(status)), self.seconds.labels(route))
            self._children[route, status] = child
        child[0].inc()
        child[1].observe(seconds)

    def asked(self, who: str) -> None:
        """Count one request of an identity; of more than _IDENTITIES_MAX, the others together."""
        child = self._identities.get(who)
        if child is None:
            name = who if len(self._identities) < _IDENTITIES_MAX else "others"
            child = self.identities.labels(name)
            if name == who:
                self._identities[who] = child
        child.inc()

    def exposition(self) -> bytes:
        """All values in Prometheus' text format 0.0.4."""
        return bytes(generate_latest(self.registry))
