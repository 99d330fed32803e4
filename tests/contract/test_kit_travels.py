"""A rebuild kit is published before the tag, goes where its image goes, and is served with it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from builder.model.digest import Digest, canonical_json
from builder.model.image import INDEX_TYPE, Descriptor
from builder.model.kit import DOCUMENT_TYPE, KIT_TYPE, PACKAGES_TYPE
from builder.model.witness import Rebuild
from builder.oci.manifest import parse_manifest
from builder.pipeline.kits import make_kit
from builder.pipeline.prepare import prepare
from builder.signing.keys import WITNESS, RoleSigner, create_witness, open_signer
from builder.signing.rebuilds import signed_rebuild, witnesses
from builder.signing.trust import Trust
from builder.signing.trustfile import TrustedKey
from builder.signing.verification import named_kits
from builder.signing.verify import verify
from registry.audit.ledger import Ledger
from registry.bundles.arrival import Desk, take_in
from registry.bundles.export import export
from registry.bundles.reader import open_bundle
from registry.gate.admission import admit
from registry.gate.decision import Approved
from registry.promotion.closure import Closure, copy
from registry.promotion.promote import promote
from registry.promotion.records import put_content
from tests.support.evidence import PASSPHRASE
from tests.support.images import NOW
from tests.support.kits import TOOLS, KitWorld
from tests.support.memory_client import MemoryClient
from tests.support.promotion import House

REPO = "candidate/app"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> KitWorld:
    return KitWorld(tmp_path_factory.mktemp("kits"))


@pytest.fixture
def world(made: KitWorld) -> Iterator[KitWorld]:
    before = made.client
    made.client = type(before)()
    yield made


def test_the_kit_is_there_before_the_tag_and_sent_once(world: KitWorld) -> None:
    writes: list[str] = []
    world.client.before_write = writes.append
    where = world.publish()
    listed = world.client.referrers(REPO, where.digest, KIT_TYPE)
    assert [d.digest for d in listed] == [world.kit.digest]
    assert verify(where, world.client, world.trust, NOW).verdict.approved
    sent = len([w for w in writes if w.startswith("blob")])
    writes.clear()
    world.publish()
    assert [w for w in writes if w.startswith("blob")] == [] and sent > len(world.kit.blobs)


def test_the_same_catalogue_gives_the_same_kit_and_a_policy_does_not_touch_it(world: KitWorld) -> None:
    before = world.kit.digest
    waivers = world.target.directory / "waivers.yaml"
    waivers.write_text("schema: 1\nwaivers: []\n")
    try:
        again = make_kit(world.catalogue, world.image, world.pool, TOOLS, None)
    finally:
        waivers.unlink()
    assert again.digest == before


def test_kits_share_the_packages_and_documents_of_the_images_below(world: KitWorld) -> None:
    layers = parse_manifest(world.kit.manifest).layers
    packages = [x.digest for x in layers if x.media_type == PACKAGES_TYPE]
    base = next(t for t in world.catalogue.targets() if t.definition.name == "base")
    of_base = replace(world.image, target=base, input_hash=prepare(world.catalogue, base).input_hash)
    below = make_kit(world.catalogue, of_base, world.pool, TOOLS, None)
    shared = set(below.blobs) & set(world.kit.blobs)
    assert len(packages) == 2 and packages[1] in shared and packages[0] not in shared
    assert shared & {x.digest for x in layers if x.media_type == DOCUMENT_TYPE}
    assert world.kit.subject.digest == world.image.digest
    assert world.kit.subject.media_type == INDEX_TYPE


def test_a_promotion_takes_the_named_kit_along_and_no_other(world: KitWorld, tmp_path: Path) -> None:
    where = world.publish()
    closure = Closure.read(world.client, REPO, world.image.digest)
    found = verify(where, closure, world.trust, NOW)
    copy(closure, "app", tmp_path, named_kits(found))
    for digest in world.kit.blobs:
        assert world.client.has_blob("app", digest)
    assert [d.digest for d in world.client.referrers("app", where.digest, KIT_TYPE)] == [world.kit.digest]
    # What was copied is in place: the next run writes nothing.
    assert copy(closure, "app", tmp_path, named_kits(found)).manifests == 0
    copy(closure, "other", tmp_path, frozenset())
    assert world.client.referrers("other", where.digest, KIT_TYPE) == ()


def test_the_gate_serves_the_kit_that_the_builder_named(world: KitWorld) -> None:
    where = world.publish()
    decision = admit(where, world.client, world.trust, NOW)
    assert isinstance(decision, Approved)
    assert world.kit.digest in {d.digest for d in decision.referrers[world.image.digest]}
    served = {digest for held in decision.manifests for digest in held.blobs}
    assert set(world.kit.blobs) <= served


def test_the_gate_serves_no_kit_that_nobody_named_and_misses_none(world: KitWorld) -> None:
    """A stranger's kit beside ours is not served; ours may be gone, the image is served all the same."""
    where = world.publish()
    ours = parse_manifest(world.kit.manifest)
    lacking = json.loads(world.kit.manifest)
    lacking["layers"].pop()
    data = canonical_json(lacking)
    strange = Descriptor(ours.media_type, Digest.of(data), len(data), artifact_type=KIT_TYPE)
    world.client.put_referrer(REPO, data, ours.media_type)
    world.client.put_referrers_fallback(REPO, world.image.digest, [strange])
    assert len(world.client.referrers(REPO, world.image.digest, KIT_TYPE)) == 2
    del world.client.inner.manifests[REPO, world.kit.digest]
    decision = admit(where, world.client, world.trust, NOW)
    assert isinstance(decision, Approved)
    assert {d.artifact_type for d in decision.referrers[world.image.digest]} != {KIT_TYPE}
    assert not {world.kit.digest, strange.digest} & {h.digest for h in decision.manifests}


@pytest.mark.parametrize("kits", [True, False], ids=["with-kits", "without"])
def test_a_bundle_brings_the_kit_to_a_closed_network_or_leaves_it_out(
    world: KitWorld, tmp_path: Path, kits: bool
) -> None:
    where = world.publish()
    house = House(tmp_path, world.client)
    office = house.office(keys=world.keys, trust=world.trust, ledger=Ledger(tmp_path / "book", world.trust))
    done = promote(office, where, world.target, "it passed")
    path = export(world.client, [done.reference], world.trust, {}, NOW, tmp_path / "bundle", kits=kits).path
    there = MemoryClient()
    (tmp_path / "desk").mkdir()
    (arrival,) = take_in(Desk(there, world.trust, NOW, tmp_path / "desk"), open_bundle(path))
    assert arrival.refused is None and verify(arrival.reference, there, world.trust, NOW).verdict.approved
    assert all(there.has_blob("app", digest) for digest in world.kit.blobs) == kits
    listed = there.referrers("app", world.image.digest, KIT_TYPE)
    assert [d.digest for d in listed] == ([world.kit.digest] if kits else [])
    assert take_in(Desk(there, world.trust, NOW, tmp_path / "desk"), open_bundle(path))[0].changed is False


def test_a_bundle_brings_witnesses_along_and_leaves_those_who_attested_here(
    world: KitWorld, tmp_path: Path
) -> None:
    """In a closed network others build it again too; what comes in later does not take their word away."""
    where = world.publish()
    ann, bob = (_witness(tmp_path / name) for name in ("ann", "bob"))
    trust = Trust((*world.trust.keys, *(TrustedKey(k.public) for k in (ann, bob))))
    house = House(tmp_path, world.client)
    office = house.office(keys=world.keys, trust=trust, ledger=Ledger(tmp_path / "book", trust))
    done = promote(office, where, world.target, "it passed")
    there = MemoryClient()
    (tmp_path / "desk").mkdir()
    for number, engine in enumerate(("direct", "docker")):
        _attest(world, world.client, ann, engine)
        to = tmp_path / f"bundle-{number}"
        path = export(world.client, [done.reference], trust, {}, NOW, to, kits=False).path
        (arrival,) = take_in(Desk(there, trust, NOW, tmp_path / "desk"), open_bundle(path))
        assert arrival.refused is None
        if number == 0:
            _attest(world, there, bob, "direct")
    seen = {(w.key, w.rebuild.engine) for w in witnesses(there, arrival.reference, trust, NOW)}
    assert seen == {(ann.public.id, "direct"), (ann.public.id, "docker"), (bob.public.id, "direct")}


def _witness(folder: Path) -> RoleSigner:
    create_witness(folder, PASSPHRASE)
    return open_signer(folder, WITNESS, {}, PASSPHRASE)


def _attest(world: KitWorld, client: MemoryClient, key: RoleSigner, engine: str) -> None:
    image = world.image
    platforms = {p.platform: p.manifest.digest for p in image.platforms}
    made = Rebuild(image.digest, "app:1", world.kit.digest, image.input_hash, engine, {}, platforms, NOW)
    item = signed_rebuild(made, image.index, key)
    put_content(client, "app", item)
    client.put_referrer("app", item.manifest, item.media_type)
    client.put_referrers_fallback("app", image.digest, [item.entry])
