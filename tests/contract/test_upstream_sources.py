"""Foreign images from layouts, archives and registries: what is taken, what is refused, and why."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from builder.errors import GoldsmithError, RegistryError, UsageError
from builder.model.digest import Digest, canonical_json
from builder.model.image import INDEX_TYPE
from builder.model.platform import Platform
from builder.model.reference import Reference
from builder.oci.client import RegistryClient
from builder.oci.layout import read_layout_index, verify_layout
from builder.oci.transport import Limits
from registry.upstream.fetch import Fetched, fetch
from registry.upstream.refusal import ImportRefused
from registry.upstream.source import LayoutSource, RegistrySource, Source, open_file
from registry.upstream.tree import read_tree
from tests.support.foreign import (
    Foreign,
    attestation,
    described,
    docker_archive,
    index_of,
    layout_archive,
    spoil,
    tar_of,
    write_layout,
    write_registry,
)
from tests.support.images import layer_tar
from tests.support.registry_simulator import Handler, Simulator, simulator

AMD64, ARM64 = Platform("linux", "amd64"), Platform("linux", "arm64")
QUICK = Limits(total_seconds=5, read_seconds=2, attempts=2, first_pause_seconds=0.01)


def taken(folder: Path, source: Source, *platforms: Platform) -> Fetched:
    found = fetch(source, folder / "ours", platforms)
    verify_layout(found.layout)
    for one in found.platforms:
        read_tree(found.layout, one.layers)
    return found


def from_layout(tmp_path: Path, *platforms: Foreign, index: bytes | None = None) -> Fetched:
    return taken(tmp_path, LayoutSource(write_layout(tmp_path / "theirs", *platforms, index=index)))


@pytest.fixture
def sim() -> Iterator[Simulator]:
    with simulator() as sim:
        yield sim


def remote(sim: Simulator, digest: Digest) -> RegistrySource:
    client = RegistryClient(sim.address, limits=QUICK, sleep=lambda seconds: None)
    return RegistrySource(client, Reference(sim.address, "library/app", None, digest))


# ------------------------------------------------------------------ what is taken


@pytest.mark.parametrize("docker", [False, True])
def test_platform_manifests_keep_their_digests_under_an_index_of_ours(tmp_path: Path, docker: bool) -> None:
    both = Foreign(docker=docker), Foreign(architecture="arm64", docker=docker)
    manifest, entry = attestation()
    found = from_layout(tmp_path, *both, index=index_of(*both, extra=[entry]))
    assert [p.manifest.digest for p in found.platforms] == [Digest.of(b.manifest_bytes()) for b in both]
    assert [p.platform for p in found.platforms] == [AMD64, ARM64]
    assert found.left_out == (Digest.of(manifest),)
    assert read_layout_index(found.layout) == (found.index,)
    assert from_layout(tmp_path / "again", *both).index == found.index


def test_one_platform_can_be_chosen(tmp_path: Path) -> None:
    both = Foreign(), Foreign(architecture="arm64")
    layout = write_layout(tmp_path / "theirs", *both)
    found = taken(tmp_path, LayoutSource(layout), ARM64)
    assert [p.platform for p in found.platforms] == [ARM64]
    with pytest.raises(ImportRefused) as refused:
        taken(tmp_path / "x", LayoutSource(write_layout(tmp_path / "one", Foreign())), ARM64)
    assert "linux/amd64" in refused.value.context


def test_a_registry_a_layout_and_their_archive_give_the_same_image(tmp_path: Path, sim: Simulator) -> None:
    one = Foreign()
    layout = write_layout(tmp_path / "theirs", one)
    digest = write_registry(sim, "library/app", one)
    archive = layout_archive(tmp_path / "layout.tar", layout)
    found = {
        taken(tmp_path / name, source).index.digest
        for name, source in (
            ("a", open_file(layout, None, tmp_path)),
            ("b", open_file(archive, None, tmp_path)),
            ("c", remote(sim, digest)),
        )
    }
    assert len(found) == 1


def test_a_docker_archive_gives_the_same_digest_each_time(tmp_path: Path) -> None:
    one = Foreign(layers=[layer_tar({"a": b"x" * 300_000}), layer_tar({"b": b"y"})])
    found = []
    for name in "ab":
        (tmp_path / name).mkdir()
        source = open_file(docker_archive(tmp_path / f"{name}.tar", one), None, tmp_path / name)
        found.append(taken(tmp_path / name / "x", source))
    assert found[0].index == found[1].index
    assert found[0].platforms[0].config_blob.digest == Digest.of(one.config_bytes())
    assert source.kind == source.origin == "docker-archive"


def test_a_layer_that_an_older_docker_links_is_followed_inside_the_archive(tmp_path: Path) -> None:
    one = Foreign()
    config = one.config_bytes()
    names = ["a/layer.tar", "b/layer.tar"]
    listed = [{"Config": "c.json", "RepoTags": None, "Layers": names}]
    twice = Foreign(layers=[one.layers[1], one.layers[1]])
    config = twice.config_bytes()
    files = {"c.json": config, "a/layer.tar": one.layers[1], "manifest.json": json.dumps(listed).encode()}
    path = tmp_path / "x.tar"
    path.write_bytes(tar_of(files, {"b/layer.tar": "../a/layer.tar"}))
    assert len(fetch(open_file(path, None, tmp_path), tmp_path / "ours").platforms[0].layers) == 2
    path.write_bytes(tar_of(files, {"b/layer.tar": "../../../../etc/passwd"}))
    (tmp_path / "y").mkdir()
    with pytest.raises(ImportRefused):
        open_file(path, None, tmp_path / "y")


def test_a_tag_is_refused_with_its_digest_as_the_hint(sim: Simulator) -> None:
    digest = write_registry(sim, "library/app", Foreign(), Foreign(architecture="arm64"))
    client = RegistryClient(sim.address, limits=QUICK)
    with pytest.raises(UsageError) as refused:
        RegistrySource(client, Reference(sim.address, "library/app", "1.0"))
    assert f"@{digest}" in refused.value.hint


def test_one_of_several_images_is_chosen_by_digest(tmp_path: Path) -> None:
    layout = write_layout(tmp_path / "a", Foreign())
    other = Foreign(config={"author": "x"})
    write_layout(tmp_path / "b", other)
    for path in (tmp_path / "b" / "blobs" / "sha256").iterdir():
        (layout / "blobs" / "sha256" / path.name).write_bytes(path.read_bytes())
    roots = [described(o.manifest_bytes(), o.media_type) for o in (Foreign(), other)]
    listing = {"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": roots}
    (layout / "index.json").write_bytes(canonical_json(listing))
    with pytest.raises(UsageError) as refused:
        LayoutSource(layout)
    wanted = Digest.of(other.manifest_bytes())
    assert wanted in refused.value.context
    assert LayoutSource(layout, wanted).root.digest == wanted


# ------------------------------------------------------------------ manifests and configurations


def manifest(**parts: Any) -> Foreign:
    return Foreign(manifest=parts)


def config(**parts: Any) -> Foreign:
    return Foreign(config=parts)


UNSOUND: dict[str, Callable[[], Foreign]] = {
    "layers and manifests": lambda: manifest(manifests=[]),
    "no media type": lambda: manifest(mediaType=None),
    "schema 1": lambda: manifest(schemaVersion=1),
    "no layers": lambda: manifest(layers=[]),
    "empty layer": lambda: manifest(
        layers=[described(b"", "application/vnd.oci.image.layer.v1.tar+gzip")] * 2
    ),
    "a layer of no known kind": lambda: manifest(
        layers=[described(b"x", "application/vnd.oci.image.layer.v1.tar+lz4")] * 2
    ),
    "foreign layer": lambda: manifest(
        layers=[
            {
                **described(b"x", "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"),
                "urls": ["http://169.254.169.254/"],
            }
        ]
        * 2
    ),
    "unknown artefact": lambda: manifest(artifactType="application/x-chart"),
    "a chart's configuration": lambda: manifest(
        config=described(b"{}", "application/vnd.cncf.helm.config.v1+json")
    ),
    "too many layers": lambda: Foreign(layers=[layer_tar({"a": b""})] * 128),
    "size -1": lambda: manifest(config={**described(b"{}", "application/x"), "size": -1}),
    "sha512": lambda: manifest(config={**described(b"{}", "application/x"), "digest": "sha512:" + "a" * 128}),
    "data against its digest": lambda: manifest(
        config={**described(b"{}", "application/vnd.oci.image.config.v1+json"), "data": "eHg="}
    ),
    "fewer diff_ids": lambda: config(rootfs={"type": "layers", "diff_ids": [str(Digest.of(b"x"))]}),
    "no rootfs": lambda: config(rootfs=None),
    "other platform": lambda: config(architecture="s390x"),
    "history of other layers": lambda: config(history=[{"created_by": "a"}]),
    "history is a text": lambda: config(history="x"),
    "nested deeply": lambda: config(author=json.loads("[" * 40 + "]" * 40)),
}


@pytest.mark.parametrize("name", UNSOUND)
def test_what_is_no_sound_image_is_refused(tmp_path: Path, name: str) -> None:
    layout = write_layout(tmp_path / "theirs", UNSOUND[name]())
    with pytest.raises((ImportRefused, RegistryError)) as refused:
        fetch(LayoutSource(layout), tmp_path / "ours")
    assert refused.value.hint
    assert not (tmp_path / "ours" / "index.json").exists()


@pytest.mark.parametrize(
    "text",
    [
        b"\xef\xbb\xbf{}",
        b'{"schemaVersion":2,"schemaVersion":2}',
        b'{"schemaVersion":2} x',
        b"[" * 10_000,
        b'{"schemaVersion":NaN}',
        b"{}" + b" " * (4 << 20),
    ],
    ids=["byte order mark", "repeated key", "trailing data", "nesting", "NaN", "4 MiB"],
)
def test_malformed_manifests_are_refused(tmp_path: Path, text: bytes) -> None:
    layout = write_layout(tmp_path / "theirs", Foreign(), index=text)
    with pytest.raises((ImportRefused, RegistryError)):
        fetch(LayoutSource(layout), tmp_path / "ours")


def test_an_index_in_an_index_and_a_platform_twice_are_refused(tmp_path: Path) -> None:
    inner = index_of(Foreign())
    nested = canonical_json(
        {"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": [described(inner, INDEX_TYPE)]}
    )
    for name, index in (("nested", nested), ("twice", index_of(Foreign(), Foreign(config={"author": "x"})))):
        layout = write_layout(tmp_path / name, Foreign(), index=index)
        with pytest.raises(ImportRefused):
            fetch(LayoutSource(layout), tmp_path / f"ours-{name}")


@pytest.mark.parametrize("part", ["manifest", "config", "layer"])
@pytest.mark.parametrize("how", ["flipped", "missing"])
def test_damaged_layouts_are_refused(tmp_path: Path, part: str, how: str) -> None:
    one = Foreign()
    layout = write_layout(tmp_path / "theirs", one)
    data = {"manifest": one.manifest_bytes(), "config": one.config_bytes(), "layer": one.blobs()[0]}[part]
    if how == "flipped":
        spoil(layout, Digest.of(data))
    else:
        (layout / "blobs" / "sha256" / Digest.of(data).hex).unlink()
    for number, make in enumerate((lambda: layout, lambda: layout_archive(tmp_path / "x.tar", layout))):
        with pytest.raises((ImportRefused, RegistryError)):
            fetch(open_file(make(), None, tmp_path), tmp_path / f"ours-{number}")
        assert not (tmp_path / f"ours-{number}" / "index.json").exists()


def test_a_layout_whose_blob_is_a_link_elsewhere_is_refused(tmp_path: Path) -> None:
    one = Foreign()
    layout = write_layout(tmp_path / "theirs", one)
    path = layout / "blobs" / "sha256" / Digest.of(one.config_bytes()).hex
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RegistryError):
        fetch(LayoutSource(layout), tmp_path / "ours")


ARCHIVES: dict[str, Callable[[Path], None]] = {
    "nothing": lambda path: path.write_bytes(b""),
    "no tar": lambda path: path.write_bytes(b"x" * 5000),
    "compressed": lambda path: path.write_bytes(gzip.compress(b"x")),
    "no image": lambda path: path.write_bytes(tar_of({"a": b""})),
    "twice a name": lambda path: path.write_bytes(tar_of({"manifest.json": b"[]", "./manifest.json": b"[]"})),
    "absolute name": lambda path: path.write_bytes(tar_of({"/manifest.json": b"[]"})),
    "no entry": lambda path: path.write_bytes(tar_of({"manifest.json": b"[]"})),
    "two images": lambda path: path.write_bytes(tar_of({"manifest.json": b"[{},{}]"})),
    "no layers": lambda path: docker_archive(path, Foreign(), Layers=[]),
    "layer not there": lambda path: docker_archive(path, Foreign(), Layers=["../../etc/passwd", "b"]),
    "configuration is no name": lambda path: docker_archive(path, Foreign(), Config=["x"]),
    "other content": lambda path: docker_archive(
        path, Foreign(config={"rootfs": {"type": "layers", "diff_ids": [str(Digest.of(b"a"))] * 2}})
    ),
    "folder link loop": lambda path: path.write_bytes(
        tar_of({"c": b"{}", "manifest.json": b'[{"Config":"c","Layers":["l"]}]'}, {"l": "l"})
    ),
}


@pytest.mark.parametrize("name", ARCHIVES)
def test_unsound_archives_are_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / "x.tar"
    ARCHIVES[name](path)
    with pytest.raises(GoldsmithError) as refused:
        fetch(open_file(path, None, tmp_path), tmp_path / "ours")
    assert refused.value.exit_code in (2, 4, 6)
    assert not list(tmp_path.rglob(".layer.*"))


# ------------------------------------------------------------------ registries behaving badly


def other_body(handler: Handler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Type", "application/vnd.oci.image.manifest.v1+json")
    data = Foreign(config={"author": "another"}).manifest_bytes()
    handler.send_header("Content-Length", str(len(data)))
    handler.end_headers()
    handler.wfile.write(data)


def redirect(target: str) -> Callable[[Handler], None]:
    def act(handler: Handler) -> None:
        handler.send_response(307)
        handler.send_header("Location", target)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return act


def cut(handler: Handler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Type", "application/octet-stream")
    handler.send_header("Content-Length", "100")
    handler.end_headers()
    handler.wfile.write(b"x" * 10)
    handler.close_connection = True


FAULTS: dict[str, tuple[str, Callable[[Handler], None]]] = {
    "another manifest": ("manifests/", other_body),
    "a cut blob": ("blobs/", cut),
    "redirect to link-local": ("blobs/", redirect("http://169.254.169.254/latest/meta-data")),
    "redirect to another port of loopback": ("blobs/", redirect("http://127.0.0.1:1/x")),
    "redirect by IPv6": ("blobs/", redirect("http://[::ffff:a9fe:a9fe]/")),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_registry_that_misbehaves_is_refused_and_nothing_is_left(
    tmp_path: Path, sim: Simulator, name: str
) -> None:
    digest = write_registry(sim, "library/app", Foreign())
    place, act = FAULTS[name]
    sim.fault("GET", place, act)
    with pytest.raises((RegistryError, ImportRefused)) as refused:
        fetch(remote(sim, digest), tmp_path / "ours")
    assert refused.value.hint
    assert not (tmp_path / "ours" / "index.json").exists()


def test_another_manifest_on_the_second_question_is_refused(tmp_path: Path, sim: Simulator) -> None:
    digest = write_registry(sim, "library/app", Foreign())
    source = remote(sim, digest)
    sim.fault("GET", "manifests/", other_body)
    with pytest.raises(RegistryError):
        fetch(source, tmp_path / "ours")
