"""What the gate answers: approved content as it is, and nothing that was not asked for properly."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from builder.model.digest import Digest
from builder.model.image import INDEX_TYPE, Descriptor
from builder.oci.client import RegistryClient
from builder.oci.manifest import parse_manifest
from tests.support.evidence import World
from tests.support.gates import RunningGate, running_gate
from tests.support.registry_simulator import Simulator
from tests.support.scenes import REPO, Scene, published

DIGEST = Digest.of(b"x")
TAG = f"/v2/{REPO}/manifests/3.13"


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with published(tmp_path_factory.mktemp("scene")) as scene:
        yield scene


@pytest.fixture(scope="module")
def gate(scene: Scene) -> Iterator[RunningGate]:
    """One for all: none of these tests changes anything."""
    with running_gate(scene.sim.address, scene.world.trust) as gate:
        yield gate


@pytest.fixture
def sim(scene: Scene) -> Simulator:
    return scene.sim


@pytest.fixture
def here(scene: Scene) -> World:
    return scene.world


def _layer(here: World) -> Descriptor:
    return here.image.platforms[0].layers[1].blob


def _blob(digest: str) -> str:
    return f"/v2/{REPO}/blobs/{digest}"


# ------------------------------------------------------------------ what is approved


@pytest.mark.parametrize("by", ["tag", "immutable tag", "index", "platform"])
def test_manifests_are_the_storage_s_bytes(gate: RunningGate, sim: Simulator, here: World, by: str) -> None:
    digest = here.image.platforms[0].manifest.digest if by == "platform" else here.image.digest
    name = {"tag": "3.13", "immutable tag": here.image.immutable_tag}.get(by, digest)
    got = gate.get(f"/v2/{REPO}/manifests/{name}")
    data, media_type = sim.manifests[REPO][digest]
    assert (got.status, got.body) == (200, data)
    assert got.headers["content-type"] == media_type
    assert got.headers["docker-content-digest"] == digest
    assert got.headers["x-request-id"]
    head = gate.ask("HEAD", f"/v2/{REPO}/manifests/{name}")
    assert (head.status, head.body) == (200, b"")
    own = {"x-request-id", "date"}
    assert {k: v for k, v in head.headers.items() if k not in own} == {
        k: v for k, v in got.headers.items() if k not in own
    }


def test_manifests_come_from_memory(gate: RunningGate, sim: Simulator) -> None:
    before = sim.count("GET", "manifests")
    for _ in range(20):
        assert gate.get(TAG).status == 200
    assert sim.count("GET", "manifests") == before


def test_every_blob_of_the_image_and_of_its_evidence_is_served(
    gate: RunningGate, sim: Simulator, here: World
) -> None:
    client = RegistryClient(gate.address)
    subjects = (here.image.index, *(x.manifest for x in here.image.platforms))
    for subject in subjects:
        data, media_type, _ = client.get_manifest(client.reference(REPO, digest=subject.digest))
        carriers = [client.reference(REPO, f"sha256-{subject.digest.hex}{e}") for e in (".sig", ".att")]
        listed = client.referrers(REPO, subject.digest)
        assert len(listed) == 7
        carriers += [client.reference(REPO, digest=d.digest) for d in listed]
        manifests = [parse_manifest(data, media_type)]
        manifests += [parse_manifest(*client.get_manifest(ref)[:2]) for ref in carriers]
        for blob in (b for m in manifests for b in m.blobs):
            assert client.get_blob_bytes(REPO, blob, 1 << 20) == sim.blobs[REPO][blob.digest]
            assert gate.ask("HEAD", _blob(blob.digest)).headers["content-length"] == str(blob.size)


def test_referrers_are_filtered_and_never_missing(gate: RunningGate, here: World) -> None:
    path = f"/v2/{REPO}/referrers/{here.image.digest}"
    for query, count in (("", 7), ("?artifactType=application/vnd.dev.sigstore.bundle.v0.3%2Bjson", 7)):
        got = gate.get(path + query)
        assert (got.status, got.headers["content-type"]) == (200, INDEX_TYPE)
        assert len(json.loads(got.body)["manifests"]) == count
        assert ("oci-filters-applied" in got.headers) == bool(query)
    assert json.loads(gate.get(path + "?artifactType=text/plain").body)["manifests"] == []
    unknown = gate.get(f"/v2/{REPO}/referrers/{Digest.of(b'?')}")
    assert (unknown.status, json.loads(unknown.body)["manifests"]) == (200, [])
    index = gate.get(f"/v2/{REPO}/manifests/sha256-{here.image.digest.hex}")
    assert json.loads(index.body)["manifests"] == json.loads(gate.get(path).body)["manifests"]


@pytest.mark.parametrize("method", ["PUT", "POST", "PATCH", "DELETE"])
@pytest.mark.parametrize(
    "path",
    [
        TAG,
        TAG + "?tag=3.13&tag=x",
        f"/v2/{REPO}/manifests/{DIGEST}?" + "&".join(f"tag=t{n}" for n in range(200)),
        f"/v2/{REPO}/blobs/uploads/",
        f"/v2/{REPO}/blobs/uploads/?mount={DIGEST}&from=candidate/secret",
        f"/v2/{REPO}/blobs/uploads/somebody-elses?_state=x&digest={DIGEST}",
        f"/v2/{REPO}/blobs/{DIGEST}",
        "/v2/",
        "/metrics",
    ],
)
def test_nobody_writes(gate: RunningGate, sim: Simulator, method: str, path: str) -> None:
    before = sim.count("PUT|POST|PATCH|DELETE")
    got = gate.ask(method, path)
    assert (got.status, got.error["code"]) == (405, "UNSUPPORTED")
    assert "read-only" in got.error["message"]
    assert sim.count("PUT|POST|PATCH|DELETE") == before


def test_what_is_nowhere_is_not_found_with_a_hint(gate: RunningGate, here: World) -> None:
    got = gate.get(f"/v2/{REPO}/manifests/9.9")
    assert (got.status, got.error["code"]) == (404, "MANIFEST_UNKNOWN")
    assert f"there is {REPO}:3.13@{here.image.digest}" in got.error["message"]
    assert gate.get("/v2/library/nginx/manifests/latest").error["code"] == "NAME_UNKNOWN"


# ------------------------------------------------------------------ hostile requests


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/v2/../v2/candidate/python/manifests/3.13", 400, "NAME_INVALID"),
        ("/v2/candidate/%70ython/manifests/3.13", 400, "NAME_INVALID"),
        ("/v2/candidate%2Fpython/manifests/3.13", 400, "NAME_INVALID"),
        ("/v2/candidate/%2e%2e/manifests/3.13", 400, "NAME_INVALID"),
        ("/v2/candidate//python/manifests/3.13", 400, "NAME_INVALID"),
        ("/v2//candidate/python/manifests/3.13", 400, "NAME_INVALID"),
        ("//v2/candidate/python/manifests/3.13", 404, "UNSUPPORTED"),
        ("/v2/candidate\\python/manifests/3.13", 400, "NAME_INVALID"),
        ("/v2/candidate/Python/manifests/3.13", 400, "NAME_INVALID"),
        ("/v2/candidate/python%00/manifests/3.13", 400, "NAME_INVALID"),
        (f"/v2/{'a' * 256}/manifests/3.13", 400, "NAME_INVALID"),
        (f"/v2/{'a' * 2000}/manifests/3.13", 414, "NAME_INVALID"),
        (f"/v2/{REPO}/manifests/{'a' * 129}", 404, "MANIFEST_UNKNOWN"),
        (f"/v2/{REPO}/manifests/.3", 404, "MANIFEST_UNKNOWN"),
        (f"/v2/{REPO}/manifests/", 404, "MANIFEST_UNKNOWN"),
        (f"/v2/{REPO}/manifests/3.1", 404, "MANIFEST_UNKNOWN"),
        (f"/v2/{REPO}/manifests/3.13%20", 404, "MANIFEST_UNKNOWN"),
        (f"/v2/{REPO}/manifests/latest", 404, "MANIFEST_UNKNOWN"),
        ("/v2/candidate/pytho/manifests/3.13", 404, "NAME_UNKNOWN"),
        (f"/v2/{REPO}/manifests/sha256:{'A' * 64}", 400, "DIGEST_INVALID"),
        (f"/v2/{REPO}/manifests/sha256:{'a' * 63}", 400, "DIGEST_INVALID"),
        (f"/v2/{REPO}/manifests/sha512:{'a' * 128}", 400, "DIGEST_INVALID"),
        (f"/v2/{REPO}/manifests/md5:{'a' * 32}", 400, "DIGEST_INVALID"),
        (f"/v2/{REPO}/blobs/sha256:../../etc", 404, "NAME_INVALID"),
        (f"/v2/{REPO}/blobs/sha256:..", 400, "DIGEST_INVALID"),
        (f"/v2/{REPO}/blobs/3.13", 400, "DIGEST_INVALID"),
        (f"/v2/{REPO}/tags/list?n=-1", 400, "PAGINATION_NUMBER_INVALID"),
        (f"/v2/{REPO}/tags/list?n=1e18", 400, "PAGINATION_NUMBER_INVALID"),
        (f"/v2/{REPO}/tags/list?n=1&n=2", 400, "UNSUPPORTED"),
        (f"/v2/{REPO}/tags/list?last=%00", 400, "NAME_INVALID"),
        ("/v2/_catalog?n=-1", 400, "PAGINATION_NUMBER_INVALID"),
        (f"/v2/{REPO}/referrers/{'a' * 10}", 400, "DIGEST_INVALID"),
        ("/v2/_catalog?n=1e18", 400, "PAGINATION_NUMBER_INVALID"),
        (f"/v2/_catalog?n={'9' * 30}", 400, "PAGINATION_NUMBER_INVALID"),
        (f"/v2/_catalog?last={'a' * 256}", 400, "NAME_INVALID"),
        (f"/v2/_catalog?n=1&last={'a' * 2000}", 414, "UNSUPPORTED"),
        (f"/v2/{REPO}/blobs/uploads/", 404, "UNSUPPORTED"),
        (f"/v2/{REPO}/blobs/uploads/somebody-elses?_state=x", 404, "UNSUPPORTED"),
        (f"/v2/{REPO}/secret", 404, "NAME_INVALID"),
    ],
)
def test_hostile_addresses_are_refused_exactly(gate: RunningGate, path: str, status: int, code: str) -> None:
    raw = gate.raw(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    head, _, body = raw.partition(b"\r\n\r\n")
    assert int(head.split()[1]) == status, raw
    assert json.loads(body)["errors"][0]["code"] == code
    assert b"\\x00" not in body and b"\x1b" not in body


def test_a_page_is_clamped_and_begins_anywhere(gate: RunningGate) -> None:
    for query in ("n=1000000000000000000", "n=1&last=", "last=candidate/aaaa"):
        got = gate.get(f"/v2/_catalog?{query}")
        assert (got.status, json.loads(got.body)["repositories"]) == (200, [REPO])
    assert json.loads(gate.get("/v2/_catalog?n=0").body)["repositories"] == []
    assert json.loads(gate.get(f"/v2/_catalog?last={REPO}").body)["repositories"] == []


def test_letters_that_look_alike_are_no_name(gate: RunningGate) -> None:
    for name in ("candidate/p\u0443thon", "candidate/\uff50ython", "candidate/python\u200b"):
        raw = gate.raw(f"GET /v2/{name}/manifests/3.13 HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert b" 400 " in raw[:20]
        assert b"sha256:" not in raw


def test_bytes_that_are_no_request(gate: RunningGate) -> None:
    for data in (
        b"GET /v2/\xff HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /v2/ HTTP/9.9\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01",
        b"GET /v2/\x00 HTTP/1.1\r\nHost: x\r\n\r\n",
    ):
        assert b" 400 " in gate.raw(data + b"\r\n" * 2)[:20]
    assert gate.get("/v2/").status == 200


def test_a_head_that_is_too_large_is_refused(gate: RunningGate) -> None:
    lines = b"".join(b"X-%d: %s\r\n" % (n, b"a" * 1000) for n in range(40))
    assert b" 431 " in gate.raw(b"GET /v2/ HTTP/1.1\r\nHost: x\r\n" + lines + b"\r\n")[:20]
    assert b" 431 " in gate.raw(b"GET /" + b"a" * (40 << 10) + b" HTTP/1.1\r\n\r\n")[:20]


def test_two_ranges_headers_are_refused(gate: RunningGate, here: World) -> None:
    path = _blob(_layer(here).digest)
    raw = gate.raw(
        f"GET {path} HTTP/1.1\r\nHost: x\r\nRange: bytes=0-1\r\nRange: bytes=2-3\r\nConnection: close\r\n\r\n".encode()
    )
    assert b" 400 " in raw[:20]
