"""A real nginx with our configuration of it, in a folder of its own, before a gate."""

from __future__ import annotations

import re
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.oracles import unpacked
from tests.support.ports import free_address
from tests.support.private_clients import wait_until
from tests.support.tls import self_signed

CONFIG = Path(__file__).parents[2] / "registry" / "deploy" / "nginx" / "goldsmith.conf"
ACCEL = "/goldsmith-blobs"
_STOP_SECONDS = 20
_MAIN = """daemon off;
user root;
worker_processes 2;
pid {folder}/pid;
error_log {folder}/error.log info;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    {temporary}
    include {folder}/goldsmith.conf;
}}
"""


@dataclass(frozen=True)
class Nginx:
    """Where it listens: `secure` with TLS by `certificate`, `plain` to be sent there."""

    secure: str
    plain: str
    certificate: Path


@contextmanager
def nginx(folder: Path, gate: str, blobs: Path, *, tls: bool = True) -> Iterator[Nginx]:
    """Run it before the gate at `gate`, with the storage's blobs in `blobs`; without `tls` for measuring."""
    program = unpacked("nginx", "bookworm") / "usr" / "sbin" / "nginx"
    folder.mkdir(parents=True, exist_ok=True)
    secure, plain = free_address(), free_address()
    certificate, key = self_signed(folder)
    text = CONFIG.read_text()
    text = _replaced(text, r"server 127\.0\.0\.1:5700;", f"server {gate};")
    text = _replaced(text, r"alias [^;]+;", f"alias {blobs}/;")
    text = _replaced(text, r"ssl_certificate +[^;]+;", f"ssl_certificate {certificate};")
    text = _replaced(text, r"ssl_certificate_key +[^;]+;", f"ssl_certificate_key {key};")
    text = _replaced(text, r"listen 80;", f"listen {plain};")
    text = _replaced(text, r"listen 443 ssl http2;", f"listen {secure}{' ssl http2' if tls else ''};")
    text = _replaced(text, r"listen \[::\]:[^;]+;", "")
    (folder / "goldsmith.conf").write_text(text)
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    temporary = " ".join(f"{kind}_temp_path {folder}/{kind};" for kind in kinds)
    (folder / "nginx.conf").write_text(_MAIN.format(folder=folder, temporary=temporary))
    with open(folder / "output", "wb") as output:
        child = subprocess.Popen(
            [program, "-p", folder, "-e", folder / "error.log", "-c", folder / "nginx.conf"],
            stdout=output,
            stderr=output,
        )
        try:
            wait_until(lambda: child.poll() is not None or _listens(secure))
            assert child.poll() is None, (folder / "error.log").read_text() + (folder / "output").read_text()
            yield Nginx(secure, plain, certificate)
        finally:
            child.terminate()
            child.wait(_STOP_SECONDS)


def _replaced(text: str, pattern: str, by: str) -> str:
    out, count = re.subn(pattern, by, text)
    assert count, f"the configuration has no {pattern}"
    return out


def _listens(address: str) -> bool:
    host, _, port = address.rpartition(":")
    with socket.socket() as probe:
        return probe.connect_ex((host, int(port))) == 0
