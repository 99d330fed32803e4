"""The archive for engines: the same bytes each time, both entries, nothing unchecked."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pytest

from builder.errors import RegistryError
from builder.model.digest import Digest
from builder.oci.archive import save_archive, write_archive
from builder.oci.layout import blob_path, verify_layout
from tests.support.images import built_image

NAME = "check/python:1"


def test_the_archive_holds_both_forms(tmp_path: Path) -> None:
    image = built_image(tmp_path / "a").platforms[0]
    save_archive(image, NAME, tmp_path / "a.tar")
    with tarfile.open(tmp_path / "a.tar") as tar:
        # Debian 12's Python knows no filters yet; the archive is our own.
        tar.extractall(tmp_path / "out", **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
    verify_layout(tmp_path / "out")
    (docker,) = json.loads((tmp_path / "out" / "manifest.json").read_bytes())
    assert docker["RepoTags"] == [NAME]
    assert docker["Config"] == f"blobs/sha256/{image.config.digest.hex}"
    assert docker["Layers"] == [f"blobs/sha256/{x.blob.digest.hex}" for x in image.layers]
    (entry,) = json.loads((tmp_path / "out" / "index.json").read_bytes())["manifests"]
    assert entry["digest"] == image.manifest.digest
    assert entry["annotations"] == {
        "io.containerd.image.name": NAME,
        "org.opencontainers.image.ref.name": "1",
    }


def test_the_archive_is_deterministic(tmp_path: Path) -> None:
    digests = []
    for name in ("a", "b"):
        out = io.BytesIO()
        write_archive(built_image(tmp_path / name).platforms[0], NAME, out)
        digests.append(Digest.of(out.getvalue()))
    assert digests[0] == digests[1]


def test_a_layer_shared_twice_is_written_once(tmp_path: Path) -> None:
    image = built_image(tmp_path / "a", files=({"x": b"1"}, {"x": b"1"})).platforms[0]
    save_archive(image, NAME, tmp_path / "a.tar")
    with tarfile.open(tmp_path / "a.tar") as tar:
        names = tar.getnames()
    assert len(names) == len(set(names))


@pytest.mark.parametrize("change", [lambda d: d[:-1], lambda d: d + b"\0", lambda d: b"\0" + d[1:]])
def test_a_damaged_blob_cuts_the_archive(tmp_path: Path, change) -> None:  # type: ignore[no-untyped-def]
    image = built_image(tmp_path / "a").platforms[0]
    path = blob_path(image.layout, image.layers[1].blob.digest)
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(RegistryError, match="other content"):
        write_archive(image, NAME, io.BytesIO())


@pytest.mark.parametrize("name", ["python", "host:5000/python", ":x"])
def test_a_name_needs_a_tag(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="tag"):
        write_archive(built_image(tmp_path / "a").platforms[0], name, io.BytesIO())
