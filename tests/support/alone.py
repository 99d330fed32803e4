"""Run a command with nothing in reach but a registry on loopback: started in a network of its own.

`unshare --net python -m tests.support.alone CONFIG HOST:PORT -- COMMAND…` starts the registry with
the configuration there, waits until it answers, and ends it after the command.
"""

from __future__ import annotations

import contextlib
import fcntl
import socket
import struct
import subprocess
import sys
import time

from tests.support.requires import tool

_SECONDS_MAX = 60
_SIOCSIFFLAGS, _UP = 0x8914, 0x1


def prefix(config: str, address: str) -> tuple[str, ...]:
    """What to put before a command; needs root or user namespaces."""
    unshare = str(tool("unshare"))
    program = (sys.executable, "-m", "tests.support.alone", config, address, "--")
    return (unshare, "--user", "--map-root-user", "--net", *program)


def main() -> int:
    """Carry out the above."""
    config, address, _, *command = sys.argv[1:]
    host, _, port = address.rpartition(":")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        fcntl.ioctl(probe, _SIOCSIFFLAGS, struct.pack("16sh14s", b"lo", _UP, b""))
    with contextlib.suppress(OSError), socket.create_connection((host, int(port)), 1):
        raise AssertionError("a registry answers before ours was started: this is no network of our own")
    registry = subprocess.Popen(
        [tool("docker-registry"), "serve", config],
        env={"PATH": "/usr/bin:/bin", "OTEL_TRACES_EXPORTER": "none"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        ends = time.monotonic() + _SECONDS_MAX
        while registry.poll() is None and time.monotonic() < ends:
            with contextlib.suppress(OSError), socket.create_connection((host, int(port)), 1):
                return subprocess.run(command, check=False).returncode
            registry.poll()
        return 99
    finally:
        registry.terminate()
        registry.wait()


if __name__ == "__main__":
    sys.exit(main())
