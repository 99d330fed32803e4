"""The cases of the OCI distribution specification's conformance suite 1.1, written anew in Python.

Each case has the name that it has there ("Pull", "Push", "Content Discovery"), and asks and expects
the same. The suite itself is a Go program that no package of ours brings. What differs: the suite
pushes what it pulls, and the gate lets nobody push; so pulling and discovery run on an image that
was approved before, as the suite does it with OCI_MANIFEST_DIGEST and OCI_TAG_NAME.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from http.client import HTTPConnection
from typing import Any
from urllib.parse import urlsplit

from builder.model.digest import Digest, canonical_json
from builder.model.image import CONFIG_TYPE, INDEX_TYPE, LAYER_TYPE, MANIFEST_TYPE

# The codes of the specification, section "Error Codes".
CODES = frozenset(
    [
        "BLOB_UNKNOWN",
        "BLOB_UPLOAD_INVALID",
        "BLOB_UPLOAD_UNKNOWN",
        "DIGEST_INVALID",
        "MANIFEST_BLOB_UNKNOWN",
        "MANIFEST_INVALID",
        "MANIFEST_UNKNOWN",
        "NAME_INVALID",
        "NAME_UNKNOWN",
        "SIZE_INVALID",
        "UNAUTHORIZED",
        "DENIED",
        "UNSUPPORTED",
        "TOOMANYREQUESTS",
    ]
)
NOWHERE = str(Digest.of(b"hello world"))
NO_MANIFEST = ".INVALID_MANIFEST_NAME"
STREAM = {"Content-Type": "application/octet-stream"}
_SECONDS = 30


@dataclass(frozen=True)
class Got:
    """An answer; the headers' names are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def location(self) -> str:
        """Path and query of where to go on; empty when the answer does not say."""
        parts = urlsplit(self.headers.get("location", ""))
        return parts.path + (f"?{parts.query}" if parts.query else "")


@dataclass
class Candidate:
    """A registry under test, and what is known to be in its repository `name`."""

    address: str
    name: str
    other: str = "conformance/other"
    credentials: tuple[str, str] | None = None
    manifest: str = ""
    media_type: str = MANIFEST_TYPE
    tag: str = ""
    tagged: str = ""
    blob: str = ""
    artifact_type: str = ""
    left: dict[str, Got] = field(default_factory=dict)  # what one case leaves for the next

    def ask(
        self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> Got:
        """One request; `{}` in the path is the repository."""
        sent = dict(headers or {})
        if self.credentials:
            pair = ":".join(self.credentials).encode()
            sent["Authorization"] = "Basic " + base64.b64encode(pair).decode()
        connection = HTTPConnection(self.address, timeout=_SECONDS)
        try:
            connection.request(method, path.replace("{}", self.name), body, sent)
            reply = connection.getresponse()
            return Got(reply.status, {k.lower(): v for k, v in reply.getheaders()}, reply.read())
        finally:
            connection.close()

    def after(self, name: str) -> Got:
        """The answer that another case left."""
        assert name in self.left, f"the case before has failed ({name})"
        return self.left[name]


Case = Callable[[Candidate], None]
PULL: dict[str, Case] = {}
DISCOVERY: dict[str, Case] = {}
PUSH: dict[str, Case] = {}


def _case(into: dict[str, Case], name: str) -> Callable[[Case], Case]:
    def note(case: Case) -> Case:
        into[name] = case
        return case

    return note


def _same_digest(got: Got, digest: str) -> None:
    assert got.headers.get("docker-content-digest", digest) == digest


# ------------------------------------------------------------------ Pull


@_case(PULL, "HEAD request to nonexistent blob should result in 404 response")
def _(c: Candidate) -> None:
    assert c.ask("HEAD", f"/v2/{{}}/blobs/{NOWHERE}").status == 404


@_case(PULL, "HEAD request to existing blob should yield 200")
def _(c: Candidate) -> None:
    got = c.ask("HEAD", f"/v2/{{}}/blobs/{c.blob}")
    assert got.status == 200
    _same_digest(got, c.blob)


@_case(PULL, "GET nonexistent blob should result in 404 response")
def _(c: Candidate) -> None:
    assert c.ask("GET", f"/v2/{{}}/blobs/{NOWHERE}").status == 404


@_case(PULL, "GET request to existing blob URL should yield 200")
def _(c: Candidate) -> None:
    got = c.ask("GET", f"/v2/{{}}/blobs/{c.blob}")
    assert (got.status, Digest.of(got.body)) == (200, c.blob)


@_case(PULL, "HEAD request to nonexistent manifest should return 404")
def _(c: Candidate) -> None:
    assert c.ask("HEAD", f"/v2/{{}}/manifests/{NO_MANIFEST}").status == 404


@_case(PULL, "HEAD request to manifest path (digest) should yield 200 response")
def _(c: Candidate) -> None:
    got = c.ask("HEAD", f"/v2/{{}}/manifests/{c.manifest}", headers={"Accept": c.media_type})
    assert got.status == 200
    _same_digest(got, c.manifest)


@_case(PULL, "HEAD request to manifest path (tag) should yield 200 response")
def _(c: Candidate) -> None:
    got = c.ask("HEAD", f"/v2/{{}}/manifests/{c.tag}", headers={"Accept": c.media_type})
    assert got.status == 200
    _same_digest(got, c.tagged)


@_case(PULL, "GET nonexistent manifest should return 404")
def _(c: Candidate) -> None:
    assert c.ask("GET", f"/v2/{{}}/manifests/{NO_MANIFEST}").status == 404


@_case(PULL, "GET request to manifest path (digest) should yield 200 response")
def _(c: Candidate) -> None:
    got = c.ask("GET", f"/v2/{{}}/manifests/{c.manifest}", headers={"Accept": c.media_type})
    assert (got.status, Digest.of(got.body)) == (200, c.manifest)


@_case(PULL, "GET request to manifest path (tag) should yield 200 response")
def _(c: Candidate) -> None:
    got = c.ask("GET", f"/v2/{{}}/manifests/{c.tag}", headers={"Accept": c.media_type})
    assert (got.status, Digest.of(got.body)) == (200, c.tagged)


@_case(PULL, "400 response body should contain OCI-conforming JSON message")
def _(c: Candidate) -> None:
    headers = {"Content-Type": MANIFEST_TYPE}
    got = c.ask("GET", "/v2/{}/manifests/sha256:totallywrong", b"blablabla", headers)  # with a body, as there
    assert got.status in (400, 404)
    if got.status == 400:
        assert got.json["errors"][0]["code"] in CODES


# ------------------------------------------------------------------ Content Discovery


def _tags(c: Candidate, query: str = "") -> list[str]:
    got = c.ask("GET", f"/v2/{{}}/tags/list{query}")
    assert got.status == 200
    found = got.json["tags"]
    assert isinstance(found, list)
    return found


@_case(DISCOVERY, "GET request to list tags should yield 200 response")
def _(c: Candidate) -> None:
    assert c.tag in _tags(c)


@_case(DISCOVERY, "GET number of tags should be limitable by `n` query parameter")
def _(c: Candidate) -> None:
    half = len(_tags(c)) // 2
    assert len(_tags(c, f"?n={half}")) == half


@_case(DISCOVERY, "GET start of tag is set by `last` query parameter")
def _(c: Candidate) -> None:
    half = len(_tags(c)) // 2
    last = _tags(c, f"?n={half}")[-1]
    rest = _tags(c, f"?n={half}&last={last}")
    assert len(rest) <= half and last not in rest


def _referrers(c: Candidate, digest: str, query: str = "") -> tuple[Got, list[dict[str, Any]]]:
    got = c.ask("GET", f"/v2/{{}}/referrers/{digest}{query}")
    assert (got.status, got.headers["content-type"]) == (200, INDEX_TYPE)
    found = got.json["manifests"]
    assert isinstance(found, list)
    return got, found


@_case(DISCOVERY, "GET request to nonexistent blob should result in empty 200 response")
def _(c: Candidate) -> None:
    assert _referrers(c, NOWHERE)[1] == []


@_case(DISCOVERY, "GET request to existing blob should yield 200")
def _(c: Candidate) -> None:
    found = _referrers(c, c.manifest)[1]
    assert len(found) > 1
    assert len({x["digest"] for x in found}) == len(found)
    for one in found:  # described as the manifest itself says
        got = c.ask("GET", f"/v2/{{}}/manifests/{one['digest']}", headers={"Accept": one["mediaType"]})
        assert (got.status, len(got.body)) == (200, one["size"])
        assert got.json["subject"]["digest"] == c.manifest
        assert got.json["annotations"] == one["annotations"]
        assert got.json["artifactType"] == one["artifactType"]


@_case(DISCOVERY, "GET request to existing blob with filter should yield 200")
def _(c: Candidate) -> None:
    everything = _referrers(c, c.manifest)[1]
    got, found = _referrers(c, c.manifest, f"?artifactType={c.artifact_type.replace('+', '%2B')}")
    assert got.headers.get("oci-filters-applied") == "artifactType"
    assert found == [x for x in everything if x["artifactType"] == c.artifact_type]
    none = _referrers(c, c.manifest, "?artifactType=application/vnd.nhl.peanut.butter.bagel")[1]
    assert none == []


@_case(DISCOVERY, "GET request to missing manifest should yield 200")
def _(c: Candidate) -> None:
    """There, a referrer is pushed before its subject; here nobody pushes, and what nobody signed is hidden."""
    assert _referrers(c, str(Digest.of(b"a subject that is not there")))[1] == []


# ------------------------------------------------------------------ Push

BLOB_A, LAYER = b"NHL Peanut Butter on my NHL bagel, blob a", b"a layer's bytes"
CHUNKS = b"first chunk of blob b", b"second chunk"
CONFIG = canonical_json(
    {"architecture": "amd64", "os": "linux", "author": "x", "rootfs": {"type": "layers", "diff_ids": []}}
)


def _manifest(*layers: bytes) -> bytes:
    def described(media_type: str, data: bytes) -> dict[str, Any]:
        return {"mediaType": media_type, "digest": Digest.of(data), "size": len(data)}

    config = described(CONFIG_TYPE, CONFIG) | {
        "data": base64.b64encode(CONFIG).decode(),
        "newUnspecifiedField": base64.b64encode(b"hello world").decode(),
    }
    listed = [described(LAYER_TYPE, x) for x in layers]
    return canonical_json(
        {"schemaVersion": 2, "mediaType": MANIFEST_TYPE, "config": config, "layers": listed}
    )


def _started(c: Candidate, query: str = "") -> Got:
    got = c.ask("POST", f"/v2/{{}}/blobs/uploads/{query}", b"", {"Content-Length": "0"})
    assert got.location
    return got


def _with(location: str, **query: str) -> str:
    joint = "&" if "?" in location else "?"
    return location + joint + "&".join(f"{k}={v}" for k, v in query.items())


def _chunk(n: int) -> dict[str, str]:
    start = sum(len(x) for x in CHUNKS[:n])
    return {**STREAM, "Content-Range": f"{start}-{start + len(CHUNKS[n]) - 1}"}


@_case(PUSH, "PATCH request with blob in body should yield 202 response")
def _(c: Candidate) -> None:
    got = c.ask("PATCH", _started(c).location, BLOB_A, STREAM)
    assert got.status == 202
    c.left["streamed"] = got


@_case(PUSH, "PUT request to session URL with digest should yield 201 response")
def _(c: Candidate) -> None:
    where = _with(c.after("streamed").location, digest=Digest.of(BLOB_A))
    got = c.ask("PUT", where, b"", STREAM)
    assert got.status == 201 and got.location


@_case(PUSH, "GET nonexistent blob should result in 404 response")
def _(c: Candidate) -> None:
    assert c.ask("GET", f"/v2/{{}}/blobs/{NOWHERE}").status == 404


@_case(PUSH, "POST request with digest and blob should yield a 201 or 202")
def _(c: Candidate) -> None:
    got = c.ask("POST", f"/v2/{{}}/blobs/uploads/?digest={Digest.of(CONFIG)}", CONFIG, STREAM)
    assert got.status in (201, 202) and got.location
    c.left["single post"] = got


@_case(PUSH, "GET request to blob URL from prior request should yield 200 or 404 based on response code")
def _(c: Candidate) -> None:
    expected = 404 if c.after("single post").status == 202 else 200
    assert c.ask("GET", f"/v2/{{}}/blobs/{Digest.of(CONFIG)}").status == expected


@_case(PUSH, "POST request should yield a session ID")
def _(c: Candidate) -> None:
    got = _started(c)
    assert got.status == 202
    c.left["session"] = got


@_case(PUSH, "PUT upload of a blob should yield a 201 Response")
def _(c: Candidate) -> None:
    where = _with(c.after("session").location, digest=Digest.of(CONFIG))
    got = c.ask("PUT", where, CONFIG, STREAM)
    assert got.status == 201 and got.location


@_case(PUSH, "GET request to existing blob should yield 200 response")
def _(c: Candidate) -> None:
    got = c.ask("GET", f"/v2/{{}}/blobs/{Digest.of(CONFIG)}")
    assert (got.status, got.body) == (200, CONFIG)


@_case(PUSH, "PUT upload of a layer blob should yield a 201 Response")
def _(c: Candidate) -> None:
    got = c.ask("PUT", _with(_started(c).location, digest=Digest.of(LAYER)), LAYER, STREAM)
    assert got.status == 201 and got.location


@_case(PUSH, "GET request to existing layer should yield 200 response")
def _(c: Candidate) -> None:
    assert c.ask("GET", f"/v2/{{}}/blobs/{Digest.of(LAYER)}").status == 200


@_case(PUSH, "Out-of-order blob upload should return 416")
def _(c: Candidate) -> None:
    assert c.ask("PATCH", _started(c).location, CHUNKS[1], _chunk(1)).status == 416


@_case(PUSH, "PATCH request with first chunk should return 202")
def _(c: Candidate) -> None:
    c.left["chunked"] = _started(c)
    got = c.ask("PATCH", c.after("chunked").location, CHUNKS[0], _chunk(0))
    assert got.status == 202
    assert got.headers["range"] == f"0-{len(CHUNKS[0]) - 1}"


@_case(PUSH, "Retry previous blob chunk should return 416")
def _(c: Candidate) -> None:
    assert c.ask("PATCH", c.after("chunked").location, CHUNKS[0], _chunk(0)).status == 416


@_case(PUSH, "Get on stale blob upload should return 204 with a range and location")
def _(c: Candidate) -> None:
    got = c.ask("GET", c.after("chunked").location)
    assert got.status == 204 and got.location
    assert got.headers["range"] == f"0-{len(CHUNKS[0]) - 1}"
    c.left["first chunk"] = got


@_case(PUSH, "PATCH request with second chunk should return 202")
def _(c: Candidate) -> None:
    got = c.ask("PATCH", c.after("first chunk").location, CHUNKS[1], _chunk(1))
    assert got.status == 202 and got.location
    c.left["second chunk"] = got


@_case(PUSH, "PUT request with digest should return 201")
def _(c: Candidate) -> None:
    where = _with(c.after("second chunk").location, digest=Digest.of(b"".join(CHUNKS)))
    got = c.ask("PUT", where, b"", STREAM)
    assert got.status == 201 and got.location


@_case(PUSH, "Cross-mounting of a blob without the from argument should yield session id")
def _(c: Candidate) -> None:
    got = c.ask("POST", f"/v2/{c.other}/blobs/uploads/?mount={NOWHERE}", b"")
    assert got.status == 202 and got.location


@_case(PUSH, "POST request to mount another repository's blob should return 201 or 202")
def _(c: Candidate) -> None:
    got = c.ask("POST", f"/v2/{c.other}/blobs/uploads/?mount={Digest.of(BLOB_A)}&from={c.name}", b"")
    assert got.status in (201, 202)
    c.left["mounted"] = got


@_case(PUSH, "GET request to test digest within cross-mount namespace should return 200")
def _(c: Candidate) -> None:
    if c.after("mounted").status == 201:
        assert c.after("mounted").location == f"/v2/{c.other}/blobs/{Digest.of(BLOB_A)}"
        assert c.ask("GET", c.after("mounted").location).status == 200


@_case(PUSH, "Cross-mounting of nonexistent blob should yield session id")
def _(c: Candidate) -> None:
    got = c.ask("POST", f"/v2/{c.other}/blobs/uploads/?mount={NOWHERE}&from={c.name}", b"")
    assert got.status == 202
    assert got.location.startswith(f"/v2/{c.other}/blobs/uploads/")


@_case(PUSH, "GET nonexistent manifest should return 404")
def _(c: Candidate) -> None:
    assert c.ask("GET", f"/v2/{{}}/manifests/{NO_MANIFEST}").status == 404


@_case(PUSH, "PUT should accept a manifest upload")
def _(c: Candidate) -> None:
    for n in range(4):
        got = c.ask("PUT", f"/v2/{{}}/manifests/test{n}", _manifest(LAYER), {"Content-Type": MANIFEST_TYPE})
        assert got.status == 201 and got.location


@_case(PUSH, "Registry should accept a manifest upload with no layers")
def _(c: Candidate) -> None:
    got = c.ask("PUT", "/v2/{}/manifests/emptylayer", _manifest(), {"Content-Type": MANIFEST_TYPE})
    assert got.status == 201 and got.location  # there a warning, which counts as a failure here


@_case(PUSH, "GET request to manifest URL (digest) should yield 200 response")
def _(c: Candidate) -> None:
    digest = Digest.of(_manifest(LAYER))
    got = c.ask("GET", f"/v2/{{}}/manifests/{digest}", headers={"Accept": MANIFEST_TYPE})
    assert (got.status, Digest.of(got.body)) == (200, digest)


def run(cases: dict[str, Case], candidate: Candidate) -> dict[str, str]:
    """What failed, by the case's name, and how."""
    failed = {}
    for name, case in cases.items():
        try:
            case(candidate)
        except (AssertionError, KeyError, OSError, ValueError) as error:
            failed[name] = repr(error)
    return failed
