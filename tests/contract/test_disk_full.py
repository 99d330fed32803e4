"""A disk that fills up in any stage of a build: exit 5, nothing lost, and the next run completes."""

from __future__ import annotations

import datetime as dt
import gc
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from builder.cli.main import run
from builder.engines.direct import DirectEngine
from builder.pipeline import build as building
from builder.store import Store
from builder.tools.pool import Pool
from tests.support import requires
from tests.support.archive import Archive
from tests.support.catalogue import image, stream, write
from tests.support.disk import full_disk

NOW = dt.datetime.now(dt.UTC).replace(microsecond=0)
TEMPLATES = Path(__file__).parents[2] / "templates"
# What is called where the disk fills up, and how many bytes a file may have there: for the layers
# so many that the small files before them are written.
STAGES: dict[str, tuple[Any, str, int]] = {
    "fetch": (Pool, "fetch", 1),
    "build": (DirectEngine, "build", 1),
    "normalise": (building.normaliser, "normalise", 8192),
    "finish": (building, "finish", 1),
    "record": (Store, "remember", 1),
}


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Path:
    """The state directory of a catalogue that is locked and ready to be built."""
    requires.tool("apt-get")
    archive = Archive(tmp_path / "archive", NOW)
    archive.add("hello", files={"usr/bin/hello": random.Random(1).randbytes(30_000)})
    archive.publish()
    catalogue = write(tmp_path / "catalogue", image("base", streams={"1": stream("hello")}))
    shutil.copytree(TEMPLATES, catalogue / "templates", dirs_exist_ok=True)
    (catalogue / "templates" / "builder.yaml").unlink()
    monkeypatch.setenv("GOLDSMITH_CATALOGUE", str(catalogue))
    monkeypatch.setenv("GOLDSMITH_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("GOLDSMITH_DEBIAN_MIRROR", archive.address)
    monkeypatch.setenv("GOLDSMITH_DEBIAN_KEYRING", str(archive.keyring))
    assert run(["lock"]) == 0, capsys.readouterr().err
    capsys.readouterr()
    return tmp_path / "state"


def during(where: tuple[Any, str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the disk be full while that function runs."""
    owner, name, limit = where
    real: Callable[..., Any] = getattr(owner, name)

    def full(*arguments: Any, **named: Any) -> Any:
        with full_disk(limit):
            return real(*arguments, **named)

    monkeypatch.setattr(owner, name, full)


def kept(state: Path) -> set[str]:
    """What a run leaves: packages, images, records, and whatever is unfinished."""
    return {
        str(path.relative_to(state))
        for name in ("pool", "images", "records", "tmp")
        for path in (state / name).rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize("stage", STAGES)
def test_the_disk_fills_up_in(stage: str, state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = kept(state)
    with pytest.MonkeyPatch.context() as patch:
        during(STAGES[stage], patch)
        code = run(["build", "base", "--json"])
    told = json.loads(capsys.readouterr().out)
    assert (code, told["exit_code"]) == (5, 5), told
    assert "too large" in told["context"]
    assert "make room" in told["hint"]
    gc.collect()  # as at the end of the process: what it unpacked for itself goes with it
    left = kept(state) - before
    assert not [path for path in left if path.startswith(("tmp/", "records/"))]
    assert bool(left) == (stage != "fetch"), "what was verified stays"

    assert run(["build", "base", "--json"]) == 0
    built = json.loads(capsys.readouterr().out)
    assert built["outcome"] == "built"
    assert run(["build", "base", "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert (again["outcome"], again["digest"]) == ("unchanged", built["digest"])
    assert not list((state / "tmp").iterdir())
