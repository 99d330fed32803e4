"""reindex and affected as people and programs call them, over a registry's interface."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.test_promotion_commands import Town
from tests.support.registry_simulator import simulator


@pytest.fixture
def town(tmp_path: Path) -> Iterator[Town]:
    with simulator() as sim:
        yield Town(tmp_path, sim)


def test_from_the_registry_to_an_answer(town: Town) -> None:
    refused = town.json("affected", "CVE-2026-1", code=5)
    assert (refused["error"], refused["hint"]) == ("no-index", "goldsmith reindex")
    digest = town.house.candidate().image.digest
    assert town.json("reindex")["images"] == 1
    found = town.json("affected", "CVE-2026-1")
    assert [(i["digest"], i["channel"]) for i in found["images"]] == [(digest, "candidate")]
    assert found["behind"] == ""

    town.run("promote", "python:3.13", "--why", "it passed")
    assert "decisions since" in town.json("affected", "pkg:deb/debian/hello")["behind"]
    town.sim.blobs["candidate/python"].clear()  # its own evidence is gone, the promoted copy is whole
    done = town.json("reindex", "--all", code=4)
    assert [p["repository"] for p in done["problems"]] == ["candidate/python"]
    told = town.run("affected", "CVE-2026-1").stdout
    assert "stable" in told and "python:3.13" in told and "1 images could not be verified" in told
