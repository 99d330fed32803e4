"""Clients of the gate that are too many, too slow, too long or too clever, and its end in order."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path

import pytest

from builder.model.digest import Digest
from registry.gate.bounds import Bounds
from tests.support import registry_simulator as reg
from tests.support.gates import RunningGate, running_gate, wait_for
from tests.support.ports import free_address
from tests.support.scenes import REPO, Scene, published

ROOT = Path(__file__).parents[2]
TAG = f"/v2/{REPO}/manifests/3.13"
ASK = f"GET {TAG} HTTP/1.1\r\nHost: x\r\n"
LAST = ASK + "Connection: close\r\n\r\n"
BOUNDS = Bounds(concurrent=4, connections=60, pipelined=8, head_seconds=2, answer_seconds=2)


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with published(tmp_path_factory.mktemp("scene")) as scene:
        yield scene


@pytest.fixture(scope="module")
def running(scene: Scene) -> Iterator[RunningGate]:
    with running_gate(scene.sim.address, scene.world.trust, bounds=BOUNDS) as gate:
        yield gate


@pytest.fixture
def gate(running: RunningGate) -> Iterator[RunningGate]:
    """Whatever a test does to it, afterwards it serves as before."""
    yield running
    assert running.until(TAG, lambda r: r.status == 200)[0].status == 200


def connect(gate: RunningGate) -> socket.socket:
    host, _, port = gate.address.rpartition(":")
    return socket.create_connection((host, int(port)), timeout=20)


def received(sock: socket.socket) -> bytes:
    """All that comes until the other side closes."""
    out = b""
    with contextlib.suppress(ConnectionError):
        while chunk := sock.recv(65536):
            out += chunk
    return out


def said(gate: RunningGate, cause: str) -> bool:
    return any(cause in event["cause"] for event in gate.events("cut-off"))


# ------------------------------------------------------------------ too many


def test_too_many_connections_are_turned_away_and_the_others_served(gate: RunningGate) -> None:
    crowd = [connect(gate) for _ in range(3 * BOUNDS.connections)]
    try:
        away = [s for s in crowd[BOUNDS.connections :] if received(s).startswith(b"HTTP/1.1 503 ")]
        assert len(away) >= len(crowd) - BOUNDS.connections
        crowd[0].sendall(LAST.encode())
        assert received(crowd[0]).startswith(b"HTTP/1.1 200 ")
    finally:
        for one in crowd:
            one.close()
    assert said(gate, "too many connections")


def test_too_many_requests_at_a_time_are_told_to_come_again(gate: RunningGate, scene: Scene) -> None:
    stop = threading.Event()
    sim = scene.anew()
    sim.fault("HEAD", "manifests/slow", reg.silent(stop))
    path = f"/v2/{REPO}/manifests/slow"
    with ThreadPoolExecutor(3 * BOUNDS.concurrent) as pool:
        waiting = [pool.submit(gate.get, path) for _ in range(3 * BOUNDS.concurrent)]
        replies = [one.result() for one in waiting]
        stop.set()
    scene.anew()
    assert {r.status for r in replies} == {503}
    assert all(int(r.headers["retry-after"]) > 0 for r in replies)
    codes = [r.error["code"] for r in replies]
    assert codes.count("TOOMANYREQUESTS") >= len(replies) - 2 * BOUNDS.concurrent
    # Who was let in was answered when the time was over.
    assert 0 < codes.count("UNAVAILABLE") <= 2 * BOUNDS.concurrent


def test_pipelined_requests_are_answered_in_their_order(gate: RunningGate) -> None:
    paths = [TAG, "/v2/", f"/v2/{REPO}/manifests/.no", TAG]
    data = "".join(f"GET {p} HTTP/1.1\r\nHost: x\r\n\r\n" for p in paths[:-1]) + LAST
    raw = gate.raw(data.encode())
    statuses = [part.split(b" ", 1)[0] for part in raw.split(b"HTTP/1.1 ")[1:]]
    assert statuses == [b"200", b"200", b"404", b"200"]


def test_a_flood_of_pipelined_requests_is_cut_off(gate: RunningGate, scene: Scene) -> None:
    sock = connect(gate)
    with contextlib.suppress(ConnectionError):
        for _ in range(50):
            sock.sendall((ASK + "\r\n").encode() * 200)
    assert received(sock).count(b" 200 OK") < 10_000
    sock.close()
    wait_for(lambda: said(gate, "before the first was answered"), bool)


# ------------------------------------------------------------------ too slow, too long


@pytest.mark.parametrize(
    "start",
    [b"", b"GET", ASK.encode(), (ASK + "Content-Length: 9\r\n\r\n").encode(), b"\r\n"],
    ids=["silent", "line", "headers", "body", "empty lines"],
)
def test_a_request_that_does_not_end_is_cut_off(gate: RunningGate, start: bytes) -> None:
    """Slowloris: a byte now and then is not enough to keep a connection."""
    sock = connect(gate)
    sock.sendall(start)
    ends = threading.Event()

    def dribble() -> None:
        with contextlib.suppress(OSError):
            while not ends.wait(0.2):
                sock.sendall(b"\r" if start == b"\r\n" else b"X")

    thread = threading.Thread(target=dribble)
    if start.strip() and b"Content-Length" not in start:
        thread.start()
    began = time.monotonic()
    received(sock)
    ends.set()
    if thread.ident:
        thread.join()
    sock.close()
    assert time.monotonic() - began < 15
    assert said(gate, "did not end in time")


def test_a_body_without_end_is_cut_off(gate: RunningGate) -> None:
    """Chunked, on a GET: answered at once, and not read for ever."""
    sock = connect(gate)
    sent = 0
    with contextlib.suppress(ConnectionError):
        sock.sendall((ASK + "Transfer-Encoding: chunked\r\n\r\n").encode())
        while sent < 64 << 20:
            sock.sendall(b"4000\r\n" + b"x" * 0x4000 + b"\r\n")
            sent += 0x4000
    sock.close()
    assert sent < 64 << 20
    wait_for(lambda: said(gate, "body"), bool)


def test_a_body_on_a_get_is_passed_over(gate: RunningGate) -> None:
    body = "5\r\nhello\r\n0\r\n\r\n"
    raw = gate.raw((ASK + f"Transfer-Encoding: chunked\r\n\r\n{body}" + LAST).encode())
    assert raw.count(b"HTTP/1.1 200 OK") == 2


# ------------------------------------------------------------------ too clever


def test_old_and_absolute_forms_are_understood(gate: RunningGate) -> None:
    old = gate.raw(f"GET {TAG} HTTP/1.0\r\n\r\n".encode())
    assert b" 200 OK" in old[:20] and b'"manifests"' in old
    absolute = gate.raw(LAST.replace(TAG, f"http://elsewhere.example{TAG}").encode())
    assert b" 200 OK" in absolute[:20]
    # Where it says to go is of no account: nothing is passed on.
    assert b"elsewhere" not in absolute


@pytest.mark.parametrize(
    "request_",
    [
        "GET * HTTP/1.1\r\nHost: x\r\n\r\n",
        "CONNECT 127.0.0.1:22 HTTP/1.1\r\nHost: x\r\n\r\n",
        f"GET {TAG} HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        f"GET {TAG} HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        f"GET {TAG} HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        f"GET {TAG} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        f"GET {TAG} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n",
        f"GET {TAG} HTTP/1.1\r\nHost: x\r\nX: a\0b\r\n\r\n",
        f"GET {TAG} HTTP/1.1\r\nHost: x\r\nX Y: a\r\n\r\n",
        f"GET {TAG}\r\nX-Injected: yes HTTP/1.1\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
)
def test_what_could_be_read_in_two_ways_is_refused(gate: RunningGate, request_: str) -> None:
    sock = connect(gate)
    sock.sendall(request_.encode())
    sock.shutdown(socket.SHUT_WR)
    got = received(sock)
    sock.close()
    statuses = [part.split(b" ", 1)[0] for part in got.split(b"HTTP/1.1 ")[1:]]
    assert len(statuses) <= 2 and set(statuses) <= {b"400", b"404", b"405", b"200"}, got
    assert statuses[-1:] != [b"200"], got
    assert b"injected" not in got.lower()


@pytest.mark.parametrize(
    "path",
    [
        f"/v2/{REPO}%0d%0aX-Injected:%20yes/manifests/3.13",
        f"/v2/{REPO}/manifests/3.13%0d%0aX-Injected:%20yes",
        f"/v2/{REPO}/tags/list?n=1&last=3%0d%0aX-Injected:%20yes",
        f"/v2/{REPO}/referrers/sha256:{'0' * 64}?artifactType=a%0d%0aX-Injected:%20yes",
        "/v2/_catalog?last=%0d%0aX-Injected:%20yes",
    ],
)
def test_no_name_gets_into_the_headers(gate: RunningGate, path: str) -> None:
    raw = gate.raw(LAST.replace(TAG, path).encode())
    head, _, body = raw.partition(b"\r\n\r\n")
    assert int(head.split()[1]) in (400, 404)
    assert b"x-injected" not in head.lower()
    assert json.loads(body)["errors"][0]["code"]


def test_a_log_line_is_one_line_and_carries_the_request_s_id(gate: RunningGate) -> None:
    path = f"/v2/{REPO}/manifests/3.13%0aforged{'%1b' * 200}"
    raw = gate.raw(LAST.replace(TAG, path).encode())
    number = next(x for x in raw.split(b"\r\n") if x.startswith(b"x-request-id: ")).split()[1].decode()
    (event,) = [e for e in gate.events("request") if e["id"] == number]
    assert event["status"] == 404 and len(event["path"]) <= 400
    assert all(line.startswith('{"time": ') for line in "".join(gate.lines).splitlines())


# ------------------------------------------------------------------ its end


def test_sigterm_lets_answers_end_and_takes_no_new_ones(tmp_path: Path) -> None:
    now = dt.datetime.now(dt.UTC).replace(microsecond=0)
    with published(tmp_path / "scene", now, files=({"data": os.urandom(1 << 20)},)) as scene:
        go_on = threading.Event()
        blob = scene.world.image.platforms[0].layers[0].blob
        scene.sim.fault("GET", f"/blobs/{blob.digest}", reg.in_halves(go_on))
        address = free_address()
        arguments = ["--listen", address, "--storage", scene.sim.address, "--anonymous"]
        arguments += ["--prefix", "candidate/"]
        process = subprocess.Popen(
            [sys.executable, "-m", "builder", "serve", "--trust", tmp_path / "scene" / "keys", *arguments],
            cwd=tmp_path,
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "GOLDSMITH_STATE": str(tmp_path)},
            stderr=subprocess.PIPE,
        )
        try:
            wait_for(lambda: _ask(address, TAG) == 200, bool, 30)
            connection = HTTPConnection(address, timeout=30)
            connection.request("GET", f"/v2/{REPO}/blobs/{blob.digest}")
            reply: HTTPResponse = connection.getresponse()
            first = reply.read(1)
            process.send_signal(signal.SIGTERM)
            wait_for(lambda: _ask(address, TAG) is None, bool, 30)
            assert process.poll() is None
            go_on.set()
            assert Digest.of(first + reply.read()) == blob.digest
            connection.close()
            assert process.wait(30) == 0
            assert process.stderr is not None
            lines = [json.loads(x) for x in process.stderr.read().splitlines()]
            assert lines[-1]["event"] == "stopped"
        finally:
            go_on.set()
            process.kill()
            process.wait()
            if process.stderr:
                process.stderr.close()


def _ask(address: str, path: str) -> int | None:
    """The status of an answer; None when nobody listens."""
    connection = HTTPConnection(address, timeout=20)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    except OSError:
        return None
    finally:
        connection.close()
