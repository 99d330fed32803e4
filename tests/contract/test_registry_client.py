"""Our registry client against a registry that misbehaves in one way at a time."""

from __future__ import annotations

import json
import resource
import signal
import threading
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from builder.errors import RegistryError, ToolError
from builder.model.digest import Digest
from builder.model.image import CONFIG_TYPE, INDEX_TYPE, LAYER_TYPE, MANIFEST_TYPE, Descriptor
from builder.oci.auth import Credentials
from builder.oci.client import RegistryClient
from builder.oci.faults import RegistryRefused, Temporary
from builder.oci.manifest import index_bytes, manifest_bytes, parse_manifest
from builder.oci.transport import Limits
from tests.support import registry_simulator as reg
from tests.support.registry_simulator import Simulator, simulator
from tests.support.tls import self_signed

REPO = "candidate/python"
BLOB = bytes(range(256)) * 4096  # 1 MiB
DIGEST = Digest.of(BLOB)
BLOB_DESCRIPTOR = Descriptor(LAYER_TYPE, DIGEST, len(BLOB))
CONFIG = b"{}"
MANIFEST = manifest_bytes(Descriptor(CONFIG_TYPE, Digest.of(CONFIG), 2), [BLOB_DESCRIPTOR])
OTHER = manifest_bytes(Descriptor(CONFIG_TYPE, Digest.of(CONFIG), 2), [])
LIMITS = Limits(connect_seconds=1, read_seconds=0.5, total_seconds=1.5, attempts=3)
SECRET = "s3cret-password"


@pytest.fixture
def sim() -> Iterator[Simulator]:
    with simulator() as sim:
        sim.blobs[REPO] = {Digest.of(CONFIG): CONFIG, DIGEST: BLOB}
        sim.put(REPO, MANIFEST, MANIFEST_TYPE, "1")
        yield sim


@pytest.fixture
def pauses() -> list[float]:
    return []


@pytest.fixture
def client(sim: Simulator, pauses: list[float]) -> RegistryClient:
    return RegistryClient(sim.address, limits=LIMITS, sleep=pauses.append)


@pytest.fixture
def stop() -> Iterator[threading.Event]:
    event = threading.Event()
    yield event
    event.set()


# ------------------------------------------------------------------- the ordinary way


def test_a_blob_goes_up_and_comes_back(client: RegistryClient, sim: Simulator, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"layer" * 100_000)
    digest = Digest.of(source.read_bytes())
    assert not client.has_blob(REPO, digest)
    assert client.put_blob(REPO, source, digest) == 500_000
    assert client.has_blob(REPO, digest, 500_000)
    assert not client.has_blob(REPO, digest, 1)
    client.get_blob(REPO, Descriptor(LAYER_TYPE, digest, 500_000), tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == source.read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["copy", "source"]


def test_an_empty_blob_goes_up(client: RegistryClient, sim: Simulator) -> None:
    client.put_blob(REPO, b"", Digest.of(b""))
    assert client.get_blob_bytes(REPO, Descriptor("a/b", Digest.of(b""), 0), 10) == b""


def test_manifests_are_sent_as_they_are(client: RegistryClient, sim: Simulator) -> None:
    spaced = json.dumps(json.loads(OTHER), indent=3).encode()
    assert client.put_manifest(client.reference(REPO, "2"), spaced, MANIFEST_TYPE) == Digest.of(spaced)
    assert client.get_manifest(client.reference(REPO, "2")) == (spaced, MANIFEST_TYPE, Digest.of(spaced))
    found = client.head_manifest(client.reference(REPO, digest=Digest.of(spaced)))
    assert found == Descriptor(MANIFEST_TYPE, Digest.of(spaced), len(spaced))
    assert client.head_manifest(client.reference(REPO, "3")) is None


def test_a_manifest_is_taken_away_where_the_registry_does_that(
    client: RegistryClient, sim: Simulator
) -> None:
    where = client.reference(REPO, digest=Digest.of(MANIFEST))
    sim.deletes = False
    assert not client.delete_manifest(where)
    assert client.head_manifest(where) is not None
    sim.deletes = True
    assert client.delete_manifest(where)
    assert client.head_manifest(where) is None
    assert client.delete_manifest(where)  # it is gone, whoever took it
    sim.fault("DELETE", ".*", reg.status(500))
    with pytest.raises(RegistryError):
        client.delete_manifest(where)


def test_a_blob_is_mounted_from_another_repository(client: RegistryClient, sim: Simulator) -> None:
    assert client.mount_blob("candidate/app", DIGEST, REPO)
    assert client.has_blob("candidate/app", DIGEST)
    assert not client.mount_blob("candidate/app", Digest.of(b"unknown"), REPO)
    assert sim.uploads == {}
    assert client.put_blob("candidate/web", BLOB, DIGEST, mount_from=REPO) == 0
    assert client.put_blob("candidate/api", BLOB, DIGEST, mount_from="candidate/none") == len(BLOB)


def test_connections_are_kept(client: RegistryClient, sim: Simulator, tmp_path: Path) -> None:
    ports: set[int] = set()
    original = reg.Handler.serve

    def note(handler: reg.Handler) -> None:
        ports.add(handler.client_address[1])
        original(handler)

    sim.fault(".*", ".*", note)
    client.ping()
    client.head_manifest(client.reference(REPO, "1"))
    client.get_blob(REPO, BLOB_DESCRIPTOR, tmp_path / "x")
    client.put_blob(REPO, b"new", Digest.of(b"new"))
    client.head_manifest(client.reference(REPO, "none"))
    assert len(ports) == 1


def test_tags_are_paged(client: RegistryClient, sim: Simulator) -> None:
    sim.page = 7
    sim.tags[REPO] = {f"t{n:02}": Digest.of(MANIFEST) for n in range(30)}
    assert client.tags(REPO) == tuple(f"t{n:02}" for n in range(30))
    assert sim.count("GET", "tags/list") == 5
    assert client.tags("candidate/none") == ()


def subject_manifest(text: str, kind: str = "a/b") -> tuple[bytes, Descriptor]:
    raw = json.loads(OTHER) | {
        "subject": Descriptor(MANIFEST_TYPE, Digest.of(MANIFEST), len(MANIFEST)).as_dict(),
        "artifactType": kind,
        "annotations": {"dev.sigstore.bundle.predicateType": text},
    }
    data = json.dumps(raw).encode()
    entry = Descriptor(MANIFEST_TYPE, Digest.of(data), len(data), raw["annotations"], kind)
    return data, entry


def test_referrers_with_the_api(client: RegistryClient, sim: Simulator) -> None:
    data, entry = subject_manifest("x")
    assert client.supports_referrers(REPO)
    assert client.put_referrer(REPO, data, MANIFEST_TYPE)
    assert client.referrers(REPO, Digest.of(MANIFEST)) == (entry,)
    assert client.referrers(REPO, Digest.of(MANIFEST), "c/d") == ()


def test_referrers_without_the_api(client: RegistryClient, sim: Simulator) -> None:
    sim.referrers_api = False
    assert not client.supports_referrers(REPO)
    one, two = subject_manifest("x"), subject_manifest("y")
    for data, _ in (one, two):
        assert not client.put_referrer(REPO, data, MANIFEST_TYPE)
    assert client.referrers(REPO, Digest.of(MANIFEST)) == ()
    before = sim.count("PUT")
    client.put_referrers_fallback(REPO, Digest.of(MANIFEST), [one[1], two[1]])
    assert sim.count("PUT") == before + 1
    assert client.referrers(REPO, Digest.of(MANIFEST)) == (one[1], two[1])
    client.put_referrers_fallback(REPO, Digest.of(MANIFEST), [one[1], two[1]])
    assert sim.count("PUT") == before + 1


def test_entries_of_others_stay_and_ours_are_replaced(client: RegistryClient, sim: Simulator) -> None:
    sim.referrers_api = False
    foreign, old = subject_manifest("x", "other/kind"), subject_manifest("x")
    new = subject_manifest("x")[1]
    new = Descriptor(new.media_type, Digest.of(b"newer"), 5, new.annotations, new.artifact_type)
    for item in (foreign, old):
        client.put_referrer(REPO, item[0], MANIFEST_TYPE)
    sim.manifests[REPO][new.digest] = (b"newer", MANIFEST_TYPE)
    subject = Digest.of(MANIFEST)
    client.put_referrers_fallback(REPO, subject, [foreign[1], old[1]])
    client.put_referrers_fallback(REPO, subject, [new], replace_same_kind=True)
    assert client.referrers(REPO, subject) == (foreign[1], new)


def test_a_lost_update_is_repeated(client: RegistryClient, sim: Simulator) -> None:
    sim.referrers_api = False
    data, entry = subject_manifest("x")
    client.put_referrer(REPO, data, MANIFEST_TYPE)
    tag = f"sha256-{Digest.of(MANIFEST).hex}"

    def overwritten(handler: reg.Handler) -> None:
        handler.serve()
        with sim.lock:
            sim.put(REPO, index_bytes([]), INDEX_TYPE, tag)

    sim.fault("PUT", f"manifests/{tag}", overwritten, times=2)
    client.put_referrers_fallback(REPO, Digest.of(MANIFEST), [entry])
    assert client.referrers(REPO, Digest.of(MANIFEST)) == (entry,)
    sim.put(REPO, index_bytes([]), INDEX_TYPE, tag)
    sim.fault("PUT", f"manifests/{tag}", overwritten)
    with pytest.raises(RegistryError, match="another writer"):
        client.put_referrers_fallback(REPO, Digest.of(MANIFEST), [entry])


# ------------------------------------------------------------------- faults that may pass


@pytest.mark.parametrize("code", [429, 500, 502, 503, 504])
def test_a_temporary_status_is_tried_again(client: RegistryClient, sim: Simulator, code: int) -> None:
    sim.fault("HEAD", "manifests", reg.status(code), times=2)
    assert client.head_manifest(client.reference(REPO, "1")) is not None
    assert sim.count("HEAD") == 3


@pytest.mark.parametrize("code", [429, 500, 502, 503, 504])
def test_tries_are_bounded(client: RegistryClient, sim: Simulator, code: int) -> None:
    sim.fault("GET", "manifests", reg.status(code))
    with pytest.raises(RegistryError, match=str(code)) as caught:
        client.get_manifest(client.reference(REPO, "1"))
    assert caught.value.exit_code == 6
    assert "3 tries" in caught.value.message
    assert sim.count("GET") == 3


@pytest.mark.parametrize("code", [400, 401, 403, 404, 405, 409, 413, 501])
def test_a_refusal_is_not_tried_again(client: RegistryClient, sim: Simulator, code: int) -> None:
    sim.fault("PUT", "manifests", reg.status(code))
    with pytest.raises(RegistryRefused) as caught:
        client.put_manifest(client.reference(REPO, "1"), MANIFEST, MANIFEST_TYPE)
    assert caught.value.status == code
    assert "TEST: status" in caught.value.context
    assert sim.count("PUT") == 1
    if code == 401:  # of the registry that we publish to, Docker's configuration is not asked
        for way in ("credentials/HOST", "GOLDSMITH_UPSTREAM_USER", "docker login"):
            assert way in caught.value.hint


@pytest.mark.parametrize("after", ["999999999", "99999999999999999999", "-1", "soon", "1e9", "²"])
def test_an_absurd_retry_after_is_capped(sim: Simulator, after: str) -> None:
    pauses: list[float] = []
    client = RegistryClient(sim.address, limits=Limits(attempts=3), sleep=pauses.append)
    sim.fault("GET", "manifests", reg.status(429, Retry_After=after.encode().decode("latin-1")), times=2)
    client.get_manifest(client.reference(REPO, "1"))
    assert len(pauses) == 2
    assert all(0 < pause <= 10 for pause in pauses)


def test_a_pause_beyond_the_deadline_is_not_made(
    client: RegistryClient, sim: Simulator, pauses: list[float]
) -> None:
    sim.fault("GET", "manifests", reg.status(429, Retry_After="5"))
    with pytest.raises(Temporary, match="1 try"):
        client.get_manifest(client.reference(REPO, "1"))
    assert pauses == []


def test_a_registry_that_is_down(pauses: list[float]) -> None:
    with simulator() as sim:
        address = sim.address
    client = RegistryClient(address, limits=LIMITS, sleep=pauses.append)
    with pytest.raises(RegistryError, match="cannot be reached") as caught:
        client.ping()
    assert caught.value.exit_code == 6
    assert caught.value.hint
    assert f"http://{address}/v2/: Connection refused" in caught.value.context  # no name of a Python object
    assert len(pauses) == 2


def test_an_upload_that_is_cut_starts_again(client: RegistryClient, sim: Simulator) -> None:
    new = BLOB + b"new"
    sim.fault("PUT", "uploads", reg.cut_upload, times=2)
    assert client.put_blob(REPO, new, Digest.of(new)) == len(new)
    assert sim.blobs[REPO][Digest.of(new)] == new
    assert sim.count("PUT", "uploads") == 3


def test_an_upload_that_is_always_cut_ends(client: RegistryClient, sim: Simulator) -> None:
    new = BLOB + b"new"
    sim.fault("PUT", "uploads", reg.cut_upload)
    with pytest.raises(Temporary):
        client.put_blob(REPO, new, Digest.of(new))
    assert sim.count("PUT", "uploads") == 3


def test_a_download_that_is_cut_starts_again(client: RegistryClient, sim: Simulator, tmp_path: Path) -> None:
    sim.fault("GET", "blobs", reg.cut_download, times=2)
    client.get_blob(REPO, BLOB_DESCRIPTOR, tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == BLOB


def test_a_download_that_is_always_cut_leaves_nothing(
    client: RegistryClient, sim: Simulator, tmp_path: Path
) -> None:
    sim.fault("GET", "blobs", reg.cut_download)
    with pytest.raises(Temporary, match="broke"):
        client.get_blob(REPO, BLOB_DESCRIPTOR, tmp_path / "x")
    assert list(tmp_path.iterdir()) == []
    assert sim.count("GET", "blobs") == 3


@pytest.mark.parametrize("manner", [reg.dribble_body, reg.dribble_headers, reg.silent])
def test_a_slow_registry_meets_the_deadline(sim: Simulator, stop: threading.Event, manner) -> None:  # type: ignore[no-untyped-def]
    client = RegistryClient(sim.address, limits=LIMITS)
    sim.fault("GET", "blobs", manner(stop))
    began = time.monotonic()
    with pytest.raises(Temporary):
        client.get_blob_bytes(REPO, Descriptor(LAYER_TYPE, DIGEST, 10), 10)
    assert time.monotonic() - began < 4


# ------------------------------------------------------------------- other content than promised


@pytest.mark.parametrize("manner", [reg.corrupt, reg.longer, reg.endless])
def test_another_blob_is_never_kept(client: RegistryClient, sim: Simulator, tmp_path: Path, manner) -> None:  # type: ignore[no-untyped-def]
    sim.fault("GET", "blobs", manner)
    with pytest.raises(RegistryError, match="other content"):
        client.get_blob(REPO, BLOB_DESCRIPTOR, tmp_path / "x")
    assert list(tmp_path.iterdir()) == []
    for read in (client.check_blob, lambda r, d: client.get_blob_bytes(r, d, 2 << 20)):
        with pytest.raises(RegistryError, match="other content"):
            read(REPO, BLOB_DESCRIPTOR)


def test_a_blob_of_another_size_is_refused(client: RegistryClient, sim: Simulator) -> None:
    with pytest.raises(RegistryError, match="other content"):
        client.check_blob(REPO, Descriptor(LAYER_TYPE, DIGEST, len(BLOB) + 1))


def test_a_small_blob_is_not_read_beyond_its_limit(client: RegistryClient, sim: Simulator) -> None:
    with pytest.raises(RegistryError, match="larger than 100 bytes"):
        client.get_blob_bytes(REPO, BLOB_DESCRIPTOR, 100)
    assert sim.requests == []


def test_an_endless_manifest_ends(client: RegistryClient, sim: Simulator) -> None:
    sim.fault("GET", "manifests", reg.endless)
    tracemalloc.start()
    with pytest.raises(RegistryError, match="more than 4194304 bytes"):
        client.get_manifest(client.reference(REPO, "1"))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 32 << 20


def test_a_corrupted_manifest_is_refused(client: RegistryClient, sim: Simulator) -> None:
    sim.fault("GET", "manifests", reg.corrupt)
    for ref in (client.reference(REPO, "1"), client.reference(REPO, digest=Digest.of(MANIFEST))):
        with pytest.raises(RegistryError, match="other content"):
            client.get_manifest(ref)


def test_another_digest_in_the_header_is_refused(client: RegistryClient, sim: Simulator) -> None:
    sim.fault(".*", "manifests", reg.with_header("Docker-Content-Digest", str(Digest.of(b"x"))))
    by_digest = client.reference(REPO, digest=Digest.of(MANIFEST))
    for action in (client.get_manifest, client.head_manifest):
        with pytest.raises(RegistryError, match="other content"):
            action(by_digest)
    with pytest.raises(RegistryError, match="other content"):
        client.put_manifest(client.reference(REPO, "1"), MANIFEST, MANIFEST_TYPE)


@pytest.mark.parametrize("value", ["sha256:ABC", "md5:" + "0" * 32, "../../x", "sha512:" + "0" * 128])
def test_a_malformed_digest_header_is_refused(client: RegistryClient, sim: Simulator, value: str) -> None:
    sim.fault("HEAD", "manifests", reg.with_header("Docker-Content-Digest", value))
    with pytest.raises(RegistryError, match="digest"):
        client.head_manifest(client.reference(REPO, "1"))


def test_without_a_digest_header_the_content_is_read(client: RegistryClient, sim: Simulator) -> None:
    sim.fault(".*", "manifests", reg.without("Docker-Content-Digest"))
    found = client.head_manifest(client.reference(REPO, "1"))
    assert found == Descriptor(MANIFEST_TYPE, Digest.of(MANIFEST), len(MANIFEST))


def test_another_manifest_on_the_second_get_by_digest(client: RegistryClient, sim: Simulator) -> None:
    ref = client.reference(REPO, digest=Digest.of(MANIFEST))
    client.get_manifest(ref)
    sim.manifests[REPO][Digest.of(MANIFEST)] = (OTHER, MANIFEST_TYPE)
    with pytest.raises(RegistryError, match="other content"):
        client.get_manifest(ref)


@pytest.mark.parametrize("stated", [INDEX_TYPE, "text/html", ""])
def test_header_and_body_have_one_type(client: RegistryClient, sim: Simulator, stated: str) -> None:
    sim.fault("GET", "manifests", reg.with_header("Content-Type", stated))
    with pytest.raises(RegistryError):
        client.get_manifest(client.reference(REPO, "1"))


def test_a_wrong_manifest_is_not_even_sent(client: RegistryClient, sim: Simulator) -> None:
    with pytest.raises(RegistryError):
        client.put_manifest(client.reference(REPO, "1"), b"{}", MANIFEST_TYPE)
    with pytest.raises(RegistryError):
        client.put_manifest(client.reference(REPO, digest=Digest.of(b"x")), MANIFEST, MANIFEST_TYPE)
    assert sim.requests == []


# ------------------------------------------------------------------- listings


def endless_tags(new_ones: bool):  # type: ignore[no-untyped-def]
    def act(handler: reg.Handler) -> None:
        number = handler.simulator.count("GET", "tags/list") if new_ones else 0
        link = f'</v2/{REPO}/tags/list?n=1&last={number}>; rel="next"'
        handler.reply(200, json.dumps({"tags": [f"t{number}"]}).encode(), Link=link)

    return act


@pytest.mark.parametrize("new_ones", [True, False])
def test_an_endless_tag_list_ends(client: RegistryClient, sim: Simulator, new_ones: bool) -> None:
    sim.fault("GET", "tags/list", endless_tags(new_ones))
    with pytest.raises(RegistryError, match="does not end"):
        client.tags(REPO)
    assert len(sim.requests) <= 100


def test_endless_referrers_end(client: RegistryClient, sim: Simulator) -> None:
    link = f'</v2/{REPO}/referrers/{DIGEST}?last=1>; rel="next"'
    sim.fault("GET", "referrers", lambda h: h.reply(200, index_bytes([]), Content_Type=INDEX_TYPE, Link=link))
    with pytest.raises(RegistryError, match="do not end"):
        client.referrers(REPO, DIGEST)


@pytest.mark.parametrize("tag", ["../../x", "a b", "\x1b[31m", "x" * 129])
def test_a_malformed_tag_is_refused(client: RegistryClient, sim: Simulator, tag: str) -> None:
    sim.tags[REPO] = {tag: Digest.of(MANIFEST)}
    with pytest.raises(RegistryError, match="not a tag"):
        client.tags(REPO)


def test_a_next_page_on_another_host_is_not_asked_for(client: RegistryClient, sim: Simulator) -> None:
    with simulator() as other:
        link = f'<http://{other.address}/v2/x/tags/list>; rel="next"'
        sim.fault("GET", "tags/list", lambda h: h.reply(200, b'{"tags":["a"]}', Link=link))
        with pytest.raises(RegistryError, match="another host"):
            client.tags(REPO)
        assert other.requests == []


def test_a_web_page_is_not_a_referrers_api(client: RegistryClient, sim: Simulator) -> None:
    sim.fault("GET", "referrers", lambda h: h.reply(200, b"<html>", Content_Type="text/html"))
    assert not client.supports_referrers(REPO)
    assert client.referrers(REPO, DIGEST) == ()


def test_a_manifest_under_the_referrers_tag_is_refused(client: RegistryClient, sim: Simulator) -> None:
    sim.referrers_api = False
    sim.put(REPO, MANIFEST, MANIFEST_TYPE, f"sha256-{DIGEST.hex}")
    with pytest.raises(RegistryError, match="not an index"):
        client.referrers(REPO, DIGEST)


# ------------------------------------------------------------------- credentials and redirects


def with_password(sim: Simulator, **more) -> RegistryClient:  # type: ignore[no-untyped-def]
    return RegistryClient(
        sim.address, credentials=Credentials("me", SECRET), limits=LIMITS, sleep=lambda _: None, **more
    )


def test_basic_authentication(sim: Simulator, client: RegistryClient) -> None:
    sim.basic = ("me", SECRET)
    ours = with_password(sim)
    assert ours.put_blob(REPO, b"x", Digest.of(b"x")) == 1
    assert ours.get_manifest(ours.reference(REPO, "1"))[0] == MANIFEST
    with pytest.raises(RegistryRefused) as caught:
        client.ping()
    assert caught.value.status == 401


def test_each_scope_has_its_own_token(sim: Simulator) -> None:
    sim.tokens, sim.basic = True, ("me", SECRET)
    client = with_password(sim)
    client.head_manifest(client.reference(REPO, "1"))
    client.put_blob(REPO, b"x", Digest.of(b"x"))
    client.put_blob("candidate/app", b"x", Digest.of(b"x"), mount_from=REPO)
    client.has_blob(REPO, DIGEST)
    assert list(sim.issued.values()) == [
        f"repository:{REPO}:pull",
        f"repository:{REPO}:pull,push",
        f"repository:candidate/app:pull,push repository:{REPO}:pull",
    ]
    assert sim.count("GET", "^/token") == 3


def test_an_expired_token_is_renewed_once(sim: Simulator) -> None:
    sim.tokens = True
    client = with_password(sim)
    client.has_blob(REPO, DIGEST)
    sim.issued.clear()
    assert client.has_blob(REPO, DIGEST)
    challenge = f'Bearer realm="http://{sim.address}/token",scope="repository:{REPO}:pull"'
    sim.fault("HEAD", "blobs", lambda h: h.error(401, "UNAUTHORIZED", WWW_Authenticate=challenge))
    before = len(sim.requests)
    with pytest.raises(RegistryRefused):
        client.has_blob(REPO, DIGEST)
    assert len(sim.requests) - before == 3


def test_a_token_server_elsewhere_gets_nothing(sim: Simulator) -> None:
    with simulator() as other:
        sim.tokens, sim.realm = True, f"http://{other.address}/token"
        with pytest.raises(RegistryError, match="elsewhere"):
            with_password(sim).ping()
        assert other.requests == []
        client = with_password(sim, token_hosts=frozenset({other.address}))
        with pytest.raises(RegistryRefused):
            client.ping()  # that server issues tokens of its own, which this registry does not know
        assert other.count("GET", "^/token") == 1


@pytest.mark.parametrize(
    "realm", ["http://me@{host}/token", "file:///etc/passwd", "//x", "http://[", "ftp://{host}/t"]
)
def test_a_strange_realm_is_refused(sim: Simulator, realm: str) -> None:
    sim.tokens, sim.realm = True, realm.format(host=sim.address)
    with pytest.raises(RegistryError):
        with_password(sim).ping()
    assert sim.count("GET", "token") == 0


@pytest.mark.parametrize(
    "reply", [b"", b"[]", b"{}", b'{"token":7}', b'{"token":"a\\r\\nX: y"}', b"{" * 100_000]
)
def test_a_strange_token_is_refused(sim: Simulator, reply: bytes) -> None:
    sim.tokens = True
    sim.fault("GET", "^/token", lambda h: h.reply(200, reply))
    with pytest.raises(RegistryError, match="no token"):
        with_password(sim).ping()


def test_a_redirect_on_the_same_host_is_followed(
    client: RegistryClient, sim: Simulator, tmp_path: Path
) -> None:
    sim.fault("GET", f"{REPO}/blobs", reg.redirect("/v2/elsewhere/blobs/" + DIGEST))
    sim.blobs["elsewhere"] = {DIGEST: BLOB}
    client.get_blob(REPO, BLOB_DESCRIPTOR, tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == BLOB


def test_a_redirect_loop_ends(client: RegistryClient, sim: Simulator) -> None:
    sim.fault("GET", "blobs", reg.redirect("{path}"))
    with pytest.raises(RegistryRefused):
        client.check_blob(REPO, BLOB_DESCRIPTOR)
    assert len(sim.requests) == 4


@pytest.mark.parametrize(
    "to",
    [
        "http://169.254.169.254/latest",
        "http://localhost:1/x",
        "https://[::1]/",
        "http://[64:ff9b::1]/",
        "//x/y",
        "file:///etc/passwd",
    ],
)
def test_a_redirect_elsewhere_is_not_followed(client: RegistryClient, sim: Simulator, to: str) -> None:
    sim.fault(".*", "blobs", reg.redirect(to))
    with pytest.raises(RegistryError, match="another host"):
        client.check_blob(REPO, BLOB_DESCRIPTOR)


def test_an_allowed_host_gets_no_credentials(sim: Simulator, tmp_path: Path) -> None:
    sim.basic = ("me", SECRET)
    with simulator() as other:
        other.blobs[REPO] = {DIGEST: BLOB}

        def send_away(handler: reg.Handler) -> None:
            if handler.headers.get("Authorization"):
                reg.redirect(f"http://{other.address}" + "{path}")(handler)
            else:
                handler.serve()

        sim.fault("GET", "blobs", send_away)
        client = with_password(sim, redirect_hosts=frozenset({other.address}))
        client.get_blob(REPO, BLOB_DESCRIPTOR, tmp_path / "x")
        assert (tmp_path / "x").read_bytes() == BLOB
        assert all("Authorization" not in seen.headers for seen in other.requests)


def test_an_upload_address_elsewhere_gets_nothing(sim: Simulator) -> None:
    with simulator() as other:
        sim.basic = ("me", SECRET)
        away = f"http://{other.address}/v2/x/blobs/uploads/1?_state=secret-state"

        def send_away(handler: reg.Handler) -> None:
            if handler._allowed(handler.path, {}):
                handler.reply(202, Location=away)

        sim.fault("POST", "uploads", send_away)
        with pytest.raises(RegistryError, match="another host") as caught:
            with_password(sim).put_blob(REPO, b"x", Digest.of(b"x"))
        assert other.requests == []
        assert "secret-state" not in caught.value.context


def test_a_write_is_not_redirected(client: RegistryClient, sim: Simulator) -> None:
    sim.fault("PUT", "manifests", reg.redirect("/v2/other/manifests/1"))
    with pytest.raises(RegistryRefused):
        client.put_manifest(client.reference(REPO, "1"), MANIFEST, MANIFEST_TYPE)
    assert sim.count("PUT") == 1


def test_no_error_tells_a_secret(sim: Simulator) -> None:
    sim.basic = ("me", SECRET)
    client = with_password(sim)
    sim.fault("PUT", "uploads", reg.status(503))
    with pytest.raises(RegistryError) as caught:
        client.put_blob(REPO, b"x", Digest.of(b"x"))
    text = f"{caught.value.as_dict()} {caught.value!r} {Credentials('me', SECRET)!r}"
    assert SECRET not in text
    assert "secret-state" not in text
    assert Credentials("me", SECRET).basic not in text


def test_nothing_comes_from_the_environment(
    sim: Simulator, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login someone password else\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("HOME", str(tmp_path))
    RegistryClient(sim.address, limits=LIMITS).ping()
    assert "Authorization" not in sim.requests[0].headers


# ------------------------------------------------------------------- names and size


@pytest.mark.parametrize(
    "repo", ["", "A", "a//b", "../x", "a/../b", "a%2fb", "a\0b", "a" * 256, "/a", "a?x=y"]
)
def test_a_malformed_repository_is_never_asked_for(client: RegistryClient, sim: Simulator, repo: str) -> None:
    for action in (
        lambda: client.reference(repo, "1"),
        lambda: client.has_blob(repo, DIGEST),
        lambda: client.put_blob(repo, b"x", DIGEST),
        lambda: client.put_blob("ok", b"x", DIGEST, mount_from=repo),
        lambda: client.mount_blob("ok", DIGEST, repo),
        lambda: client.tags(repo),
        lambda: client.referrers(repo, DIGEST),
        lambda: client.supports_referrers(repo),
        lambda: client.check_blob(repo, BLOB_DESCRIPTOR),
    ):
        with pytest.raises(RegistryError, match="repository name"):
            action()
    assert sim.requests == []


def test_a_reference_to_another_registry_is_refused(client: RegistryClient, sim: Simulator) -> None:
    other = RegistryClient("registry.example.org").reference(REPO, "1")
    with pytest.raises(RegistryError, match="not in the registry"):
        client.head_manifest(other)
    with pytest.raises(RegistryError, match="names no tag"):
        client.head_manifest(client.reference(REPO))
    assert sim.requests == []


def test_memory_is_constant(client: RegistryClient, sim: Simulator, tmp_path: Path) -> None:
    big = tmp_path / "big"
    with open(big, "wb") as out:
        out.truncate(64 << 20)
    with open(big, "rb") as handle:
        from builder.store import stream_digest

        digest = stream_digest(handle)
    client.ping()

    def swallow(handler: reg.Handler) -> None:
        while handler.rest_of_body:
            handler.rest_of_body -= len(handler.rfile.read(min(65536, handler.rest_of_body)))
        handler.reply(201, Docker_Content_Digest=digest)

    def produce(handler: reg.Handler) -> None:
        reg._headers(handler, 64 << 20)
        for _ in range(64):
            handler.wfile.write(bytes(1 << 20))

    sim.fault("PUT", "uploads", swallow)
    sim.fault("GET", "blobs", produce)
    tracemalloc.start()
    assert client.put_blob(REPO, big, digest) == 64 << 20
    client.get_blob(REPO, Descriptor(LAYER_TYPE, digest, 64 << 20), tmp_path / "copy")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16 << 20


def test_what_the_client_wrote_parses(client: RegistryClient, sim: Simulator) -> None:
    sim.referrers_api = False
    data, entry = subject_manifest("x")
    client.put_referrer(REPO, data, MANIFEST_TYPE)
    client.put_referrers_fallback(REPO, Digest.of(MANIFEST), [entry])
    index = client.get_manifest(client.reference(REPO, f"sha256-{Digest.of(MANIFEST).hex}"))
    assert parse_manifest(index[0], index[1]).manifests == (entry,)


def test_a_blob_that_cannot_be_read_is_no_fault_of_the_registry(
    client: RegistryClient, sim: Simulator, tmp_path: Path
) -> None:
    with pytest.raises(RegistryError, match="cannot be read"):
        client.put_blob(REPO, tmp_path / "none", DIGEST)
    (tmp_path / "blob").write_bytes(b"new")

    def remove(handler: reg.Handler) -> None:
        (tmp_path / "blob").unlink()
        handler.serve()

    sim.fault("POST", "uploads", remove)
    with pytest.raises(RegistryError, match="cannot be read"):
        client.put_blob(REPO, tmp_path / "blob", Digest.of(b"new"))
    assert sim.count("POST") == 1


def test_a_full_disk_is_told_and_leaves_nothing(
    client: RegistryClient, sim: Simulator, tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(b"")
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    old = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limit[1]))
    try:
        with pytest.raises(ToolError, match="cannot write"):
            client.get_blob(REPO, BLOB_DESCRIPTOR, tmp_path / "x")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, old)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
    assert sim.count("GET") == 1
    with pytest.raises(ToolError, match="cannot write"):
        client.get_blob(REPO, BLOB_DESCRIPTOR, tmp_path / "no-folder" / "x")


# ------------------------------------------------------------------- TLS


def over_tls(sim: Simulator, monkeypatch: pytest.MonkeyPatch, bundle: Path | None) -> RegistryClient:
    """A client that takes the simulator for a registry elsewhere, so that it speaks https."""
    monkeypatch.setattr("builder.oci.transport.is_loopback", lambda _: False)
    return RegistryClient(sim.address, limits=LIMITS, ca_bundle=bundle, sleep=lambda _: None)


def test_a_registry_elsewhere_is_reached_by_tls(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pair = self_signed(tmp_path)
    with simulator(pair) as sim:
        sim.blobs[REPO] = {DIGEST: BLOB}
        client = over_tls(sim, monkeypatch, pair[0])
        client.get_blob(REPO, BLOB_DESCRIPTOR, tmp_path / "x")
        assert client.put_blob(REPO, b"new", Digest.of(b"new")) == 3
        sim.fault("GET", "blobs", reg.redirect("http://" + sim.address + "/v2/x"))
        with pytest.raises(RegistryError, match="another host"):
            client.check_blob(REPO, BLOB_DESCRIPTOR)


def test_a_slow_registry_over_tls_meets_the_deadline(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, stop: threading.Event
) -> None:
    pair = self_signed(tmp_path)
    with simulator(pair) as sim:
        client = over_tls(sim, monkeypatch, pair[0])
        sim.fault("GET", "blobs", reg.dribble_headers(stop))
        began = time.monotonic()
        with pytest.raises(Temporary):
            client.check_blob(REPO, Descriptor(LAYER_TYPE, DIGEST, 10))
        assert time.monotonic() - began < 4
        stop.set()


@pytest.mark.parametrize("days", [1, -1], ids=["unknown", "expired"])
def test_a_certificate_that_is_not_trusted_is_final(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, days: int
) -> None:
    pair = self_signed(tmp_path, days)
    with simulator(pair) as sim:
        client = over_tls(sim, monkeypatch, pair[0] if days < 0 else None)
        with pytest.raises(RegistryError, match="certificate") as caught:
            client.ping()
        assert not isinstance(caught.value, Temporary)
        assert sim.requests == []
