"""The gate before a storage that is well, changes, goes away, is slow, or lies."""

from __future__ import annotations

import datetime as dt
import json
import os
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from builder.model.channel import Channel, ChannelRecord
from builder.model.digest import Digest
from builder.model.image import INDEX_TYPE, Descriptor
from builder.model.verdict import RuleResult
from builder.oci.client import RegistryClient
from builder.signing import predicates as p
from builder.signing import verdicts
from builder.signing.cosign_formats import bundle_referrer
from builder.stages.publish import publish
from registry.gate.admission import prove_again
from registry.gate.repositories import Names
from registry.promotion.records import put_record
from tests.support import registry_simulator as reg
from tests.support.disk import full_disk
from tests.support.evidence import World, approval, evidence, new_keys
from tests.support.forge import Item, draft
from tests.support.gates import RunningGate, running_gate
from tests.support.images import NOW, built_image
from tests.support.registry_simulator import Simulator
from tests.support.scenes import REPO, Scene, published

TAG = f"/v2/{REPO}/manifests/3.13"
SOON = 3  # seconds; under 1 on a machine that has nothing else to do (see the benchmark)


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with published(tmp_path_factory.mktemp("scene")) as scene:
        yield scene


@pytest.fixture(scope="module")
def large_scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """With a layer that is streamed."""
    with published(tmp_path_factory.mktemp("large"), files=({"data": os.urandom(1 << 20)},)) as scene:
        yield scene


@pytest.fixture
def sim(scene: Scene) -> Simulator:
    return scene.anew()


@pytest.fixture
def here(scene: Scene, sim: Simulator) -> World:
    return scene.world


@pytest.fixture
def gate(here: World, sim: Simulator) -> Iterator[RunningGate]:
    with running_gate(sim.address, here.trust) as gate:
        yield gate


def _layer(here: World) -> Descriptor:
    return here.image.platforms[0].layers[1].blob


def _blob(digest: str) -> str:
    return f"/v2/{REPO}/blobs/{digest}"


# ------------------------------------------------------------------ what is approved


def test_listings_have_what_is_approved_page_by_page(gate: RunningGate, sim: Simulator, here: World) -> None:
    sim.tags[REPO]["unsigned"] = sim.put(REPO, b'{"not":"approved"}', INDEX_TYPE)
    tags = sorted(["3.13", here.image.immutable_tag])
    path = f"/v2/{REPO}/tags/list"
    assert json.loads(gate.get(path).body) == {"name": REPO, "tags": tags}
    first = gate.get(path + "?n=1")
    assert json.loads(first.body)["tags"] == tags[:1]
    assert first.headers["link"] == f'<{path}?n=1&last={tags[0]}>; rel="next"'
    assert json.loads(gate.get(f"{path}?n=1&last={tags[0]}").body)["tags"] == tags[1:]
    assert json.loads(gate.get(path + "?n=0").body)["tags"] == []
    assert json.loads(gate.get(path + "?n=999999999999999999").body)["tags"] == tags
    assert json.loads(gate.get("/v2/_catalog").body) == {"repositories": [REPO]}
    assert gate.get("/v2/candidate/nothing/tags/list").status == 404


def test_a_name_without_the_prefix(sim: Simulator, here: World) -> None:
    with running_gate(sim.address, here.trust, names=Names("candidate/", strip=True)) as gate:
        assert gate.get("/v2/python/manifests/3.13").status == 200
        assert gate.get(_blob(_layer(here).digest).replace("candidate/", "")).status == 200
        assert gate.get(TAG).status == 404


# ------------------------------------------------------------------ what is not


def test_what_the_storage_has_but_nobody_approved_is_denied(
    gate: RunningGate, sim: Simulator, here: World, tmp_path: Path
) -> None:
    other = built_image(tmp_path / "other", files=({"x": b"unsigned"},))
    reg_blobs = sim.blobs[REPO]
    for file in (other.layout / "blobs" / "sha256").iterdir():
        reg_blobs[f"sha256:{file.name}"] = file.read_bytes()
    manifest = (other.layout / "blobs" / "sha256" / other.digest.hex).read_bytes()
    sim.put(REPO, manifest, INDEX_TYPE)
    got = gate.get(f"/v2/{REPO}/manifests/{other.digest}")
    assert (got.status, got.error["code"]) == (403, "DENIED")
    message = got.error["message"]
    assert "not-curated" in message and "since 2026-03-01T12:00:0" in message
    assert f"use {REPO}:3.13@{here.image.digest}" in message
    assert f"http://{gate.address}/help/not-curated" in message and "\n" not in message
    assert got.error["detail"]["replacement"] == f"{REPO}:3.13@{here.image.digest}"
    assert gate.get("/help/not-curated").status == 200
    (event,) = gate.events("denied")
    assert (event["reason"], event["repository"], event["message"]) == ("not-curated", REPO, message)
    layer = other.platforms[0].layers[0].blob.digest
    assert gate.get(_blob(layer)).error["code"] == "BLOB_UNKNOWN"
    # The same under a tag.
    sim.tags[REPO]["9"] = other.digest
    reply, _ = gate.until(f"/v2/{REPO}/manifests/9", lambda r: r.status == 403)
    assert reply.error["detail"]["name"] == "unsigned"
    head = gate.ask("HEAD", f"/v2/{REPO}/manifests/9")
    assert (head.status, head.body) == (403, b"")
    assert head.headers["warning"] == f'299 - "{reply.error["message"]}"'
    assert "warning" not in reply.headers
    platform = other.platforms[0].manifest.digest
    sim.put(REPO, (other.layout / "blobs" / "sha256" / platform.hex).read_bytes(), INDEX_TYPE)
    assert gate.get(f"/v2/{REPO}/manifests/{platform}").status == 403


def test_a_blob_is_served_only_where_an_approved_image_has_it(
    gate: RunningGate, sim: Simulator, here: World, tmp_path: Path
) -> None:
    digest = _layer(here).digest
    sim.blobs["candidate/other"] = dict(sim.blobs[REPO])
    assert gate.get(_blob(digest)).status == 200
    assert gate.get(f"/v2/candidate/other/blobs/{digest}").status == 404


def test_an_image_by_an_unknown_key_is_denied(sim: Simulator, here: World, tmp_path: Path) -> None:
    stranger = new_keys(tmp_path / "stranger")
    trust = type(here.trust).of(here.keys.builder.public, stranger.verdict.public)
    with running_gate(sim.address, trust) as gate:
        got = gate.get(TAG)
        assert (got.status, got.error["detail"]["name"]) == (403, "signature-invalid")
        assert got.error["detail"]["reason"] == "not-curated"
        assert gate.get(_blob(_layer(here).digest)).status == 404
        assert json.loads(gate.get("/v2/_catalog").body) == {"repositories": []}


def test_a_verdict_expires_while_the_gate_runs(gate: RunningGate, here: World) -> None:
    assert gate.get(TAG).status == 200
    gate.time[0] = here.verdict.expires_at.timestamp() + 1
    for path in (TAG, f"/v2/{REPO}/manifests/{here.image.digest}", _blob(_layer(here).digest)):
        got = gate.get(path)
        assert (got.status, got.error["detail"]["reason"]) == (403, "expired")
        assert got.error["detail"]["since"] == "2026-03-08T12:00:00Z"
    assert gate.get(f"/v2/{REPO}/referrers/{here.image.digest}").body.count(b"artifactType") == 0
    # A clock that is set back brings nothing to life again.
    gate.time[0] -= 3600
    assert gate.get(TAG).status == 403


def test_a_verdict_of_tomorrow_is_not_believed_today(sim: Simulator, here: World) -> None:
    with running_gate(sim.address, here.trust, now=NOW.timestamp() - 3600) as gate:
        got = gate.get(TAG)
        assert (got.status, got.error["detail"]["reason"]) == (503, "temporarily-unverifiable")
        assert got.headers["retry-after"]
        gate.time[0] = NOW.timestamp()
        gate.until(TAG, lambda r: r.status == 200)


def test_a_clock_that_is_set_back_across_a_restart_brings_nothing_to_life(
    sim: Simulator, here: World, tmp_path: Path
) -> None:
    """An expired verdict would be valid again; the gate goes on from the highest time that it kept."""
    proofs, late = tmp_path / "gate", here.verdict.expires_at.timestamp() + 1800
    with running_gate(sim.address, here.trust, now=late, proofs=proofs) as gate:
        assert gate.get(TAG).error["detail"]["reason"] == "expired"
    with running_gate(sim.address, here.trust, now=late - 3600, proofs=proofs) as gate:
        for _ in range(2):
            got = gate.get(TAG)
            assert (got.status, got.error["detail"]["reason"]) == (403, "expired")
        assert gate.get(_blob(_layer(here).digest)).status in (403, 404)
        (event,) = gate.events("clock-behind")
        assert 3500 < event["seconds"] <= 3601
    (proofs / "clock").write_text("not a time")
    with running_gate(sim.address, here.trust, now=late, proofs=proofs) as gate:
        assert gate.get(TAG).error["detail"]["reason"] == "expired"


def test_a_full_disk_does_not_stop_the_gate(sim: Simulator, here: World, tmp_path: Path) -> None:
    proofs = tmp_path / "gate"
    with full_disk(), running_gate(sim.address, here.trust, proofs=proofs) as gate:
        assert gate.get(TAG).status == 200
        assert gate.get(_blob(_layer(here).digest)).status == 200
    # What was kept of it, if anything, is good enough for the next start.
    _away(sim)
    with running_gate(sim.address, here.trust, proofs=proofs) as gate:
        assert gate.get(TAG).status in (200, 404, 503)


# ------------------------------------------------------------------ changes


def test_a_new_image_is_served_within_a_second_and_the_old_one_stays(
    gate: RunningGate, sim: Simulator, here: World, tmp_path: Path
) -> None:
    image = built_image(tmp_path / "new", files=({"new": b"content"},), version="3.13.6")
    proofs = tuple(evidence(x) for x in image.platforms)
    newer = replace(here, image=image, proofs=proofs, verdict=approval(image, proofs))
    publish(newer.signed(), RegistryClient(sim.address))
    _, took = gate.until(TAG, lambda r: r.headers.get("docker-content-digest") == image.digest)
    assert took < SOON
    assert gate.get(f"/v2/{REPO}/manifests/{here.image.digest}").status == 200


def test_a_denying_verdict_revokes_within_a_second(gate: RunningGate, sim: Simulator, here: World) -> None:
    assert gate.get(TAG).status == 200
    later = NOW + dt.timedelta(minutes=1)
    rule = RuleResult("kev", "Nothing known to be exploited", ("CVE-2026-9 in hello",), "update hello")
    verdict = replace(approval(here.image, here.proofs, later), approved=False, rules=(rule,))
    predicate = verdicts.encode(verdict)
    carriers = [
        one
        for subject in (here.image.index, *(x.manifest for x in here.image.platforms))
        for form in draft(here, subject).change(p.VERDICT_TYPE, predicate=predicate).carriers("x/y").values()
        for one in form
    ]
    for one in carriers:
        sim.blobs[REPO].update(one.blobs)
        sim.put(REPO, one.manifest, one.media_type, one.tag)
    got, took = gate.until(TAG, lambda r: r.status == 403)
    assert took < SOON
    assert got.error["detail"]["reason"] == "policy"
    assert "CVE-2026-9 in hello" in got.error["message"]
    assert gate.get(_blob(_layer(here).digest)).status == 404
    assert gate.get(f"/v2/{REPO}/manifests/{here.image.platforms[0].manifest.digest}").status == 403


def test_an_image_whose_tags_vanish_is_withdrawn(gate: RunningGate, sim: Simulator, here: World) -> None:
    del sim.tags[REPO]["3.13"], sim.tags[REPO][here.image.immutable_tag]
    got, took = gate.until(TAG, lambda r: r.status == 403)
    assert took < SOON
    assert got.error["detail"]["reason"] == "withdrawn"
    assert gate.get(f"/v2/{REPO}/manifests/{here.image.digest}").status == 403
    assert gate.get(_blob(_layer(here).digest)).status == 404


def test_a_tag_that_is_moved_to_what_nobody_approved_is_denied_and_names_the_old_image(
    gate: RunningGate, sim: Simulator, here: World
) -> None:
    sim.tags[REPO]["3.13"] = sim.put(REPO, sim.manifests[REPO][here.image.digest][0] + b" ", INDEX_TYPE)
    got, _ = gate.until(TAG, lambda r: r.status == 403)
    replacement = f"{REPO}:{here.image.immutable_tag}@{here.image.digest}"
    assert got.error["detail"]["replacement"] == replacement


# ------------------------------------------------------------------ a storage that is away, slow, or lies


def _away(sim: Simulator) -> None:
    sim.fault(".*", "", reg.status(503))


def test_what_is_approved_goes_on_when_the_storage_is_away(
    gate: RunningGate, sim: Simulator, here: World
) -> None:
    config = here.image.platforms[0].config.digest
    assert gate.get(_blob(config)).status == 200
    _away(sim)
    for path in (TAG, f"/v2/{REPO}/tags/list", f"/v2/{REPO}/referrers/{here.image.digest}", _blob(config)):
        assert gate.get(path).status == 200
    got = gate.get(_blob(_layer(here).digest))
    assert (got.status, got.error["code"]) == (503, "UNAVAILABLE")
    assert int(got.headers["retry-after"]) > 0
    assert gate.get(f"/v2/{REPO}/manifests/9").status == 503
    assert gate.events("storage-away")


def test_a_restart_without_the_storage(sim: Simulator, here: World, tmp_path: Path) -> None:
    proofs = tmp_path / "proofs"
    with running_gate(sim.address, here.trust, proofs=proofs) as gate:
        before = gate.get(TAG)
    _away(sim)
    with running_gate(sim.address, here.trust, proofs=proofs) as gate:
        assert gate.get(TAG).body == before.body
        assert gate.get(f"/v2/{REPO}/manifests/sha256-{here.image.digest.hex}.sig").status == 200
    # A byte changed in the file, or another key: nothing of it is believed.
    file = proofs / "approvals.db"
    good = file.read_bytes()
    head, payload = good.index(b'"manifests"') + 20, good.index(b'"payload"') + 40
    manifest = good.index(here.image.platforms[0].config.digest.encode(), payload) + 70
    for spoil in (head, payload, manifest, 20):
        file.write_bytes(good[:spoil] + bytes([good[spoil] ^ 1]) + good[spoil + 1 :])
        with running_gate(sim.address, here.trust, proofs=proofs) as gate:
            assert gate.get(TAG).status in (404, 503)
            assert gate.get(_blob(_layer(here).digest)).status in (404, 503)
            assert gate.get(f"/v2/{REPO}/referrers/{here.image.digest}").status in (200, 404, 503)
        with running_gate(sim.address, here.trust, proofs=proofs) as gate:
            assert gate.events("recalled")[0]["images"] == 0
    file.write_bytes(good)
    stranger = new_keys(tmp_path / "stranger")
    trust = type(here.trust).of(here.keys.builder.public, stranger.verdict.public)
    with running_gate(sim.address, trust, proofs=proofs) as gate:
        assert gate.get(TAG).status in (404, 503)


def test_what_was_kept_is_proved_once_and_only_when_it_is_asked_for(
    sim: Simulator, here: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    proofs = tmp_path / "proofs"
    with running_gate(sim.address, here.trust, proofs=proofs) as gate:
        gate.get(TAG)
    proved: list[str] = []
    monkeypatch.setattr(
        "registry.gate.proofs.prove_again",
        lambda approved, trust: proved.append(approved.index) or prove_again(approved, trust),
    )
    _away(sim)
    with running_gate(sim.address, here.trust, proofs=proofs) as gate:
        assert b'decision="approved"} 1.0' in gate.get("/metrics").body
        assert proved == []
        for _ in range(2):
            assert gate.get(TAG).status == 200
            assert gate.ask("HEAD", _blob(_layer(here).digest)).status == 200
        assert proved == [here.image.digest]


def test_what_was_kept_and_is_spoilt_is_admitted_anew(sim: Simulator, here: World, tmp_path: Path) -> None:
    proofs = tmp_path / "proofs"
    with running_gate(sim.address, here.trust, proofs=proofs) as gate:
        before = gate.get(TAG)
    file = proofs / "approvals.db"
    good = file.read_bytes()
    spoil = good.index(b'"payload"') + 40
    file.write_bytes(good[:spoil] + bytes([good[spoil] ^ 1]) + good[spoil + 1 :])
    with running_gate(sim.address, here.trust, proofs=proofs) as gate:
        found, _ = gate.until(TAG, lambda reply: reply.status == 200)
        assert found.body == before.body
    with running_gate(sim.address, here.trust, proofs=proofs) as gate:
        assert gate.get(TAG).body == before.body


def test_what_was_taken_back_while_the_gate_was_down_is_not_served(
    sim: Simulator, here: World, tmp_path: Path
) -> None:
    proofs = tmp_path / "proofs"
    with running_gate(sim.address, here.trust, proofs=proofs) as gate:
        assert gate.get(TAG).status == 200
    sim.tags[REPO].clear()
    with running_gate(sim.address, here.trust, proofs=proofs) as gate:
        assert gate.get(TAG).error["detail"]["reason"] == "withdrawn"


@pytest.mark.parametrize("fault", [reg.corrupt, reg.longer, reg.cut_download], ids=lambda f: f.__name__)
@pytest.mark.parametrize("what", ["index", "platform", "evidence"])
def test_a_wrong_manifest_is_never_served_and_the_right_one_comes_back(
    sim: Simulator, here: World, what: str, fault: object
) -> None:
    digest = {
        "index": here.image.digest,
        "platform": here.image.platforms[0].manifest.digest,
        "evidence": sim.tags[REPO][f"sha256-{here.image.digest.hex}.att"],
    }[what]
    names = [digest, *(t for t, d in sim.tags[REPO].items() if d == digest)]
    sim.fault("GET", f"manifests/({'|'.join(names)})$", fault)  # type: ignore[arg-type]
    with running_gate(sim.address, here.trust) as gate:
        got = gate.get(TAG)
        assert got.status in (403, 503), got.body
        assert got.error["detail"]["reason"] in ("temporarily-unverifiable", "not-curated")
        assert gate.get(f"/v2/{REPO}/manifests/{here.image.digest}").status in (403, 503)
        assert gate.get(_blob(_layer(here).digest)).status == 404
        assert gate.events("not-admitted")
        sim.faults.clear()
        good, _ = gate.until(TAG, lambda r: r.status == 200)
        assert good.body == sim.manifests[REPO][here.image.digest][0]


@pytest.mark.parametrize("fault", [reg.corrupt, reg.longer, reg.cut_download], ids=lambda f: f.__name__)
def test_no_wrong_small_blob_gets_out(gate: RunningGate, sim: Simulator, here: World, fault: object) -> None:
    sim.fault("GET", "blobs", fault)  # type: ignore[arg-type]
    got = gate.get(_blob(_layer(here).digest))
    assert (got.status, got.error["code"]) == (503, "UNAVAILABLE")


@pytest.fixture
def large_sim(large_scene: Scene) -> Simulator:
    return large_scene.anew()


@pytest.fixture
def large(large_scene: Scene, large_sim: Simulator) -> World:
    return large_scene.world


def test_no_wrong_large_blob_gets_out_whole(large_sim: Simulator, large: World) -> None:
    sim = large_sim
    blob = large.image.platforms[0].layers[0].blob
    with running_gate(sim.address, large.trust) as gate:
        for fault in (reg.corrupt, reg.cut_download):
            sim.fault("GET", "blobs", fault, times=1)
            raw = gate.raw(
                f"GET {_blob(blob.digest)} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode()
            )
            head, _, body = raw.partition(b"\r\n\r\n")
            assert b"HTTP/1.1 503" in head or len(body) < blob.size
        assert gate.events("wrong-bytes")
        assert gate.get(_blob(blob.digest)).body == sim.blobs[REPO][blob.digest]
        assert b"goldsmith_gate_wrong_bytes_total 1.0" in gate.get("/metrics").body


def test_ranges_of_a_large_blob_from_the_storage_s_folder(
    large_sim: Simulator, large: World, tmp_path: Path
) -> None:
    sim = large_sim
    blob = large.image.platforms[0].layers[0].blob
    data = sim.blobs[REPO][blob.digest]
    for digest, content in sim.blobs[REPO].items():
        path = tmp_path / "blobs" / "sha256" / digest[7:9] / digest[7:] / "data"
        path.parent.mkdir(parents=True)
        path.write_bytes(content)
    with running_gate(sim.address, large.trust, blobs=tmp_path / "blobs") as gate:
        for asked, start, end in (
            ("bytes=0-9", 0, 9),
            ("bytes=100-", 100, len(data) - 1),
            ("bytes=-5", len(data) - 5, len(data) - 1),
            (f"bytes=7-{len(data) * 2}", 7, len(data) - 1),
        ):
            got = gate.get(_blob(blob.digest), Range=asked)
            assert (got.status, got.body) == (206, data[start : end + 1])
            assert got.headers["content-range"] == f"bytes {start}-{end}/{len(data)}"
        beyond = gate.get(_blob(blob.digest), Range=f"bytes={len(data)}-")
        assert (beyond.status, beyond.headers["content-range"]) == (416, f"bytes */{len(data)}")
        assert gate.get(_blob(blob.digest), Range="bytes=0-1,4-5").status == 200
        _away(sim)
        assert gate.get(_blob(blob.digest)).body == data


@pytest.mark.parametrize("spoiled", [0, 3_000_000, 4_999_999])
def test_a_byte_that_the_storage_spoils_later_is_found_out(
    tmp_path_factory: pytest.TempPathFactory, spoiled: int
) -> None:
    """The blob was good and hashed once; what is read of it again is checked block by block."""
    folder = tmp_path_factory.mktemp("spoiled")
    with published(folder / "scene", files=({"data": os.urandom(5_000_000)},)) as scene:
        blob = scene.world.image.platforms[0].layers[0].blob
        path = _blob(blob.digest)
        with running_gate(scene.sim.address, scene.world.trust) as gate:
            good = scene.sim.blobs[REPO][blob.digest]
            assert gate.get(path).body == good
            assert gate.get(path).body == good
            bad = good[:spoiled] + bytes([good[spoiled] ^ 1]) + good[spoiled + 1 :]
            scene.sim.blobs[REPO][blob.digest] = bad
            part = f"bytes={max(0, spoiled - 5)}-{spoiled + 5}"
            head, _, body = _raw(gate, path, part).partition(b"\r\n\r\n")
            assert b" 503 " in head or len(body) < 10
            head, _, body = _raw(gate, path).partition(b"\r\n\r\n")
            assert b" 503 " in head or len(body) < blob.size
            assert bad[max(0, spoiled - 5) : spoiled + 1] not in body
            assert gate.events("wrong-bytes")
            scene.sim.blobs[REPO][blob.digest] = good
            assert gate.get(path, Range=part).body == good[max(0, spoiled - 5) : spoiled + 6]
            assert gate.get(path).body == good


def _raw(gate: RunningGate, path: str, part: str = "bytes=0-") -> bytes:
    lines = f"GET {path} HTTP/1.1\r\nHost: x\r\nRange: {part}\r\nConnection: close\r\n\r\n"
    return gate.raw(lines.encode())


def test_a_range_of_a_wrong_blob_is_not_served(large_sim: Simulator, large: World) -> None:
    sim = large_sim
    blob = large.image.platforms[0].layers[0].blob
    with running_gate(sim.address, large.trust) as gate:
        sim.fault("GET", "blobs", reg.corrupt)
        assert gate.get(_blob(blob.digest), Range="bytes=0-9").status == 503


def test_a_web_server_in_front_sends_the_blobs(sim: Simulator, here: World) -> None:
    digest = _layer(here).digest
    with running_gate(sim.address, here.trust, accel="/blobs") as gate:
        got = gate.get(_blob(digest))
        assert got.headers["x-accel-redirect"] == f"/blobs/sha256/{digest[7:9]}/{digest[7:]}/data"
        assert gate.get(_blob(Digest.of(b"?"))).status == 404


def test_a_slow_storage_does_not_hold_up_manifests(gate: RunningGate, sim: Simulator, here: World) -> None:
    stop = threading.Event()
    sim.fault("GET|HEAD", "", reg.silent(stop))
    try:
        for _ in range(5):
            assert gate.get(TAG).status == 200
    finally:
        stop.set()


# ------------------------------------------------------------------ operations


def test_health_readiness_metrics_and_logs(gate: RunningGate, here: World) -> None:
    gate.get(TAG)
    assert gate.get("/healthz").status == 200
    assert gate.get("/readyz").status == 200
    text = gate.get("/metrics").body.decode()
    assert 'goldsmith_gate_requests_total{route="manifests",status="200"} 1.0' in text
    assert 'goldsmith_gate_images{decision="approved"} 1.0' in text
    assert "goldsmith_gate_storage_up 1.0" in text
    request = next(e for e in gate.events("request") if e["path"] == TAG)
    assert (request["method"], request["status"], request["client"]) == ("GET", 200, "127.0.0.1")
    assert {"time", "id", "bytes", "ms"} <= set(request)


def test_two_gates_on_one_storage(gate: RunningGate, sim: Simulator, here: World) -> None:
    with running_gate(sim.address, here.trust) as other:
        assert other.get(TAG).body == gate.get(TAG).body


def test_a_stranger_s_attestation_is_not_passed_on(sim: Simulator, here: World, tmp_path: Path) -> None:
    stranger = new_keys(tmp_path / "stranger").builder
    kind = "https://stranger.example/claim/v1"
    claim = Item(kind, b"{}", stranger, here.image.digest, kind)
    item = bundle_referrer(here.image.index, claim.signed("bundles", ""), "hint")
    sim.blobs[REPO].update(item.blobs)
    digest = sim.put(REPO, item.manifest, item.media_type)
    with running_gate(sim.address, here.trust) as gate:
        listed = json.loads(gate.get(f"/v2/{REPO}/referrers/{here.image.digest}").body)["manifests"]
        assert len(listed) == 7 and digest not in {d["digest"] for d in listed}
        assert gate.get(f"/v2/{REPO}/manifests/{digest}").status == 403
        assert p.VERDICT_TYPE in str(listed)


# ------------------------------------------------------------------ decisions


def _decide(
    here: World, sim: Simulator, repo: str, channel: Channel, sequence: int, instead: str = ""
) -> None:
    client = RegistryClient(sim.address)
    image = here.image
    record = ChannelRecord(
        *(image.digest, image.target.ref, image.immutable_tag, channel, sequence),
        *(Digest.of(b"entry"), NOW, "CVE-2026-9 is exploited", instead),
    )
    for subject in (image.index, *(x.manifest for x in image.platforms)):
        put_record(client, repo, record, subject, here.keys.verdict)


def test_only_what_was_promoted_is_served_outside_of_the_candidates(sim: Simulator, here: World) -> None:
    publish(
        replace(here, repository=f"{sim.address}/team/python").signed(), RegistryClient(sim.address), "team"
    )
    path = "/v2/team/python/manifests/3.13"
    with running_gate(sim.address, here.trust, names=Names("")) as gate:
        assert gate.get(path).error["detail"]["name"] == "not-promoted"
        assert gate.get(TAG).status == 404
        _decide(here, sim, "team/python", Channel.STABLE, 1)
        gate.until(path, lambda r: r.status == 200)
        _decide(here, sim, "team/python", Channel.DEPRECATED, 2, "python:3.14@sha256:x")
        got, _ = gate.until(path, lambda r: "warning" in r.headers)
        assert got.status == 200
        assert got.headers["warning"].startswith('299 - "python:3.13 is deprecated since 2026-03-01')
        assert "use python:3.14@sha256:x" in got.headers["warning"]
        _decide(here, sim, "team/python", Channel.WITHDRAWN, 3, "python:3.14@sha256:y")
        got, took = gate.until(path, lambda r: r.status == 403)
        assert took < SOON
        assert got.error["detail"]["reason"] == "withdrawn"
        assert got.error["detail"]["replacement"] == "python:3.14@sha256:y"
        assert "CVE-2026-9 is exploited, since 2026-03-01T12:00:00Z" in got.error["message"]
