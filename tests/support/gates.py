"""A running gate for tests, and a client that sends exactly what it is told."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Any

from builder.signing.trust import Trust
from registry.access.source import Open
from registry.gate.server import Configuration, Service
from tests.support.images import NOW
from tests.support.ports import free_address

SECONDS = 20


@dataclass
class Reply:
    """An answer, with its headers in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def error(self) -> dict[str, Any]:
        """The first error of an error answer."""
        found = json.loads(self.body)["errors"][0]
        assert isinstance(found, dict)
        return found


@dataclass
class RunningGate:
    """A gate in a thread; `time` is what its clock says, in seconds since the epoch."""

    address: str
    service: Service
    time: list[float]
    lines: list[str] = field(default_factory=list)

    def ask(self, method: str, path: str, **headers: str) -> Reply:
        """One request on a connection of its own; `_` in a header's name stands for `-`."""
        connection = HTTPConnection(self.address, timeout=SECONDS)
        try:
            connection.putrequest(method, path, skip_accept_encoding=True)
            for name, value in headers.items():
                connection.putheader(name.replace("_", "-"), value)
            connection.endheaders()
            reply: HTTPResponse = connection.getresponse()
            names = {k.lower(): v for k, v in reply.getheaders()}
            return Reply(reply.status, names, reply.read())
        finally:
            connection.close()

    def get(self, path: str, **headers: str) -> Reply:
        """GET."""
        return self.ask("GET", path, **headers)

    def until(self, path: str, good: Callable[[Reply], bool], seconds: float = 10) -> tuple[Reply, float]:
        """Ask again until the answer is good; returns it, and how many seconds that took."""
        return wait_for(lambda: self.get(path), good, seconds)

    def raw(self, data: bytes) -> bytes:
        """Send bytes as they are; what comes back until the end, or until nothing more comes."""
        host, _, port = self.address.rpartition(":")
        with socket.create_connection((host, int(port)), timeout=SECONDS) as sock:
            sock.sendall(data)
            out = b""
            while chunk := sock.recv(65536):
                out += chunk
            return out

    def events(self, kind: str) -> list[dict[str, Any]]:
        """The events of a kind so far."""
        self.service.journal.flush()
        return [e for e in map(json.loads, "".join(self.lines).splitlines()) if e["event"] == kind]


def wait_for(ask: Callable[[], Any], good: Callable[[Any], bool], seconds: float = 10) -> tuple[Any, float]:
    """Ask until it is good; fails after `seconds`."""
    import time

    began = time.monotonic()
    pause = threading.Event()
    while True:
        found = ask()
        took = time.monotonic() - began
        if good(found):
            return found, took
        assert took < seconds, f"not within {seconds} s: {found}"
        pause.wait(0.02)


@contextmanager
def running_gate(
    storage: str, trust: Trust, *, now: float | None = None, proofs: Path | None = None, **options: Any
) -> Iterator[RunningGate]:
    """A gate on a free loopback port before `storage`, ready."""
    port = int(free_address().rpartition(":")[2])
    time = [NOW.timestamp() if now is None else now]
    lines: list[str] = []
    options.setdefault("access", Open())
    config = Configuration(
        "127.0.0.1", port, storage, trust, f"http://127.0.0.1:{port}", proofs=proofs, **options
    )
    service = Service(config, lambda: time[0], lines.append)
    thread = threading.Thread(target=service.run, name="gate")
    thread.start()
    gate = RunningGate(f"127.0.0.1:{port}", service, time, lines)
    try:
        wait_for(lambda: _ready(gate), bool, SECONDS)
        yield gate
    finally:
        service.stop()
        thread.join(SECONDS)
        assert not thread.is_alive()


def _ready(gate: RunningGate) -> bool:
    try:
        return gate.get("/readyz").status == 200
    except OSError:
        return False
