"""Promotions and revocations are seen by gates within a second, whenever the gates' next look is due."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from builder.model.channel import Channel
from builder.model.image import INDEX_TYPE
from builder.oci.client import RegistryClient
from builder.oci.manifest import index_bytes
from registry import changes
from registry.gate import server
from registry.gate.repositories import Names
from registry.promotion.callback import change
from tests.support import registry_simulator as reg
from tests.support.gates import SECONDS, RunningGate, running_gate
from tests.support.promotion import REPO, House
from tests.support.registry_simulator import Simulator, simulator

TAG = f"/v2/{REPO}/manifests/3.13"
LIMIT = 1.0  # seconds, from the end of the command
PROMISED = Names("")


@pytest.fixture
def sim() -> Iterator[Simulator]:
    with simulator() as sim:
        yield sim


@pytest.fixture
def house(sim: Simulator, tmp_path: Path) -> House:
    return House(tmp_path, RegistryClient(sim.address))


@pytest.fixture
def no_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """After the look at its start, a gate takes no other one: what it sees, it was told."""
    monkeypatch.setattr(server, "LOOK_SECONDS", 3600)
    monkeypatch.setattr(server, "_PAUSE_MAX", 3600)


def seen(gates: list[RunningGate], status: int, digest: str) -> float:
    """Seconds until all gates answer so for the tag or the digest."""
    began = time.monotonic()
    for gate in gates:
        path = TAG if status == 200 else f"/v2/{REPO}/manifests/{digest}"
        gate.until(
            path,
            lambda r: r.status == status and (status != 200 or r.headers["docker-content-digest"] == digest),
            SECONDS,
        )
    return time.monotonic() - began


@pytest.mark.usefixtures("no_looks")
def test_decisions_are_seen_within_a_second_by_every_gate(sim: Simulator, house: House) -> None:
    """A machine with other work may be slow at times; the quickest of a few must be in time."""
    with (
        running_gate(sim.address, house.trust, names=PROMISED) as one,
        running_gate(sim.address, house.trust, names=PROMISED) as other,
    ):
        promoted, withdrawn = [], []
        for number in range(4):
            here = house.candidate(f"version {number}")
            house.promote(here)
            promoted.append(seen([one, other], 200, here.image.digest))
            change(house.office(), house.at(REPO, digest=here.image.digest), Channel.WITHDRAWN, "CVE")
            withdrawn.append(seen([one, other], 403, here.image.digest))
            if min(promoted) < LIMIT and min(withdrawn) < LIMIT:
                break
    assert min(promoted) < LIMIT, promoted
    assert min(withdrawn) < LIMIT, withdrawn


@pytest.mark.usefixtures("no_looks")
def test_a_note_makes_a_gate_look_at_what_it_names_and_nothing_else(sim: Simulator, house: House) -> None:
    here = house.candidate()
    with running_gate(sim.address, house.trust, names=PROMISED) as gate:
        assert gate.get(TAG).status == 404
        house.promote(here)
        sim.requests.clear()
        assert seen([gate], 200, here.image.digest) < SECONDS
        assert sim.count("GET", "_catalog") == 0
        assert sim.count("GET", r"/v2/candidate/") == 0


@pytest.mark.usefixtures("no_looks")
def test_a_decision_whose_note_was_lost_is_seen_with_the_next_one(sim: Simulator, house: House) -> None:
    lost, next_ = house.candidate("lost"), house.candidate("next")
    with running_gate(sim.address, house.trust, names=PROMISED) as gate:
        # A promotion does not fail because gates cannot be told.
        sim.fault("PUT", rf"/v2/{changes.REPOSITORY}/", reg.status(403), times=1)
        house.promote(lost)
        assert gate.get(TAG).status != 200
        house.promote(next_)
        seen([gate], 200, next_.image.digest)
        assert gate.get(f"/v2/{REPO}/manifests/{lost.image.digest}").status == 200


def _naming(names: str) -> bytes:
    return index_bytes((), {"dev.goldsmith.changed": names})


@pytest.mark.parametrize(
    "note",
    [
        b'{"schemaVersion": 2}',
        b"\xff",
        _naming(""),
        _naming("../../x %2e%2e python@ candidate/python goldsmith/changes no/such " + "a " * 99),
    ],
    ids=["empty", "no JSON", "no names", "strange names"],
)
def test_a_strange_note_does_no_harm(sim: Simulator, house: House, note: bytes) -> None:
    here = house.candidate()
    house.promote(here)
    with running_gate(sim.address, house.trust, names=PROMISED) as gate:
        assert gate.get(TAG).status == 200
        sim.put(changes.REPOSITORY, note, INDEX_TYPE, changes.TAG)
        sim.requests.clear()
        gate.until("/metrics", lambda _: sim.count("HEAD", changes.REPOSITORY) > 1)
        assert gate.get(TAG).status == 200
        assert not gate.events("bug")
        assert gate.get(f"/v2/{changes.REPOSITORY}/manifests/{changes.TAG}").status == 404
