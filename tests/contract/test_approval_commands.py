"""approve and approvals as people and programs call them, in a catalogue that git knows."""

from __future__ import annotations

import json
import os
import pwd
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from builder.cli import main as command_line
from builder.cli.sources import Historian
from builder.model.digest import Digest
from builder.model.sources import Sources
from builder.stages.define import load_catalogue
from builder.tools import process
from tests.contract.test_promotion_commands import Town
from tests.support.evidence import PASSPHRASE, SOURCES
from tests.support.registry_simulator import simulator
from tests.support.requires import tool

ME = f"user:{pwd.getpwuid(os.geteuid()).pw_name}"


class Village(Town):
    """A town whose policy asks for approvals; commands run in this process."""

    def __init__(self, folder: Path, sim: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
        super().__init__(folder, sim)
        tool("git")
        self.capsys = capsys
        for name, value in {
            "GOLDSMITH_STATE": str(self.state),
            "GOLDSMITH_REGISTRY": sim.address,
            "GOLDSMITH_POLICY": "here",
            "GOLDSMITH_KEY_PASSPHRASE": PASSPHRASE,
        }.items():
            monkeypatch.setenv(name, value)
        monkeypatch.chdir(self.catalogue)
        path = self.catalogue / "policies" / "here.yaml"
        policy = yaml.safe_load(path.read_text())
        policy["approvals"] = {"definition": 1, "template": 1, "lock": 0, "first": 1, "import": 1}
        path.write_text(yaml.safe_dump(policy))
        self.git("init", "--quiet")

    def git(self, *arguments: str) -> str:
        named = [x for kind in ("user.name=Ann", "user.email=ann@example.org") for x in ("-c", kind)]
        environment = {"PATH": os.environ["PATH"], "HOME": "/nonexistent"}
        argv = ["git", *named, *arguments]
        done = process.run(argv, environment=environment, timeout_seconds=60, directory=self.catalogue)
        return done.text.strip()

    def access(self, **more: Any) -> None:
        people = [{"who": ME, "roles": ["curator", "approver"], "images": ["*"]}]
        text = yaml.safe_dump({"schema": 1, "people": people, **more})
        (self.catalogue / "access.yaml").write_text(text)

    def commit(self) -> Sources:
        """What the folder holds now, committed by Ann."""
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", "x")
        catalogue = load_catalogue(self.catalogue)
        nothing: Any = None
        definition, template = Historian(catalogue, {}, nothing, "", nothing, "").written(
            catalogue.find("python")
        )
        origin = replace(SOURCES.origin, commit=self.git("rev-parse", "HEAD"))
        return Sources(definition, template, Digest.of(b"lock"), origin)

    def say(self, *arguments: str, code: int = 0) -> str:
        self.capsys.readouterr()
        found = command_line.run(list(arguments))
        out, err = self.capsys.readouterr()
        assert found == code, out + err
        return str(out + err)

    def json(self, *arguments: str, code: int = 0) -> Any:
        return json.loads(self.say(*arguments, "--json", code=code))


@pytest.fixture
def village(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Village]:
    with simulator() as sim:
        yield Village(tmp_path, sim, monkeypatch, capsys)


def test_from_a_change_to_its_approval_and_promotion(village: Village) -> None:
    first = village.house.candidate("one", village.commit()).image
    refused = village.json("promote", "python:3.13", code=4)
    assert refused["error"] == "approval-missing"
    assert "access.yaml" in refused["hint"]
    village.access()
    refused = village.json("promote", "python:3.13", code=4)
    assert refused["hint"].endswith(f"goldsmith approve python:3.13@{first.digest} --why TEXT")
    (waits,) = village.json("approvals")
    assert (waits["ref"], waits["digest"], waits["missing"]) == ("python:3.13", first.digest, 1)
    assert waits["new"] == ["definition", "first", "lock", "template"]
    assert waits["written_by"] == ["Ann Writer <ann@example.org>"]
    assert "python:3.13" in village.say("approvals", "python")

    shown = village.say("approve", "python:3.13")
    assert "never was stable" in shown and "waits for 1 more" in shown
    assert village.json("audit") == []
    done = village.json("approve", "python:3.13", "--why", "read it")
    assert (done["approved"], done["changed"], done["missing"]) == (True, True, 0)
    assert done["entry"]["who"] == ME
    assert village.say("approve", "python:3.13", "--why", "again").splitlines()[-2].startswith("unchanged: ")
    assert village.json("approvals") == []
    village.say("promote", "python:3.13")

    definition = village.catalogue / "images" / "python" / "image.yaml"
    definition.write_text(definition.read_text().replace("title: ", "title: New "))
    (village.catalogue / "images" / "python" / "image.lock").write_text("# another\n")
    second = village.house.candidate("two", village.commit()).image
    done = village.json("approve", f"python@{second.digest}")
    assert done["new"] == ["definition"]
    difference = done["definition"]["difference"].splitlines()
    assert any(line.startswith("+title: New ") for line in difference)
    assert not any("image.lock" in line for line in difference)
    assert village.json("promote", "python:3.13", code=4)["error"] == "approval-missing"
    # Somebody who reads another text than the one that was built is told so.
    definition.write_text(definition.read_text().replace("title: New ", "title: Harmless "))
    done = village.json("approve", "python:3.13", "--why", "read it")
    assert done["definition"]["difference"] == ""
    assert "another definition" in done["definition"]["note"]
    village.say("promote", "python:3.13")
    assert [e["what"] for e in village.json("audit")] == ["approve", "promote", "approve", "promote"]


def test_who_may_not_approve_is_told_why(village: Village) -> None:
    here = village.house.candidate("one", village.commit()).image
    people = [{"who": "user:eve", "roles": ["approver"], "images": ["*"]}]
    village.access(people=people)
    assert village.json("approve", "python:3.13", "--why", "x", code=4)["error"] == "not-permitted"
    village.access(emails={"Ann@Example.org": ME})
    refused = village.json("approve", "python:3.13", "--why", "x", code=4)
    assert refused["error"] == "own-change"
    assert refused["hint"] == "access.yaml names nobody who may approve python and did not write it"
    village.access(emails={"ann@example.org": "ann"})
    assert village.json("approve", "python:3.13", code=1)["error"] == "definition-error"
    village.access()
    assert village.json("approve", "python:3.12", code=6)["error"] == "not-found"
    assert village.json("approvals", "nothing", code=2)["hint"]
    assert village.json("approve", f"python@{here.platforms[0].manifest.digest}", code=4)
    assert village.json("audit") == []
