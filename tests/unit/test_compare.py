"""Two builds that differ: the first difference is named, from the outside in, with its cause."""

from __future__ import annotations

import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from builder.model.digest import canonical_json
from builder.model.image import BuiltImage, PlatformImage
from builder.oci.layout import read_blob_json, write_blob
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
    import gzip

    from builder.oci.layout import blob_path

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


def _another_manifest(one: PlatformImage, blank: bytes) -> object:
    """The manifest with a blank at its end: another digest, the same meaning."""
    from builder.oci.layout import read_blob

    data = read_blob(one.layout, one.manifest) + blank
    return replace(one.manifest, digest=write_blob(one.layout, data), size=len(data))
