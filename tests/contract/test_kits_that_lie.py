"""Kits that lie are refused, whoever named them; what is no lie is not called one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from builder.engines.assembler_kit import packages_blob
from builder.errors import GoldsmithError, ToolError, UsageError
from builder.model.digest import Digest
from builder.model.image import Descriptor
from builder.model.kit import ASSEMBLER_TYPE
from builder.model.kit import TITLE_ANNOTATION as TITLE
from builder.model.lock import LockSection
from builder.model.platform import Platform
from builder.pipeline.kits import make_kit
from builder.signing.inputs import read_inputs
from builder.signing.keys import BUILDER
from builder.stages.open_kit import fetch_assembler, open_kit
from tests.support.images import AMD64
from tests.support.kit_lies import LIES, documents, file, instead, packed, rendered, respoken
from tests.support.kits import TOOLS, KitWorld
from tests.support.memory_client import MemoryClient
from tests.support.rebuilding import rebuild

Document = dict[str, Any]
ARM64 = Platform.parse("linux/arm64")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> KitWorld:
    world = KitWorld(tmp_path_factory.mktemp("kits"))
    assert world.kit.digest
    return world


@pytest.fixture
def world(made: KitWorld) -> Iterator[KitWorld]:
    made.client = MemoryClient()
    yield made


@pytest.mark.parametrize("name", LIES)
def test_a_kit_that_lies_is_refused_even_when_its_builder_named_it(
    world: KitWorld, tmp_path: Path, name: str
) -> None:
    change, reference = LIES[name]
    where = world.publish(respoken(world.kit, change))
    with pytest.raises(GoldsmithError) as raised:
        rebuild(world, where, tmp_path)
    assert raised.value.reference == reference and "goldsmith lock" not in raised.value.hint
    assert raised.value.exit_code == (5 if reference == "other-versions" else 4)
    assert not (tmp_path / "state" / "images").exists() or not any((tmp_path / "state" / "images").iterdir())
    assert not [p for p in tmp_path.rglob("*") if p.name in ("passwd", "x")]


def test_a_kit_with_another_digest_than_its_builder_named_is_refused(world: KitWorld, tmp_path: Path) -> None:
    where = world.publish()
    repo = where.name
    lie = respoken(world.kit, documents(file("images/app/image.yaml", None)))
    for digest, data in lie.blobs.items():
        world.client.put_blob(repo, data, digest)
    _, kind = world.client.inner.manifests[repo, world.kit.digest]
    world.client.inner.manifests[repo, world.kit.digest] = (lie.manifest, kind)
    with pytest.raises(GoldsmithError) as raised:
        rebuild(world, where, tmp_path)
    assert raised.value.reference == "digest-mismatch"


def test_a_package_with_other_bytes_than_locked_is_refused(world: KitWorld, tmp_path: Path) -> None:
    package = world.packages[1]
    for data in (b"x" * package.size, b"x"):
        where = world.publish(respoken(world.kit, instead(packed((f"{package.sha256}.deb", data)))))
        with pytest.raises(GoldsmithError) as raised:
            rebuild(world, where, tmp_path / str(len(data)))
        assert raised.value.reference == "kit-malformed"
        assert not list(tmp_path.rglob(f"{package.sha256}.deb"))


def test_a_package_that_is_there_twice_is_refused(world: KitWorld, tmp_path: Path) -> None:
    package = world.packages[1]
    member = f"{package.sha256}.deb", world.pool.path(package).read_bytes()
    where = world.publish(respoken(world.kit, instead(packed(member, member))))
    with pytest.raises(GoldsmithError) as raised:
        rebuild(world, where, tmp_path)
    assert raised.value.reference == "kit-malformed"


ASSEMBLERS: dict[str, tuple[Callable[[tuple[str, bytes]], bytes], str]] = {
    "another-package": (lambda own: packed((f"{'0' * 64}.deb", b"a trojan")), "kit-malformed"),
    "other-bytes": (lambda own: packed((own[0], b"x" * len(own[1]))), "kit-malformed"),
    "missing": (lambda own: packed(), "kit-incomplete"),
    "larger-than-its-packages": (lambda own: packed(own) + bytes(1 << 20), "kit-malformed"),
}


@pytest.mark.parametrize("name", ASSEMBLERS)
def test_an_assembler_that_is_not_what_its_lock_says_is_refused_as_any_lie(
    world: KitWorld, tmp_path: Path, name: str
) -> None:
    """Its packages are run: docker and buildah assemble in them."""
    lie, reference = ASSEMBLERS[name]
    package = world.packages[0]
    section = LockSection("builder", "runtime", AMD64, "trixie", Digest.of(b"intent"), None, (package,))
    blob = lie((f"{package.sha256}.deb", world.pool.path(package).read_bytes()))
    described = Descriptor(ASSEMBLER_TYPE, Digest.of(blob), len(blob), {TITLE: "assembler-amd64.tar"})
    kit = make_kit(world.catalogue, world.image, world.pool, TOOLS, (described, blob))
    where = world.publish(kit)
    opened = open_kit(world.client, where, read_inputs(world.client, where, world.trust.unrevoked(BUILDER)))
    with pytest.raises(GoldsmithError) as raised:
        fetch_assembler(world.client, opened, section, tmp_path)
    assert (raised.value.reference, raised.value.exit_code) == (reference, 4)
    assert not list(tmp_path.iterdir())


def test_the_assembler_of_another_machine_is_no_lie(world: KitWorld, tmp_path: Path) -> None:
    """A kit brings the programs of the machine that built the image; elsewhere python's engine rebuilds it."""
    section = LockSection("builder", "runtime", AMD64, "trixie", Digest.of(b"i"), None, (world.packages[0],))
    there = replace(section, platform=ARM64, packages=(world.packages[1],))
    kit = make_kit(world.catalogue, world.image, world.pool, TOOLS, packages_blob(there, world.pool))
    where = world.publish(kit)
    opened = open_kit(world.client, where, read_inputs(world.client, where, world.trust.unrevoked(BUILDER)))
    with pytest.raises(UsageError) as raised:
        fetch_assembler(world.client, opened, section, tmp_path)
    assert "arm64" in raised.value.context and "direct" in raised.value.hint


@pytest.mark.parametrize("change", [rendered, None])
def test_what_another_release_makes_otherwise_is_not_called_a_lie(
    world: KitWorld, tmp_path: Path, change: Callable[[list[Document]], None] | None
) -> None:
    """It is not taken, and not attested, but an honest image is not accused either."""

    def other(origin: Document) -> Document:
        internal = origin["buildDefinition"]["internalParameters"]
        internal["tools"]["goldsmith"] = "0.0.9"
        if change is None:
            internal["inputHash"] = str(Digest.of(b"other"))
        return origin

    where = world.publish(respoken(world.kit, documents(change)) if change else None, change=other)
    with pytest.raises(ToolError) as raised:
        rebuild(world, where, tmp_path)
    assert raised.value.reference == "other-versions" and "goldsmith 0.0.9" in raised.value.hint


def test_an_image_without_a_kit_cannot_be_rebuilt_and_says_so(world: KitWorld) -> None:
    where = world.publish()
    del world.client.inner.manifests[where.name, world.kit.digest]
    with pytest.raises(GoldsmithError) as raised:
        read_inputs(world.client, where, world.trust.unrevoked(BUILDER))
    assert raised.value.reference == "no-kit"


def test_a_provenance_by_a_strangers_key_names_no_kit(world: KitWorld) -> None:
    where = world.publish()
    with pytest.raises(GoldsmithError) as raised:
        read_inputs(world.client, where, lambda signature, data: False)
    assert raised.value.reference == "signature-invalid"


def test_a_provenance_that_says_another_input_is_refused(world: KitWorld, tmp_path: Path) -> None:
    def other(origin: Document) -> Document:
        origin["buildDefinition"]["internalParameters"]["inputHash"] = str(Digest.of(b"other"))
        return origin

    where = world.publish(change=other)
    with pytest.raises(GoldsmithError) as raised:
        rebuild(world, where, tmp_path)
    assert raised.value.reference == "kit-other-input"
