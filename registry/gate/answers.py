"""From what is wanted to an answer: the rules of the registry, on the approved set."""

from __future__ import annotations

import datetime as dt
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import quote

from builder.model.digest import canonical_json
from builder.model.image import INDEX_TYPE
from builder.oci.manifest import INDEX_TYPES, MANIFEST_TYPES, index_bytes
from registry.gate import denials
from registry.gate.approved import API_VERSION, ApprovedSet, Entry, Refusal
from registry.gate.blobs import Blobs, Unsatisfiable, read_range
from registry.gate.journal import Journal, Metrics
from registry.gate.names import Refused, Wanted, read_artifact_type, read_page

Headers = tuple[tuple[bytes, bytes], ...]
_JSON = (b"content-type", b"application/json; charset=utf-8")
_KINDS = (*MANIFEST_TYPES, *INDEX_TYPES)


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer; `said` is what a refusal's body says, for who asks without a body (HEAD)."""

    status: int
    headers: Headers
    body: bytes
    said: str = ""


@dataclass(frozen=True, slots=True)
class Stream:
    """An answer whose body comes piece by piece."""

    status: int
    headers: Headers
    chunks: AsyncIterator[bytes]


class Existence(Protocol):
    """Asks the storage whether there is a manifest."""

    async def exists(self, repository: str, reference: str, accept: tuple[str, ...]) -> bool:
        """Whether there is; raises StorageAway."""


def failure(
    status: int,
    code: str,
    message: str,
    headers: Headers = (),
    *,
    retry: int | None = None,
    detail: dict[str, str | None] | None = None,
) -> Answer:
    """A refusal as error JSON."""
    body = denials.error_body(code, message, detail)
    more: Headers = ((b"retry-after", str(retry).encode()),) if retry is not None else ()
    length = (b"content-length", str(len(body)).encode())
    return Answer(status, (_JSON, length, API_VERSION, *headers, *more), body, message)


class Answers:
    """Answers registry requests; `link` is our own address, for people to follow.

    `serves` tells the name in the storage of a public name that could be served, else None.
    `accel` is the internal address that a web server in front hands blobs out from, if there is one.
    """

    def __init__(
        self,
        approved: ApprovedSet,
        blobs: Blobs,
        storage: Existence,
        journal: Journal,
        metrics: Metrics,
        *,
        now: Callable[[], float],
        serves: Callable[[str], str | None],
        link: str,
        accel: str | None = None,
    ) -> None:
        self._approved, self._blobs, self._storage = approved, blobs, storage
        self._journal, self._metrics = journal, metrics
        self._now, self._serves, self._link, self._accel = now, serves, link, accel

    def at_once(self, wanted: Wanted, number: str) -> Answer | None:
        """The answer that memory gives; None when the storage has to be asked, or it is no manifest."""
        if wanted.kind != "manifests":
            return None
        now = self._now()
        found = self._approved.manifest(wanted.name, wanted.reference, wanted.is_digest, now)
        if isinstance(found, Entry):
            if found.warn_from > now:
                return Answer(200, found.headers, found.held.data)
            return self._warned(wanted, found, now)
        return self._denied(wanted, found, number) if isinstance(found, Refusal) else None

    async def of(
        self, wanted: Wanted, scope: Any, number: str, sees: Callable[[str], bool]
    ) -> Answer | Stream:
        """Any other answer; `sees` tells which names the catalogue may say. Raises Refused, StorageAway."""
        if wanted.kind == "manifests":
            return await self._unknown(wanted, number)
        if wanted.kind == "blobs":
            return await self._blob(wanted, scope, number)
        if wanted.kind == "ping":
            return _json({})
        query: bytes = scope["query_string"]
        if wanted.kind == "catalog":
            return self._catalog(query, sees)
        return self._tags(wanted, query) if wanted.kind == "tags" else self._referrers(wanted, query)

    def _warned(self, wanted: Wanted, entry: Entry, now: float) -> Answer:
        text = entry.deprecated
        if not text:
            view = self._approved.view(wanted.name)
            instead = view.replacement(None, now) if view else None
            text = f"{wanted.name} {wanted.reference}: its stream is supported until {entry.end_of_life}"
            text += f"; newest: {instead}"
        return Answer(200, (*entry.headers, (b"warning", denials.warning(text))), entry.held.data)

    def _denied(self, wanted: Wanted, refusal: Refusal, number: str) -> Answer:
        denied = refusal.denied
        said = denials.sentence(wanted.name, wanted.reference, refusal, self._link)
        about = denials.detail(refusal)
        self._metrics.denials.labels(str(denied.reason)).inc()
        self._journal.event(
            "denied", id=number, repository=wanted.name, reference=wanted.reference, message=said, **about
        )
        if denied.passing:
            return failure(503, "UNAVAILABLE", said, retry=denials.RETRY_SECONDS, detail=about)
        return failure(403, "DENIED", said, detail=about)

    async def _unknown(self, wanted: Wanted, number: str) -> Answer:
        """Nothing is known of it: it is not there (404), or it is there and not approved (403)."""
        storage = self._serves(wanted.name)
        view = self._approved.view(wanted.name)
        now = self._now()
        if storage is None or not await self._storage.exists(storage, wanted.reference, _KINDS):
            if view is None:
                where = f"{self._link}/v2/_catalog"
                said = f"{wanted.name} is not in this registry: only curated images are, see {where}"
                return failure(404, "NAME_UNKNOWN", said)
            instead = view.replacement(None, now)
            hint = f"; there is {instead}" if instead else ""
            said = f"{wanted.name} has no {wanted.reference}{hint}"
            return failure(404, "MANIFEST_UNKNOWN", said)
        since = dt.datetime.fromtimestamp(now, dt.UTC)
        denied = denials.not_approved(since)
        if not wanted.is_digest and not wanted.reference.startswith("sha256-"):
            denied = denials.not_looked_at(since)
        instead = view.replacement(None, now) if view else None
        return self._denied(wanted, Refusal(denied, wanted.reference, instead), number)

    async def _blob(self, wanted: Wanted, scope: Any, number: str) -> Answer | Stream:
        found = self._approved.blob(wanted.name, wanted.reference, self._now())
        if isinstance(found, Refusal):
            return self._denied(wanted, found, number)
        if found is None:
            said = f"no approved image of {wanted.name} has this blob"
            return failure(404, "BLOB_UNKNOWN", said)
        storage, size = found
        digest = wanted.reference
        common: Headers = (
            (b"content-type", b"application/octet-stream"),
            (b"docker-content-digest", digest.encode()),
            (b"etag", f'"{digest}"'.encode()),
            (b"accept-ranges", b"bytes"),
            API_VERSION,
        )
        if self._accel is not None:
            target = f"{self._accel}/sha256/{digest[7:9]}/{digest[7:]}/data".encode()
            return Answer(200, (*common, (b"x-accel-redirect", target)), b"")
        if scope["method"] == "HEAD":
            return Answer(200, (*common, (b"content-length", str(size).encode())), b"")
        try:
            part = read_range(_header(scope, b"range"), size)
        except Unsatisfiable:
            range_ = (b"content-range", f"bytes */{size}".encode())
            return failure(416, "SIZE_INVALID", "the blob has no such range", (range_,))
        chunks = await self._blobs.open(storage, digest, size, part)
        if part is None:
            return Stream(200, (*common, (b"content-length", str(size).encode())), chunks)
        start, end = part
        more: Headers = (
            (b"content-length", str(end - start + 1).encode()),
            (b"content-range", f"bytes {start}-{end}/{size}".encode()),
        )
        return Stream(206, (*common, *more), chunks)

    def _catalog(self, query: bytes, sees: Callable[[str], bool]) -> Answer:
        count, last = read_page(query)
        names, more = self._approved.repositories(count, last, sees)
        return _json({"repositories": list(names)}, _next("/v2/_catalog", names, count, more))

    def _tags(self, wanted: Wanted, query: bytes) -> Answer:
        count, last = read_page(query)
        found = self._approved.tags(wanted.name, count, last)
        if found is None:
            return failure(404, "NAME_UNKNOWN", f"{wanted.name} has nothing that is approved")
        path = f"/v2/{wanted.name}/tags/list"
        return _json({"name": wanted.name, "tags": list(found[0])}, _next(path, found[0], count, found[1]))

    def _referrers(self, wanted: Wanted, query: bytes) -> Answer:
        kind = read_artifact_type(query)
        found = self._approved.referrers(wanted.name, wanted.reference, self._now())
        listed = [d for d in found or () if kind in (None, d.artifact_type)]
        body = index_bytes(listed)
        headers: Headers = (
            (b"content-type", INDEX_TYPE.encode()),
            (b"content-length", str(len(body)).encode()),
            API_VERSION,
        )
        if kind is not None:
            headers = (*headers, (b"oci-filters-applied", b"artifactType"))
        return Answer(200, headers, body)


def _json(value: dict[str, Any], headers: Headers = ()) -> Answer:
    body = canonical_json(value)
    return Answer(200, (_JSON, (b"content-length", str(len(body)).encode()), API_VERSION, *headers), body)


def _next(path: str, page: tuple[str, ...], count: int, more: bool) -> Headers:
    if not more or not page:
        return ()
    return ((b"link", f'<{path}?n={count}&last={quote(page[-1], safe="")}>; rel="next"'.encode()),)


def _header(scope: Any, name: bytes) -> str | None:
    values = [v for n, v in scope["headers"] if n == name]
    if len(values) > 1:
        raise Refused(400, "UNSUPPORTED", f"the header {name.decode()} is given twice")
    return values[0].decode("latin-1") if values else None
