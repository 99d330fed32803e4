"""How far a run is, what waits, and how long it still takes by what was measured before."""

from __future__ import annotations

from pathlib import Path

import pytest

from builder.model.digest import Digest
from builder.model.outcome import ImageEnd, ImageState
from builder.pipeline.progress import Progress
from builder.pipeline.timing import Took, keep_seconds, took_before
from builder.report import Silent
from builder.store import Store

PARENTS = {"base": None, "python": "base", "node": "base"}


class Told(Silent):
    """Keeps what people are told."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.now: dict[str, str] = {}

    def note(self, text: str) -> None:
        self.lines.append(text)

    def status(self, what: str, text: str) -> None:
        self.now[what] = text


class Hours:
    """A clock that the test sets."""

    seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def progress(expected: dict[str, Took | None], jobs: int = 1) -> tuple[Progress, Told, Hours]:
    told, clock = Told(), Hours()
    return Progress(PARENTS, expected, jobs, told, clock), told, clock


@pytest.mark.parametrize(("jobs", "left"), [(1, 125), (2, 95)])
def test_the_time_left_is_the_longest_chain_or_the_work_whichever_is_longer(jobs: int, left: float) -> None:
    found, _, _ = progress({"base": Took(60, 5), "python": Took(30, 5), "node": Took(30, 5)}, jobs)
    assert found.left() == left


def test_what_is_finished_costs_nothing_and_what_runs_costs_the_rest() -> None:
    found, _, clock = progress({"base": Took(), "python": Took(30, 10), "node": Took()})
    assert found.left() == 40
    with found.working("build", "python"):
        clock.seconds = 20
        assert found.left() == 20
        clock.seconds = 50  # slower than the last time
        assert found.left() == 10
    found.ended(ImageEnd("python", ImageState.BUILT))
    assert found.left() == 0


def test_an_image_that_was_never_built_takes_what_the_others_take() -> None:
    found, _, _ = progress({"base": Took(10, 2), "python": Took(20, 2), "node": None})
    assert found.left() == 10 + 20 + 15 + 2


def test_with_nothing_measured_nothing_is_claimed_until_something_was_seen() -> None:
    found, told, clock = progress({})
    assert found.left() is None
    for kind in ("build", "release"):
        with found.working(kind, "base"):
            clock.seconds += 10
    found.ended(ImageEnd("base", ImageState.BUILT))
    assert found.left() == 30
    assert told.lines == ["  [1/3] base built; 2 to go, about 30 s"]


def test_people_see_what_waits_and_logs_get_a_line_for_each_end() -> None:
    found, told, _ = progress({"base": Took(200, 0), "python": Took(100, 0), "node": Took(100, 0)})
    with found.working("build", "base"):
        assert told.now["images"] == "0 of 3 images; waiting: python, node; about 7 min left"
    assert told.lines == []
    found.ended(ImageEnd("base", ImageState.FAILED))
    assert told.lines == ["  [1/3] base failed; 2 to go, about 3 min"]
    found.close()
    assert told.now["images"] == ""


def test_one_image_alone_is_not_counted() -> None:
    told = Told()
    Progress({"base": None}, {}, 1, told).ended(ImageEnd("base", ImageState.BUILT))
    assert told.lines == []


def test_times_are_kept_by_stage_and_those_that_did_not_run_stay(tmp_path: Path) -> None:
    store = Store(tmp_path).create()
    assert took_before(store, "base") is None
    keep_seconds(store, "base", {"fetch": 1, "build": 9, "check": 4, "scan": 3, "sign": 1, "elsewhere": 99})
    assert took_before(store, "base") == Took(10, 5)
    keep_seconds(store, "base", {"check": 1, "scan": 8, "publish": 2})
    assert took_before(store, "base") == Took(10, 11)
    assert took_before(store, "python") is None


@pytest.mark.parametrize(
    "record",
    [
        {},
        {"ref": "other", "stages": {"build": 1}},
        {"ref": "base", "stages": [1]},
        {"ref": "base", "stages": {"build": "x"}},
    ],
)
def test_times_that_cannot_be_read_are_not_known(tmp_path: Path, record: dict[str, object]) -> None:
    store = Store(tmp_path).create()
    store.remember("seconds", Digest.of(b"base"), record)
    assert took_before(store, "base") is None
