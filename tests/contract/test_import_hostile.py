"""Imports of what enemies make: refused with a reason, quickly, and nothing of it is left or decided.

The numbers are those of the groups of hostile inputs in `docs/faults.md`.
"""

from __future__ import annotations

import gzip
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from builder.errors import GoldsmithError
from builder.model.digest import Digest, canonical_json
from builder.model.image import INDEX_TYPE, LAYER_TYPE
from builder.model.reference import Reference
from builder.oci.client import RegistryClient
from builder.oci.tarformat import TarEntry, header
from builder.oci.transport import Limits
from registry.upstream.fetch import fetch
from registry.upstream.source import LayoutSource, RegistrySource
from registry.upstream.tree import read_tree
from tests.support import registry_simulator as reg
from tests.support.foreign import (
    Foreign,
    described,
    index_of,
    system_files,
    write_layout,
    write_registry,
)
from tests.support.images import layer_tar
from tests.support.importing import ImportHouse
from tests.support.registry_simulator import Handler, Simulator, simulator

REPO = "library/app"
QUICK = Limits(total_seconds=20, read_seconds=5, attempts=2, first_pause_seconds=0.01)


@pytest.fixture
def sim() -> Iterator[Simulator]:
    with simulator() as sim:
        sim.referrers_api = False
        yield sim


@pytest.fixture
def house(sim: Simulator, tmp_path: Path) -> ImportHouse:
    return ImportHouse(tmp_path, RegistryClient(sim.address))


def remote(sim: Simulator, digest: Digest | None, tag: str | None = None) -> RegistrySource:
    client = RegistryClient(sim.address, limits=QUICK, sleep=lambda seconds: None)
    return RegistrySource(client, Reference(sim.address, REPO, tag, digest))


def refused(sim: Simulator, house: ImportHouse, make: Callable[[], Any]) -> GoldsmithError:
    """What is said; nothing is written, decided or left."""
    before = sim.content()
    tracemalloc.start()
    with pytest.raises(GoldsmithError) as raised:
        house.take(make())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert raised.value.hint and raised.value.reference
    assert len(raised.value.message) < 500 and raised.value.message.isprintable()
    assert sim.content() == before
    assert house.ledger.entries() == ()
    assert not list((house.folder / "work").iterdir())
    assert peak < 64 << 20
    return raised.value


# ------------------------------------------------------------------ 2: tag and digest


def test_a_tag_that_is_another_image_than_the_digest_is_refused(sim: Simulator, house: ImportHouse) -> None:
    digest = write_registry(sim, REPO, Foreign())
    other = write_registry(sim, REPO, Foreign(config={"author": "x"}))
    sim.tags[REPO] = {"1.0": other}
    for tag in ("1.0", "gone"):
        error = refused(sim, house, lambda tag=tag: remote(sim, digest, tag))
        assert error.reference == "digest-mismatch" and str(digest) in error.context + error.hint
    sim.tags[REPO]["1.0"] = digest
    assert house.take(remote(sim, digest, "1.0")).source.digest == digest


# ------------------------------------------------------------------ 6 to 10: documents


def many_platforms() -> bytes:
    """257 children, all of the one platform that there is."""
    return index_of(*[Foreign(config={"author": str(n)}) for n in range(257)])


def endless_children() -> bytes:
    child = {**Foreign().entry(), "platform": {"os": "unknown", "architecture": "unknown"}}
    return canonical_json({"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": [child] * 5000})


def altered(**changes: Any) -> bytes:
    listing = {"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": [Foreign().entry()], **changes}
    return canonical_json(listing)


def entry(**changes: Any) -> bytes:
    return altered(manifests=[{**Foreign().entry(), **changes}])


INDEXES: dict[str, Callable[[], bytes]] = {
    "6-index-with-a-configuration": lambda: altered(config=described(b"{}", "application/x")),
    "6-index-with-layers": lambda: altered(layers=[]),
    "7-huge-number": lambda: altered().replace(b'"size":', b'"size":' + b"9" * 5000),
    "7-other-size": lambda: entry(size=7),
    "7-negative-size": lambda: entry(size=-1),
    "8-257-platforms": many_platforms,
    "8-5000-children": endless_children,
    "8-lists-itself": lambda: entry(mediaType=INDEX_TYPE),
    "9-child-missing": lambda: entry(digest=str(Digest.of(b"nowhere"))),
    "9-no-children": lambda: altered(manifests=[]),
    "10-schema-1-child": lambda: entry(mediaType="application/vnd.docker.distribution.manifest.v1+prettyjws"),
    "16-only-unknown-platforms": lambda: entry(platform={"os": "unknown", "architecture": "unknown"}),
}


@pytest.mark.parametrize("name", INDEXES)
def test_a_hostile_index_is_refused(sim: Simulator, house: ImportHouse, tmp_path: Path, name: str) -> None:
    layout = write_layout(tmp_path / "hostile", Foreign(), index=INDEXES[name]())
    refused(sim, house, lambda: LayoutSource(layout))


def image(**manifest: Any) -> Foreign:
    return Foreign(manifest=manifest)


def annotated(**annotations: str) -> Foreign:
    one = Foreign()
    layers = [{**described(x, LAYER_TYPE), "annotations": annotations} for x in one.blobs()]
    return Foreign(manifest={"layers": layers})


def toc() -> bytes:
    """A layer with eStargz's table, which promises another file than the layer has."""
    lie = canonical_json({"version": 1, "entries": [{"name": "app", "type": "reg", "size": 4}]})
    return layer_tar({"app": b"true", "stargz.index.json": lie})


STARGZ = {"containerd.io/snapshot/stargz/toc.digest": str(Digest.of(b"a table of lies"))}
IMAGES: dict[str, tuple[Callable[[], Foreign], str]] = {
    "9-blob-missing": (
        lambda: image(layers=[described(b"missing", LAYER_TYPE)] * 2),
        "",
    ),
    "9-a-referrer": (lambda: image(subject=described(b"x", INDEX_TYPE)), "not-an-image"),
    "12-estargz-with-a-table": (lambda: annotated(**STARGZ), "table-of-contents"),
    "12-zstd-chunked-with-a-table": (
        lambda: annotated(**{"io.github.containers.zstd-chunked.manifest-checksum": "sha256:1"}),
        "table-of-contents",
    ),
    "12-nydus": (
        lambda: annotated(**{"containerd.io/snapshot/nydus-bootstrap": "true"}),
        "table-of-contents",
    ),
    "16-a-time-that-is-none": (lambda: Foreign(config={"created": "yesterday"}), "malformed-config"),
    "16-a-number-as-time": (lambda: Foreign(config={"created": 5}), "malformed-config"),
    "16-a-time-of-a-step-that-is-none": (
        lambda: Foreign(config={"history": [{"created": "\x1b[2J"}, {}]}),
        "malformed-config",
    ),
}


@pytest.mark.parametrize("name", IMAGES)
def test_a_hostile_image_is_refused(sim: Simulator, house: ImportHouse, name: str) -> None:
    make, reference = IMAGES[name]
    error = refused(sim, house, lambda: house.layout(make()))
    assert reference in ("", error.reference)


@pytest.mark.parametrize(
    "one",
    [
        Foreign(manifest={"custom": {"a": [1]}, "annotations": {"x": "y"}}),
        Foreign(config={"custom": 1, "created": "1970-01-01T00:00:00Z"}),
        Foreign(config={"created": "2099-12-31T23:59:59.123456789+02:00"}),
        Foreign(layers=[layer_tar(system_files()), toc()]),
    ],
    ids=["9-custom-fields", "16-created-in-1970", "16-created-in-2099", "12-a-table-that-nobody-names"],
)
def test_what_is_odd_and_harmless_is_taken_as_it_is(house: ImportHouse, one: Foreign) -> None:
    done = house.take(house.layout(one))
    assert done.source.digest == Digest.of(one.manifest_bytes())
    assert done.entry.at == house.now  # our times are ours


def test_a_table_in_a_layer_is_a_file_and_no_more(tmp_path: Path) -> None:
    """12: what the scanner and the rules see is what the layer holds."""
    found = fetch(LayoutSource(write_layout(tmp_path / "a", Foreign(layers=[toc()]))), tmp_path / "b")
    tree = read_tree(found.layout, found.platforms[0].layers, ("app",))
    assert (tree.entries["app"].size, tree.contents["app"]) == (4, b"true")
    assert tree.entries["stargz.index.json"].kind == "file"


def test_a_bomb_in_a_layer_is_not_unpacked_further(tmp_path: Path) -> None:
    """12: a packed file in a packed layer stays packed, whatever it would unpack to."""
    inner = gzip.compress(bytes(64 << 20), 9)
    one = Foreign(layers=[layer_tar({"bomb.tar.gz": inner})])
    found = fetch(LayoutSource(write_layout(tmp_path / "a", one)), tmp_path / "b")
    tracemalloc.start()
    tree = read_tree(found.layout, found.platforms[0].layers, ("bomb.tar.gz",))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert tree.contents["bomb.tar.gz"] == inner and peak < 16 << 20


# ------------------------------------------------------------------ 13: what the rules of the policy forbid


def special(kind: str) -> bytes:
    return header(TarEntry("dev/x", kind, 0o666, 0, 0, 0, 0)) + layer_tar(system_files())


@pytest.mark.parametrize("kind", ["3", "4"], ids=["character-device", "block-device"])
def test_a_device_in_an_image_is_denied_by_the_policy(sim: Simulator, house: ImportHouse, kind: str) -> None:
    error = refused(sim, house, lambda: house.layout(Foreign(layers=[special(kind)])))
    assert error.reference == "import-denied" and "no-devices" in error.context


# ------------------------------------------------------------------ 17: registries


def html(handler: Handler) -> None:
    handler.reply(200, b"<html>", Content_Type="text/html")


def elsewhere_as_index(handler: Handler) -> None:
    """The right bytes, said to be something else."""
    data = Foreign().manifest_bytes()
    handler.reply(200, data, Content_Type=INDEX_TYPE, Docker_Content_Digest=Digest.of(data))


def schema_1(handler: Handler) -> None:
    body = canonical_json({"schemaVersion": 1, "fsLayers": [], "history": []})
    handler.reply(200, body, Content_Type="application/vnd.docker.distribution.manifest.v1+prettyjws")


def part(handler: Handler) -> None:
    handler.reply(206, b"x", Content_Range="bytes 0-0/1", Content_Type="application/octet-stream")


def login_loop(handler: Handler) -> None:
    challenge = f'Bearer realm="http://{handler.simulator.address}/token",scope="repository:{REPO}:pull"'
    handler.error(401, "UNAUTHORIZED", WWW_Authenticate=challenge)


REGISTRIES: dict[str, tuple[str, Callable[[Handler], None]]] = {
    "the manifest is gone": ("manifests/", reg.status(404)),
    "a blob is gone": ("blobs/", reg.status(404)),
    "a manifest said to be an index": ("manifests/", elsewhere_as_index),
    "schema 1": ("manifests/", schema_1),
    "a web page as manifest": ("manifests/", html),
    "a web page as blob": ("blobs/", html),
    "303 to a web page": ("blobs/", reg.redirect("/login", 303)),
    "a part that nobody asked for": ("blobs/", part),
    "more than there is": ("blobs/", reg.longer),
    "a manifest without end": ("manifests/", reg.endless),
    "a blob without end": ("blobs/", reg.endless),
    "another digest in the header": ("manifests/", reg.with_header("Docker-Content-Digest", Digest.of(b"x"))),
    "401 for ever": ("(manifests|blobs)/", login_loop),
    "429 for ever": ("manifests/", reg.status(429, Retry_After="999999999")),
    "503 for ever": ("blobs/", reg.status(503)),
}


@pytest.mark.parametrize("name", REGISTRIES)
def test_a_registry_that_behaves_badly_gives_no_image(sim: Simulator, house: ImportHouse, name: str) -> None:
    digest = write_registry(sim, REPO, Foreign())
    place, act = REGISTRIES[name]
    sim.fault("GET", f"{REPO}/{place}", act)
    refused(sim, house, lambda: remote(sim, digest))
    assert sim.count("GET") < 20
    # It comes to itself: the same import goes through.
    sim.faults.clear()
    assert house.take(remote(sim, digest)).source.digest == digest


def test_what_head_says_is_believed_of_nothing(sim: Simulator, house: ImportHouse) -> None:
    """17: HEAD names one image for the tag, GET another; the digest decides."""
    digest = write_registry(sim, REPO, Foreign())
    other = write_registry(sim, REPO, Foreign(config={"author": "x"}))
    sim.tags[REPO] = {"1.0": other}
    sim.fault("HEAD", "manifests/1.0", reg.with_header("Docker-Content-Digest", str(digest)))
    assert house.take(remote(sim, digest, "1.0")).source.digest == digest
    sim.fault("HEAD", "manifests/1.0", reg.with_header("Docker-Content-Digest", "sha256:x"))
    with pytest.raises(GoldsmithError) as raised:
        remote(sim, digest, "1.0")
    assert raised.value.hint


def test_a_tag_moved_while_it_is_fetched_changes_nothing(sim: Simulator, house: ImportHouse) -> None:
    digest = write_registry(sim, REPO, Foreign())
    other = write_registry(sim, REPO, Foreign(config={"author": "x"}))
    sim.tags[REPO] = {"1.0": digest}
    source = remote(sim, digest, "1.0")
    sim.tags[REPO]["1.0"] = other
    assert house.take(source).source.digest == digest
