"""Addresses on loopback that nobody listens at."""

from __future__ import annotations

import socket


def free_address() -> str:
    """HOST:PORT, as the kernel gives it out."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"
