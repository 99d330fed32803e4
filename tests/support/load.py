"""A small load generator: many kept connections in one process, closed loop; and a timed download.

Run as a program (`python -m tests.support.load ADDRESS PATH CONNECTIONS SECONDS`), so that its
work is not the server's: prints requests per second, median and 99th percentile in milliseconds.
"""

from __future__ import annotations

import re
import select
import socket
import sys
import time

_LENGTH = re.compile(rb"(?i)content-length: (\d+)")


def measure(
    address: str, path: str, connections: int, seconds: float, accept: str
) -> tuple[float, float, float]:
    """Ask for `path` again and again; requests per second, median and 99th percentile (ms)."""
    request = f"GET {path} HTTP/1.1\r\nHost: {address}\r\nAccept: {accept}\r\n\r\n".encode()
    sockets = {s.fileno(): s for s in (_connected(address) for _ in range(connections))}
    poll = select.epoll()
    began, pending = {}, {}
    clock = time.perf_counter
    for number, one in sockets.items():
        poll.register(number, select.EPOLLIN)
        began[number], pending[number] = clock(), b""
        one.sendall(request)
    taken: list[float] = []
    start = clock()
    while clock() - start < seconds:
        for number, _ in poll.poll(1):
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
            began[number], pending[number] = now, b""
            sockets[number].sendall(request)
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
    print(*measure(sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4]), sys.argv[5]))
