"""Several images are built side by side: parents first, each once, and an error stops their children."""

from __future__ import annotations

import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from builder.errors import LockError
from builder.pipeline import every
from builder.pipeline.every import build_every
from builder.report import Silent
from builder.stages.define import load_catalogue
from tests.support.catalogue import image, write


class Builds:
    """A builder that notes what it builds on what, and whether two builds met."""

    def __init__(self, meet: int = 1) -> None:
        self.built: list[tuple[str, str | None]] = []
        self.broken = ""
        self._meeting = threading.Barrier(meet, timeout=30)

    def reuse(self, prepared: SimpleNamespace) -> None:
        return None

    def build(self, prepared: SimpleNamespace, parent: str | None, stages: object) -> str:
        ref = prepared.target.ref
        if ref == self.broken:
            raise LockError(f"{ref} is broken")
        if parent:
            self._meeting.wait()
        self.built.append((ref, parent))
        return ref


@pytest.fixture(autouse=True)
def no_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(every, "prepare", lambda c, target, known, locks: SimpleNamespace(target=target))


def build(folder: Path, builds: Builds, *refs: str, jobs: int = 1) -> dict:
    images = (image("base"), image("one", **{"from": "base"}), image("two", **{"from": "base"}))
    catalogue = load_catalogue(write(folder, *images))
    return build_every(catalogue, [catalogue.find(r) for r in refs], builds, Silent(), jobs)  # type: ignore[arg-type]


def test_what_is_below_comes_first_and_once(tmp_path: Path) -> None:
    builds = Builds()
    assert set(build(tmp_path, builds, "one", "two")) == {"base:1", "one:1", "two:1"}
    assert builds.built[0] == ("base:1", None)
    assert sorted(builds.built[1:]) == [("one:1", "base:1"), ("two:1", "base:1")]


def test_children_are_built_at_the_same_time(tmp_path: Path) -> None:
    assert len(build(tmp_path, Builds(meet=2), "one", "two", jobs=2)) == 3


def test_the_first_error_is_raised(tmp_path: Path) -> None:
    builds = Builds()
    builds.broken = "base:1"
    with pytest.raises(LockError, match="base:1 is broken"):
        build(tmp_path, builds, "one")
    assert builds.built == []
