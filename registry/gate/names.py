"""What a request asks for: read from the raw path, strictly, once. Pure.

Nothing is decoded or normalised: a path with a percent sign, a double slash, a dot segment or any
byte that no name has is refused. Source: OCI distribution specification 1.1, "Endpoints".
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import parse_qsl

from builder.model.digest import Digest

NAME_MAX = 255  # characters of a repository's name
_PATH_MAX = 1024  # bytes
_QUERY_MAX = 1024  # bytes
_FIELDS_MAX = 8
_REMEMBERED = 4096  # paths that were read before
PAGE_MAX = PAGE_DEFAULT = 1000
_NAME = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*")
_TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_ROUTE = re.compile(r"/v2/(.+)/(manifests|blobs|referrers)/([^/]*)|/v2/(.+)/tags/list")
_UPLOAD = re.compile(r"/v2/(.+)/blobs/uploads/.*")
_NUMBER = re.compile(r"-?[0-9]{1,20}")
_ARTIFACT_TYPE = re.compile(r"[A-Za-z0-9!#$&^_.+/;= -]{1,255}")


class Refused(Exception):
    """A request that nobody has to understand; `status` and `code` are what the answer says."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message


@dataclass(frozen=True, slots=True)
class Wanted:
    """`kind` is ping, catalog, manifests, blobs, referrers or tags; `reference` a tag or a digest."""

    kind: str
    name: str = ""
    reference: str = ""
    is_digest: bool = False


_PING, _CATALOG = Wanted("ping"), Wanted("catalog")


@lru_cache(maxsize=_REMEMBERED)
def read_path(raw: bytes) -> Wanted:
    """The registry route of a raw path below `/v2`; raises Refused."""
    if len(raw) > _PATH_MAX:
        raise Refused(414, "NAME_INVALID", f"the path is longer than {_PATH_MAX} bytes")
    try:
        path = raw.decode("ascii")
    except UnicodeDecodeError:
        raise Refused(400, "NAME_INVALID", "names are plain ASCII") from None
    if path in ("/v2/", "/v2"):
        return _PING
    if path == "/v2/_catalog":
        return _CATALOG
    match = _ROUTE.fullmatch(path)
    if match is None:
        if _UPLOAD.fullmatch(path):
            raise Refused(404, "UNSUPPORTED", "nothing is uploaded here")
        raise Refused(404, "NAME_INVALID", "there is no such address in a registry")
    name = match[1] or match[4]
    if len(name) > NAME_MAX or not _NAME.fullmatch(name):
        raise Refused(400, "NAME_INVALID", f"not a repository name: {name[:80]!r}")
    kind, reference = match[2] or "tags", match[3] or ""
    if kind == "tags":
        return Wanted(kind, name)
    if _DIGEST.fullmatch(reference):
        return Wanted(kind, name, reference, True)
    if kind != "manifests" or ":" in reference:
        raise Refused(400, "DIGEST_INVALID", f"not sha256 and 64 lower-case digits: {reference[:80]!r}")
    if not _TAG.fullmatch(reference):
        # No such manifest can exist: the conformance suite wants 404 for it.
        raise Refused(404, "MANIFEST_UNKNOWN", f"not a tag: {reference[:80]!r}")
    return Wanted(kind, name, reference)


def read_page(query: bytes) -> tuple[int, str]:
    """`n` (clamped to 1…1000) and `last` of a listing; raises Refused."""
    fields = _fields(query)
    count, last = fields.get("n", str(PAGE_DEFAULT)), fields.get("last", "")
    if not _NUMBER.fullmatch(count) or int(count) < 0:
        raise Refused(400, "PAGINATION_NUMBER_INVALID", f"not a number of entries: {count[:40]!r}")
    if len(last) > NAME_MAX or not last.isascii() or not last.isprintable():
        raise Refused(400, "NAME_INVALID", "`last` is no name")
    return min(int(count), PAGE_MAX), last


def read_artifact_type(query: bytes) -> str | None:
    """The filter of a list of referrers; raises Refused."""
    kind = _fields(query).get("artifactType")
    if kind is not None and not _ARTIFACT_TYPE.fullmatch(kind):
        raise Refused(400, "UNSUPPORTED", "the artifactType is no media type")
    return kind or None


def as_digest(text: str) -> Digest:
    """A digest that `read_path` has let through."""
    return Digest(text)


def _fields(query: bytes) -> dict[str, str]:
    if len(query) > _QUERY_MAX:
        raise Refused(414, "UNSUPPORTED", f"the query is longer than {_QUERY_MAX} bytes")
    try:
        # A plus sign is itself in media types, and in no name.
        pairs = parse_qsl(query.decode("ascii").replace("+", "%2B"), max_num_fields=_FIELDS_MAX)
    except ValueError:
        raise Refused(400, "UNSUPPORTED", "the query cannot be read") from None
    if len(dict(pairs)) != len(pairs):
        raise Refused(400, "UNSUPPORTED", "a field is given twice in the query")
    return dict(pairs)
