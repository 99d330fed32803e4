"""A storage into which somebody put hostile things: nothing of them is served, and the good image is.

The numbers are those of the groups of hostile inputs in `docs/faults.md`.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from builder.model.digest import Digest, canonical_json
from builder.model.image import CONFIG_TYPE, INDEX_TYPE, LAYER_TYPE, MANIFEST_TYPE
from builder.oci.client import MANIFEST_MAX, RegistryClient
from builder.signing import predicates as p
from builder.signing.cosign_formats import BUNDLE_TYPE
from builder.signing.statements import simple_signing
from registry.gate.bounds import Bounds
from tests.support import registry_simulator as reg
from tests.support.evidence import World, approval, evidence, new_keys
from tests.support.forge import Draft, draft
from tests.support.gates import Reply, RunningGate, running_gate
from tests.support.images import NOW, built_image
from tests.support.registry_simulator import Simulator
from tests.support.scenes import REPO, Scene, published

EMPTY, OTHER = Digest.of(b"{}"), Digest.of(b"another image")
ELSEWHERE = "candidate/elsewhere"
SCHEMA_1 = "application/vnd.docker.distribution.manifest.v1+prettyjws"


def described(of: bytes = b"{}", media_type: str = CONFIG_TYPE, **changes: Any) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": Digest.of(of), "size": len(of), **changes}


def manifest(**changes: Any) -> bytes:
    """A manifest with these fields (None: without it)."""
    fields = {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "config": described(),
        "layers": [described(media_type=LAYER_TYPE)],
        **changes,
    }
    return canonical_json({k: v for k, v in fields.items() if v is not None})


def index(*digests: str, **changes: Any) -> bytes:
    listed = [described(media_type=INDEX_TYPE, digest=d) for d in digests]
    return canonical_json({"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": listed, **changes})


def nested(sim: Simulator, depth: int) -> bytes:
    """An index in an index in an index, each there."""
    data = manifest()
    for _ in range(depth):
        data = index(sim.put(REPO, data, INDEX_TYPE))
    return data


def diamond(sim: Simulator, levels: int) -> bytes:
    """2 to the power of `levels` ways to one child."""
    data = manifest()
    for _ in range(levels):
        child = sim.put(REPO, data, INDEX_TYPE)
        data = index(child, child)
    return data


def same(data: bytes, media_type: str = MANIFEST_TYPE) -> Callable[[Simulator], tuple[bytes, str]]:
    return lambda sim: (data, media_type)


GOOD = manifest()
DOCUMENTS: dict[str, Callable[[Simulator], tuple[bytes, str]]] = {
    "6-layers-and-manifests": same(manifest(manifests=[])),
    "6-config-and-manifests": same(index(config=described()), INDEX_TYPE),
    "6-no-media-type": same(manifest(mediaType=None)),
    "6-index-said-to-be-a-manifest": same(index()),
    "6-manifest-said-to-be-an-index": same(GOOD, INDEX_TYPE),
    "7-duplicate-keys": same(GOOD.replace(b'"schemaVersion"', b'"schemaVersion":2,"schemaVersion"')),
    "7-byte-order-mark": same(b"\xef\xbb\xbf" + GOOD),
    "7-trailing-data": same(GOOD + b"{}"),
    "7-deep": same(b'{"a":' * 10_000 + b"1" + b"}" * 10_000),
    "7-too-large": same(GOOD + b" " * MANIFEST_MAX),
    "7-huge-number": same(GOOD.replace(b'"size":2', b'"size":' + b"9" * 5000)),
    "7-nan": same(GOOD.replace(b'"size":2', b'"size":NaN')),
    "7-negative-size": same(manifest(config=described(size=-1))),
    "7-another-size": same(manifest(config=described(size=3))),
    "8-nested": lambda sim: (nested(sim, 33), INDEX_TYPE),
    "8-257-children": same(index(*(str(Digest.of(b"%d" % n)) for n in range(257))), INDEX_TYPE),
    "8-diamond": lambda sim: (diamond(sim, 20), INDEX_TYPE),
    "9-child-missing": same(index(OTHER), INDEX_TYPE),
    "9-blob-missing": same(manifest(layers=[described(b"missing", LAYER_TYPE)])),
    "9-no-layers": same(manifest(layers=[])),
    "9-empty-blob": same(manifest(layers=[described(b"", LAYER_TYPE)])),
    "9-data-against-digest": same(manifest(config=described(data="aGVsbG8="))),
    "9-foreign-urls": same(manifest(layers=[described(urls=["http://169.254.169.254/latest"])])),
    "9-unknown-artifact-type": same(manifest(artifactType="text/x-unknown")),
    "9-fields-of-its-own": same(manifest(custom={"a": [1]})),
    "10-schema-1": same(canonical_json({"schemaVersion": 1, "fsLayers": [], "history": []}), SCHEMA_1),
    "10-schema-1-said-to-be-2": same(canonical_json({"schemaVersion": 1, "fsLayers": []})),
    "11-subject-missing": same(manifest(subject=described(b"nowhere", MANIFEST_TYPE))),
    "11-subject-in-another-repository": lambda sim: (
        sim.put(ELSEWHERE, GOOD, MANIFEST_TYPE) and manifest(subject=described(GOOD, MANIFEST_TYPE)),
        MANIFEST_TYPE,
    ),
    "14-10000-layers": same(manifest(layers=[described(media_type=LAYER_TYPE)] * 10_000)),
}


def _signed_over(digest: Digest | None = None, repository: str = "") -> Callable[[World, Draft], Draft]:
    def change(here: World, d: Draft) -> Draft:
        payload = simple_signing(repository or here.repository, digest or d.subject.digest)
        return replace(d, signature=payload)

    return change


def _foreign_sbom(here: World, d: Draft) -> Draft:
    return d.change(p.CYCLONEDX_TYPE, predicate=d.of(p.CYCLONEDX_TYPE).predicate.replace(b"hello", b"other"))


# What is wrong with the evidence, the reason that is told, and the flaw's name (None: any).
FORGED: dict[str, tuple[Callable[[World, Draft], Draft], dict[str, Any], str, str | None]] = {
    "18-signature-of-another-digest": (_signed_over(OTHER), {}, "not-curated", None),
    "18-signature-for-another-repository": (
        _signed_over(repository="127.0.0.1:5000/candidate/elsewhere"),
        {},
        "not-curated",
        None,
    ),
    "18-attestations-but-no-signature": (
        lambda here, d: replace(d, items=tuple(i for i in d.items if i.kind != p.SIGNATURE_TYPE)),
        {},
        "not-curated",
        None,
    ),
    "18-wrong-role": (lambda here, d: replace(d, signer=here.keys.verdict), {}, "not-curated", None),
    "18-predicate-that-cannot-be-parsed": (
        lambda here, d: d.change(p.VERDICT_TYPE, predicate=b'{"approved":true}'),
        {},
        "not-curated",
        "predicate-malformed",
    ),
    "18-sbom-of-another-image": (_foreign_sbom, {}, "not-curated", None),
    "18-verdict-of-another-image": (lambda here, d: d, {"digest": OTHER}, "not-curated", None),
    "18-expired": (
        lambda here, d: d,
        {"issued_at": NOW - dt.timedelta(days=8), "expires_at": NOW - dt.timedelta(seconds=1)},
        "expired",
        "verdict-expired",
    ),
    "18-from-the-future": (
        lambda here, d: d,
        {"issued_at": NOW + dt.timedelta(hours=1)},
        "temporarily-unverifiable",
        "verdict-from-the-future",
    ),
    "18-unknown-key": (lambda here, d: d, {"stranger": True}, "not-curated", "signature-invalid"),
}


@dataclass(frozen=True)
class Place:
    scene: Scene
    gate: RunningGate

    def settled(self, path: str) -> Reply:
        """The answer, once the gate has looked at everything."""
        reply, _ = self.gate.until(path, lambda r: b"being verified" not in r.body, 20)
        assert isinstance(reply, Reply)
        return reply


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("place")
    with published(folder / "scene") as scene:
        sim, here = scene.sim, scene.world
        sim.blobs[REPO][EMPTY] = b"{}"
        for tag, make in DOCUMENTS.items():
            data, media_type = make(sim)
            sim.put(REPO, data, media_type, tag)
        _clutter(sim, here)
        stranger = new_keys(folder / "stranger")
        for name, (change, verdict, *_) in FORGED.items():
            _forge(scene, folder / name, name, change, verdict, stranger)
        bounds = Bounds(answer_seconds=2)
        with running_gate(sim.address, here.trust, bounds=bounds) as gate:
            yield Place(scene, gate)


def _clutter(sim: Simulator, here: World) -> None:
    """Referrers and tags around the good image that mean nothing, or what they should not."""
    subject = described(digest=here.image.digest, size=here.image.index.size, media_type=INDEX_TYPE)
    strange = sim.put(REPO, manifest(subject=subject, artifactType="text/x-strange"), MANIFEST_TYPE)
    again = described(digest=strange, media_type=MANIFEST_TYPE)
    sim.put(REPO, manifest(subject=again, artifactType=BUNDLE_TYPE), MANIFEST_TYPE)
    for tag in ("sha256-abc.sig", f"sha256-{OTHER.hex}.sig", f"sha256-{OTHER.hex}", "sha256-" + "G" * 64):
        sim.put(REPO, GOOD, MANIFEST_TYPE, tag)


def _forge(
    scene: Scene,
    folder: Any,
    name: str,
    change: Callable[[World, Draft], Draft],
    verdict: Mapping[str, Any],
    stranger: Any,
) -> None:
    """An image of its own with evidence in which one thing is wrong."""
    sim, fields = scene.sim, dict(verdict)
    image = built_image(folder, name=f"f{name}", files=({name: name.encode()},))
    proofs = tuple(evidence(x) for x in image.platforms)
    keys = stranger if fields.pop("stranger", False) else scene.world.keys
    repo = f"candidate/f{name}"
    here = replace(
        scene.world,
        image=image,
        proofs=proofs,
        keys=keys,
        repository=f"{sim.address}/{repo}",
        verdict=replace(approval(image, proofs), **fields),
    )
    blobs = sim.blobs.setdefault(repo, {})
    for file in (image.layout / "blobs" / "sha256").iterdir():
        blobs[f"sha256:{file.name}"] = file.read_bytes()
    for one in (*(x.manifest for x in image.platforms), image.index):
        sim.put(repo, blobs[one.digest], one.media_type)
    for subject in (image.index, *(x.manifest for x in image.platforms)):
        for form in change(here, draft(here, subject)).carriers(here.repository).values():
            for carrier in form:
                blobs.update(carrier.blobs)
                sim.put(repo, carrier.manifest, carrier.media_type, carrier.tag)
    sim.tags[repo]["3.13"] = image.digest


# ------------------------------------------------------------------ 6 to 11, 14: documents


@pytest.mark.parametrize("tag", DOCUMENTS)
def test_a_hostile_document_in_the_storage_is_refused(place: Place, tag: str) -> None:
    sim, gate = place.scene.sim, place.gate
    digest = sim.tags[REPO][tag]
    for path in (f"/v2/{REPO}/manifests/{tag}", f"/v2/{REPO}/manifests/{digest}"):
        got = place.settled(path)
        assert got.status in (403, 404, 503), got.body
        assert got.error["code"] in ("DENIED", "UNAVAILABLE", "MANIFEST_UNKNOWN")
        assert got.error["message"].isprintable() and len(got.body) < 2000
        if got.status != 404:  # 404: it has a media type that nobody asks for
            assert got.error["detail"]["reason"] in ("not-curated", "temporarily-unverifiable")
    assert tag not in json.loads(gate.get(f"/v2/{REPO}/tags/list").body)["tags"]
    if tag.startswith(("6-", "7-")) and tag not in ("7-too-large", "7-another-size"):
        # It will never be a manifest: that is no matter of coming again later.
        assert (got.status, got.error["detail"]["reason"]) == (403, "not-curated")
    told = [e for e in gate.events("not-admitted") if e["digest"] == digest]
    assert told or got.status == 404


def test_between_all_that_the_good_image_is_served(place: Place) -> None:
    gate, image = place.gate, place.scene.world.image
    assert place.settled(f"/v2/{REPO}/manifests/3.13").status == 200
    layer = image.platforms[0].layers[0].blob.digest
    assert gate.get(f"/v2/{REPO}/blobs/{layer}").status == 200
    listed = json.loads(gate.get(f"/v2/{REPO}/referrers/{image.digest}").body)["manifests"]
    assert len(listed) == 7 and all(d["artifactType"] == BUNDLE_TYPE for d in listed)
    tags = json.loads(gate.get(f"/v2/{REPO}/tags/list").body)["tags"]
    assert sorted(tags) == sorted(["3.13", image.immutable_tag])
    assert gate.service.watch.seconds < 60
    assert gate.events("bug") == []


@pytest.mark.parametrize("tag", ["sha256-abc.sig", f"sha256-{OTHER.hex}.sig", f"sha256-{OTHER.hex}"])
def test_a_signature_s_tag_without_an_image_is_nothing(place: Place, tag: str) -> None:
    got = place.settled(f"/v2/{REPO}/manifests/{tag}")
    assert got.status in (403, 404, 503)
    assert b"layers" not in got.body


def test_a_loop_of_referrers_through_tags_ends(tmp_path: Path) -> None:
    """8 and 11: without the API referrers are tags, which may lead to each other and to themselves."""
    with published(tmp_path) as scene:
        sim, here = scene.sim, scene.world
        image = here.image.digest
        listed = RegistryClient(sim.address).referrers(REPO, image)
        sim.referrers_api = False
        one = sim.put(
            REPO, manifest(subject=described(digest=image), artifactType=BUNDLE_TYPE), MANIFEST_TYPE
        )
        two = sim.put(REPO, manifest(subject=described(digest=one), artifactType="text/x-two"), MANIFEST_TYPE)
        good = [d.as_dict() for d in listed]
        for subject, others in ((image, [image, two]), (two, [image, two]), (one, [two, one])):
            loop = [described(digest=d, media_type=MANIFEST_TYPE, artifactType="text/x") for d in others]
            data = index(manifests=[*(good if subject == image else ()), *loop])
            tag = f"sha256-{Digest(subject).hex}"
            loop.append(described(digest=sim.put(REPO, data, INDEX_TYPE, tag), media_type=INDEX_TYPE))
        with running_gate(sim.address, here.trust) as gate:
            path = f"/v2/{REPO}/manifests/3.13"
            reply, _ = gate.until(path, lambda r: b"being verified" not in r.body, 20)
            assert reply.status == 200
            found = json.loads(gate.get(f"/v2/{REPO}/referrers/{image}").body)["manifests"]
            assert {d["digest"] for d in found} == {d.digest for d in listed}
            assert gate.get(f"/v2/{REPO}/manifests/{two}").status in (403, 404, 503)
            for digest in {*sim.manifests[REPO]}:  # each is asked for a few times, and never again and again
                assert sim.count("GET", digest) <= 12


# ------------------------------------------------------------------ 18: evidence


@pytest.mark.parametrize("name", FORGED)
def test_forged_evidence_is_refused_with_its_reason(place: Place, name: str) -> None:
    _, _, reason, flaw = FORGED[name]
    sim, gate, repo = place.scene.sim, place.gate, f"candidate/f{name}"
    got = place.settled(f"/v2/{repo}/manifests/3.13")
    assert got.status == (503 if reason == "temporarily-unverifiable" else 403)
    assert got.error["detail"]["reason"] == reason, got.error
    assert flaw is None or got.error["detail"]["name"] == flaw
    assert gate.get(f"/v2/{repo}/manifests/{sim.tags[repo]['3.13']}").status == got.status
    for blob in list(sim.blobs[repo])[:4]:
        assert gate.get(f"/v2/{repo}/blobs/{blob}").status in (403, 404)
    assert repo not in json.loads(gate.get("/v2/_catalog").body)["repositories"]
    assert [e for e in gate.events("not-admitted") if e["repository"] == repo]


# ------------------------------------------------------------------ 17: a storage that behaves badly


def test_a_redirect_of_the_storage_is_not_followed(place: Place) -> None:
    """For blobs and for what nobody knows; the other host is never asked."""
    sim, image = place.scene.sim, place.scene.world.image
    with reg.simulator() as elsewhere:
        config = image.platforms[0].config.digest
        sim.fault("GET|HEAD", f"{config}|manifests/unheard-of", reg.redirect(f"http://{elsewhere.address}/x"))
        try:
            for path in (f"/v2/{REPO}/blobs/{config}", f"/v2/{REPO}/manifests/unheard-of"):
                assert place.gate.get(path).status == 503
            assert elsewhere.requests == []
        finally:
            sim.faults.clear()


def test_a_blob_that_dribbles_in_is_given_up(place: Place) -> None:
    sim, stop = place.scene.sim, threading.Event()
    layer = place.scene.world.image.platforms[0].layers[1].blob.digest
    sim.fault("GET", f"/blobs/{layer}", reg.dribble_body(stop))
    try:
        got = place.gate.get(f"/v2/{REPO}/blobs/{layer}")
        assert (got.status, got.error["code"]) == (503, "UNAVAILABLE")
        assert place.gate.events("storage-away")
    finally:
        stop.set()
        sim.faults.clear()
    assert place.gate.get(f"/v2/{REPO}/blobs/{layer}").status == 200


def whole(handler: reg.Handler) -> None:
    """All of the blob, whatever part was asked for."""
    del handler.headers["Range"]
    handler.serve()


def other_part(handler: reg.Handler) -> None:
    """Other bytes than those that were asked for, said to be them."""
    asked = handler.headers["Range"]
    if not asked:
        handler.serve()
        return
    start, end = (int(n) for n in asked.removeprefix("bytes=").split("-"))
    handler.reply(206, bytes(end - start + 1), Content_Range=f"bytes {start}-{end}/{end + 1}")


@pytest.mark.parametrize("act", [whole, other_part])
def test_a_storage_that_lies_about_parts_serves_none(
    tmp_path_factory: pytest.TempPathFactory, act: Callable[[reg.Handler], None]
) -> None:
    folder = tmp_path_factory.mktemp("parts")
    with published(folder / "scene", files=({"data": os.urandom(3_000_000)},)) as scene:
        blob = scene.world.image.platforms[0].layers[0].blob
        path = f"/v2/{REPO}/blobs/{blob.digest}"
        with running_gate(scene.sim.address, scene.world.trust) as gate:
            good = gate.get(path).body
            assert Digest.of(good) == blob.digest
            scene.sim.fault("GET", "/blobs/", act)
            got = gate.raw(
                f"GET {path} HTTP/1.1\r\nHost: x\r\nRange: bytes=1500000-1500009\r\n"
                "Connection: close\r\n\r\n".encode()
            )
            head, _, body = got.partition(b"\r\n\r\n")
            assert b" 503 " in head or not body
            assert gate.events("wrong-bytes") or gate.events("storage-away")
            scene.sim.faults.clear()
            assert gate.get(path, Range="bytes=1500000-1500009").body == good[1500000:1500010]


# ------------------------------------------------------------------ 19: clients


@pytest.mark.parametrize("agent", ["cosign/v3.1.1 (linux; amd64)", "kyverno/1.19", "Goldsmith", ""])
def test_no_client_s_name_opens_a_door(place: Place, agent: str) -> None:
    sim = place.scene.sim
    for path in (
        f"/v2/{REPO}/manifests/{sim.tags[REPO]['9-no-layers']}",
        f"/v2/{REPO}/manifests/9-no-layers",
    ):
        got = place.gate.get(path, User_Agent=agent, X_Forwarded_For="127.0.0.1", X_Original_URL="/v2/")
        assert got.status in (403, 503)
