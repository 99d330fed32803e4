"""Publishing against a registry that fails: no tag moves, and the next run completes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from builder.errors import PolicyDenied, RegistryError
from builder.model.digest import Digest
from builder.model.image import INDEX_TYPE, BuiltImage
from builder.model.platform import Platform
from builder.model.release import SignedImage
from builder.oci.client import RegistryClient
from builder.oci.manifest import index_bytes
from builder.oci.transport import Limits
from builder.stages.publish import find_published, publish, repository
from tests.support import registry_simulator as reg
from tests.support.images import built_image, carriers, signed_image, verdict
from tests.support.registry_simulator import Simulator, simulator

REPO = "candidate/python"
LIMITS = Limits(connect_seconds=1, read_seconds=1, total_seconds=5, attempts=3)


@pytest.fixture(params=[True, False], ids=["referrers-api", "fallback-tag"])
def sim(request: pytest.FixtureRequest) -> Iterator[Simulator]:
    with simulator() as sim:
        sim.referrers_api = request.param
        yield sim


@pytest.fixture
def client(sim: Simulator) -> RegistryClient:
    return RegistryClient(sim.address, limits=LIMITS, sleep=lambda _: None)


@pytest.fixture
def image(tmp_path: Path) -> BuiltImage:
    return built_image(tmp_path / "image", platforms=(Platform("linux", "amd64"), Platform("linux", "arm64")))


@pytest.fixture
def signed(image: BuiltImage) -> SignedImage:
    return signed_image(image)


def released(sim: Simulator) -> dict[str, str]:
    """The tags that a consumer of the image uses."""
    return {t: d for t, d in sim.tags.get(REPO, {}).items() if not t.startswith("sha256-")}


def assert_complete(sim: Simulator, client: RegistryClient, signed: SignedImage) -> None:
    image = signed.image
    assert released(sim) == {"3.13": image.digest, image.immutable_tag: image.digest}
    assert find_published(client, image.target, image.immutable_tag) == image.digest
    for item in signed.signatures:
        assert sim.manifests[REPO][item.digest][0] == item.manifest
        if item.tag:
            assert sim.tags[REPO][item.tag] == item.digest
        elif item.subject:
            assert [d.digest for d in client.referrers(REPO, item.subject.digest)] == [item.digest]


def test_everything_is_there_and_tags_come_last(
    sim: Simulator, client: RegistryClient, signed: SignedImage
) -> None:
    image = signed.image
    assert find_published(client, image.target, image.immutable_tag) is None
    published = publish(signed, client)
    assert_complete(sim, client, signed)
    assert published.reference == f"{sim.address}/{REPO}@{image.digest}"
    assert published.tags == (image.immutable_tag, "3.13")
    assert published.uploaded_bytes > 0

    writes = [str(seen) for seen in sim.requests if seen.method == "PUT"]

    def last(pattern: str) -> int:
        return max(n for n, line in enumerate(writes) if re.search(pattern, line))

    def first(pattern: str) -> int:
        return min(n for n, line in enumerate(writes) if re.search(pattern, line))

    children = "|".join(p.manifest.digest for p in image.platforms)
    assert first("manifests/") > first("blobs/uploads")
    assert last(f"manifests/({children})") < first(f"manifests/{image.digest}")
    assert first(f"manifests/{image.digest}") < first(r"\.sig|\.att")
    assert writes[-2:] == [
        f"PUT /v2/{REPO}/manifests/{image.immutable_tag}",
        f"PUT /v2/{REPO}/manifests/3.13",
    ]
    # Everything was read back before the first tag was written.
    blobs = {x.blob.digest for p in image.platforms for x in p.layers}
    before_tag = [str(s) for s in sim.requests]
    before_tag = before_tag[: before_tag.index(f"PUT /v2/{REPO}/manifests/{image.immutable_tag}")]
    assert all(f"GET /v2/{REPO}/blobs/{digest}" in before_tag for digest in blobs)


def test_publishing_again_sends_no_blob(sim: Simulator, client: RegistryClient, signed: SignedImage) -> None:
    publish(signed, client)
    sim.requests.clear()
    publish(signed, client)
    assert sim.count("POST") == 0
    assert not any(seen.method == "PUT" and seen.path.endswith("/3.13") for seen in sim.requests)
    assert_complete(sim, client, signed)


def test_layers_of_the_parent_are_linked(
    sim: Simulator, client: RegistryClient, tmp_path: Path, signed: SignedImage
) -> None:
    base = built_image(tmp_path / "base", name="base", files=({"etc/os-release": b"base\n"},))
    publish(signed_image(base), client)
    shared = base.platforms[0].layers[0].blob.digest
    sim.requests.clear()
    publish(signed, client)
    assert sim.blobs[REPO][shared] == sim.blobs["candidate/base"][shared]
    assert sim.count("POST", f"mount={shared.replace(':', '%3A')}&from=candidate%2Fbase") == 1
    assert sim.count("PUT", f"digest={shared.replace(':', '%3A')}") == 0


FAULTS = {
    "down at the first request": ("HEAD", "manifests", reg.status(503)),
    "500 at a blob": ("POST", "uploads", reg.status(500)),
    "429 for ever": ("PUT", "uploads", reg.status(429, Retry_After="99999")),
    "cut in mid-blob": ("PUT", "uploads", reg.cut_upload),
    "503 at a platform manifest": ("PUT", "manifests/sha256:", reg.status(503)),
    "403 at the signatures": ("PUT", r"manifests/sha256-.*\.sig", reg.status(403)),
    "500 at the attestations": ("PUT", r"manifests/sha256-.*\.att", reg.status(500)),
    "corrupted blob on read-back": ("GET", "blobs", reg.corrupt),
    "cut blob on read-back": ("GET", "blobs", reg.cut_download),
    "corrupted manifest on read-back": ("GET", "manifests/sha256:", reg.corrupt),
    "corrupted signature on read-back": ("GET", r"manifests/sha256-.*\.sig", reg.corrupt),
    "lost manifest on read-back": ("GET", "manifests/sha256:", reg.status(404)),
    "500 at the immutable tag": ("PUT", r"manifests/3\.13\.5-", reg.status(500)),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_moves_no_tag_and_the_next_run_completes(
    sim: Simulator, client: RegistryClient, signed: SignedImage, name: str
) -> None:
    old = index_bytes([])
    sim.put(REPO, old, INDEX_TYPE, "3.13")
    method, path, act = FAULTS[name]
    sim.fault(method, path, act)
    with pytest.raises(RegistryError) as caught:
        publish(signed, client)
    assert caught.value.exit_code == 6
    assert caught.value.hint
    assert released(sim) == {"3.13": Digest.of(old)}
    assert find_published_or_none(client, signed.image) is None
    assert len(sim.requests) < 150

    sim.faults.clear()
    publish(signed, client)
    assert_complete(sim, client, signed)


@pytest.mark.parametrize("part", ["layer", "configuration", "platform manifest", "index", "evidence"])
def test_each_part_is_read_back(
    sim: Simulator, client: RegistryClient, signed: SignedImage, part: str
) -> None:
    platform = signed.image.platforms[1]
    digest = {
        "layer": platform.layers[0].blob.digest,
        "configuration": platform.config.digest,
        "platform manifest": platform.manifest.digest,
        "index": signed.image.digest,
        "evidence": max(signed.signatures[2].blobs, key=lambda d: len(signed.signatures[2].blobs[d])),
    }[part]
    sim.fault("GET", digest, reg.corrupt)
    with pytest.raises(RegistryError, match="other content"):
        publish(signed, client)
    assert released(sim) == {}


def find_published_or_none(client: RegistryClient, image: BuiltImage) -> Digest | None:
    try:
        return find_published(client, image.target, image.immutable_tag)
    except RegistryError:
        return None


def test_stopped_after_any_request_the_next_run_completes(
    client: RegistryClient, sim: Simulator, tmp_path: Path
) -> None:
    """As if the process was killed at the n-th write, for each n."""
    image = built_image(tmp_path / "small", files=({"hello": b"hello"},))
    signed = SignedImage(image, verdict(image), carriers(image.index))
    publish(signed, client)
    total = sim.count("PUT|POST")
    for n in range(1, total + 1):
        for store in (sim.blobs, sim.manifests, sim.tags, sim.uploads, sim.requests):
            store.clear()
        seen = sim.fault("PUT|POST", ".*", lambda h: h.serve(), times=n - 1)
        sim.faults.append(reg.Fault("PUT|POST", ".*", reg.status(400)))
        with pytest.raises(RegistryError):
            publish(signed, client)
        assert seen.seen >= n - 1
        assert set(released(sim)) <= {signed.image.immutable_tag}
        sim.faults.clear()
        publish(signed, client)
        assert_complete(sim, client, signed)


def test_a_single_fault_is_overcome(sim: Simulator, client: RegistryClient, signed: SignedImage) -> None:
    sim.fault("PUT", "uploads", reg.cut_upload, times=1)
    sim.fault("GET", "blobs", reg.cut_download, times=1)
    sim.fault("PUT", "manifests", reg.status(502), times=2)
    publish(signed, client)
    assert_complete(sim, client, signed)


def test_an_immutable_tag_is_never_moved(sim: Simulator, client: RegistryClient, signed: SignedImage) -> None:
    other = index_bytes([])
    sim.put(REPO, other, INDEX_TYPE, signed.image.immutable_tag)
    with pytest.raises(RegistryError, match="already points to another image"):
        publish(signed, client)
    assert released(sim) == {signed.image.immutable_tag: Digest.of(other)}
    assert sim.count("PUT|POST") == 0


def test_a_faster_publisher_is_not_overwritten(
    sim: Simulator, client: RegistryClient, signed: SignedImage
) -> None:
    other = index_bytes([])

    def meanwhile(handler: reg.Handler) -> None:
        handler.serve()
        sim.put(REPO, other, INDEX_TYPE, signed.image.immutable_tag)

    sim.fault("PUT", r"\.att", meanwhile)
    with pytest.raises(RegistryError, match="already points to another image"):
        publish(signed, client)
    assert released(sim) == {signed.image.immutable_tag: Digest.of(other)}


def test_a_half_finished_publication_is_not_taken_for_published(
    sim: Simulator, client: RegistryClient, signed: SignedImage
) -> None:
    publish(signed, client)
    del sim.tags[REPO]["3.13"]
    assert find_published(client, signed.image.target, signed.image.immutable_tag) is None
    publish(signed, client)
    assert_complete(sim, client, signed)


def test_signing_again_replaces_and_does_not_pile_up(
    sim: Simulator, client: RegistryClient, signed: SignedImage
) -> None:
    publish(signed, client)
    image = signed.image
    subjects = [image.index, *(p.manifest for p in image.platforms)]
    again = replace(signed, signatures=tuple(c for s in subjects for c in carriers(s, " again")))
    publish(again, client)
    listed = [d.digest for d in client.referrers(REPO, image.digest)]
    ours = [i.digest for i in again.signatures if i.subject and i.subject.digest == image.digest]
    assert listed[-1:] == ours
    assert len(listed) == (2 if sim.referrers_api else 1)


@pytest.mark.parametrize("change", [{"approved": False}, {"digest": Digest.of(b"another image")}])
def test_without_an_approval_of_this_image_nothing_is_sent(
    sim: Simulator, client: RegistryClient, signed: SignedImage, change: dict[str, object]
) -> None:
    denied = replace(signed, verdict=replace(signed.verdict, **change))  # type: ignore[arg-type]
    with pytest.raises(PolicyDenied):
        publish(denied, client)
    assert sim.requests == []


def test_a_damaged_layout_is_not_published(
    sim: Simulator, client: RegistryClient, signed: SignedImage
) -> None:
    layer = signed.image.platforms[0].layers[0].blob.digest
    path = signed.image.layout / "blobs" / "sha256" / layer.hex
    path.write_bytes(b"x" * path.stat().st_size)
    with pytest.raises(RegistryError):
        publish(signed, client)
    assert released(sim) == {}


def test_a_tag_that_does_not_stay_is_told(
    sim: Simulator, client: RegistryClient, signed: SignedImage
) -> None:
    def moved(handler: reg.Handler) -> None:
        handler.serve()
        sim.put(REPO, index_bytes([]), INDEX_TYPE, "3.13")

    sim.fault("PUT", r"manifests/3\.13$", moved)
    with pytest.raises(RegistryError, match="cannot be read back"):
        publish(signed, client)


def test_referrers_that_vanish_are_told(sim: Simulator, client: RegistryClient, signed: SignedImage) -> None:
    sim.referrers_api = True
    empty = index_bytes([])
    sim.fault("GET", "referrers", lambda h: h.reply(200, empty, Content_Type=INDEX_TYPE))
    with pytest.raises(RegistryError, match="cannot be read back"):
        publish(signed, client)
    assert released(sim) == {}


def test_the_prefix_names_the_repository(sim: Simulator, client: RegistryClient, signed: SignedImage) -> None:
    assert repository(signed.image.target) == REPO
    assert publish(signed, client, "quarantine/a").reference.startswith(f"{sim.address}/quarantine/a/python@")
    assert json.loads(sim.manifests["quarantine/a/python"][signed.image.digest][0])
