"""Single statements from a registry: only what a trusted key said of this very manifest."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from builder.model.digest import Digest
from builder.model.reference import Reference
from builder.signing.attested import carriers, provenances, read_carrier
from builder.signing.keys import BUILDER, VERDICT
from builder.signing.predicates import PROVENANCE_TYPE, VERDICT_TYPE
from builder.signing.refusal import EvidenceRefused
from tests.support.evidence import SOURCES, World, world
from tests.support.memory_registry import HOST, MemoryRegistry

REPO = "candidate/python"
TAG = Reference(HOST, REPO, "3.13", None)


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> World:
    return world(tmp_path_factory.mktemp("world"))


@pytest.fixture
def registry(here: World) -> Iterator[MemoryRegistry]:
    found = MemoryRegistry()
    found.store_signed(REPO, here.signed())
    yield found


def test_the_origin_of_what_a_tag_points_to(here: World, registry: MemoryRegistry) -> None:
    (found,) = provenances(registry, TAG, here.trust.unrevoked(BUILDER))
    assert (found.ref, found.sources) == ("python:3.13", SOURCES)


def test_without_belief_nothing_is_known(here: World, registry: MemoryRegistry, tmp_path: Path) -> None:
    stranger = world(tmp_path).trust
    assert provenances(registry, TAG, stranger.unrevoked(BUILDER)) == ()
    assert provenances(registry, TAG, here.trust.unrevoked(VERDICT)) == ()
    believes = here.trust.unrevoked(BUILDER)
    assert provenances(registry, replace(TAG, tag="3.14"), believes) == ()
    registry.down = True
    assert provenances(registry, TAG, believes) == ()


def test_a_carrier_holds_what_was_looked_for(here: World, registry: MemoryRegistry) -> None:
    where, believes = TAG.with_digest(here.image.digest), here.trust.unrevoked(BUILDER)
    (carrier,) = carriers(registry, where, PROVENANCE_TYPE)

    def reason(subject: Digest, kind: str, size: int) -> str:
        with pytest.raises(EvidenceRefused) as raised:
            read_carrier(registry, where.with_digest(subject), carrier, kind, size, believes)
        return raised.value.reference

    assert read_carrier(registry, where, carrier, PROVENANCE_TYPE, 1 << 20, believes).carrier == carrier
    assert reason(here.image.digest, VERDICT_TYPE, 1 << 20) == "wrong-predicate-type"
    assert reason(here.image.digest, PROVENANCE_TYPE, 100) == "too-large"
    assert reason(here.image.platforms[0].manifest.digest, PROVENANCE_TYPE, 1 << 20) == "subject-mismatch"
