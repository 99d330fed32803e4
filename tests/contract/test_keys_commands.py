"""`goldsmith keys` as people and programs call it."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from builder.cli.main import run
from builder.signing.trust import FILE, Trust
from builder.store import Store
from tests.support.evidence import PASSPHRASE, new_keys


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keys")
    new_keys(folder)
    return folder


@pytest.fixture
def state(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """An empty catalogue with a state directory that has keys."""
    for name in ("images", "templates"):
        (tmp_path / "catalogue" / name).mkdir(parents=True)
    for name in [n for n in os.environ if n.startswith("GOLDSMITH_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("GOLDSMITH_KEY_PASSPHRASE", PASSPHRASE)
    monkeypatch.chdir(tmp_path / "catalogue")
    store = Store(tmp_path / "catalogue" / ".goldsmith")
    shutil.copytree(made, store.keys)
    return store


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    def called(*arguments: str, code: int = 0) -> Any:
        found = run([*arguments, "--json"])
        said = capsys.readouterr()
        assert found == code, said
        return json.loads(said.out)

    return called


def test_list_rotate_and_revoke(state: Store, call: Callable[..., Any]) -> None:
    before = call("keys", "list")
    assert (before["version"], before["pending"]) == (0, None)
    assert [k["state"] for k in before["keys"]] == ["valid"] * 3
    old = {k["role"]: k["id"] for k in before["keys"]}

    rotated = call("keys", "rotate", "builder", "--why", "a year has gone", "--overlap-hours", "1")
    assert (rotated["old"], rotated["version"], rotated["entry"]["what"]) == (old["builder"], 1, "rotate-key")
    assert rotated["entry"]["why"] == "a year has gone"
    revoked = call("keys", "revoke", old["verdict"][:10], "--at", "2026-01-01", "--why", "it was stolen")
    assert (revoked["ends"], revoked["version"]) == ("2026-01-01T00:00:00Z", 2)

    after = call("keys", "list")
    states = {k["id"]: (k["role"], k["state"]) for k in after["keys"]}
    assert states == {
        old["builder"]: ("builder", "ending"),
        rotated["new"]: ("builder", "valid"),
        old["verdict"]: ("verdict", "revoked from 2026-01-01 00:00:00Z on"),
        revoked["new"]: ("verdict", "valid"),
        old["approver"]: ("approver", "valid"),
    }
    proved = call("audit", "verify")
    assert (proved["entries"], proved["doubtful"]) == (2, [1])
    assert [e["what"] for e in call("audit", "--ref", "keys/builder")] == ["rotate-key"]


def test_export_has_all_that_verifiers_need_and_no_secret(
    state: Store, tmp_path: Path, call: Callable[..., Any]
) -> None:
    out = tmp_path / "out"
    first = call("keys", "export", "--to", str(out))
    assert first["version"] == 1 and {"root.pub", FILE, "builder.pub"} <= set(first["files"])
    rotated = call("keys", "rotate", "builder")
    second = call("keys", "export", "--to", str(out))
    assert second["version"] == 2 and f"builder-{rotated['old'][:12]}.pub" in second["files"]
    assert Trust.load(out) == Trust.load(state.keys)
    assert (out / "builder.pub").read_bytes() == (state.keys / "builder.pub").read_bytes()
    assert not any(b"PRIVATE" in p.read_bytes() for p in out.iterdir())
    listed = call("keys", "list", "--trust", str(out))
    assert [k["id"] for k in listed["keys"]] == [k.id for k in Trust.load(out).keys]


def test_an_older_trust_file_put_back_is_refused_everywhere(state: Store, call: Callable[..., Any]) -> None:
    call("keys", "rotate", "builder")
    older = (state.keys / FILE).read_bytes()
    call("keys", "rotate", "builder")
    (state.keys / FILE).write_bytes(older)
    for command in (("keys", "rotate", "builder"), ("audit", "verify")):
        assert call(*command, code=4)["error"] == "trust-rolled-back"


def test_what_people_read(state: Store, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["keys", "rotate", "approver", "--why", "Ann has left"]) == 0
    said = capsys.readouterr().out
    assert "approver: the new key is" in said and "goldsmith keys export" in said
    assert run(["keys", "list"]) == 0
    said = capsys.readouterr().out
    assert "Trust file, version 1" in said and "ending" in said


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (("rotate", "root"), "root.pub"),
        (("revoke", "00112233", "--why", "x", "--at", "yesterday"), "2026-03-01"),
    ],
)
def test_mistakes_are_usage_errors_with_a_way_out(
    state: Store, call: Callable[..., Any], arguments: tuple[str, ...], hint: str
) -> None:
    assert hint in call("keys", *arguments, code=2)["hint"]
    assert not (state.keys / FILE).exists()


def test_renew_gives_the_trust_file_an_end(
    state: Store, call: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("keys", "list")["expires"] is None
    done = call("keys", "renew", "--days", "7", "--why", "first")
    assert (done["version"], done["entry"]["what"]) == (1, "renew-trust")
    assert call("keys", "list")["expires"] == done["expires"]
    assert run(["keys", "list"]) == 0
    said = capsys.readouterr()
    assert re.search("WARNING: it expires in [67] days", said.out)
    assert run(["audit"]) == 0
    assert re.search("warning: the trust file expires in [67] days", capsys.readouterr().err)
    assert call("audit", "verify")["entries"] == 1
