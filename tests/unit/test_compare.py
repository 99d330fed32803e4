"""Two builds that differ: the first difference is named, from the outside in, with its cause."""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from builder.model.digest import canonical_json
from builder.model.image import BuiltImage, PlatformImage
from builder.oci import layer_entries
from builder.oci.layout import blob_path, read_blob_json, write_blob
from builder.stages import compare
from builder.stages.compare import explain
from tests.support.images import built_image
from tests.support.tamper import Members, with_members


@pytest.fixture
def image(tmp_path: Path) -> BuiltImage:
    files = ({"etc/os-release": b"base\n"}, {"a": b"first\n", "b": b"second\n", "c": b"third\n"})
    return built_image(tmp_path / "one", files=files)


def changed(name: str, **fields: object) -> Callable[[Members], Members]:
    def apply(members: Members) -> Members:
        for info, _ in members:
            if info.name == name:
                for key, value in fields.items():
                    setattr(info, key, value)
        return members

    return apply


def content(name: str, data: bytes) -> Callable[[Members], Members]:
    def apply(members: Members) -> Members:
        changed(name, size=len(data))(members)
        return [(info, data if info.name == name else old) for info, old in members]

    return apply


def both(*changes: Callable[[Members], Members]) -> Callable[[Members], Members]:
    def apply(members: Members) -> Members:
        for one in changes:
            members = one(members)
        return members

    return apply


@pytest.mark.parametrize(
    ("change", "where", "causes"),
    [
        (changed("b", mtime=5), "/b", ("time",)),
        (changed("b", mode=0o755), "/b", ("mode",)),
        (changed("b", uid=7), "/b", ("owner",)),
        (changed("b", type=tarfile.SYMTYPE, linkname="a", size=0), "/b", ("content", "kind", "link")),
        (content("b", b"SECOND\n"), "/b", ("content",)),
        (content("b", b"longer than before\n"), "/b", ("content",)),
        (both(content("b", b"new"), changed("b", mtime=9)), "/b", ("content", "time")),
        (lambda members: [members[1], members[0], members[2]], "/a", ("order",)),
        (lambda members: members[:2], "/c", ("content",)),
        (both(changed("c", mtime=5), changed("a", mode=0o600)), "/a", ("mode",)),
    ],
    ids=["time", "mode", "owner", "kind", "content", "size", "two", "order", "missing", "the-first"],
)
def test_the_first_file_that_differs_is_named_with_its_cause(
    image: BuiltImage,
    tmp_path: Path,
    change: Callable[[Members], Members],
    where: str,
    causes: tuple[str, ...],
) -> None:
    other = with_members(image, change, tmp_path / "other")
    found = explain(image.platforms[0], other.platforms[0])
    assert [x.level for x in found] == ["manifest", "layer", "entry"]
    assert (found[-1].where, found[-1].causes) == (where, causes)
    assert found[1].where == "layer group-1"


def test_the_same_image_has_no_difference(image: BuiltImage) -> None:
    assert explain(image.platforms[0], image.platforms[0]) == ()


def test_compression_is_told_from_content(image: BuiltImage, tmp_path: Path) -> None:
    """Only the gzip stream differs: the same entries, another blob."""
    one = image.platforms[0]
    tar = gzip.decompress(blob_path(one.layout, one.layers[1].blob.digest).read_bytes())
    packed = gzip.compress(tar, 1, mtime=0) + gzip.compress(b"", mtime=0)
    blob = replace(one.layers[1].blob, digest=write_blob(one.layout, packed), size=len(packed))
    other = replace(
        one, layers=(one.layers[0], replace(one.layers[1], blob=blob)), manifest=_another_manifest(one, b" ")
    )
    assert explain(one, other)[-1].causes == ("compression",)


@pytest.mark.parametrize(
    ("field", "value", "causes"),
    [("created", "2000-01-01T00:00:00Z", ("time",)), ("config", {"User": "0"}, ("content",))],
)
def test_a_configuration_that_differs(
    image: BuiltImage, field: str, value: object, causes: tuple[str, ...]
) -> None:
    one = image.platforms[0]
    data = canonical_json({**read_blob_json(one.layout, one.config), field: value})
    config = replace(one.config, digest=write_blob(one.layout, data), size=len(data))
    other = replace(one, config=config, manifest=_another_manifest(one, b"\n"))
    found = explain(one, other)
    assert (found[-1].level, found[-1].causes, found[-1].detail) == ("configuration", causes, field)


def test_layers_in_another_order(image: BuiltImage) -> None:
    one = image.platforms[0]
    other = replace(one, layers=one.layers[::-1], manifest=_another_manifest(one, b"  "))
    assert (explain(one, other)[-1].level, explain(one, other)[-1].causes) == ("layer", ("order",))


def packed(one: PlatformImage, data: bytes, **fields: object) -> PlatformImage:
    """The image with other bytes as its last layer's blob, and nothing else said of it but `fields`."""
    last = one.layers[-1]
    blob = replace(last.blob, digest=write_blob(one.layout, data), size=len(data))
    layers = (*one.layers[:-1], replace(last, blob=blob, **fields))
    return replace(one, layers=layers, manifest=_another_manifest(one, b"   "))


def plain(one: PlatformImage) -> bytes:
    return gzip.decompress(blob_path(one.layout, one.layers[-1].blob.digest).read_bytes())


def test_a_configuration_that_lies_about_a_layer_hides_nothing(image: BuiltImage, tmp_path: Path) -> None:
    """Its diff_id says that the content is ours; the content says otherwise."""
    one = image.platforms[0]
    other = with_members(image, content("b", b"SECOND\n"), tmp_path / "other").platforms[0]
    lying = replace(
        other, layers=(*other.layers[:-1], replace(other.layers[-1], diff_id=one.layers[-1].diff_id))
    )
    for found in (explain(lying, one), explain(one, lying)):
        assert [x.level for x in found] == ["manifest", "layer", "entry"]
        assert (found[-1].where, found[-1].causes) == ("/b", ("content",))
        assert "diff_id" in found[1].detail


def test_what_follows_in_a_second_member_of_the_stream_is_seen(image: BuiltImage) -> None:
    """Readers of gzip read on after the first member; whoever stops there misses what is unpacked later."""
    one = image.platforms[0]
    tar, more = plain(one), io.BytesIO()
    with tarfile.open(fileobj=more, mode="w") as out:
        added = tarfile.TarInfo("trojan")
        added.size = 1
        out.addfile(added, io.BytesIO(b"x"))
    cut = len(tar.rstrip(b"\0"))
    cut += -cut % 512
    data = gzip.compress(tar[:cut], mtime=0) + gzip.compress(more.getvalue(), mtime=0)
    (*_, last) = explain(packed(one, data), one)
    assert (last.where, last.causes) == ("/trojan", ("content",))


def test_a_file_that_is_there_twice_is_named(image: BuiltImage, tmp_path: Path) -> None:
    """The later one wins when it is unpacked; here the later one is ours, the first one is not."""

    def twice(members: Members) -> Members:
        info, data = members[1]
        first = tarfile.TarInfo(info.name)
        first.size = 4
        return [members[0], (first, b"evil"), (info, data), *members[2:]]

    other = with_members(image, twice, tmp_path / "other").platforms[0]
    (*_, last) = explain(other, image.platforms[0])
    assert (last.where, last.causes) == ("/b", ("content",)) and "twice" in last.detail


@pytest.mark.parametrize(
    "data", [b"no gzip", b"", gzip.compress(b"no tar" * 200)], ids=["plain", "empty", "no-tar"]
)
def test_a_layer_that_cannot_be_read_is_the_difference(image: BuiltImage, data: bytes) -> None:
    one = image.platforms[0]
    (*_, last) = explain(packed(one, data), one)
    assert (last.level, last.where, last.causes) == ("layer", "layer group-1", ("content",))


def test_a_layer_that_is_cut_short_is_the_difference(image: BuiltImage) -> None:
    one = image.platforms[0]
    data = blob_path(one.layout, one.layers[-1].blob.digest).read_bytes()
    (*_, last) = explain(packed(one, data[:-12]), one)
    assert (last.level, last.where, last.causes) == ("layer", "layer group-1", ("content",))


@pytest.mark.parametrize("limit", ["LAYER_MAX", "_CONTENT_MAX", "_ENTRIES_MAX", "_HELD_MAX"])
def test_a_layer_beyond_the_limits_is_not_looked_into(
    image: BuiltImage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    other = with_members(image, content("b", b"SECOND\n"), tmp_path / "other").platforms[0]
    monkeypatch.setattr(compare if limit == "LAYER_MAX" else layer_entries, limit, 2)
    (*_, last) = explain(other, image.platforms[0])
    assert (last.level, last.causes) == ("layer", ("content",)) and "larger" in last.detail


def test_only_the_history_differs(image: BuiltImage) -> None:
    """The layers are the same, so what the history calls them is the difference, and no layer is."""
    one = image.platforms[0]
    said = read_blob_json(one.layout, one.config)
    said["history"][1]["created_by"] = "goldsmith: elsewhere"
    data = canonical_json(said)
    config = replace(one.config, digest=write_blob(one.layout, data), size=len(data))
    layers = (one.layers[0], replace(one.layers[1], group="elsewhere"))
    other = replace(one, config=config, layers=layers, manifest=_another_manifest(one, b"\n"))
    (*_, last) = explain(other, one)
    assert (last.level, last.causes, last.detail) == ("configuration", ("content",), "history")


def test_a_layer_by_another_name_is_looked_into(image: BuiltImage, tmp_path: Path) -> None:
    other = with_members(image, content("b", b"SECOND\n"), tmp_path / "other").platforms[0]
    renamed = replace(other, layers=(*other.layers[:-1], replace(other.layers[-1], group="elsewhere")))
    found = explain(renamed, image.platforms[0])
    assert (found[-1].where, found[-1].causes, found[1].where) == ("/b", ("content",), "layer group-1")


def test_a_layer_more_than_there_should_be(image: BuiltImage) -> None:
    one = image.platforms[0]
    more = replace(one, layers=(*one.layers, one.layers[0]), manifest=_another_manifest(one, b"    "))
    assert (explain(more, one)[-1].level, explain(more, one)[-1].causes) == ("layer", ("content",))


def _another_manifest(one: PlatformImage, blank: bytes) -> object:
    """The manifest with a blank at its end: another digest, the same meaning."""
    from builder.oci.layout import read_blob

    data = read_blob(one.layout, one.manifest) + blank
    return replace(one.manifest, digest=write_blob(one.layout, data), size=len(data))
