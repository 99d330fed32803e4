"""Rehearsal: what a changed policy would say of what is in the registry, and who would feel it."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from builder.errors import RegistryError
from builder.oci.client import RegistryClient
from builder.oci.faults import Temporary
from builder.policy.schema import Policy
from builder.signing.verify import verify
from registry.promotion.promote import promote
from registry.promotion.rehearse import Rehearsal, Rehearsed, rehearse
from registry.pulls import Pull
from tests.support.evidence import World
from tests.support.images import NOW
from tests.support.promotion import CANDIDATE, REPO, House, policy
from tests.support.registry_simulator import Simulator, simulator

# The evidence of the tests has one LOW finding without a fix.
NONE_AT_ALL = {"critical": 0, "high": 0, "medium": 0, "low": 0, "unknown": 0}


@pytest.fixture
def sim() -> Iterator[Simulator]:
    with simulator() as running:
        yield running


@pytest.fixture
def house(sim: Simulator, tmp_path: Path) -> House:
    return House(tmp_path, RegistryClient(sim.address))


def stricter(**changes: Any) -> Policy:
    now = policy()
    unfixed = now.data.vulnerabilities.unfixed.model_copy(update=NONE_AT_ALL)
    return policy(vulnerabilities=now.data.vulnerabilities.model_copy(update={"unfixed": unfixed}), **changes)


def rehearsed(house: House, here: World, then: Policy, *pulls: Pull) -> tuple[Rehearsed, ...]:
    return rehearse(
        [here.image.target],
        Rehearsal(
            registry=house.client,
            verify=lambda reference: verify(reference, house.client, house.trust, house.now),
            host=house.client.host,
            today=policy(),
            then=then,
            now=house.now,
            pulls=pulls,
        ),
    )


def test_a_stricter_policy_names_the_image_the_rule_and_who_pulls(house: House) -> None:
    here = house.candidate()
    promote(house.office(), house.at(CANDIDATE, digest=here.image.digest), here.image.target, "new")
    pulled = [
        Pull(NOW, "token:web", REPO, here.image.digest, "3.13", 2),
        Pull(NOW, "token:ci", REPO, here.image.digest, "3.13", 7),
        Pull(NOW, "token:web", REPO, here.image.digest, "", 1),
        Pull(NOW, "token:other", REPO, here.image.platforms[0].config.digest, "", 1),
    ]
    (one,) = rehearsed(house, here, stricter(), *pulled)
    assert one.breaks
    assert one.today == {}
    assert list(one.then) == ["vulnerabilities-unfixed"]
    assert "CVE-2026-1 in hello" in one.then["vulnerabilities-unfixed"][0]
    assert one.pulled_by == (("token:ci", 7), ("token:web", 3))
    assert "/candidate/" not in one.where


def test_nothing_is_changed(house: House, sim: Simulator) -> None:
    here = house.candidate()
    before = sim.content()
    rehearsed(house, here, stricter())
    assert sim.content() == before


def test_a_candidate_is_looked_at_where_nothing_was_promoted(house: House) -> None:
    here = house.candidate()
    (one,) = rehearsed(house, here, policy())
    assert (one.breaks, one.then) == (False, {})
    assert "/candidate/" in one.where


def test_what_was_never_published_is_left_out_and_what_cannot_be_verified_is_not(house: House) -> None:
    here = house.candidate()
    stranger = replace(
        here.image.target, definition=here.image.target.definition.model_copy(update={"name": "other"})
    )
    assert rehearsed(house, replace(here, image=replace(here.image, target=stranger)), policy()) == ()
    house.now += dt.timedelta(days=30)
    (one,) = rehearsed(house, here, policy())
    assert "expired" in one.unreadable
    assert not one.breaks


def test_a_registry_that_does_not_answer_is_no_catalogue_without_objections(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise a review of the policy would end with 0, though nothing was looked at."""

    def away(*_: object) -> None:
        raise Temporary("the registry cannot be reached", house.client.host)

    here = house.candidate()
    monkeypatch.setattr(RegistryClient, "head_manifest", away)
    with pytest.raises(RegistryError, match="cannot be reached"):
        rehearsed(house, here, policy())


def test_a_rule_of_a_future_day_is_announced_and_refuses_nothing_yet(house: House) -> None:
    here = house.candidate()
    day = NOW.date() + dt.timedelta(days=1)
    later = stricter(effective={"vulnerabilities-unfixed": day})
    (one,) = rehearsed(house, here, later)
    assert one.then == {}
    assert one.announced[0].startswith(f"from {day} on, vulnerabilities-unfixed: ")
    house.now += dt.timedelta(days=1)
    (one,) = rehearsed(house, here, later)
    assert (list(one.then), one.announced) == (["vulnerabilities-unfixed"], ())
