"""Layouts: whatever is read was checked, and a damaged one is never taken for good."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from builder.errors import RegistryError
from builder.model.digest import Digest
from builder.model.image import INDEX_TYPE, Descriptor
from builder.model.platform import Platform
from builder.oci.layout import (
    blob_path,
    create_layout,
    import_blobs,
    read_blob,
    read_blob_json,
    read_layout_index,
    read_manifest,
    single_platform_view,
    verify_layout,
    write_blob,
    write_layout_index,
)
from tests.support.images import built_image


def test_an_image_is_read_back(tmp_path: Path) -> None:
    image = built_image(tmp_path / "a", platforms=(Platform("linux", "amd64"), Platform("linux", "arm64")))
    verify_layout(image.layout)
    (entry,) = read_layout_index(image.layout)
    assert entry == image.index
    index = read_manifest(image.layout, entry)
    assert [m.platform for m in index.manifests] == [p.platform for p in image.platforms]
    assert read_blob_json(image.layout, image.platforms[0].config)["os"] == "linux"


def test_the_same_image_gives_the_same_files(tmp_path: Path) -> None:
    one, two = built_image(tmp_path / "a"), built_image(tmp_path / "b")
    files = [p.relative_to(one.layout) for p in one.layout.rglob("*") if p.is_file()]
    assert len(files) == 7
    assert all((one.layout / f).read_bytes() == (two.layout / f).read_bytes() for f in files)


def test_a_view_points_to_the_platform_and_copies_nothing(tmp_path: Path) -> None:
    image = built_image(tmp_path / "a")
    platform = image.platforms[0]
    view = single_platform_view(platform, tmp_path / "view")
    verify_layout(view)
    assert read_layout_index(view) == (platform.manifest,)
    layer = platform.layers[0].blob.digest
    assert blob_path(view, layer).samefile(blob_path(image.layout, layer))


def test_blobs_are_copied_where_links_are_impossible(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = built_image(tmp_path / "a")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError("no links here")

    monkeypatch.setattr(os, "link", refuse)
    verify_layout(single_platform_view(image.platforms[0], tmp_path / "view"))


def test_a_missing_blob_cannot_be_imported(tmp_path: Path) -> None:
    with pytest.raises(RegistryError, match="missing"):
        import_blobs(create_layout(tmp_path / "a"), create_layout(tmp_path / "b"), [Digest.of(b"x")])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


@pytest.mark.parametrize("part", ["layer", "config", "manifest", "index"])
@pytest.mark.parametrize("damage", ["flipped", "truncated", "longer", "missing", "link"])
def test_damage_is_found(tmp_path: Path, part: str, damage: str) -> None:
    image = built_image(tmp_path / "a")
    platform = image.platforms[0]
    descriptor = {
        "layer": platform.layers[0].blob,
        "config": platform.config,
        "manifest": platform.manifest,
        "index": image.index,
    }[part]
    path = blob_path(image.layout, descriptor.digest)
    if damage == "flipped":
        flip(path)
    elif damage == "truncated":
        path.write_bytes(path.read_bytes()[:-1])
    elif damage == "longer":
        path.write_bytes(path.read_bytes() + b"\0")
    elif damage == "missing":
        path.unlink()
    else:
        path.rename(tmp_path / "moved")
        path.symlink_to(tmp_path / "moved")
    with pytest.raises(RegistryError):
        verify_layout(image.layout)
    with pytest.raises(RegistryError):
        read_blob(image.layout, descriptor)


def test_files_that_nothing_points_to_are_checked_too(tmp_path: Path) -> None:
    image = built_image(tmp_path / "a")
    digest = write_blob(image.layout, b"unreferenced")
    verify_layout(image.layout)
    flip(blob_path(image.layout, digest))
    with pytest.raises(RegistryError, match="other content"):
        verify_layout(image.layout)
    blob_path(image.layout, digest).unlink()
    (image.layout / "blobs" / "sha256" / "notes.txt").write_text("x")
    with pytest.raises(RegistryError, match="does not belong"):
        verify_layout(image.layout)


def test_a_fifo_is_not_a_blob(tmp_path: Path) -> None:
    layout = create_layout(tmp_path / "a")
    digest = Digest.of(b"x")
    os.mkfifo(blob_path(layout, digest))
    with pytest.raises(RegistryError, match="regular"):
        read_blob(layout, Descriptor("a/b", digest, 1))


def test_another_version_and_no_layout_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RegistryError):
        read_layout_index(tmp_path)
    image = built_image(tmp_path / "a")
    (image.layout / "oci-layout").write_text('{"imageLayoutVersion":"2.0.0"}')
    with pytest.raises(RegistryError, match="version"):
        read_layout_index(image.layout)


def test_an_index_without_media_type_is_read(tmp_path: Path) -> None:
    image = built_image(tmp_path / "a")
    path = image.layout / "index.json"
    raw = json.loads(path.read_bytes())
    del raw["mediaType"]
    path.write_text(json.dumps(raw))
    assert read_layout_index(image.layout) == (image.index,)


def test_a_cycle_of_indexes_ends(tmp_path: Path) -> None:
    layout = create_layout(tmp_path / "a")
    # A true cycle cannot be made of digests; shared children can, and are visited once.
    previous = Descriptor(INDEX_TYPE, write_blob(layout, leaf()), len(leaf()))
    for _ in range(30):
        data = json.dumps(
            {"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": [previous.as_dict()] * 50}
        ).encode()
        previous = Descriptor(INDEX_TYPE, write_blob(layout, data), len(data))
    write_layout_index(layout, [previous])
    verify_layout(layout)


def leaf() -> bytes:
    return json.dumps({"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": []}).encode()
