"""Rebuilding from the registry alone: the same digest, or the first difference; and what kits are made of."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from builder.errors import ChangedMeanwhile, DefinitionError, GoldsmithError, UsageError
from builder.model.digest import Digest
from builder.model.kit import CONFIG_TYPE, PACKAGES_TYPE
from builder.model.platform import Platform
from builder.oci.layout import write_blob
from builder.oci.manifest import index_bytes, parse_manifest
from builder.pipeline import kits
from builder.pipeline.kits import make_kit
from builder.stages.finish import without
from tests.support.images import NOW
from tests.support.kit_lies import about
from tests.support.kits import TOOLS, KitWorld, publish_kit
from tests.support.memory_client import MemoryClient
from tests.support.rebuilding import Bench, rebuild

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


def test_the_published_digest_comes_out_of_the_kit(world: KitWorld, tmp_path: Path) -> None:
    where = world.publish()
    done = rebuild(world, where, tmp_path)
    assert done.same and done.index == world.image.digest
    assert done.published == done.rebuilt and done.explanation == ()
    files = [x.size for x in parse_manifest(world.kit.manifest).layers if x.media_type == PACKAGES_TYPE]
    assert len(files) == 2 and done.fetched_bytes == sum(files)


def test_an_image_of_one_platform_on_one_of_two_comes_out_too(tmp_path: Path) -> None:
    """The lock below names packages of a platform that the image does not have, and its provenance no such."""
    world = KitWorld(tmp_path / "made", below=("linux/amd64", "linux/arm64"))
    bench = Bench()
    done = rebuild(world, world.publish(), tmp_path, bench)
    assert done.same and [str(p) for p in done.rebuilt] == ["linux/amd64"] and done.left_out == ()
    assert bench.engine.built == ["base:1 linux/amd64", "app:1 linux/amd64"]


@pytest.fixture(scope="module")
def made_twofold(tmp_path_factory: pytest.TempPathFactory) -> KitWorld:
    both = ("linux/amd64", "linux/arm64")
    return KitWorld(tmp_path_factory.mktemp("two-platforms"), below=both, own=both)


@pytest.fixture
def twofold(made_twofold: KitWorld) -> KitWorld:
    made_twofold.client = MemoryClient()
    return made_twofold


def test_an_image_without_the_platform_that_could_not_be_checked_comes_out_too(
    twofold: KitWorld, tmp_path: Path
) -> None:
    """That platform is not built either, neither of the image nor of those below it; it is named."""
    image, bench = without(twofold.image, [ARM64]), Bench()
    where = publish_kit(twofold.catalogue, image, twofold.pool, twofold.client, twofold.keys, NOW)
    done = rebuild(twofold, where, tmp_path, bench)
    assert done.same and done.index == image.digest != twofold.image.digest
    assert [str(p) for p in done.rebuilt] == ["linux/amd64"] and done.left_out == (ARM64,)
    assert bench.engine.built == ["base:1 linux/amd64", "app:1 linux/amd64"]


@pytest.mark.parametrize("listing", ["fewer", "twice", "a-stranger's"])
def test_an_index_of_other_platforms_than_its_builder_named_is_refused_before_anything_is_built(
    twofold: KitWorld, tmp_path: Path, listing: str
) -> None:
    whole, bench = twofold.image, Bench()
    amd64, arm64 = (p.manifest for p in whole.platforms)
    listed = {
        "fewer": [amd64],
        "twice": [amd64, replace(arm64, platform=amd64.platform), arm64],
        "a-stranger's": [amd64, arm64, replace(amd64, platform=None)],
    }[listing]
    data = index_bytes(listed)
    index = replace(whole.index, digest=write_blob(whole.layout, data), size=len(data))
    kit = replace(twofold.kit, manifest=about(twofold.kit.manifest, index), subject=index)
    where = twofold.publish(kit, image=replace(whole, index=index))
    with pytest.raises(GoldsmithError) as raised:
        rebuild(twofold, where, tmp_path, bench)
    assert raised.value.reference == "other-platforms" and bench.engine.built == []


def test_one_platform_of_an_image_has_no_kit_and_says_what_has(world: KitWorld, tmp_path: Path) -> None:
    where = world.publish().with_digest(world.image.platforms[0].manifest.digest)
    with pytest.raises(UsageError) as raised:
        rebuild(world, where, tmp_path)
    assert "index" in raised.value.hint


def test_another_file_in_the_published_image_is_named_with_its_cause(world: KitWorld, tmp_path: Path) -> None:
    """The builder published something else than its kit gives: one file has other content."""
    from tests.support.tamper import with_file

    theirs = with_file(world.image, "usr/lib/hello", b"PROGRAM\n", tmp_path / "theirs")
    kit = replace(world.kit, manifest=about(world.kit.manifest, theirs.index), subject=theirs.index)
    where = world.publish(kit, image=theirs)
    done = rebuild(world, where, tmp_path)
    assert not done.same
    assert [x.level for x in done.explanation] == ["index", "manifest", "layer", "entry"]
    assert (done.explanation[-1].where, done.explanation[-1].causes) == ("/usr/lib/hello", ("content",))


def _without_history(config: Document) -> None:
    del config["history"]


def _one_layer_fewer(config: Document) -> None:
    config["rootfs"]["diff_ids"].pop()


def _padded(config: Document) -> None:
    config["pad"] = "x" * (5 << 20)


def _no_lists(config: Document) -> None:
    config["rootfs"], config["history"] = [], None


@pytest.mark.parametrize("change", [_without_history, _one_layer_fewer, _padded, _no_lists])
def test_a_published_image_that_nobody_can_read_is_explained_all_the_same(
    world: KitWorld, tmp_path: Path, change: Callable[[Document], None]
) -> None:
    from tests.support.tamper import with_configuration

    theirs = with_configuration(world.image, change, tmp_path / "theirs")
    kit = replace(world.kit, manifest=about(world.kit.manifest, theirs.index), subject=theirs.index)
    done = rebuild(world, world.publish(kit, image=theirs), tmp_path)
    assert not done.same and [x.level for x in done.explanation] == ["index", "manifest"]


def test_a_file_that_no_definition_can_name_is_not_in_the_kit(world: KitWorld, tmp_path: Path) -> None:
    folder = world.target.directory
    names = ("notes (old).txt", "räume.txt", ".hidden")
    for name in names:
        (folder / name).write_text("x")
    try:
        kit = make_kit(world.catalogue, world.image, world.pool, TOOLS, None)
    finally:
        for name in names:
            (folder / name).unlink()
    assert kit.digest == world.kit.digest


def test_what_nobody_could_open_is_not_published(world: KitWorld) -> None:
    large = [world.target.directory / f"large-{n}" for n in range(3)]
    for path in large:
        path.write_bytes(b"x" * (12 << 20))
    try:
        with pytest.raises(DefinitionError) as raised:
            make_kit(world.catalogue, world.image, world.pool, TOOLS, None)
    finally:
        for path in large:
            path.unlink()
    (problem,) = raised.value.problems
    assert problem.file == "images/app"
    assert "no rebuild kit" in problem.message and "take out" in problem.hint


@pytest.mark.parametrize(
    ("file", "edit"),
    [
        ("images/app/image.yaml", lambda text: text + "# a comment\n"),
        ("images/app/checks.yaml", lambda text: text + "# a comment\n"),
        ("images/base/image.yaml", lambda text: text.replace("/nonexistent", "/") + "# edited\n"),
        ("templates/debian-runtime.Dockerfile.j2", lambda text: "{# a comment #}" + text),
        ("templates/_partials/assemble.sh.j2", lambda text: text + "# rendered\n"),
        ("images/app/image.lock", lambda text: text.replace(" 1.0-1 ", " 1.0-2 ")),
    ],
)
def test_an_edit_while_a_run_is_under_way_is_refused_before_anything_is_signed(
    world: KitWorld, file: str, edit: Callable[[str], str]
) -> None:
    """Kit, provenance and build speak of the same bytes, or there is none of them."""
    path = world.catalogue.root / file
    before = path.read_text()
    edited = edit(before)
    assert edited != before
    path.write_text(edited)
    try:
        with pytest.raises(ChangedMeanwhile) as raised:
            make_kit(world.catalogue, world.image, world.pool, TOOLS, None)
    finally:
        path.write_text(before)
    (problem,) = raised.value.problems
    assert problem.file in (file, "images/app")
    assert "run it again" in raised.value.hint
    assert make_kit(world.catalogue, world.image, world.pool, TOOLS, None).digest == world.kit.digest


def test_a_file_that_is_taken_away_while_a_run_is_under_way_is_missed(world: KitWorld) -> None:
    path = world.target.directory / "checks.yaml"
    before = path.read_text()
    path.unlink()
    try:
        with pytest.raises(ChangedMeanwhile) as raised:
            make_kit(world.catalogue, world.image, world.pool, TOOLS, None)
    finally:
        path.write_text(before)
    assert [p.file for p in raised.value.problems] == ["images/app/checks.yaml"]


def test_a_template_edited_for_a_build_and_back_is_found_out(world: KitWorld) -> None:
    """What was rendered in between counts, not only the bytes at both ends."""
    other = replace(world.image, input_hash=Digest.of(b"rendered of something else"))
    with pytest.raises(ChangedMeanwhile):
        make_kit(world.catalogue, other, world.pool, TOOLS, None)


def test_the_kit_is_a_function_of_the_catalogue_alone(world: KitWorld) -> None:
    assert json.loads(world.kit.manifest)["config"]["mediaType"] == CONFIG_TYPE
    assert kits.kit_versions() == tuple(
        json.loads(next(b for b in world.kit.blobs.values() if isinstance(b, bytes) and b'"versions"' in b))[
            "versions"
        ]
    )
