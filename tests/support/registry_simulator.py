"""A registry in memory that speaks the distribution API; tests change one behaviour of it.

It is a valid registry by itself. A test adds a `Fault`: for requests of a method and path, the
first `times` of them, something else happens. Every request is written down.
"""

from __future__ import annotations

import base64
import http.client
import itertools
import json
import re
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TypeVar
from urllib.parse import parse_qs, urlsplit

from builder.model.digest import Digest, canonical_json
from builder.model.image import INDEX_TYPE

_T = TypeVar("_T")
_ROUTE = re.compile(r"/v2/(?P<repo>.+?)/(?P<kind>manifests|blobs|tags|referrers)/(?P<rest>.+)")


@dataclass
class Fault:
    """What happens to the first `times` requests of `method` (a pattern) whose path matches."""

    method: str
    path: str
    act: Callable[[Handler], None]
    times: int = 1_000_000
    seen: int = 0


@dataclass
class Seen:
    """A request as it came."""

    method: str
    path: str
    headers: dict[str, str]

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


@dataclass(frozen=True)
class Content:
    """What a registry stores: blobs, manifests and tags by repository."""

    blobs: dict[str, dict[str, bytes]]
    manifests: dict[str, dict[str, tuple[bytes, str]]]
    tags: dict[str, dict[str, str]]


def _copied(stored: dict[str, dict[str, _T]]) -> dict[str, dict[str, _T]]:
    return {repo: dict(found) for repo, found in stored.items()}


@dataclass
class Simulator:
    """The registry's content and behaviour; all fields may be changed while it runs."""

    address: str = ""
    blobs: dict[str, dict[str, bytes]] = field(default_factory=dict)
    manifests: dict[str, dict[str, tuple[bytes, str]]] = field(default_factory=dict)
    tags: dict[str, dict[str, str]] = field(default_factory=dict)
    uploads: dict[str, str] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    requests: list[Seen] = field(default_factory=list)
    referrers_api: bool = True
    deletes: bool = True
    page: int = 1000
    basic: tuple[str, str] | None = None
    tokens: bool = False
    realm: str | None = None
    issued: dict[str, str] = field(default_factory=dict)
    numbers: Iterator[int] = field(default_factory=itertools.count)
    lock: threading.RLock = field(default_factory=threading.RLock)
    connections: int = 0
    changed: threading.Condition = field(default_factory=threading.Condition)

    @contextmanager
    def served_to_the_end(self) -> Iterator[None]:
        """Leave only when everything that a client which is gone by then sent within was served."""
        before = self.connections
        yield
        # Connections are accepted in their order: after this one, none is waiting.
        last = http.client.HTTPConnection(self.address)
        last.request("GET", "/v2/")
        last.getresponse().read()
        last.close()
        with self.changed:
            assert self.changed.wait_for(lambda: self.connections <= before, timeout=60)

    def connected(self, number: int) -> None:
        """One connection more, or one less."""
        with self.changed:
            self.connections += number
            self.changed.notify_all()

    def fault(self, method: str, path: str, act: Callable[[Handler], None], times: int = 1_000_000) -> Fault:
        """Add a fault; the one that was added last comes first."""
        fault = Fault(method, path, act, times)
        self.faults.insert(0, fault)
        return fault

    def count(self, method: str, path: str = "") -> int:
        """How many requests of that kind came."""
        return sum(bool(re.fullmatch(method, s.method) and re.search(path, s.path)) for s in self.requests)

    def content(self) -> Content:
        """A copy of what is stored."""
        with self.lock:
            return Content(_copied(self.blobs), _copied(self.manifests), _copied(self.tags))

    def restore(self, content: Content | None = None) -> None:
        """Store exactly this again (nothing), and forget faults, requests and uploads."""
        with self.lock:
            found = content or Content({}, {}, {})
            self.blobs, self.manifests = _copied(found.blobs), _copied(found.manifests)
            self.tags = _copied(found.tags)
            for one in (self.faults, self.requests, self.uploads):
                one.clear()

    def add(self, content: Content) -> None:
        """Store this too, as if it was pushed."""
        with self.lock:
            for repo, blobs in content.blobs.items():
                self.blobs.setdefault(repo, {}).update(blobs)
            for repo, manifests in content.manifests.items():
                self.manifests.setdefault(repo, {}).update(manifests)
            for repo, tags in content.tags.items():
                self.tags.setdefault(repo, {}).update(tags)

    def put(self, repo: str, data: bytes, media_type: str, tag: str | None = None) -> Digest:
        """Put a manifest in, past the API."""
        digest = Digest.of(data)
        self.manifests.setdefault(repo, {})[digest] = (data, media_type)
        if tag:
            self.tags.setdefault(repo, {})[tag] = digest
        return digest


class Handler(BaseHTTPRequestHandler):
    """One connection to the simulator."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    simulator: Simulator
    rest_of_body = 0
    alter: Callable[[str, str], str | None] | None = None

    def setup(self) -> None:
        """Count the connection."""
        self.simulator.connected(1)
        super().setup()

    def finish(self) -> None:
        """Count it no more, whatever becomes of its last bytes."""
        try:
            super().finish()
        finally:
            self.simulator.connected(-1)

    def send_header(self, keyword: str, value: str) -> None:
        """Send a header, unless a fault changes it or takes it out."""
        chosen = self.alter(keyword, value) if self.alter else value
        if chosen is not None:
            super().send_header(keyword, chosen)

    def log_message(self, format: str, *args: object) -> None:
        """Stay silent."""

    def handle_any(self) -> None:
        """Serve one request: a fault if one is due, else what a registry does."""
        sim = self.simulator
        self.rest_of_body = int(self.headers.get("Content-Length", "0"))
        with sim.lock:
            sim.requests.append(Seen(self.command, self.path, dict(self.headers)))
            due = None
            for fault in sim.faults:
                if re.fullmatch(fault.method, self.command) and re.search(fault.path, self.path):
                    fault.seen += 1
                    if fault.seen <= fault.times:
                        due = fault
                        break
        try:
            if due:
                due.act(self)
            else:
                self.serve()
        except (ConnectionError, TimeoutError):
            self.close_connection = True

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = handle_any

    def body(self) -> bytes:
        """The request's body."""
        data = self.rfile.read(self.rest_of_body)
        self.rest_of_body = 0
        return data

    def reply(self, status: int, body: bytes = b"", **headers: str) -> None:
        """Answer; `_` in a header's name stands for `-`."""
        self.body()
        self.send_response(status)
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        for name, value in {"Content-Length": str(len(body)), **names}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def error(self, status: int, code: str, message: str = "", **headers: str) -> None:
        """Answer with an error in the registry's own form."""
        body = json.dumps({"errors": [{"code": code, "message": message}]}).encode()
        self.reply(status, body, Content_Type="application/json", **headers)

    def serve(self) -> None:
        """What a well-behaved registry does."""
        with self.simulator.lock:
            url = urlsplit(self.path)
            if url.path == "/token":
                self._token(parse_qs(url.query))
            elif not self._allowed(url.path, parse_qs(url.query)):
                pass
            elif url.path == "/v2/":
                self.reply(200, b"{}", Content_Type="application/json")
            elif url.path == "/v2/_catalog":
                body = json.dumps({"repositories": sorted(self.simulator.manifests)}).encode()
                self.reply(200, body, Content_Type="application/json")
            elif match := _ROUTE.fullmatch(url.path):
                query = {k: v[0] for k, v in parse_qs(url.query).items()}
                getattr(self, "_" + match["kind"])(match["repo"], match["rest"], query)
            else:
                self.error(404, "UNSUPPORTED")

    def _allowed(self, path: str, query: dict[str, list[str]]) -> bool:
        sim = self.simulator
        sent = self.headers.get("Authorization", "")
        if sim.basic and not sim.tokens:
            good = "Basic " + base64.b64encode(":".join(sim.basic).encode()).decode()
            if sent != good:
                self.error(401, "UNAUTHORIZED", WWW_Authenticate='Basic realm="test"')
            return sent == good
        if not sim.tokens:
            return True
        match = _ROUTE.fullmatch(path)
        actions = "pull" if self.command in ("GET", "HEAD") else "pull,push"
        scope = f"repository:{match['repo']}:{actions}" if match else ""
        if "from" in query:
            scope += f" repository:{query['from'][0]}:pull"
        if sent.startswith("Bearer ") and sim.issued.get(sent[7:]) == scope:
            return True
        realm = sim.realm or f"http://{sim.address}/token"
        challenge = f'Bearer realm="{realm}",service="simulator"' + (f',scope="{scope}"' if scope else "")
        self.error(401, "UNAUTHORIZED", WWW_Authenticate=challenge)
        return False

    def _token(self, query: dict[str, list[str]]) -> None:
        sim = self.simulator
        if sim.basic:
            good = "Basic " + base64.b64encode(":".join(sim.basic).encode()).decode()
            if self.headers.get("Authorization") != good:
                self.error(401, "UNAUTHORIZED")
                return
        token = f"token-{next(sim.numbers)}"
        sim.issued[token] = " ".join(query.get("scope", []))
        self.reply(200, json.dumps({"token": token}).encode(), Content_Type="application/json")

    def _manifests(self, repo: str, ref: str, query: dict[str, str]) -> None:
        sim = self.simulator
        if self.command == "PUT":
            self._put_manifest(repo, ref)
            return
        digest = sim.tags.get(repo, {}).get(ref, ref)
        found = sim.manifests.get(repo, {}).get(digest)
        if self.command == "DELETE":
            if sim.deletes:
                sim.manifests.get(repo, {}).pop(digest, None)
                self.reply(202 if found else 404)
            else:
                self.error(405, "UNSUPPORTED", "The operation is unsupported.")
        elif found is None:
            self.error(404, "MANIFEST_UNKNOWN", "manifest unknown")
        elif found[1] not in ", ".join(self.headers.get_all("Accept", [])):
            self.error(404, "MANIFEST_UNKNOWN", "not accepted")
        else:
            self.reply(200, found[0], Content_Type=found[1], Docker_Content_Digest=digest)

    def _put_manifest(self, repo: str, ref: str) -> None:
        sim = self.simulator
        data = self.body()
        raw = json.loads(data)
        digest = Digest.of(data)
        blobs = [raw["config"], *raw["layers"]] if "layers" in raw else []
        missing = [d["digest"] for d in blobs if d["digest"] not in sim.blobs.get(repo, {})]
        children = [d["digest"] for d in raw.get("manifests", [])]
        missing += [d for d in children if d not in sim.manifests.get(repo, {})]
        if missing or raw["mediaType"] != self.headers["Content-Type"]:
            self.error(400, "MANIFEST_BLOB_UNKNOWN", ", ".join(missing))
        elif ":" in ref and ref != digest:
            self.error(400, "DIGEST_INVALID")
        else:
            sim.put(repo, data, raw["mediaType"], None if ":" in ref else ref)
            extra = {}
            if "subject" in raw and sim.referrers_api:
                extra["OCI_Subject"] = raw["subject"]["digest"]
            self.reply(201, Docker_Content_Digest=digest, **extra)

    def _blobs(self, repo: str, rest: str, query: dict[str, str]) -> None:
        sim = self.simulator
        if rest == "uploads/" and self.command == "POST":
            mount = query.get("mount", "")
            content = sim.blobs.get(query.get("from", ""), {}).get(mount)
            if content is not None:
                sim.blobs.setdefault(repo, {})[mount] = content
                self.reply(201, Docker_Content_Digest=mount)
                return
            upload = f"upload-{next(sim.numbers)}"
            sim.uploads[upload] = repo
            self.reply(202, Location=f"/v2/{repo}/blobs/uploads/{upload}?_state=secret-state")
        elif rest.startswith("uploads/"):
            self._upload(repo, rest.removeprefix("uploads/"), query)
        elif rest not in sim.blobs.get(repo, {}):
            self.error(404, "BLOB_UNKNOWN")
        else:
            content = sim.blobs[repo][rest]
            extra = {"Content_Type": "application/octet-stream", "Docker_Content_Digest": rest}
            part = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
            if part is None:
                self.reply(200, content, **extra)
                return
            start, end = int(part[1]), min(int(part[2]), len(content) - 1)
            extra["Content_Range"] = f"bytes {start}-{end}/{len(content)}"
            self.reply(206, content[start : end + 1], **extra)

    def _upload(self, repo: str, upload: str, query: dict[str, str]) -> None:
        sim = self.simulator
        if sim.uploads.get(upload) != repo or query.get("_state") != "secret-state":
            self.error(404, "BLOB_UPLOAD_UNKNOWN")
        elif self.command == "DELETE":
            del sim.uploads[upload]
            self.reply(204)
        else:
            data = self.body()
            if Digest.of(data) != query.get("digest"):
                self.error(400, "DIGEST_INVALID", "provided digest did not match uploaded content")
                return
            del sim.uploads[upload]
            sim.blobs.setdefault(repo, {})[query["digest"]] = data
            self.reply(201, Docker_Content_Digest=query["digest"])

    def _tags(self, repo: str, rest: str, query: dict[str, str]) -> None:
        sim = self.simulator
        if repo not in sim.tags:
            self.error(404, "NAME_UNKNOWN")
            return
        names = [t for t in sorted(sim.tags[repo]) if t > query.get("last", "")]
        size = min(sim.page, int(query.get("n", "1000")))
        extra = {}
        if len(names) > size:
            extra["Link"] = f'</v2/{repo}/tags/list?n={size}&last={names[size - 1]}>; rel="next"'
        body = json.dumps({"name": repo, "tags": names[:size]}).encode()
        self.reply(200, body, Content_Type="application/json", **extra)

    def _referrers(self, repo: str, subject: str, query: dict[str, str]) -> None:
        if not self.simulator.referrers_api:
            self.error(404, "NOT_FOUND")
            return
        found = []
        for digest, (data, media_type) in self.simulator.manifests.get(repo, {}).items():
            try:
                raw = json.loads(data) if subject.encode() in data else {}
            except (ValueError, RecursionError):  # something hostile, put in past the API
                continue
            if raw.get("subject", {}).get("digest") == subject:
                entry = {"mediaType": media_type, "digest": digest, "size": len(data)}
                found.append(entry | {k: raw[k] for k in ("artifactType", "annotations") if k in raw})
        body = canonical_json({"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": found})
        self.reply(200, body, Content_Type=INDEX_TYPE)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away is no news."""


@contextmanager
def simulator(tls: tuple[Path, Path] | None = None) -> Iterator[Simulator]:
    """A running simulator on a free loopback port; `tls` is a certificate and its key."""
    sim = Simulator()
    handler = type("BoundHandler", (Handler,), {"simulator": sim})
    server = _Server(("127.0.0.1", 0), handler)
    if tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*tls)
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    sim.address = f"127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield sim
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


# ---------------------------------------------------------------- behaviours for faults


def status(code: int, **headers: str) -> Callable[[Handler], None]:
    """Answer with this status."""
    return lambda h: h.error(code, "TEST", f"status {code}", **headers)


def cut_upload(handler: Handler) -> None:
    """Take half of the body, then drop the connection."""
    handler.rfile.read(handler.rest_of_body // 2)
    _drop(handler)


def cut_download(handler: Handler) -> None:
    """Promise the whole blob, send half of it, then drop the connection."""
    data = _content(handler)
    _headers(handler, len(data))
    handler.wfile.write(data[: len(data) // 2])
    handler.wfile.flush()
    _drop(handler)


def in_halves(go_on: threading.Event) -> Callable[[Handler], None]:
    """Half of the blob, and the rest when it is wanted."""

    def act(handler: Handler) -> None:
        data = _content(handler)
        _headers(handler, len(data))
        handler.wfile.write(data[: len(data) // 2])
        handler.wfile.flush()
        go_on.wait(30)
        handler.wfile.write(data[len(data) // 2 :])

    return act


def corrupt(handler: Handler) -> None:
    """Send the blob or manifest with one bit changed and everything else as promised."""
    data = bytearray(_content(handler))
    data[len(data) // 2] ^= 1
    media_type, digest = _kind(handler)
    handler.reply(200, bytes(data), Content_Type=media_type, Docker_Content_Digest=digest)


def longer(handler: Handler) -> None:
    """Send more than there is."""
    media_type, digest = _kind(handler)
    data = _content(handler) + b"\0" * 100
    handler.reply(200, data, Content_Type=media_type, Docker_Content_Digest=digest)


def endless(handler: Handler) -> None:
    """A body without end."""
    media_type, digest = _kind(handler)
    handler.send_response(200)
    for name, value in (("Content-Type", media_type), ("Docker-Content-Digest", digest)):
        handler.send_header(name, value)
    handler.send_header("Connection", "close")
    handler.end_headers()
    while True:
        handler.wfile.write(b" " * 65536)


def dribble_body(stop: threading.Event) -> Callable[[Handler], None]:
    """One byte now and then: never late, never done."""

    def act(handler: Handler) -> None:
        _headers(handler, 1 << 20)
        while not stop.wait(0.05):
            handler.wfile.write(b" ")
            handler.wfile.flush()

    return act


def dribble_headers(stop: threading.Event) -> Callable[[Handler], None]:
    """A status line, and then a header that never ends."""

    def act(handler: Handler) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
        while not stop.wait(0.05):
            handler.wfile.write(b"x")
            handler.wfile.flush()

    return act


def silent(stop: threading.Event) -> Callable[[Handler], None]:
    """No answer at all."""

    def act(handler: Handler) -> None:
        stop.wait(30)
        _drop(handler)

    return act


def redirect(to: str, code: int = 307) -> Callable[[Handler], None]:
    """Send the client to another address; `{path}` is the path that was asked for."""
    return lambda h: h.reply(code, Location=to.format(path=h.path))


def without(header: str) -> Callable[[Handler], None]:
    """Serve as usual, but without one header."""

    def act(handler: Handler) -> None:
        handler.alter = lambda k, v: None if k == header else v
        try:
            handler.serve()
        finally:
            handler.alter = None

    return act


def with_header(header: str, value: str) -> Callable[[Handler], None]:
    """Serve as usual, but with this value in a header."""

    def act(handler: Handler) -> None:
        handler.alter = lambda k, v: value if k == header else v
        try:
            handler.serve()
        finally:
            handler.alter = None

    return act


def _route(handler: Handler) -> re.Match[str]:
    match = _ROUTE.fullmatch(urlsplit(handler.path).path)
    if match is None:
        raise ValueError(handler.path)
    return match


def _content(handler: Handler) -> bytes:
    match, sim = _route(handler), handler.simulator
    if match["kind"] == "blobs":
        return sim.blobs[match["repo"]][match["rest"]]
    digest = sim.tags.get(match["repo"], {}).get(match["rest"], match["rest"])
    return sim.manifests[match["repo"]][digest][0]


def _kind(handler: Handler) -> tuple[str, str]:
    match, sim = _route(handler), handler.simulator
    if match["kind"] == "blobs":
        return "application/octet-stream", match["rest"]
    digest = sim.tags.get(match["repo"], {}).get(match["rest"], match["rest"])
    return sim.manifests[match["repo"]][digest][1], digest


def _headers(handler: Handler, length: int) -> None:
    handler.send_response(200)
    handler.send_header("Content-Type", "application/octet-stream")
    handler.send_header("Content-Length", str(length))
    handler.end_headers()
    handler.wfile.flush()


def _drop(handler: Handler) -> None:
    handler.close_connection = True
    handler.rest_of_body = 0
    handler.connection.shutdown(2)
