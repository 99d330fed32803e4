"""A small load generator: many kept connections in one process; and a timed download.

Run as a program (`python -m tests.support.load ADDRESS PATH CONNECTIONS SECONDS ACCEPT RATE`), so that its
work is not the server's: prints requests per second, median and 99th percentile in milliseconds.
"""

from __future__ import annotations

import heapq
import re
import select
import socket
import sys
import time

_LENGTH = re.compile(rb"(?i)content-length: (\d+)")


def measure(
    address: str, path: str, connections: int, seconds: float, accept: str, rate: float = 0
) -> tuple[float, float, float]:
    """Ask for `path` again and again; requests per second, median and 99th percentile (ms).

    Without a `rate`, each connection asks again as soon as it has its answer: that is how much the
    server can do, and its latency is the length of the queue. With one, all of them together ask
    that often per second, at times that do not depend on the answers: that is what clients wait.
    """
    request = f"GET {path} HTTP/1.1\r\nHost: {address}\r\nAccept: {accept}\r\n\r\n".encode()
    sockets = {s.fileno(): s for s in (_connected(address) for _ in range(connections))}
    poll = select.epoll()
    pending = dict.fromkeys(sockets, b"")
    pause = connections / rate if rate else 0.0
    clock = time.perf_counter
    start = clock()
    due = [(start + pause * place / connections, number) for place, number in enumerate(sockets)]
    began: dict[int, float] = {}
    taken: list[float] = []
    for number in sockets:
        poll.register(number, select.EPOLLIN)
    while (now := clock()) - start < seconds:
        while due and due[0][0] <= now:
            planned, number = heapq.heappop(due)
            began[number] = planned if rate else clock()
            sockets[number].sendall(request)
        for number, _ in poll.poll(max(0.0, min(1.0, due[0][0] - now)) if due else 1):
            data = pending[number] + sockets[number].recv(1 << 16)
            head, found, body = data.partition(b"\r\n\r\n")
            length = _LENGTH.search(head) if found else None
            if length is None or len(body) < int(length[1]):
                pending[number] = data
                continue
            if b" 200 " not in head[:20]:
                raise SystemExit(head.decode("latin-1"))
            now = clock()
            taken.append(now - began[number])
            pending[number] = b""
            heapq.heappush(due, (began[number] + pause if rate else now, number))
    passed = clock() - start
    for one in sockets.values():
        one.close()
    taken.sort()
    return len(taken) / passed, taken[len(taken) // 2] * 1000, taken[len(taken) * 99 // 100] * 1000


def download(address: str, path: str) -> float:
    """Fetch a body and throw it away; bytes per second."""
    with _connected(address) as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        began = time.perf_counter()
        one.sendall(f"GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n".encode())
        room, size = bytearray(1 << 20), 0
        while count := one.recv_into(room):
            if not size and b" 200 " not in room[:20]:
                raise SystemExit(bytes(room[:200]).decode("latin-1"))
            size += count
        return size / (time.perf_counter() - began)


def _connected(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    one = socket.create_connection((host, int(port)), timeout=60)
    one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return one


if __name__ == "__main__":
    print(
        *measure(
            sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4]), sys.argv[5], float(sys.argv[6])
        )
    )
