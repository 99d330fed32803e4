"""`goldsmith reproduce` as a user meets it: what is printed, the exit code, and who may attest."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from builder.cli import main as command_line
from builder.model.digest import canonical_json
from builder.model.platform import Platform
from builder.model.reference import Reference
from builder.oci.client import RegistryClient
from builder.signing.keys import create_witness
from builder.stages.finish import without
from builder.store import write_atomically
from tests.support.images import NOW
from tests.support.kits import KitWorld, publish_kit
from tests.support.registry_simulator import Simulator, simulator
from tests.support.tamper import with_file

Command = Callable[..., tuple[int, str]]


@pytest.fixture(scope="module")
def sim() -> Iterator[Simulator]:
    with simulator() as sim:
        yield sim


@pytest.fixture(scope="module")
def world(sim: Simulator, tmp_path_factory: pytest.TempPathFactory) -> KitWorld:
    return KitWorld(tmp_path_factory.mktemp("kits"), RegistryClient(sim.address))


@pytest.fixture(scope="module")
def published(world: KitWorld) -> Reference:
    return world.publish()


@pytest.fixture
def goldsmith(
    world: KitWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    for key in world.trust.keys:
        write_atomically(tmp_path / "keys" / f"{key.role}.pub", key.key.pem)
    monkeypatch.setenv("GOLDSMITH_STATE", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    create_witness(tmp_path / "state" / "keys", None)

    def run(*arguments: str) -> tuple[int, str]:
        code = command_line.run([*arguments, "--trust", "keys"])
        seen = capsys.readouterr()
        return code, seen.out + seen.err

    return run


def test_a_rebuild_is_told_and_attested_once(goldsmith: Command, published: Reference) -> None:
    code, out = goldsmith("reproduce", str(published), "--sign", "--json")
    assert code == 0
    assert [x["attached"] for x in json.loads(out)["attested"]] == [True]
    code, out = goldsmith("reproduce", str(published), "--sign")
    assert code == 0 and "reproduced: app:1" in out and "attested before" in out


def test_a_platform_that_the_image_lacks_is_named(goldsmith: Command, sim: Simulator, tmp_path: Path) -> None:
    """It was left out because its checks could not be run; the definition asks for it all the same."""
    both = ("linux/amd64", "linux/arm64")
    both = ("linux/amd64", "linux/arm64")
    with simulator() as elsewhere:
        world = KitWorld(tmp_path / "kits", RegistryClient(elsewhere.address), below=both, own=both)
        image = without(world.image, [Platform.parse("linux/arm64")])
        where = publish_kit(world.catalogue, image, world.pool, world.client, world.keys, NOW)
        code, out = goldsmith("reproduce", str(where))
        assert code == 0 and "on linux/amd64, by direct" in out and "not built: linux/arm64" in out
        code, out = goldsmith("reproduce", str(where), "--json")
    said = json.loads(out)
    assert list(said["platforms"]) == ["linux/amd64"] and said["left_out"] == ["linux/arm64"]


def test_a_difference_is_explained_and_never_attested(
    goldsmith: Command, world: KitWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = with_file(world.image, "usr/lib/hello", b"PROGRAM\n", tmp_path / "theirs")
    bare = {"mediaType": theirs.index.media_type, "digest": theirs.digest, "size": theirs.index.size}
    manifest = canonical_json({**json.loads(world.kit.manifest), "subject": bare})
    with simulator() as elsewhere:
        monkeypatch.setattr(world, "client", RegistryClient(elsewhere.address))
        where = world.publish(replace(world.kit, manifest=manifest, subject=theirs.index), image=theirs)
        before = len(elsewhere.manifests[where.name])
        code, out = goldsmith("reproduce", str(where), "--sign")
        assert code == 7 and "NOT THE SAME" in out and "/usr/lib/hello differs in content" in out
        assert len(elsewhere.manifests[where.name]) == before


def test_a_registry_that_takes_no_attestation_is_named_with_the_way_out(
    goldsmith: Command, published: Reference, sim: Simulator
) -> None:
    sim.fault("POST|PUT", ".*", lambda handler: handler.reply(405))
    try:
        code, out = goldsmith("reproduce", str(published), "--sign")
    finally:
        sim.faults.clear()
    assert code == 6 and "came out the same" in out and "candidate/NAME:TAG" in out
