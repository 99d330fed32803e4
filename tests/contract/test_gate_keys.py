"""The gate heeds changed keys without a restart: what a revoked key signed is denied at once."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from builder.oci.client import RegistryClient
from builder.signing.keys import load_keys
from builder.signing.trust import FILE, Trust
from builder.stages.publish import publish
from registry.gate.keyfolder import KeyFolder
from registry.keykeeping import Keeper
from tests.support import registry_simulator as reg
from tests.support.evidence import PASSPHRASE, World, approval
from tests.support.gates import RunningGate, running_gate
from tests.support.images import NOW
from tests.support.registry_simulator import Simulator
from tests.support.scenes import REPO, published

TAG = f"/v2/{REPO}/manifests/3.13"
SOON = 10  # seconds; under 1 on a machine that has nothing else to do
HOUR = dt.timedelta(hours=1)


@dataclass
class House:
    """A published image, its keys' folder, and a gate that watches it."""

    folder: Path
    sim: Simulator
    world: World

    def keeper(self, at: dt.datetime = NOW) -> Keeper:
        return Keeper(self.folder / "keys", self.folder / "ledger", {}, PASSPHRASE, "user:ann", lambda: at)

    def keys(self) -> KeyFolder:
        folder = self.folder / "keys"
        return KeyFolder(folder, lambda: Trust.load(folder))

    def publish_again(self, at: dt.datetime) -> World:
        """The same image, judged at `at`, by the keys of now."""
        keys = load_keys(self.folder / "keys", {}, PASSPHRASE)
        again = replace(self.world, keys=keys, verdict=approval(self.world.image, self.world.proofs, at))
        publish(again.signed(), RegistryClient(self.sim.address))
        return again


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    with published(tmp_path) as scene:
        yield House(tmp_path, scene.sim, scene.world)


@pytest.fixture
def gate(house: House) -> Iterator[RunningGate]:
    keys = house.keys()
    with running_gate(
        house.sim.address, keys.trust, keys=keys, now=(NOW + HOUR).timestamp(), proofs=house.folder / "gate"
    ) as gate:
        yield gate


def test_a_rotation_changes_nothing_for_those_who_pull(gate: RunningGate, house: House) -> None:
    assert gate.get(TAG).status == 200
    for role in ("builder", "verdict"):
        house.keeper().rotate(role, HOUR, "a year has gone")
    gate.until("/healthz", lambda _: len(gate.events("trust-changed")) > 0, SOON)
    assert gate.get(TAG).status == 200
    assert not gate.events("not-admitted")
    # Evidence by the new keys beside the old: both are believed, the newest governs.
    again = house.publish_again(NOW + HOUR)
    path = f"/v2/{REPO}/referrers/{again.image.digest}"
    before = gate.get(path).body
    got, _ = gate.until(path, lambda reply: len(reply.body) > len(before), SOON)
    assert got.status == 200
    assert gate.get(TAG).status == 200


@pytest.mark.parametrize("role", ["builder", "verdict"])
def test_a_revoked_keys_images_are_denied_and_come_back_with_new_evidence(
    gate: RunningGate, house: House, role: str
) -> None:
    assert gate.get(TAG).status == 200
    house.keeper().revoke(getattr(house.world.keys, role).public.id, NOW - HOUR, "the laptop was stolen")
    got, _ = gate.until(TAG, lambda reply: reply.status == 403, SOON)
    detail = got.error["detail"]
    assert (detail["reason"], detail["name"]) == ("withdrawn", "key-revoked")
    assert f"{role} key that was revoked" in got.error["message"]
    assert "the laptop was stolen" in got.error["message"]
    assert gate.get(f"/v2/{REPO}/manifests/{house.world.image.digest}").status == 403
    house.publish_again(NOW + HOUR)
    gate.until(TAG, lambda reply: reply.status == 200, SOON)


def test_it_is_denied_though_the_storage_is_away(gate: RunningGate, house: House) -> None:
    assert gate.get(TAG).status == 200
    house.sim.fault(".*", "", reg.status(503))
    house.keeper().revoke(house.world.keys.verdict.public.id, NOW - HOUR, "stolen")
    got, _ = gate.until(TAG, lambda reply: reply.status == 403, SOON)
    assert got.error["detail"]["name"] == "key-revoked"


def test_a_trust_file_that_cannot_be_believed_changes_nothing_and_is_told(
    gate: RunningGate, house: House
) -> None:
    house.keeper().rotate("builder", HOUR, "")
    gate.until("/healthz", lambda _: len(gate.events("trust-changed")) == 1, SOON)
    file = house.folder / "keys" / FILE
    good = file.read_bytes()
    file.write_bytes(good[:-40])
    gate.until("/healthz", lambda _: len(gate.events("trust-refused")) > 0, SOON)
    assert gate.get(TAG).status == 200


def test_after_a_restart_nothing_by_a_revoked_key_is_recalled(house: House) -> None:
    keys = house.keys()
    at = (NOW + HOUR).timestamp()
    with running_gate(house.sim.address, keys.trust, now=at, proofs=house.folder / "gate") as gate:
        assert gate.get(TAG).status == 200
    house.keeper().revoke(house.world.keys.verdict.public.id, NOW - HOUR, "stolen")
    with running_gate(house.sim.address, house.keys().trust, now=at, proofs=house.folder / "gate") as gate:
        got, _ = gate.until(TAG, lambda reply: reply.status != 503, SOON)
        assert got.status == 403
