"""token create, list and revoke, and who a command believes that runs it."""

from __future__ import annotations

import datetime as dt
import json
import os
import pwd
from pathlib import Path
from typing import Any

import pytest

from builder.cli import main as command_line
from tests.support.evidence import PASSPHRASE, new_keys
from tests.support.issuer import running_issuer

ME = f"user:{pwd.getpwuid(os.geteuid()).pw_name}"


class Desk:
    """A catalogue with nothing in it, a state directory with keys, and the command line."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.capsys = capsys
        self.state, self.catalogue = folder / "state", folder / "catalogue"
        for name in ("images", "templates"):
            (self.catalogue / name).mkdir(parents=True)
        self.state.mkdir()
        new_keys(self.state / "keys")

    def run(self, *arguments: str, code: int = 0, **environment: str) -> str:
        with pytest.MonkeyPatch.context() as patch:
            for name in [n for n in os.environ if n.startswith("GOLDSMITH_")]:
                patch.delenv(name)
            patch.chdir(self.catalogue)
            patch.setenv("GOLDSMITH_STATE", str(self.state))
            patch.setenv("GOLDSMITH_KEY_PASSPHRASE", PASSPHRASE)
            for name, value in environment.items():
                patch.setenv(name, value)
            found = command_line.run(list(arguments))
        said = self.capsys.readouterr()
        assert found == code, said.err + said.out
        return said.out

    def json(self, *arguments: str, code: int = 0, **environment: str) -> Any:
        return json.loads(self.run(*arguments, "--json", code=code, **environment))


@pytest.fixture
def desk(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Desk:
    return Desk(tmp_path, capsys)


def test_the_life_of_a_token(desk: Desk) -> None:
    made = desk.json("token", "create", "ci", "--role", "developer", "--images", "python*", "--why", "builds")
    shown, number = made["token"], made["id"]
    assert shown.startswith(f"gs_{number}_")
    (listed,) = desk.json("token", "list")
    assert (listed["name"], listed["state"], listed["createdBy"]) == ("ci", "valid", ME)
    # Somebody who pastes the whole token revokes it, and still nothing of it is kept.
    ended = desk.json("token", "revoke", shown, "--why", f"leaked {shown}")
    assert (ended["changed"], ended["revokedAt"] != "") == (True, True)
    assert desk.json("token", "revoke", number)["changed"] is False
    entries = desk.json("audit")
    assert [(e["what"], e["who"]) for e in entries] == [("create-token", ME), ("revoke-token", ME)]
    assert "valid → revoked" in desk.run("audit")
    kept = [p.read_bytes() for p in desk.state.rglob("*") if p.is_file()]
    assert not any(shown[14:].encode() in data for data in kept)


def test_a_token_says_who_runs_a_command(desk: Desk) -> None:
    roles = ("--role", "curator", "--images", "python*")
    shown = desk.json("token", "create", "keeper", *roles)["token"]
    mine = {"GOLDSMITH_TOKEN": shown}
    made = desk.json("token", "create", "ci", "--role", "developer", "--images", "python-x", **mine)
    assert made["createdBy"] == made["entry"]["who"] == "token:keeper"
    # No more than its own roles and images, and not those that it does not manage.
    for arguments in (
        ("--role", "developer", "--images", "base"),
        ("--role", "developer"),
        ("--role", "approver", "--images", "python-x"),
    ):
        refused = desk.json("token", "create", "no", *arguments, code=4, **mine)
        assert refused["error"] == "not-permitted"
    assert {t["name"] for t in desk.json("token", "list", **mine)} == {"ci", "keeper"}
    other = desk.json("token", "create", "base", "--role", "developer", "--images", "base")
    assert desk.json("token", "revoke", other["id"], code=4, **mine)["error"] == "not-permitted"
    assert {t["name"] for t in desk.json("token", "list", **mine)} == {"ci", "keeper"}
    weak = {"GOLDSMITH_TOKEN": made["token"]}
    assert desk.json("token", "create", "no", "--role", "viewer", code=4, **weak)["error"] == "not-permitted"
    assert desk.json("token", "revoke", "keeper", code=2)["error"] == "usage-error"
    for text in ("gs_x", shown[:-1] + ("A" if shown[-1] != "A" else "B")):
        refused = desk.json("token", "list", code=4, GOLDSMITH_TOKEN=text)
        assert refused["error"] == "not-authenticated" and text not in json.dumps(refused)


def test_an_issuer_s_token_says_who_runs_a_command(desk: Desk) -> None:
    now = int(dt.datetime.now(dt.UTC).timestamp())
    with running_issuer() as issuer:
        (desk.catalogue / "access.yaml").write_text("schema: 1\noidc:\n" + issuer.entry())
        mine = {"GOLDSMITH_TOKEN": issuer.token(sub="nightly", iat=now, exp=now + 600)}
        arguments = ("token", "create", "ci", "--role", "developer", "--images", "python")
        assert desk.json(*arguments, **mine)["createdBy"] == "oidc:corp:nightly"
        other = {"GOLDSMITH_TOKEN": issuer.token(iat=now, exp=now + 600)}
        assert desk.json(*arguments, code=4, **other)["error"] == "not-permitted"
        old = {"GOLDSMITH_TOKEN": issuer.token(iat=now - 900, exp=now - 300)}
        assert "expired" in desk.json(*arguments, code=4, **old)["message"]
    assert desk.json(*arguments, code=5, **mine)["error"] == "issuer-away"


def test_mistakes_are_told_with_what_was_meant(desk: Desk) -> None:
    wrong = desk.json("token", "create", "ci", "--role", "develper", code=2)
    assert "did you mean developer?" in wrong["hint"]
    wrong = desk.json("token", "create", "ci", "--role", "viewer", "--images", "Py thon", code=2)
    assert "not an image name" in wrong["context"]
    assert desk.json("token", "create", "ci", "--role", "viewer", "--days", "400", code=2)
    assert desk.json("audit") == []
    assert desk.json("token", "list") == []


def test_a_revocation_that_was_cut_before_its_entry_is_completed(desk: Desk) -> None:
    number = desk.json("token", "create", "ci", "--role", "viewer")["id"]
    file = desk.state / "access" / "tokens.json"
    file.write_text(file.read_text().replace('"revokedAt":""', '"revokedAt":"2026-03-01T12:00:00Z"'))
    assert desk.json("token", "revoke", number)["changed"] is True
    assert [e["what"] for e in desk.json("audit")] == ["create-token", "revoke-token"]
