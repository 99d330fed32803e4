"""The night's steps, what is blocked since when, and its report, whatever the texts in it hold."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from builder.errors import (
    DefinitionError,
    GoldsmithError,
    LockError,
    PolicyDenied,
    Problem,
    RegistryError,
    ToolError,
)
from builder.model.outcome import ImageEnd, ImageState
from builder.model.plan import Action, Cause, PlannedImage, Reason
from builder.night_report import as_dict, as_json, as_junit, as_markdown
from builder.nightly import (
    Blocked,
    Night,
    Promoted,
    Step,
    StepEnd,
    go_through,
    not_looked_at,
    obstacles,
    only_one,
    since_when,
)
from builder.report import Lines, Silent
from builder.store import StateBusy

NOW = dt.datetime(2026, 11, 22, 1, tzinfo=dt.UTC)
HOSTILE = "a|b <script> `x` \x1b[31m\n| c"


def failing(error: GoldsmithError):
    def act() -> str:
        raise error

    return act


def test_a_step_that_fails_lets_those_go_on_that_do_not_need_it(tmp_path: Path) -> None:
    steps = [
        Step("sync", failing(RegistryError("away"))),
        Step("plan", failing(LockError("stale"))),
        Step("run", lambda: "never", ("plan",)),
        Step("rescan", lambda: "unchanged"),
    ]
    ends, cut = go_through(steps, tmp_path, Silent())
    assert [(e.name, e.state, e.detail) for e in ends] == [
        ("sync", "failed", "away"),
        ("plan", "failed", "stale"),
        ("run", "skipped", "because of plan"),
        ("rescan", "done", "unchanged"),
    ]
    assert cut == ""
    assert not (tmp_path / "step").exists()


def test_each_step_begins_with_a_line_and_with_the_time_that_is_left(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "seconds.json").write_text('{"sync": 30, "run": 999, "gone": 5, "rescan": "x"}')
    expected: list[float | None] = [None, 120.0]

    def ask() -> float | None:
        return expected.pop(0) if len(expected) > 1 else expected[0]

    steps = [Step("sync", lambda: "a"), Step("run", lambda: "b", expect=ask), Step("rescan", lambda: "c")]
    go_through(steps, tmp_path, Lines())
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("[")]
    assert said == ["[1/3] sync, about 17 min left", "[2/3] run, about 2 min left", "[3/3] rescan"]
    kept = json.loads((tmp_path / "seconds.json").read_text())
    assert kept["sync"] < 30 and kept["gone"] == 5 and kept["rescan"] >= 0


def test_a_machine_that_refuses_fails_one_step(tmp_path: Path) -> None:
    def full() -> str:
        raise OSError(28, "No space left on device")

    ends, _ = go_through([Step("sync", full), Step("rescan", lambda: "unchanged")], tmp_path, Silent())
    assert [(e.state, e.detail) for e in ends] == [
        ("failed", "this machine refused: No space left on device"),
        ("done", "unchanged"),
    ]
    assert Night(NOW, ends).exit_code == 5


def test_a_clock_that_was_set_back_makes_nothing_begin_in_the_future(tmp_path: Path) -> None:
    since_when({"a:1": ("x", "")}, tmp_path, NOW)
    (found,) = since_when({"a:1": ("x", "")}, tmp_path, NOW - dt.timedelta(hours=1))
    assert found.since == NOW - dt.timedelta(hours=1)


def test_an_estimate_that_fails_is_none(tmp_path: Path) -> None:
    def fail() -> float:
        raise LockError("no catalogue")

    ends, _ = go_through([Step("run", lambda: "", expect=fail)], tmp_path, Silent())
    assert ends[0].state == "done"


def test_a_step_can_look_at_those_before_it(tmp_path: Path) -> None:
    so_far: dict[str, StepEnd] = {}
    steps = [Step("sync", failing(RegistryError("away"))), Step("notify", lambda: so_far["sync"].detail)]
    ends, _ = go_through(steps, tmp_path, Silent(), so_far)
    assert ends[1].detail == "away"


def test_a_night_that_was_cut_is_told_by_the_next(tmp_path: Path) -> None:
    class Killed(BaseException):
        pass

    def die() -> str:
        raise Killed

    with pytest.raises(Killed):
        go_through([Step("sync", lambda: ""), Step("run", die)], tmp_path, Silent())
    assert go_through([Step("sync", lambda: "")], tmp_path, Silent())[1] == "run"
    assert go_through([Step("sync", lambda: "")], tmp_path, Silent())[1] == ""


def test_of_mistakes_in_files_the_first_is_told() -> None:
    error = DefinitionError([Problem("images/a/image.yaml", "titel", "unknown key", "title?")])
    found = obstacles([StepEnd("plan", "failed", error=error)], (), (), ())
    assert "titel" in found["step plan"][0]


def test_one_night_at_a_time(tmp_path: Path) -> None:
    with only_one(tmp_path, 0):
        for seconds in (0.0, 0.1):
            with pytest.raises(StateBusy), only_one(tmp_path, seconds):
                pass
    with only_one(tmp_path, 0):
        pass


def test_what_is_blocked_keeps_the_night_in_which_it_began(tmp_path: Path) -> None:
    first = since_when({"a": ("x", ""), "b": ("y", "")}, tmp_path, NOW)
    assert {b.since for b in first} == {NOW}
    later = NOW + dt.timedelta(days=2)
    second = since_when({"b": ("another reason", ""), "c": ("z", "")}, tmp_path, later)
    assert [(b.what, b.since) for b in second] == [("b", NOW), ("c", later)]
    assert since_when({}, tmp_path, later) == ()
    (gone,) = since_when({"b": ("y", "")}, tmp_path, later)
    assert gone.since == later


def test_what_a_night_could_not_look_at_keeps_its_beginning(tmp_path: Path) -> None:
    since_when({"a:1": ("x", ""), "promotion of b:1": ("y", ""), "step sync": ("z", "")}, tmp_path, NOW)
    later = NOW + dt.timedelta(days=1)
    ends = [
        StepEnd("sync", "done"),
        StepEnd("plan", "failed"),
        StepEnd("run", "skipped"),
        StepEnd("promote", "skipped"),
    ]
    (only,) = since_when({"step plan": ("away", "")}, tmp_path, later, not_looked_at(ends))
    assert (only.what, only.since) == ("step plan", later)
    found = since_when(
        {"a:1": ("x", ""), "promotion of b:1": ("y", ""), "step sync": ("z", "")}, tmp_path, later
    )
    assert {b.what: b.since for b in found} == {"a:1": NOW, "promotion of b:1": NOW, "step sync": later}
    assert not_looked_at([StepEnd("run", "done")])("step notify")  # it has not come to its turn
    looked = not_looked_at([StepEnd(name, "done") for name in ("run", "promote", "sync")])
    assert not any(map(looked, ("a:1", "promotion of b:1", "step sync")))


@pytest.mark.parametrize("content", ["", "[]", '{"b": 7}', '{"b": "yesterday"}', "\x00"])
def test_a_damaged_memory_of_what_was_blocked_is_none(tmp_path: Path, content: str) -> None:
    (tmp_path / "blocked.json").write_text(content)
    (found,) = since_when({"b": ("y", "")}, tmp_path, NOW)
    assert found.since == NOW


def test_everything_that_waits_for_somebody_is_named_with_its_reason() -> None:
    error = ToolError("trivy hangs", hint="look")
    found = obstacles(
        [StepEnd("sync", "failed", error=error), StepEnd("lock", "done")],
        [
            PlannedImage("waits:1", Action.BLOCKED, (Reason(Cause.REQUESTED, "no fix yet"),)),
            PlannedImage("fine:1", Action.NOTHING),
        ],
        [
            ImageEnd("broken:1", ImageState.FAILED, error=error),
            ImageEnd("denied:1", ImageState.DENIED),
            ImageEnd("held:1", ImageState.HELD, because="storm"),
            ImageEnd("fine:1", ImageState.UNCHANGED),
        ],
        [
            Promoted(
                "python:3.13", "refused", error=PolicyDenied("needs an approval", hint="goldsmith approve")
            )
        ],
    )
    assert {k: v[0] for k, v in found.items()} == {
        "step sync": "trivy hangs",
        "broken:1": "trivy hangs",
        "denied:1": "denied by the policy",
        "held:1": "storm",
        "waits:1": "requested: no fix yet",
        "promotion of python:3.13": "needs an approval",
    }


@pytest.mark.parametrize(
    ("night", "code"),
    [
        (Night(NOW, ()), 0),
        (Night(NOW, (), blocked=(Blocked("x", "y", NOW),)), 4),
        (Night(NOW, (StepEnd("sync", "failed", error=RegistryError("x")),)), 6),
        (Night(NOW, (), (ImageEnd("a:1", ImageState.FAILED, error=ToolError("x")),)), 5),
    ],
)
def test_the_exit_code(night: Night, code: int) -> None:
    assert night.exit_code == code


def hostile() -> Night:
    error = ToolError(HOSTILE, context=HOSTILE, hint=HOSTILE)
    return Night(
        NOW,
        (StepEnd("sync", "failed", HOSTILE, 1, error), StepEnd("run", "skipped", HOSTILE)),
        (
            ImageEnd(HOSTILE, ImageState.FAILED, error=error),
            ImageEnd("denied:1", ImageState.DENIED),
            *(ImageEnd(f"h{n}:1", ImageState.HELD, because=HOSTILE) for n in range(80)),
        ),
        (Promoted(HOSTILE, "refused", HOSTILE, error),),
        tuple(Blocked(HOSTILE, HOSTILE, NOW, HOSTILE) for _ in range(80)),
        cut=HOSTILE,
    )


def test_the_page_is_one_page_and_hostile_texts_stay_in_their_cells() -> None:
    page = as_markdown(hostile())
    assert page.count("\n") < 160
    assert "and 30 more" in page
    assert "\x1b" not in page
    assert "<script>" not in page
    table = [line for line in page.splitlines() if line.startswith("| a")]
    assert table
    for line in table:
        assert line.replace("\\|", "").count("|") in (2, 5)


def test_a_promotion_says_what_is_new_on_the_page_and_in_the_data() -> None:
    changes = ("before it sha256:1", "linux/amd64: packages: openssl: 1 → 2", f"fixed: {HOSTILE}")
    promoted = Promoted("python:3.13", "promoted", "registry.example/python@sha256:2", changes=changes)
    night = Night(NOW, (), (), (promoted, Promoted("base:13", "in place")))
    page = as_markdown(night)
    assert "* `python:3.13`: `registry.example/python@sha256:2`" in page
    assert "  * `linux/amd64: packages: openssl: 1 → 2`" in page
    assert "base:13" not in page
    assert "\x1b" not in page
    assert all(line.count("`") in (2, 4) for line in page.splitlines() if line.lstrip().startswith("*"))
    assert as_dict(night)["promotions"][0]["changes"] == list(changes)


def test_junit_can_be_read_and_counts_failures() -> None:
    suites = ElementTree.fromstring(as_junit(hostile()))
    counts = {s.get("name"): (s.get("tests"), s.get("failures"), len(s.findall("*/skipped"))) for s in suites}
    assert counts == {"steps": ("2", "1", 1), "images": ("82", "2", 80), "promotions": ("1", "1", 0)}


def test_json_holds_all_of_it() -> None:
    found = json.loads(as_json(hostile()))
    assert (len(found["images"]), len(found["blocked"]), found["exit_code"]) == (82, 80, 5)
    assert found["blocked"][0]["by"] == HOSTILE
