"""promote, rollback, revoke and audit as people and programs call them."""

from __future__ import annotations

import datetime as dt
import json
import os
import pwd
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from builder.oci.client import RegistryClient
from tests.support.catalogue import small_copy
from tests.support.evidence import PASSPHRASE
from tests.support.promotion import REPO, House
from tests.support.registry_simulator import Simulator, simulator

ROOT = Path(__file__).parents[2]


class Town:
    """A catalogue with a state directory, candidates in a registry, and the command line."""

    def __init__(self, folder: Path, sim: Simulator) -> None:
        self.state, self.catalogue = folder / "state", folder / "catalogue"
        self.state.mkdir()
        self.sim = sim
        self.environment: dict[str, str] = {}
        now = dt.datetime.now(dt.UTC).replace(microsecond=0)
        self.house = House(self.state, RegistryClient(sim.address), now=now)
        small_copy(ROOT, self.catalogue)
        policy = yaml.safe_load((ROOT / "registry" / "policies" / "baseline.yaml").read_text())
        policy["name"] = "here"
        policy["checks"] = {"required": ["user"], "required_runtime": []}
        policy["database"]["age_days_max"] = 36500
        policy["approvals"] = dict.fromkeys(policy["approvals"], 0)
        (self.catalogue / "policies").mkdir()
        (self.catalogue / "policies" / "here.yaml").write_text(yaml.safe_dump(policy))

    def run(self, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "builder", *arguments],
            cwd=self.catalogue,
            env={
                "PATH": os.environ["PATH"],
                "PYTHONPATH": str(ROOT),
                "GOLDSMITH_STATE": str(self.state),
                "GOLDSMITH_REGISTRY": self.sim.address,
                "GOLDSMITH_POLICY": "here",
                "GOLDSMITH_KEY_PASSPHRASE": PASSPHRASE,
                **self.environment,
            },
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == code, done.stderr + done.stdout
        return done

    def json(self, *arguments: str, code: int = 0) -> Any:
        return json.loads(self.run(*arguments, "--json", code=code).stdout)


@pytest.fixture
def town(tmp_path: Path) -> Iterator[Town]:
    with simulator() as sim:
        yield Town(tmp_path, sim)


def test_the_commands_from_promotion_to_audit(town: Town) -> None:
    old = town.house.candidate("old").image.digest
    assert "promoted: python:3.13" in town.run("promote", "python:3.13", "--why", "smoke tests").stdout
    again = town.run("promote", "python").stdout
    assert again.startswith("unchanged: ")

    new = town.house.candidate("new").image.digest
    done = town.json("promote", f"python@{new}")
    assert (done["digest"], done["previous"], done["changed"]) == (new, old, True)
    assert town.sim.tags[REPO]["3.13"] == new
    told = town.json("changes", "python:3.13")
    assert [(r["digest"], r["previous"], r["why"]) for r in told] == [
        (new, old, ""),
        (old, None, "smoke tests"),
    ]
    assert [r["digest"] for r in town.json("changes", "python", "--since", old)] == [new]
    assert f"`{old}` → `{new}`" in town.run("changes", "python", "--markdown").stdout
    assert town.json("verify", f"{town.sim.address}/python:3.13")["previous"] == old
    # Its copy is stable: "none yet" would be read as a word about the image.
    assert "channel: none recorded in candidate/python" in town.run("verify", f"python@{new}").stdout
    unbuilt = town.json("diff", f"python@{old}", ".", code=2)
    assert unbuilt["hint"].startswith("goldsmith try python:3.13")
    assert town.json("rollback", "python:3.13", "--why", "slow")["digest"] == old
    assert town.sim.tags[REPO]["3.13"] == old

    revoked = town.json("revoke", f"python@{new}", "--why", "bad", "--replacement", "python:3.13")
    assert (revoked["channel"], revoked["replacement"]) == ("withdrawn", f"python:3.13@{old}")
    refused = town.json("promote", f"python@{new}", code=4)
    assert refused["error"] == "withdrawn"
    assert town.json("verify", f"{town.sim.address}/python:3.13")["channel"] == "stable"
    assert (
        town.json("promote", "python:3.13", "--to", "deprecated", "--why", "old")["channel"] == "deprecated"
    )
    borrowed = town.json("promote", "python:3.13", "--to", "quarantine", "--why", "rescan: odd", code=2)
    assert "would let the image out" in borrowed["message"]

    entries = town.json("audit")
    assert [e["what"] for e in entries] == ["promote", "promote", "rollback", "revoke", "deprecate"]
    assert {e["who"] for e in entries} == {f"user:{pwd.getpwuid(os.geteuid()).pw_name}"}
    assert [e["sequence"] for e in town.json("audit", "--what", "promote", "--ref", new)] == [2]
    assert town.json("audit", "--since", "2999-01-01") == []
    assert len(town.json("audit", "--who", entries[0]["who"], "--ref", "python")) == 5
    assert "smoke tests" in town.run("audit").stdout


def test_the_proof_of_a_ledger_needs_a_copy_and_the_public_key_only(town: Town, tmp_path: Path) -> None:
    town.house.candidate()
    town.run("promote", "python:3.13")
    town.run("promote", "python:3.13", "--to", "deprecated", "--why", "x")
    copy, trust = tmp_path / "copy", tmp_path / "trust"
    copy.mkdir()
    trust.mkdir()
    for name in ("entries.jsonl", "head.json"):
        shutil.copy(town.state / "ledger" / name, copy)
    shutil.copy(town.state / "keys" / "verdict.pub", trust)
    shutil.rmtree(town.state)
    shutil.rmtree(town.catalogue / "images")
    town.sim.tags.clear()
    where = ("--ledger", str(copy), "--trust", str(trust))
    assert town.json("audit", "verify", *where)["entries"] == 2
    assert "2 entries" in town.run("audit", "verify", *where, "--head", str(copy / "head.json")).stdout
    # A folder that was mistaken for a copy proves nothing.
    wrong = town.json("audit", "verify", "--ledger", str(trust), "--trust", str(trust), code=2)
    assert wrong["message"] == f"there is no ledger in {trust}"

    path = copy / "entries.jsonl"
    whole = path.read_text()
    path.write_text(whole.replace('"why":"x"', '"why":"y"'))
    broken = town.json("audit", "verify", *where, code=4)
    assert broken["error"] == "ledger-changed"
    assert "entry 2 " in broken["message"]
    path.write_text(whole + '{"entry":')
    assert town.json("audit", "verify", *where)["torn"] is True
    assert town.run("audit", *where).stdout.count("python:3.13") == 2


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("promote", "python:3.13", "--to", "golden"), 2),
        (("promote", "python:3.13", "--to", "withdrawn"), 2),
        (("promote", "Python:3.13"), 2),
        (("promote", "elsewhere.example/python:3.13"), 2),
        (("promote", "python:3.12"), 2),
        (("promote", "python:3.13"), 6),
        (("rollback", "python:3.13"), 2),
        (("revoke", "python:3.13"), 2),
        (("revoke", "python:3.13", "--why", "x"), 6),
        (("audit", "--what", "bake"), 2),
        (("audit", "--since", "yesterday"), 2),
        (("audit", "verify", "--ledger", "nowhere"), 2),
    ],
    ids=lambda x: " ".join(x) if isinstance(x, tuple) else "",
)
def test_what_makes_no_sense_is_told(town: Town, arguments: tuple[str, ...], code: int) -> None:
    done = town.run(*arguments, code=code)
    assert "Traceback" not in done.stderr
    assert not (town.state / "ledger" / "entries.jsonl").exists()


def test_who_may_not_is_told_who_may(town: Town) -> None:
    town.house.candidate("old")
    (town.catalogue / "access.yaml").write_text(
        'schema: 1\npeople: [{who: "user:nobody-else", roles: [curator], images: ["*"]}]\n'
    )
    for arguments in (
        ("promote", "python:3.13"),
        ("promote", "python:3.13", "--to", "quarantine", "--why", "x"),
        ("rollback", "python:3.13"),
        ("revoke", "python:3.13", "--why", "x"),
        ("run", "python"),
    ):
        refused = town.json(*arguments, code=4)
        assert refused["error"] == "not-permitted", refused
        assert "may not" in refused["message"] and "ask user:nobody-else" in refused["hint"]
    assert "3.13" not in town.sim.tags.get(REPO, {})
    assert town.json("audit", code=4)["error"] == "not-permitted"
    assert town.json("audit", "--ledger", str(town.state / "ledger")) == []
