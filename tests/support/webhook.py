"""A service that takes messages, on loopback."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Service:
    """A webhook on loopback; it answers with `code`."""

    def __init__(self) -> None:
        self.code, self.taken = 200, []  # type: tuple[int, list[dict[str, Any]]]
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                data = self.rfile.read(int(self.headers["Content-Length"]))
                service.taken.append(json.loads(data))
                self.send_response(service.code)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"json://127.0.0.1:{self.server.server_port}/hook?+X-Secret=s3cr3t-value"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self) -> None:
        """Close the door."""
        self.server.shutdown()
        self.server.server_close()
