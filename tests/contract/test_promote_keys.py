"""Promotion and its reversal over a change of keys: old decisions hold, new ones are by new keys."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from pathlib import Path

import pytest

from builder.model.channel import Channel
from builder.oci.client import RegistryClient
from builder.signing.keys import load_keys
from builder.signing.refusal import EvidenceRefused
from builder.signing.trust import Trust
from builder.signing.verify import verify
from registry.keykeeping import Keeper
from registry.promotion.callback import change
from registry.promotion.promote import rollback
from registry.promotion.records import read_record
from tests.support.evidence import PASSPHRASE
from tests.support.promotion import REPO, House
from tests.support.registry_simulator import simulator

HOUR = dt.timedelta(hours=1)


@pytest.fixture(params=[True, False], ids=["referrers-api", "fallback-tag"])
def house(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[House]:
    with simulator() as sim:
        sim.referrers_api = request.param
        yield House(tmp_path, RegistryClient(sim.address))


def keeper(house: House) -> Keeper:
    return Keeper(
        house.folder / "keys", house.folder / "ledger", {}, PASSPHRASE, "user:ann", lambda: house.now
    )


def with_new_keys(house: House) -> None:
    house.now += HOUR
    house.keys = load_keys(house.folder / "keys", {}, PASSPHRASE)
    house.trust = Trust.load(house.folder / "keys")


def test_decisions_before_and_after_a_rotation_are_one_history(house: House) -> None:
    old = house.candidate("old")
    house.promote(old)
    house.now += HOUR
    for role in ("builder", "verdict"):
        keeper(house).rotate(role, dt.timedelta(), "a year has gone")
    with_new_keys(house)
    # What was promoted before stays what it was, by the old keys' records.
    found = verify(house.at(REPO, "3.13"), house.client, house.trust, house.now)
    assert found.channel is not None and found.channel.channel is Channel.STABLE
    new = house.candidate("new")
    house.promote(new)
    assert house.promote(new).changed is False
    # The old image comes back; the decision is told anew, by the key of today.
    back = rollback(house.office(), f"{REPO}:3.13", old.image.target, "the new one is slow")
    assert back.reference.digest == old.image.digest and back.previous == new.image.digest
    record = read_record(house.client, house.at(REPO), old.image.digest, house.trust)
    assert record is not None and record.at == house.now
    assert house.ledger.prove().doubtful == ()


def test_a_withdrawal_outlives_the_revocation_of_the_key_that_signed_it(house: House) -> None:
    here = house.candidate("bad")
    house.promote(here)
    house.now += HOUR
    where = house.at(REPO, digest=here.image.digest)
    change(house.office(), where, Channel.WITHDRAWN, "a bad compiler")
    keeper(house).revoke(house.keys.verdict.public.id, house.now - HOUR / 2, "stolen")
    with_new_keys(house)
    with pytest.raises(EvidenceRefused) as raised:
        verify(where, house.client, house.trust, house.now)
    assert raised.value.reference == "withdrawn"
    assert house.ledger.prove().doubtful == (2,)
