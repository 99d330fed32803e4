"""Bearer tokens of an OpenID Connect issuer at the gate, also as a password, while the issuer comes and goes."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from builder.oci.client import RegistryClient
from builder.stages.publish import publish
from registry.access import jwks
from registry.access.source import Files
from registry.access.tokens import TokenStore
from tests.support.evidence import World, world
from tests.support.gates import Reply, RunningGate, running_gate, wait_for
from tests.support.issuer import Issuer, jwk, rsa_key, running_issuer
from tests.support.registry_simulator import simulator

REPO = "candidate/python"
TAG = f"/v2/{REPO}/manifests/3.13"


@dataclass
class Place:
    """A gate, and the issuer whose tokens it believes."""

    gate: RunningGate
    issuer: Issuer
    here: World

    def bearer(self, token: str, path: str = TAG) -> Reply:
        return self.gate.get(path, Authorization=f"Bearer {token}")


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with simulator() as sim:
        here = world(tmp_path_factory.mktemp("world") / "world")
        here = replace(here, repository=f"{sim.address}/{REPO}")
        publish(here.signed(), RegistryClient(sim.address))
        yield here


@pytest.fixture
def place(storage: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    monkeypatch.setattr(jwks, "RETRY_SECONDS", 0.2)
    with running_issuer() as issuer:
        (tmp_path / "access.yaml").write_text("schema: 1\noidc:\n" + issuer.entry())
        source = Files(tmp_path, TokenStore(tmp_path / "access"))
        with running_gate(storage.repository.partition("/")[0], storage.trust, access=source) as gate:
            yield Place(gate, issuer, storage)


def test_an_issuer_s_token_pulls_as_bearer_and_as_password(place: Place) -> None:
    token = place.issuer.token()
    assert place.bearer(token).status == 200
    assert (
        place.gate.get(TAG, Authorization="Basic " + b64encode(f"ann:{token}".encode()).decode()).status
        == 200
    )
    assert json.loads(place.bearer(token, "/v2/_catalog").body) == {"repositories": [REPO]}
    line = next(e for e in place.gate.events("request") if e["path"] == TAG)
    assert line["who"] == "oidc:corp:ann@example.com"
    asked = len(place.issuer.requests)
    for _ in range(10):
        assert place.bearer(token).status == 200
    assert len(place.issuer.requests) == asked


def test_groups_decide_and_forgeries_do_not(place: Place) -> None:
    assert place.bearer(place.issuer.token(groups=["others"])).status == 403
    for wrong in (
        place.issuer.token(rsa_key(1)),
        place.issuer.token(aud="another"),
        place.issuer.token(exp=int(place.gate.time[0]) - 60),
        place.issuer.token(groups=["developers"])[:-6],
        "a.b.c",
    ):
        got = place.bearer(wrong)
        assert (got.status, got.error["code"]) == (401, "UNAUTHORIZED")
        text = "".join(place.gate.lines) + got.body.decode()
        assert wrong[-40:] not in text and wrong[:60] not in text


def test_a_token_ends_although_it_was_remembered(place: Place) -> None:
    token = place.issuer.token()
    assert place.bearer(token).status == 200
    place.gate.time[0] += 600 + 31
    assert place.bearer(token).status == 401


def test_a_new_key_is_taken_up_while_a_request_waits(place: Place) -> None:
    assert place.bearer(place.issuer.token()).status == 200
    place.issuer.keys = [jwk(rsa_key(1), "r2")]
    rotated = place.issuer.token(rsa_key(1), headers={"kid": "r2"})
    wait_for(lambda: place.bearer(rotated), lambda r: r.status == 200)
    # The old key is no longer believed, at the latest when what was proved with it is looked at again.
    place.gate.time[0] += 301
    assert place.bearer(place.issuer.token(exp=int(place.gate.time[0]) + 600)).status == 401


def test_while_the_issuer_is_away_its_keys_are_used_and_without_keys_it_is_503(
    storage: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jwks, "RETRY_SECONDS", 0.2)
    with running_issuer() as issuer:
        (tmp_path / "access.yaml").write_text("schema: 1\noidc:\n" + issuer.entry())
        source = Files(tmp_path, TokenStore(tmp_path / "access"))
        issuer.status = 500
        with running_gate(storage.repository.partition("/")[0], storage.trust, access=source) as gate:
            place = Place(gate, issuer, storage)
            got = place.bearer(issuer.token())
            assert (got.status, got.error["code"]) == (503, "UNAVAILABLE")
            assert int(got.headers["retry-after"]) > 0
            assert gate.events("issuer-away")[0]["issuer"] == "corp"
            issuer.status = 200
            wait_for(lambda: place.bearer(issuer.token()), lambda r: r.status == 200)
            issuer.status = 500
            assert place.bearer(issuer.token(sub="somebody-else")).status == 200
