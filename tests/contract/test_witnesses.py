"""Witnesses: what they attest, which of it counts, and a promotion that asks for them."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from builder.errors import PolicyDenied
from builder.model.digest import Digest
from builder.model.image import BuiltImage
from builder.model.platform import Platform
from builder.model.reference import Reference
from builder.model.witness import Rebuild
from builder.policy.schema import WitnessLimits
from builder.signing.keys import WITNESS, RoleSigner, create_witness, open_signer
from builder.signing.predicates import REBUILD_TYPE
from builder.signing.rebuilds import decode, encode, signed_rebuild, witnesses
from builder.signing.refusal import EvidenceRefused
from builder.signing.trust import Trust
from builder.signing.trustfile import TrustedKey
from registry.gate.admission import admit
from registry.gate.decision import Approved
from registry.promotion.records import put_content
from tests.support.evidence import PASSPHRASE, World, shared_keys
from tests.support.images import AMD64, NOW
from tests.support.memory_client import MemoryClient
from tests.support.promotion import CANDIDATE, REPO, House, policy

KIT, INPUT = Digest.of(b"kit"), Digest.of(b"input")


def signer(folder: Path) -> RoleSigner:
    create_witness(folder, PASSPHRASE)
    return open_signer(folder, WITNESS, {}, PASSPHRASE)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[RoleSigner, RoleSigner]:
    return signer(tmp_path_factory.mktemp("ann")), signer(tmp_path_factory.mktemp("bob"))


@dataclass
class Place:
    """A candidate in a registry, and two witnesses whom the house trusts."""

    house: House
    here: World
    keys: tuple[RoleSigner, RoleSigner]

    @property
    def image(self) -> BuiltImage:
        return self.here.image

    def where(self, repo: str = CANDIDATE) -> Reference:
        return self.house.at(repo, digest=self.image.digest)

    def attest(self, key: RoleSigner, engine: str = "direct", **changes: Any) -> None:
        made = replace(rebuild(self.image, engine), **changes)
        item = signed_rebuild(made, self.image.index, key)
        put_content(self.house.client, CANDIDATE, item)
        self.house.client.put_referrer(CANDIDATE, item.manifest, item.media_type)
        self.house.client.put_referrers_fallback(CANDIDATE, self.image.digest, [item.entry])

    def seen(self, trust: Trust | None = None) -> list[tuple[str, str]]:
        found = witnesses(self.house.client, self.where(), trust or self.house.trust, NOW)
        return [(w.key, w.rebuild.engine) for w in found]

    def asking(self, count: int, engines: int) -> None:
        self.house.policy = policy(witnesses=WitnessLimits(count=count, engines=engines))


def rebuild(image: BuiltImage, engine: str = "direct") -> Rebuild:
    made = {p.platform: p.manifest.digest for p in image.platforms}
    return Rebuild(
        image.digest, image.target.ref, KIT, INPUT, engine, {"goldsmith": "1"}, made, NOW - dt.timedelta(1)
    )


@pytest.fixture
def place(tmp_path: Path, keys: tuple[RoleSigner, RoleSigner]) -> Iterator[Place]:
    house = House(tmp_path, MemoryClient())
    house.trust = Trust((*house.trust.keys, *(TrustedKey(k.public) for k in keys)))
    yield Place(house, house.candidate(), keys)


def test_what_a_trusted_witness_attests_counts(place: Place) -> None:
    ann, bob = place.keys
    place.attest(ann)
    place.attest(ann, "docker")
    place.attest(bob)
    assert sorted(place.seen()) == sorted(
        [(ann.public.id, "direct"), (ann.public.id, "docker"), (bob.public.id, "direct")]
    )


def test_what_does_not_count_is_left_out_and_harms_nobody(place: Place, tmp_path: Path) -> None:
    """A stranger's key, a key that did not hold, digests of another image, a time to come."""
    ann, bob = place.keys
    place.attest(signer(tmp_path / "mallory"))
    place.attest(ann, platforms={Platform("linux", "amd64"): Digest.of(b"another")})
    place.attest(ann, engine="docker", at=NOW + dt.timedelta(days=1))
    place.attest(bob)
    revoked = TrustedKey(bob.public, revoked_at=NOW - dt.timedelta(days=2), why="lost")
    keys = [k for k in place.house.trust.keys if k.id != bob.public.id]
    assert place.seen(Trust((*keys, revoked))) == []
    assert place.house.promote(place.here).changed


def test_a_witness_that_attested_twice_is_named_once(place: Place) -> None:
    """Two runs side by side may attest the same; the first one counts."""
    ann, _ = place.keys
    for days in (1, 3, 2):
        place.attest(ann, at=NOW - dt.timedelta(days))
    assert place.seen() == [(ann.public.id, "direct")]
    (seen,) = witnesses(place.house.client, place.where(), place.house.trust, NOW)
    assert seen.rebuild.at == NOW - dt.timedelta(3)


def test_strangers_cannot_crowd_a_witness_out(place: Place, tmp_path: Path) -> None:
    """As many of their attestations as a verification puts up with do not hide the one that counts."""
    mallory, (ann, _) = signer(tmp_path / "mallory"), place.keys
    for number in range(70):
        place.attest(mallory, engine=f"engine-{number}")
    place.attest(ann)
    assert place.seen() == [(ann.public.id, "direct")]


def test_only_a_witness_can_sign_that_and_never_a_failure(place: Place) -> None:
    builder = shared_keys()[0].builder
    with pytest.raises(ValueError, match="witness"):
        signed_rebuild(rebuild(place.image), place.image.index, builder)
    said = {**rebuild_json(place.image), "result": "different"}
    with pytest.raises(EvidenceRefused):
        decode(said, place.image.digest)


def rebuild_json(image: BuiltImage) -> dict[str, Any]:
    import json

    value: dict[str, Any] = json.loads(encode(rebuild(image)))
    assert decode(value, image.digest) == rebuild(image)
    return value


@pytest.mark.parametrize(
    "change",
    [{"kit": "sha256:x"}, {"tools": []}, {"platforms": {"a": "b"}}, {"at": "now"}, {"engine": 1}, {"x": "y"}],
    ids=lambda change: next(iter(change)),
)
def test_an_attestation_that_we_would_not_have_written_is_refused(
    place: Place, change: dict[str, Any]
) -> None:
    with pytest.raises(EvidenceRefused):
        decode({**rebuild_json(place.image), **change}, place.image.digest)


def test_a_promotion_counts_witnesses_and_engines_apart(place: Place) -> None:
    ann, bob = place.keys
    place.asking(2, 2)
    with pytest.raises(PolicyDenied) as raised:
        place.house.promote(place.here)
    assert "witnessed" in raised.value.context and "goldsmith reproduce" in raised.value.hint
    place.attest(ann)
    place.attest(ann, "docker")  # one witness, two engines
    with pytest.raises(PolicyDenied) as raised:
        place.house.promote(place.here)
    assert "by 1 of 2 witnesses" in raised.value.context
    place.attest(bob)
    assert place.house.promote(place.here).changed
    assert not place.house.promote(place.here).changed
    home = witnesses(place.house.client, place.where(REPO), place.house.trust, NOW)
    assert {w.key for w in home} == {ann.public.id, bob.public.id}


def test_two_witnesses_with_one_engine_are_one_engine(place: Place) -> None:
    place.asking(2, 2)
    for key in place.keys:
        place.attest(key)
    with pytest.raises(PolicyDenied) as raised:
        place.house.promote(place.here)
    assert "by 2 of 2 witnesses" in raised.value.context


def test_the_gate_serves_what_trusted_witnesses_say_and_no_other(place: Place, tmp_path: Path) -> None:
    ann, _ = place.keys
    place.attest(ann)
    place.attest(signer(tmp_path / "mallory"))
    decision = admit(place.where(), place.house.client, place.house.trust, NOW)
    assert isinstance(decision, Approved)
    kinds = [
        d.annotations.get("dev.sigstore.bundle.predicateType") for d in decision.referrers[place.image.digest]
    ]
    assert kinds.count(REBUILD_TYPE) == 1
    assert AMD64 in {p.platform for p in place.image.platforms}
