"""The real docker-registry holds what we publish, and other tools read it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from builder.errors import RegistryError
from builder.model.digest import Digest
from builder.model.image import Descriptor
from builder.model.platform import Platform
from builder.oci.client import RegistryClient
from builder.oci.layout import read_layout_index, verify_layout
from builder.settings import Settings
from builder.stages.publish import find_published, publish
from builder.tools import process
from registry.storage import service
from tests.support.images import built_image, signed_image
from tests.support.ports import free_address
from tests.support.requires import tool

pytestmark = pytest.mark.integration
BOTH = (Platform("linux", "amd64"), Platform("linux", "arm64"))


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    tool("docker-registry")
    folder = tmp_path_factory.mktemp("catalogue")
    for name in ("images", "templates"):
        (folder / name).mkdir()
    port = int(free_address().rpartition(":")[2])
    made = Settings.load(
        {"PATH": os.environ["PATH"], "GOLDSMITH_REGISTRY": f"127.0.0.1:{port}"}, directory=folder
    )
    service.up(made)
    yield made
    service.down(made)


@pytest.fixture
def client(settings: Settings) -> RegistryClient:
    return RegistryClient(settings.registry)


def test_an_image_is_published_and_found(client: RegistryClient, tmp_path: Path) -> None:
    base = built_image(tmp_path / "base", name="base", files=({"etc/os-release": b"base\n"},))
    publish(signed_image(base), client)
    image = built_image(tmp_path / "python", platforms=BOTH)
    signed = signed_image(image)
    first = publish(signed, client)
    again = publish(signed, client)
    assert (again.digest, again.tags) == (first.digest, first.tags)
    assert again.uploaded_bytes < first.uploaded_bytes
    assert find_published(client, image.target, image.immutable_tag) == image.digest
    assert not client.supports_referrers("candidate/python")
    for subject in (image.index, *(p.manifest for p in image.platforms)):
        (entry,) = client.referrers("candidate/python", subject.digest)
        assert client.get_manifest(client.reference("candidate/python", digest=entry.digest))
    tags = client.tags("candidate/python")
    assert {"3.13", image.immutable_tag, f"sha256-{image.digest.hex}.sig"} <= set(tags)


def test_an_immutable_tag_stays(client: RegistryClient, tmp_path: Path) -> None:
    one = built_image(tmp_path / "one", name="stays", input_hash=Digest.of(b"input"))
    two = built_image(tmp_path / "two", name="stays", files=({"x": b"y"},), input_hash=Digest.of(b"input"))
    publish(signed_image(one), client)
    with pytest.raises(RegistryError, match="already points"):
        publish(signed_image(two), client)
    assert find_published(client, one.target, one.immutable_tag) == one.digest


def test_blobs_mount_and_come_back(client: RegistryClient, tmp_path: Path) -> None:
    data = os.urandom(3 << 20)
    digest = Digest.of(data)
    (tmp_path / "blob").write_bytes(data)
    assert client.put_blob("test/a", tmp_path / "blob", digest) == len(data)
    assert client.mount_blob("test/b", digest, "test/a")
    assert not client.mount_blob("test/c", digest, "test/none")
    assert client.put_blob("test/c", tmp_path / "blob", digest, mount_from="test/a") == 0
    client.get_blob("test/c", Descriptor("a/b", digest, len(data)), tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == data
    with pytest.raises(RegistryError, match="400"):
        client.put_blob("test/a", b"other content", Digest.of(b"wrong"))


def test_a_flipped_byte_in_the_storage_is_found(
    client: RegistryClient, settings: Settings, tmp_path: Path
) -> None:
    image = built_image(tmp_path / "image", name="flipped", files=({"own": b"layer"},))
    publish(signed_image(image), client)
    layer = image.platforms[0].layers[0].blob.digest
    path = settings.state / f"registry/docker/registry/v2/blobs/sha256/{layer.hex[:2]}/{layer.hex}/data"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(RegistryError, match="other content"):
        publish(signed_image(image), client)


def test_skopeo_reads_what_we_published(client: RegistryClient, settings: Settings, tmp_path: Path) -> None:
    skopeo = tool("skopeo")
    image = built_image(tmp_path / "image", name="skopeo", platforms=BOTH)
    reference = publish(signed_image(image), client).reference
    environment = {**settings.child_environment, "HOME": str(tmp_path)}
    raw = process.run(
        [skopeo, "inspect", "--raw", "--tls-verify=false", f"docker://{reference}"],
        environment=environment,
        timeout_seconds=60,
    ).stdout
    assert Digest.of(raw) == image.digest
    inspected = json.loads(
        process.run(
            [skopeo, "inspect", "--override-arch", "arm64", "--tls-verify=false", f"docker://{reference}"],
            environment=environment,
            timeout_seconds=60,
        ).stdout
    )
    assert inspected["Architecture"] == "arm64"
    assert inspected["Layers"] == [layer.blob.digest for layer in image.platforms[1].layers]
    copy = tmp_path / "copy"
    process.run(
        [
            *(skopeo, "--insecure-policy", "copy", "--all", "--src-tls-verify=false"),
            *(f"docker://{reference}", f"oci:{copy}:x"),
        ],
        environment=environment,
        timeout_seconds=60,
    )
    verify_layout(copy)
    assert [d.digest for d in read_layout_index(copy)] == [image.digest]
