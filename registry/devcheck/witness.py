"""A registry of our own that stands for "elsewhere": it notes who comes, and has an image to give."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from builder.model.digest import Digest, canonical_json
from builder.model.image import CONFIG_TYPE, MANIFEST_TYPE

REPOSITORY, TAG = "goldsmith/witness", "1"
LOOPBACK = "127.0.0.1"
_NOWHERE = ("192.0.2.1", 9)  # RFC 5737: an address for documentation; nothing is sent to it
_SECONDS = 10  # a silent connection is closed


@dataclass(slots=True)
class Witness:
    """Where it listens; `connections` were made to it, and `blobs` given away."""

    address: str = ""
    connections: int = 0
    blobs: int = 0

    @property
    def reference(self) -> str:
        """The image that it has."""
        return f"{self.address}/{REPOSITORY}:{TAG}"


@contextmanager
def witness(host: str) -> Iterator[Witness]:
    """Listen on a free port of `host` until the end of the block. Raises OSError."""
    seen = Witness()
    config = canonical_json(
        {"architecture": "amd64", "os": "linux", "config": {}, "rootfs": {"type": "layers", "diff_ids": []}}
    )
    descriptor = {"mediaType": CONFIG_TYPE, "digest": str(Digest.of(config)), "size": len(config)}
    manifest = canonical_json(
        {"schemaVersion": 2, "mediaType": MANIFEST_TYPE, "config": descriptor, "layers": []}
    )
    root = f"/v2/{REPOSITORY}"
    content = {
        "/v2/": (b"{}", "application/json"),
        f"{root}/manifests/{TAG}": (manifest, MANIFEST_TYPE),
        f"{root}/manifests/{Digest.of(manifest)}": (manifest, MANIFEST_TYPE),
        f"{root}/blobs/{Digest.of(config)}": (config, "application/octet-stream"),
    }

    class Handler(BaseHTTPRequestHandler):
        timeout = _SECONDS

        def do_GET(self) -> None:
            """Give what there is."""
            path = self.path.partition("?")[0]
            data, kind = content.get(path, (b'{"errors":[]}', "application/json"))
            seen.blobs += "/blobs/" in path
            self.send_response(200 if path in content else 404)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(data)))
            self.send_header("Docker-Content-Digest", str(Digest.of(data)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(data)

        do_HEAD = do_GET

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def verify_request(self, request: Any, client_address: Any) -> bool:
            """Every connection counts, also one that speaks TLS to us."""
            seen.connections += 1
            return True

        def handle_error(self, request: Any, client_address: Any) -> None:
            """A client that goes away is none of our troubles."""

    with Server((host, 0), Handler) as server:
        seen.address = f"{host}:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield seen
        finally:
            server.shutdown()
            thread.join()


def outward() -> str:
    """This machine's address towards others, or loopback when it has none.

    Programs never ask a proxy for loopback addresses, so a proxy's effect is not seen there.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(_NOWHERE)
            return str(probe.getsockname()[0])
        except OSError:
            return LOOPBACK
