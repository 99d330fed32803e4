"""The ASGI application: read a request strictly, look it up, answer; it never writes anywhere."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from builder.errors import GoldsmithError
from registry.access.oidc import KeysWanted
from registry.gate import door
from registry.gate.answers import Answer, Answers, Stream, failure
from registry.gate.approved import ApprovedSet
from registry.gate.blobs import WrongBytes
from registry.gate.bounds import Bounds
from registry.gate.denials import HELP, RETRY_SECONDS, warning
from registry.gate.door import HELP_PATH, Door, UnknownToken
from registry.gate.journal import Journal, Metrics
from registry.gate.names import Refused, Wanted, read_path
from registry.gate.upstream import StorageAway
from registry.pulls import PullJournal

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_METHODS = frozenset({"GET", "HEAD"})
# A body that nobody wants is not read to its end.
_WRITE_HEADERS = ((b"allow", b"GET, HEAD"), (b"connection", b"close"))
_READ_ONLY = (
    "this registry is read-only for everyone: images get in by `goldsmith run` and promotion, not by a push"
)


class Gate:
    """The application. `ready` says whether the first look at the storage (or the memory) is done."""

    def __init__(
        self,
        approved: ApprovedSet,
        answers: Answers,
        journal: Journal,
        metrics: Metrics,
        *,
        door: Door,
        pulls: PullJournal | None = None,
        ready: Callable[[], bool],
        bounds: Bounds,
    ) -> None:
        self._approved, self._answers, self._journal, self._metrics = approved, answers, journal, metrics
        self._door, self._pulls, self._ready, self._bounds = door, pulls, ready, bounds
        self._active = 0
        self._prefix, self._number = secrets.token_hex(4), 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        began = time.monotonic()
        self._number += 1
        number = f"{self._prefix}-{self._number:x}"
        status, sent, kind = 500, 0, "other"
        self._active += 1
        try:
            kind, found = await self._answer(scope, number)
            if isinstance(found, Stream):
                kind, status = "blobs", found.status
                sent = await self._stream(found, number, receive, send)
            else:
                status, sent = found.status, len(found.body)
                headers = found.headers
                if found.said and scope["method"] == "HEAD":  # some clients ask nothing else
                    headers = (*headers, (b"warning", warning(found.said)))
                await send(_start(found.status, headers, number))
                await send({"type": "http.response.body", "body": found.body})
        except WrongBytes as error:
            self._metrics.wrong_bytes.inc()
            self._journal.event("wrong-bytes", id=number, path=_path(scope), cause=str(error))
            raise _Cut from None
        except (StorageAway, TimeoutError) as error:  # the answer has begun: cut it
            self._journal.event("answer-cut", id=number, path=_path(scope), cause=str(error) or "too slow")
            raise _Cut from None
        finally:
            self._active -= 1
            seconds = time.monotonic() - began
            self._metrics.answered(kind, status, seconds)
            who = scope.get("who", "")
            if who:
                self._metrics.asked(who)
            if self._journal.requests:
                client, method = (scope.get("client") or ("",))[0], scope["method"]
                self._journal.request(number, method, _path(scope), status, sent, seconds, client, who)

    async def _answer(self, scope: Scope, number: str) -> tuple[str, Answer | Stream]:
        path: bytes = scope["raw_path"]
        if path == b"/v2" or path.startswith(b"/v2/"):
            if scope["method"] not in _METHODS:
                return "write", failure(405, "UNSUPPORTED", _READ_ONLY, _WRITE_HEADERS)
            if not self._ready():
                return "starting", failure(503, "UNAVAILABLE", "this registry is starting", retry=1)
            if self._active > self._bounds.concurrent:
                return "busy", failure(503, "TOOMANYREQUESTS", "too many requests at a time", retry=1)
            try:
                wanted = read_path(path)
            except Refused as refused:
                return "refused", failure(refused.status, refused.code, refused.message)
            try:
                visitor = self._door.enter(scope, wanted, number)
            except KeysWanted as keys:
                await self._door.keys_came(keys)
                visitor = self._door.enter(scope, wanted, number, patient=False)
            except UnknownToken:
                await self._door.look_again()
                visitor = self._door.enter(scope, wanted, number, patient=False)
            if isinstance(visitor, Answer):
                return "door", visitor
            answer = self._answers.at_once(wanted, number)
            if answer is not None:
                if self._pulls is not None and answer.status == 200 and scope["method"] == "GET":
                    self._note_pull(visitor.name, wanted, answer)
                return wanted.kind, answer
            try:
                async with asyncio.timeout(self._bounds.answer_seconds):
                    return wanted.kind, await self._answers.of(wanted, scope, number, visitor.sees)
            except Refused as refused:
                return wanted.kind, failure(refused.status, refused.code, refused.message)
            except (StorageAway, TimeoutError) as error:
                wrong = isinstance(error, WrongBytes)
                if wrong:
                    self._metrics.wrong_bytes.inc()
                event = "wrong-bytes" if wrong else "storage-away"
                self._journal.event(event, id=number, path=_path(scope), cause=str(error) or "too slow")
                said = "the storage behind this registry cannot hand it out at the moment"
                return wanted.kind, failure(503, "UNAVAILABLE", said, retry=RETRY_SECONDS)
            except (GoldsmithError, ValueError, LookupError, TypeError) as error:
                self._journal.event("bug", id=number, path=_path(scope), cause=repr(error))
                return wanted.kind, failure(500, "UNKNOWN", f"an error of our own; request {number}")
        if path == b"/token" and scope["method"] == "GET":
            try:
                return "token", self._door.token(scope, number)
            except KeysWanted as keys:
                await self._door.keys_came(keys)
            except UnknownToken:
                await self._door.look_again()
            return "token", self._door.token(scope, number, patient=False)
        return "other", self._own(path, scope["method"])

    def _note_pull(self, who: str, wanted: Wanted, answer: Answer) -> None:
        if self._pulls is not None and not wanted.reference.startswith("sha256-"):  # cosign's tags
            digest = next(v for n, v in answer.headers if n == b"docker-content-digest")
            tag = "" if wanted.is_digest else wanted.reference
            self._pulls.note(who, wanted.name, digest.decode(), tag)

    def _own(self, path: bytes, method: str) -> Answer:
        """The addresses beside the registry's."""
        if method not in _METHODS:
            return failure(405, "UNSUPPORTED", _READ_ONLY, _WRITE_HEADERS)
        if path == b"/healthz":
            return _text(200, "alive\n")
        if path == b"/readyz":
            return _text(200, "ready\n") if self._ready() else _text(503, "not ready\n")
        if path == b"/metrics":
            self._metrics.in_flight.set(self._active)
            body = self._metrics.exposition()
            return Answer(200, _metrics_headers(body), body)
        if path == HELP_PATH.encode():
            return _text(200, f"access\n\n{door.HELP}\n")
        for reason, text in HELP.items():
            if path == f"/help/{reason}".encode():
                return _text(200, f"{reason}\n\n{text}\n")
        return failure(404, "UNSUPPORTED", "there is nothing here; the registry is at /v2/")

    async def _stream(self, stream: Stream, number: str, receive: Receive, send: Send) -> int:
        """Send a blob piece by piece; who takes nothing for too long, or has gone, is left."""
        sent = 0
        gone = asyncio.ensure_future(_disconnected(receive))
        try:
            async with asyncio.timeout(self._bounds.stream_seconds):
                await send(_start(stream.status, stream.headers, number))
                async for chunk in stream.chunks:
                    if gone.done():
                        return sent
                    async with asyncio.timeout(self._bounds.stall_seconds):
                        await send({"type": "http.response.body", "body": chunk, "more_body": True})
                    sent += len(chunk)
                await send({"type": "http.response.body", "body": b""})
            return sent
        finally:
            gone.cancel()
            self._metrics.blob_bytes.inc(sent)


class _Cut(Exception):
    """Ends a connection in the middle of an answer; the server closes it."""


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _start(status: int, headers: tuple[tuple[bytes, bytes], ...], number: str) -> dict[str, Any]:
    return {
        "type": "http.response.start",
        "status": status,
        "headers": [*headers, (b"x-request-id", number.encode())],
    }


def _text(status: int, text: str) -> Answer:
    body = text.encode()
    headers = (
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", str(len(body)).encode()),
        (b"x-content-type-options", b"nosniff"),
    )
    return Answer(status, headers, body)


def _metrics_headers(body: bytes) -> tuple[tuple[bytes, bytes], ...]:
    return (
        (b"content-type", b"text/plain; version=0.0.4; charset=utf-8"),
        (b"content-length", str(len(body)).encode()),
    )


def _path(scope: Scope) -> str:
    return str(scope["raw_path"], "ascii", "backslashreplace")
