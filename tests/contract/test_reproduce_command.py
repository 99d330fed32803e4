"""`goldsmith reproduce` as a user meets it: what is printed, the exit code, and who may attest."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from builder.cli import main as command_line
from builder.model.digest import canonical_json
from builder.model.platform import Platform
from builder.model.reference import Reference
from builder.model.witness import Rebuild
from builder.oci.client import RegistryClient
from builder.signing.keys import WITNESS, RoleSigner, create_witness, load_public, open_signer
from builder.signing.rebuilds import signed_rebuild
from builder.signing.trust import FILE
from builder.signing.trustfile import TrustContent, TrustedKey, encode
from builder.stages.finish import without
from builder.store import write_atomically
from registry.promotion.records import put_content
from tests.support.evidence import PASSPHRASE, new_keys
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
    assert "does not name that key" in out  # so nobody counts it yet


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


@pytest.mark.parametrize(
    "repo, tag", [("candidate/app", "2"), ("candidate/other", "1"), ("candidate/app", "9-0123456789ab")]
)
def test_another_image_under_the_name_that_was_asked_for_is_refused_and_never_attested(
    goldsmith: Command, world: KitWorld, published: Reference, sim: Simulator, repo: str, tag: str
) -> None:
    """The image is honest, but not the one that somebody wants to know something of."""
    sim.manifests.setdefault(repo, {}).update(sim.manifests[published.name])
    sim.blobs.setdefault(repo, {}).update(sim.blobs[published.name])
    sim.tags.setdefault(repo, {})[tag] = str(published.digest)
    before = len(sim.manifests[repo])
    code, out = goldsmith("reproduce", f"{sim.address}/{repo}:{tag}", "--sign", "--json")
    assert code == 4 and json.loads(out)["error"] == "other-name" and "app:1" in out
    assert len(sim.manifests[repo]) == before


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


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> RoleSigner:
    folder = tmp_path_factory.mktemp("root")
    new_keys(folder)
    return open_signer(folder, "root", {}, PASSPHRASE)


class TrustFile:
    """The trust file of the folder `keys`, as its keeper signs it."""

    def __init__(self, world: KitWorld, root: RoleSigner, folder: Path) -> None:
        self.world, self.root, self.folder, self.version = world, root, folder, 0
        self.witness = load_public(folder / "state" / "keys", WITNESS)

    def name(self, expires: dt.datetime | None = None, **periods: dt.datetime) -> None:
        """Name the builder's keys, and the witness's with its `periods`."""
        self.version += 1
        keys = (*self.world.trust.keys, TrustedKey(self.witness, **periods))
        content = TrustContent(self.version, keys, expires)
        write_atomically(self.folder / "keys" / "root.pub", self.root.public.pem)
        write_atomically(self.folder / "keys" / FILE, encode(content, self.root))


@pytest.fixture
def trust_file(goldsmith: Command, world: KitWorld, root: RoleSigner, tmp_path: Path) -> TrustFile:
    return TrustFile(world, root, tmp_path)


def test_what_was_attested_before_the_key_held_is_attested_anew(
    goldsmith: Command, world: KitWorld, trust_file: TrustFile, published: Reference
) -> None:
    """A witness may sign before the trust file names its key; that counts nowhere, so it is not enough here."""
    now, day = dt.datetime.now(dt.UTC).replace(microsecond=0), dt.timedelta(days=1)
    signer = open_signer(trust_file.folder / "state" / "keys", WITNESS, {}, None)
    made = {p.platform: p.manifest.digest for p in world.image.platforms}
    seen = Rebuild(
        world.image.digest,
        "app:1",
        world.kit.digest,
        world.image.input_hash,
        "direct",
        {},
        made,
        now - 2 * day,
    )
    item = signed_rebuild(seen, world.image.index, signer)
    put_content(world.client, published.name, item)
    world.client.put_referrer(published.name, item.manifest, item.media_type)
    trust_file.name(not_before=now - day)
    for attached in (True, False):
        code, out = goldsmith("reproduce", str(published), "--sign", "--json")
        assert code == 0
        assert [(x["attached"], x["named"]) for x in json.loads(out)["attested"]] == [(attached, True)]


def test_a_witness_whose_key_was_revoked_attests_nothing(
    goldsmith: Command, trust_file: TrustFile, published: Reference
) -> None:
    trust_file.name(revoked_at=NOW)
    code, out = goldsmith("reproduce", str(published), "--sign", "--json")
    assert code == 2 and json.loads(out)["error"] == "key-revoked"
    assert goldsmith("reproduce", str(published))[0] == 0


def test_an_expired_trust_file_is_no_ground_for_an_attestation(
    goldsmith: Command, trust_file: TrustFile, published: Reference
) -> None:
    """The builder's key may have been revoked since."""
    trust_file.name(expires=NOW)
    code, out = goldsmith("reproduce", str(published), "--sign", "--json")
    assert code == 4 and json.loads(out)["error"] == "trust-expired"


def test_a_registry_that_takes_no_attestation_is_named_with_the_way_out(
    goldsmith: Command, published: Reference, sim: Simulator
) -> None:
    sim.fault("POST|PUT", ".*", lambda handler: handler.reply(405))
    try:
        code, out = goldsmith("reproduce", str(published), "--sign")
    finally:
        sim.faults.clear()
    assert code == 6 and "came out the same" in out and "candidate/NAME:TAG" in out
