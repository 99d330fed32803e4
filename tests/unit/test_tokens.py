"""Tokens: shown once, kept hashed, with an end, revocable, and never written down."""

from __future__ import annotations

import datetime as dt
import json
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from builder.errors import ToolError, UsageError
from builder.signing.keys import Keys
from builder.signing.trust import Trust
from registry.access.authenticate import Authenticator
from registry.access.facts import token_fact
from registry.access.identity import may
from registry.access.known import CannotTell, NotAuthenticated
from registry.access.roles import Permission
from registry.access.rules import Access
from registry.access.tokens import Token, TokenBook, TokenStore
from registry.audit.ledger import Action, Ledger
from registry.audit.redaction import redact
from tests.support.evidence import new_keys
from tests.support.images import NOW

DAY = dt.timedelta(days=1)
ROLES = {"developer": frozenset({Permission.PULL}), "robot": frozenset({Permission.PROMOTE})}


@pytest.fixture
def store(tmp_path: Path) -> TokenStore:
    return TokenStore(tmp_path / "access")


def make(
    store: TokenStore, name: str = "ci", days: int = 30, **changes: tuple[str, ...]
) -> tuple[Token, str]:
    values = {"roles": ("developer",), "images": ("python*",), **changes}
    token, shown = store.draft(name, values["roles"], values["images"], days=days, by="user:ann", now=NOW)
    store.add(token)
    return token, shown


def test_a_token_proves_its_identity_until_its_end(store: TokenStore) -> None:
    token, shown = make(store, "ci-python")
    known = Authenticator(Access(ROLES), store.read()).identify(shown, NOW.timestamp())
    assert known.identity.name == "token:ci-python"
    assert known.until == (NOW + 30 * DAY).timestamp()
    assert may(known.identity, Permission.PULL, "python3") and not may(
        known.identity, Permission.PULL, "base"
    )
    assert not may(known.identity, Permission.PROMOTE, "python3")
    assert store.read().check(shown, token.expires_at - dt.timedelta(seconds=1)) == token
    with pytest.raises(NotAuthenticated, match="expired since 2026-03-31"):
        store.read().check(shown, token.expires_at)


def test_a_role_that_is_gone_allows_nothing(store: TokenStore) -> None:
    _, shown = make(store)
    known = Authenticator(Access({"robot": ROLES["robot"]}), store.read()).identify(shown, NOW.timestamp())
    assert known.identity.grants == ()


def test_a_revoked_token_is_refused(store: TokenStore) -> None:
    token, shown = make(store)
    other, other_shown = make(store)
    assert store.revoke(token.id, NOW + DAY) == (store.read().tokens[token.id], True)
    assert store.revoke(token.id, NOW + 2 * DAY)[1] is False
    with pytest.raises(NotAuthenticated, match="revoked since 2026-03-02"):
        store.read().check(shown, NOW + 2 * DAY)
    assert store.read().check(other_shown, NOW) == other
    with pytest.raises(UsageError, match="there is no token"):
        store.revoke("nothing", NOW)


def wrong(shown: str) -> dict[str, str]:
    head, secret = shown[:14], shown[14:]
    return {
        "other secret": head + ("B" if secret[0] == "A" else "A") + secret[1:],
        "unknown id": "gs_" + "a" * 10 + "_" + secret,
        "empty": "",
        "cut": shown[:-1],
        "longer": shown + "A",
        "upper-case id": shown[:3] + shown[3:13].upper() + shown[13:],
        "newline": shown + "\n",
        "another kind": "ghp_" + "a" * 36,
        "huge": "gs_" + "a" * 1_000_000,
    }


@pytest.mark.parametrize("how", list(wrong("gs_aaaaaaaaaa_" + "x" * 43)))
def test_what_is_not_exactly_the_token_proves_nothing(store: TokenStore, how: str) -> None:
    token, shown = make(store)
    with pytest.raises(NotAuthenticated) as caught:
        Authenticator(Access(ROLES), store.read()).identify(wrong(shown)[how], NOW.timestamp())
    assert token.name not in str(caught.value) and shown[14:30] not in str(caught.value)
    store.revoke(token.id, NOW)
    with pytest.raises(NotAuthenticated) as caught:
        store.read().check(wrong(shown)["other secret"], NOW)
    assert "revoked" not in str(caught.value)  # only who knows the secret is told


def test_secrets_are_random_and_no_two_are_alike(store: TokenStore) -> None:
    made = [store.draft("ci", ("developer",), ("*",), days=1, by="x", now=NOW) for _ in range(50)]
    assert len({t.id for t, _ in made}) == len({shown[14:] for _, shown in made}) == 50
    assert len({t.salt for t, _ in made}) == 50
    assert all(len(shown) == 57 for _, shown in made)


def test_the_secret_is_nowhere_in_the_file_and_the_file_is_private(store: TokenStore) -> None:
    token, shown = make(store)
    text = store.path.read_text()
    assert shown not in text and shown[14:] not in text and token.id in text
    assert shown[14:] not in repr(store.read()) and token.hash.hex() not in repr(token)
    assert "hash" not in token.as_dict() and "salt" not in token.as_dict()
    assert stat.S_IMODE(store.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(store.path.parent.stat().st_mode) == 0o700
    store.revoke(token.id, NOW)
    assert stat.S_IMODE(store.path.stat().st_mode) == 0o600


def test_no_secret_gets_into_the_ledger(store: TokenStore, keys: Keys, tmp_path: Path) -> None:
    token, shown = make(store, roles=("developer", "robot"), images=("python*", "base"))
    ledger = Ledger(tmp_path / "ledger", Trust.of(keys.verdict.public))
    for action in (Action.CREATE_TOKEN, Action.REVOKE_TOKEN):
        ledger.append(token_fact(token, action, "user:ann", f"for {shown}"), keys.verdict, NOW)
    written = ledger.path.read_text()
    assert shown[14:] not in written and token.hash.hex() not in written and token.salt.hex() not in written
    made, ended = (e.fact for e in ledger.entries())
    assert (made.after["holder"], made.after["roles"]) == ("ci", "developer robot")
    assert (made.after["images"], made.after["expires"]) == ("python* base", "2026-03-31T12:00:00Z")
    assert (ended.before["token"], ended.after["token"]) == ("valid", "revoked")
    assert made.ref == f"token:{token.id}" and made.digest == ended.digest == token.digest
    assert shown[14:] not in redact(f"I used {shown}, sorry")


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    return new_keys(tmp_path_factory.mktemp("keys"))


@pytest.mark.parametrize("days", [0, -1, 367])
def test_a_token_has_an_end_that_is_near(store: TokenStore, days: int) -> None:
    with pytest.raises(UsageError, match="1 to 366 days"):
        make(store, days=days)
    assert not store.path.exists()


@pytest.mark.parametrize("name", ["", "CI", "a b", "-a", "gs_x", "a" * 65, "a\n"])
def test_names_of_tokens_are_plain(store: TokenStore, name: str) -> None:
    with pytest.raises(UsageError, match="no name"):
        make(store, name)


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: "",
        lambda text: "[]",
        lambda text: text.replace('"schema":1', '"schema":2'),
        lambda text: text.replace('"salt":"', '"salt":"00'),
        lambda text: text.replace('"revokedAt":"",', ""),
        lambda text: text.replace('"name":"ci"', '"name":"c i"'),
        lambda text: text.replace(
            '"tokens":[', '"tokens":[' + json.dumps(json.loads(text)["tokens"][0]) + ","
        ),
    ],
)
def test_a_file_that_is_not_what_was_written_is_refused(store: TokenStore, damage: object) -> None:
    make(store)
    assert callable(damage)
    store.path.write_text(damage(store.path.read_text()))
    with pytest.raises(ToolError):
        store.read()
    before = store.path.read_bytes()
    with pytest.raises(ToolError):
        make(store)
    assert store.path.read_bytes() == before


def test_tokens_that_cannot_be_read_are_neither_good_nor_bad(store: TokenStore) -> None:
    _, shown = make(store)
    with pytest.raises(CannotTell):
        Authenticator(Access(ROLES), None).identify(shown, NOW.timestamp())


def test_without_a_file_there_is_no_token(store: TokenStore) -> None:
    assert store.read() == TokenBook()


def test_writers_wait_for_each_other(tmp_path: Path) -> None:
    script = (
        "import sys, datetime as dt, pathlib\n"
        "from registry.access.tokens import TokenStore\n"
        "store, now = TokenStore(pathlib.Path(sys.argv[1])), dt.datetime(2026, 3, 1, tzinfo=dt.UTC)\n"
        "for _ in range(10):\n"
        "    store.add(store.draft('ci', ('developer',), ('*',), days=1, by='x', now=now)[0])\n"
    )
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(tmp_path / "access")], cwd=Path(__file__).parents[2]
        )
        for _ in range(3)
    ]
    assert [w.wait(60) for w in writers] == [0, 0, 0]
    assert len(TokenStore(tmp_path / "access").read().tokens) == 30
    assert sorted(p.name for p in (tmp_path / "access").iterdir()) == ["lock", "tokens.json"]
