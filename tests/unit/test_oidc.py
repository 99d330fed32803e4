"""Tokens of an OpenID Connect issuer: only what it really signed for us, now, is believed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jwt
import pytest

from registry.access import jwks, oidc
from registry.access.identity import may
from registry.access.jwks import IssuerAway, IssuerKeys, fetched, parse_keys
from registry.access.known import CannotTell, NotAuthenticated
from registry.access.oidc import KeysWanted, identify
from registry.access.roles import Permission
from registry.access.rules import Issuer as Rules
from tests.support.images import NOW
from tests.support.issuer import AUDIENCE, Issuer, ec_key, jwk, part, pem, rsa_key, running_issuer

ROLES = {
    "developer": frozenset({Permission.PULL}),
    "robot": frozenset({Permission.PROMOTE}),
    "curator": frozenset({Permission.REVOKE}),
}
ADDRESS = "https://id.example.com"
NOW_SECONDS = NOW.timestamp()


def rules(**changes: Any) -> Rules:
    value = {
        "name": "corp",
        "issuer": ADDRESS,
        "audience": AUDIENCE,
        "grants": [
            {"group": "developers", "roles": ["developer"], "images": ["*"]},
            {"subject": "nightly", "roles": ["robot", "curator"], "images": ["python"]},
        ],
        **changes,
    }
    return Rules.model_validate_json(json.dumps(value))


class World:
    """An issuer that is asked without a network, and a clock for how old its keys are."""

    def __init__(self, **changes: Any) -> None:
        self.issuer = Issuer(ADDRESS)
        self.away = False
        self.asked = 0
        self.seconds = 1000.0
        self.keys = IssuerKeys(rules(jwks=f"{ADDRESS}/keys", **changes), self.fetch, lambda: self.seconds)

    def fetch(self, address: str, ca_file: Path | None) -> bytes:
        self.asked += 1
        if self.away:
            raise IssuerAway("it did not answer")
        return json.dumps({"keys": self.issuer.keys}).encode()

    def ask(self, token: str, now: float = NOW_SECONDS) -> Any:
        return identify(token, (self.keys,), ROLES, now)

    def refused(self, token: str, now: float = NOW_SECONDS) -> str:
        with pytest.raises(NotAuthenticated) as caught:
            self.ask(token, now)
        assert not token or token[:40] not in str(caught.value)
        return str(caught.value)


@pytest.fixture
def world() -> World:
    world = World()
    assert world.keys.refresh()
    return world


@pytest.mark.parametrize("algorithm", ["RS256", "ES256"])
def test_a_good_token_gives_name_and_roles(world: World, algorithm: str) -> None:
    known = world.ask(world.issuer.token(algorithm=algorithm))
    assert known.identity.name == "oidc:corp:ann@example.com"
    assert may(known.identity, Permission.PULL, "python") and not may(
        known.identity, Permission.PROMOTE, "python"
    )
    assert known.until == NOW_SECONDS + oidc.REMEMBER_SECONDS
    short = world.ask(world.issuer.token(algorithm=algorithm, exp=int(NOW_SECONDS) + 60))
    assert short.until == NOW_SECONDS + 60 + oidc.SKEW_SECONDS


def test_groups_and_subject_give_roles_and_nothing_else_does(world: World) -> None:
    nightly = world.ask(world.issuer.token(sub="nightly", groups=None)).identity
    assert may(nightly, Permission.PROMOTE, "python") and may(nightly, Permission.REVOKE, "python")
    assert not may(nightly, Permission.PROMOTE, "base") and not may(nightly, Permission.PULL, "python")
    for groups in ([], ["Developers"], {"developers": True}, 7, [["developers"]], "developers,x", None):
        assert world.ask(world.issuer.token(groups=groups)).identity.grants == ()
    assert world.ask(world.issuer.token(groups="developers")).identity.grants
    other = World(groups_claim="roles", subject_claim="email")
    other.keys.refresh()
    found = other.ask(other.issuer.token(roles=["developers"], groups=None, email="a@b")).identity
    assert (found.name, bool(found.grants)) == ("oidc:corp:a@b", True)


def forged(world: World) -> dict[str, str]:
    """Tokens that look good, and the word with which each is refused."""
    good = world.issuer.token()
    head, body, signature = good.split(".")
    claims = world.issuer.claims(groups=["developers"], sub="nightly")
    mine = rsa_key(1)
    return {
        "another key": world.issuer.token(mine),
        "other claims": f"{head}.{part(claims)}.{signature}",
        "no signature": f"{head}.{body}.",
        "cut": good[:-8],
        "alg none": f"{part({'alg': 'none', 'kid': 'r1'})}.{body}.",
        "alg NoNe": f"{part({'alg': 'NoNe', 'kid': 'r1'})}.{body}.{signature}",
        "alg missing": f"{part({'kid': 'r1'})}.{body}.{signature}",
        "alg a list": f"{part({'alg': ['RS256'], 'kid': 'r1'})}.{body}.{signature}",
        "HS256 with the public key": hmac_token(world, pem(rsa_key())),
        "HS256 with the key's entry": hmac_token(world, json.dumps(world.issuer.keys[0]).encode()),
        "RS512": jwt.encode(claims, rsa_key(), "RS512", headers={"kid": "r1"}),
        "a key inside": world.issuer.token(mine, headers={"jwk": jwk(mine, "r1")}),
        "a key elsewhere": world.issuer.token(mine, headers={"jku": "https://evil.example.com/keys"}),
        "kid as a path": world.issuer.token(mine, headers={"kid": "../../../dev/null"}),
        "kid a number": f"{part({'alg': 'RS256', 'kid': 7})}.{body}.{signature}",
        "kid of the other type": world.issuer.token(headers={"kid": "e1"}),
        "critical": world.issuer.token(headers={"crit": ["exp"]}),
        "two algorithms": ".".join((part(b'{"alg":"RS256","alg":"none","kid":"r1"}'), body, signature)),
        "two subjects": ".".join((head, part(b'{"sub":"a","sub":"b"}'), signature)),
        "four parts": good + ".x",
        "no JSON": f"{part(b'x')}.{body}.{signature}",
        "a list": f"{part([])}.{body}.{signature}",
        "deep": f"{part(b'[' * 5000)}.{body}.{signature}",
        "no base64": f"!!.{body}.{signature}",
        "not ASCII": f"ä.{body}.{signature}",
        "huge": world.issuer.token(extra="x" * oidc.TOKEN_MAX),
        "empty": "",
        "dots": "..",
    }


def hmac_token(world: World, secret: bytes) -> str:
    """What PyJWT refuses to make: a token whose secret is the public key."""
    import hashlib
    import hmac

    signed = f"{part({'alg': 'HS256', 'kid': 'r1'})}.{part(world.issuer.claims())}"
    return f"{signed}.{part(hmac.new(secret, signed.encode(), hashlib.sha256).digest())}"


@pytest.mark.parametrize("how", list(forged(World())))
def test_a_forged_token_is_refused(world: World, how: str) -> None:
    asked = world.asked
    assert world.ask(world.issuer.token())
    world.refused(forged(world)[how])
    assert world.asked == asked  # nothing that it says makes anybody ask anywhere


@pytest.mark.parametrize(
    ("claims", "word"),
    [
        ({"aud": "another"}, "audience"),
        ({"aud": ["x", "y"]}, "audience"),
        ({"aud": None}, ""),
        ({"iss": "https://evil.example.com"}, "issuer"),
        ({"iss": ADDRESS + "/"}, "issuer"),
        ({"iss": None}, "issuer"),
        ({"exp": None}, ""),
        ({"exp": int(NOW_SECONDS) - oidc.SKEW_SECONDS}, "expired"),
        ({"exp": True}, "exp"),
        ({"exp": "later"}, ""),
        ({"exp": 10**400}, ""),
        ({"nbf": int(NOW_SECONDS) + 100}, "not valid yet"),
        ({"iat": int(NOW_SECONDS) + 100}, "not valid yet"),
        ({"sub": None}, "subject"),
        ({"sub": ""}, "subject"),
        ({"sub": "a\nb"}, "subject"),
        ({"sub": 'a"b'}, "subject"),
        ({"sub": "x" * 200}, "subject"),
        ({"sub": 7}, "claims"),
    ],
)
def test_a_token_that_is_not_for_us_or_not_now_is_refused(
    world: World, claims: dict[str, Any], word: str
) -> None:
    try:
        token = world.issuer.token(**claims)
    except TypeError:  # the library refuses to make it
        header, body = part({"alg": "RS256", "kid": "r1"}), part(world.issuer.claims(**claims))
        signed = jwt.algorithms.RSAAlgorithm(jwt.algorithms.RSAAlgorithm.SHA256).sign(
            f"{header}.{body}".encode(), rsa_key()
        )
        token = f"{header}.{body}.{part(signed)}"
    assert word in world.refused(token)


def test_clocks_may_differ_a_little(world: World) -> None:
    now = int(NOW_SECONDS)
    assert world.ask(world.issuer.token(exp=now - oidc.SKEW_SECONDS + 1))
    assert world.ask(world.issuer.token(nbf=now + oidc.SKEW_SECONDS, iat=now + oidc.SKEW_SECONDS))
    assert world.ask(world.issuer.token(aud=["x", AUDIENCE]))


def test_a_key_that_is_new_is_asked_for_once(world: World) -> None:
    world.issuer.keys = [jwk(rsa_key(1), "r2")]
    rotated = world.issuer.token(rsa_key(1), headers={"kid": "r2"})
    world.refused(rotated)  # a moment ago the keys were asked for
    world.seconds += jwks.RETRY_SECONDS
    with pytest.raises(KeysWanted):
        world.ask(rotated)
    assert world.keys.due() and world.keys.refresh() and not world.keys.due()
    assert world.ask(rotated).identity.name == "oidc:corp:ann@example.com"
    assert "does not have" in world.refused(world.issuer.token())  # the old key has gone
    asked = world.asked
    for number in range(20):
        world.refused(world.issuer.token(headers={"kid": f"unknown-{number}"}))
    assert world.asked == asked


def test_keys_are_believed_for_a_day_while_the_issuer_is_away(world: World) -> None:
    token = world.issuer.token()
    world.away = True
    world.seconds += jwks.RENEW_SECONDS + 1
    assert world.keys.due() and not world.keys.refresh()
    assert world.ask(token)
    world.seconds += jwks.KEEP_SECONDS
    with pytest.raises(KeysWanted):
        world.ask(token)
    assert not world.keys.refresh()
    with pytest.raises(CannotTell, match="cannot be had: it did not answer") as caught:
        world.ask(token)
    assert not isinstance(caught.value, KeysWanted)
    world.away = False
    assert world.keys.refresh()
    assert world.ask(token)


def test_without_keys_nobody_is_known_and_nobody_is_refused() -> None:
    world = World()
    with pytest.raises(KeysWanted):
        world.ask(world.issuer.token())
    assert world.keys.due()


def test_two_issuers_do_not_vouch_for_each_other(world: World) -> None:
    other = IssuerKeys(
        rules(name="other", issuer="https://other.example.com", jwks="https://other.example.com/keys"),
        lambda address, ca: json.dumps({"keys": [jwk(rsa_key(1), "r1")]}).encode(),
    )
    other.refresh()
    both = (world.keys, other)
    token = world.issuer.token(rsa_key(1), iss="https://other.example.com")
    assert identify(token, both, ROLES, NOW_SECONDS).identity.name == "oidc:other:ann@example.com"
    with pytest.raises(NotAuthenticated):
        identify(world.issuer.token(rsa_key(1)), both, ROLES, NOW_SECONDS)


@pytest.mark.parametrize(
    "entry",
    [
        lambda: {"kty": "oct", "k": "c2VjcmV0", "kid": "r1"},
        lambda: jwk(rsa_key(2, 1024), "r1"),
        lambda: jwk(rsa_key(), "r1", use="enc"),
        lambda: jwk(rsa_key(), "r1", alg="RS512"),
        lambda: jwk(rsa_key(), 7),  # type: ignore[arg-type]
        lambda: {**jwk(rsa_key(), "r1"), "n": "AQAB"},
        lambda: {**jwk(ec_key(), "e1"), "crv": "P-384"},
        lambda: {**jwk(ec_key(), "e1"), "d": "c2VjcmV0"},
        lambda: {"kty": "RSA"},
        lambda: "r1",
    ],
)
def test_keys_that_cannot_be_used_are_none(entry: Callable[[], Any]) -> None:
    issuer = rules(jwks=f"{ADDRESS}/keys")
    with pytest.raises(IssuerAway):
        parse_keys(json.dumps({"keys": [entry()]}).encode(), issuer)
    good = parse_keys(json.dumps({"keys": [entry(), jwk(rsa_key(1), "good")]}).encode(), issuer)
    assert [k.id for k in good] == ["good"]


@pytest.mark.parametrize(
    "data", [b"", b"[]", b"{}", b'{"keys": {}}', b'{"keys": []}', b"<html>", b"[" * 9999]
)
def test_what_is_no_set_of_keys(data: bytes) -> None:
    with pytest.raises(IssuerAway):
        parse_keys(data, rules())


def test_keys_are_found_by_discovery_and_only_there() -> None:
    with running_issuer() as issuer:
        keys = IssuerKeys(rules(issuer=issuer.address))
        assert keys.refresh()
        assert issuer.requests == ["/.well-known/openid-configuration", "/keys"]
        assert identify(issuer.token(), (keys,), ROLES, NOW_SECONDS).identity.grants
        for wrong in (
            {"issuer": "https://evil.example.com"},
            {"jwks_uri": "http://192.0.2.1/keys"},
            {"jwks_uri": "file:///etc/passwd"},
            {"jwks_uri": None},
        ):
            issuer.discovery = wrong
            assert not keys.refresh()
            assert "discovery document" in keys.problem


def test_the_door_to_issuers_has_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    with running_issuer() as issuer:
        for status in (302, 404, 500):
            issuer.status = status
            with pytest.raises(IssuerAway, match=f"answered {status}"):
                fetched(f"{issuer.address}/keys", None)
        assert "/elsewhere" not in issuer.requests
        issuer.status = 200
        monkeypatch.setattr(jwks, "_BYTES_MAX", 100)
        with pytest.raises(IssuerAway, match="too large"):
            fetched(f"{issuer.address}/keys", None)
    with pytest.raises(IssuerAway, match="did not answer"):
        fetched(f"{issuer.address}/keys", None)
