"""token create, list and revoke, and who a command believes that runs it."""

from __future__ import annotations

import json
import os
import pwd
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.evidence import PASSPHRASE, new_keys

ROOT = Path(__file__).parents[2]
ME = f"user:{pwd.getpwuid(os.geteuid()).pw_name}"


class Desk:
    """A catalogue with nothing in it, a state directory with keys, and the command line."""

    def __init__(self, folder: Path) -> None:
        self.state, self.catalogue = folder / "state", folder / "catalogue"
        for name in ("images", "templates"):
            (self.catalogue / name).mkdir(parents=True)
        self.state.mkdir()
        new_keys(self.state / "keys")

    def run(self, *arguments: str, code: int = 0, **environment: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "builder", *arguments],
            cwd=self.catalogue,
            env={
                "PATH": os.environ["PATH"],
                "PYTHONPATH": str(ROOT),
                "GOLDSMITH_STATE": str(self.state),
                "GOLDSMITH_KEY_PASSPHRASE": PASSPHRASE,
                **environment,
            },
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == code, done.stderr + done.stdout
        return done.stdout

    def json(self, *arguments: str, code: int = 0, **environment: str) -> Any:
        return json.loads(self.run(*arguments, "--json", code=code, **environment))


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    yield Desk(tmp_path)


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
