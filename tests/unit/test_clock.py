"""The clock of findings: from what was seen, built, promoted and pulled to stages and deadlines."""

from __future__ import annotations

import datetime as dt
import json
import random
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from builder.errors import ToolError
from builder.model.evidence import Severity
from registry.clock.journal import Journal, Memory, Mended, ended_lines, image_line, said_line
from registry.clock.remediation import (
    Build,
    Move,
    Remediation,
    State,
    Stream,
    Taken,
    due,
    order,
    remediations,
)
from registry.clock.run import Clock
from registry.clock.sightings import Rating, Said, Sighting, Spot, learn, news
from registry.clock.telling import KNOWN_EXPLOITED, as_dict, by_week, exposition, obstacle, percentile
from tests.support.images import NOW
from tests.support.promotion import policy

DEADLINES = policy().data.deadlines
HOUR, DAY = dt.timedelta(hours=1), dt.timedelta(days=1)
OLD = Spot("debian 13", "libssl3t64", "3.5.1-1", "CVE-2026-1")
OURS = {"base:13", "python:3.13"}


def said(
    at: dt.datetime = NOW, fixed: str = "", severity: Severity = Severity.CRITICAL, **more: object
) -> Said:
    return Said(OLD, at, f"{at:%Y-%m-%dT%H:%M:%SZ}", severity, fixed, **more)  # type: ignore[arg-type]


def history(*words: Said) -> Sighting:
    known = None
    for word in words:
        known = learn(known, word)
    assert known is not None
    return known


def build(name: str, published: dt.datetime, *, has: bool = False, current: bool = False) -> Build:
    return Build(name, published, current, frozenset({OLD.where} if has else ()))


def look(
    stream: Stream, sighting: Sighting, now: dt.datetime, waived: dt.datetime | None = None
) -> Remediation:
    (found,) = remediations(stream, {OLD.where: [sighting]}, DEADLINES, lambda *_: waived, now)
    return found


BEFORE = build("old", NOW - 9 * DAY, has=True, current=True)
FIXED = history(said(NOW), said(NOW + DAY, "3.5.4-1"))


def test_all_stages_of_a_fix_in_their_order() -> None:
    new = build("new", NOW + DAY + 2 * HOUR, current=True)
    pulls = (
        Taken("user:a", "old", NOW - DAY),
        Taken("user:b", "old", NOW + HOUR),
        Taken("user:a", "new", NOW + DAY + 9 * HOUR),
        Taken("user:b", "new", NOW + DAY + 12 * HOUR),
        Taken("user:c", "new", NOW + DAY + 20 * HOUR),
    )
    moves = (Move(NOW - 8 * DAY, "old"), Move(NOW + DAY + 5 * HOUR, "new"))
    found = look(Stream("python:3.13", (BEFORE, new), moves, pulls), FIXED, NOW + 3 * DAY)
    assert found.stages == (
        ("seen", NOW),
        ("fix", NOW + DAY),
        ("rebuilt", NOW + DAY + 2 * HOUR),
        ("promoted", NOW + DAY + 5 * HOUR),
        ("adopted", NOW + DAY + 12 * HOUR),
    )
    assert (found.state, found.movers, found.takers) == (State.ADOPTED, 2, 2)
    assert (found.measured, found.doubts) == (True, ())
    half = look(Stream("python:3.13", (BEFORE, new), moves, pulls[:3]), FIXED, NOW + 3 * DAY)
    assert (half.state, half.movers, half.takers, half.adopted) == (State.PROMOTED, 1, 2, None)
    assert obstacle(half, {}, OURS).by == "1 of 2 have not pulled it yet"


def test_who_goes_back_to_the_old_image_has_not_adopted_the_new_one() -> None:
    new = build("new", NOW + DAY, current=True)
    pulls = (Taken("user:a", "new", NOW + 2 * DAY), Taken("user:a", "old", NOW + 3 * DAY))
    moves = (Move(NOW + DAY, "new"),)
    found = look(Stream("python:3.13", (BEFORE, new), moves, pulls), FIXED, NOW + 4 * DAY)
    assert (found.state, found.movers, found.takers) == (State.PROMOTED, 0, 1)


def test_without_a_fix_no_deadline_runs_and_a_waiver_is_shown_with_its_end() -> None:
    stream = Stream("python:3.13", (BEFORE,))
    found = look(stream, history(said()), NOW + 99 * DAY)
    assert (found.state, found.due, found.late(NOW + 99 * DAY)) == (State.NO_FIX, None, False)
    found = look(stream, history(said()), NOW + DAY, waived=NOW + 5 * DAY)
    assert (found.state, found.waived_until, found.due) == (State.WAIVED, NOW + 5 * DAY, None)
    gone = history(said(NOW, "3.5.4-1"), said(NOW + DAY, ""))  # a fix that was taken back
    assert look(stream, gone, NOW + 9 * DAY).state is State.NO_FIX


def test_an_imported_image_is_mended_by_a_newer_import() -> None:
    found = look(Stream("redis:7", (BEFORE,), (Move(NOW - 8 * DAY, "old"),)), FIXED, NOW + 9 * DAY)
    assert obstacle(found, {}, OURS).hint == "goldsmith import SOURCE --as redis:7"
    unfixed = look(Stream("redis:7", (BEFORE,)), history(said()), NOW + DAY)
    assert "goldsmith waive redis CVE-2026-1 --imported" in obstacle(unfixed, {}, OURS).hint


def test_it_is_late_after_the_deadline_and_says_what_is_in_the_way() -> None:
    stream = Stream("python:3.13", (BEFORE,), (Move(NOW - 8 * DAY, "old"),))
    found = look(stream, FIXED, NOW + 2 * DAY)
    assert (found.due, found.late(NOW + 2 * DAY)) == (NOW + 2 * DAY, False)
    assert found.late(NOW + 2 * DAY + HOUR)
    assert obstacle(found, {}, OURS).hint == "goldsmith run python:3.13"
    assert obstacle(found, {"python:3.13": ("the lock", "do it")}, OURS).by == "the lock"
    rebuilt = look(
        Stream("python:3.13", (BEFORE, build("new", NOW + DAY)), stream.stable), FIXED, NOW + 2 * DAY
    )
    assert (rebuilt.state, rebuilt.rebuilt, rebuilt.promoted) == (State.RUNNING, NOW + DAY, None)
    assert obstacle(rebuilt, {}, OURS).hint == "goldsmith promote python:3.13"
    assert obstacle(rebuilt, {"promotion of python:3.13": ("an approval", "")}, OURS).by == "an approval"


@pytest.mark.parametrize(
    ("ratings", "hours"),
    [
        ([(0, Severity.CRITICAL, False)], 24),
        ([(0, Severity.LOW, True)], 24),
        ([(0, Severity.HIGH, False)], 168),
        ([(0, Severity.LOW, False), (100, Severity.CRITICAL, False)], 124),
        ([(0, Severity.LOW, False), (2159, Severity.CRITICAL, False)], 2160),
        ([(0, Severity.LOW, False), (100, Severity.LOW, True)], 124),
        ([(0, Severity.CRITICAL, False), (10, Severity.LOW, False)], 2160),
    ],
)
def test_a_deadline_starts_when_the_urgency_was_known(
    ratings: list[tuple[int, Severity, bool]], hours: int
) -> None:
    told = [Rating(NOW + at * HOUR, severity, exploited) for at, severity, exploited in ratings]
    assert due(NOW, told, DEADLINES) == NOW + hours * HOUR


def test_what_was_mended_before_anybody_knew_took_no_time_and_is_not_measured() -> None:
    old, new = build("old", NOW - 9 * DAY, has=True), build("new", NOW - DAY, current=True)
    moves = (Move(NOW - 8 * DAY, "old"), Move(NOW - HOUR, "new"))
    found = look(Stream("python:3.13", (old, new), moves), history(said(NOW, "3.5.4-1")), NOW + DAY)
    assert {at for _, at in found.stages} == {NOW}
    assert (found.state, found.measured, found.doubts) == (State.ADOPTED, False, ())


def test_a_rollback_to_the_old_image_starts_the_clock_again() -> None:
    new = build("new", NOW + DAY + HOUR)
    moves = (
        Move(NOW - 8 * DAY, "old"),
        Move(NOW + DAY + 2 * HOUR, "new"),
        Move(NOW + DAY + 3 * HOUR, "old"),
    )
    found = look(Stream("python:3.13", (BEFORE, new), moves), FIXED, NOW + 4 * DAY)
    assert (found.state, found.promoted) == (State.RUNNING, None)
    assert found.late(NOW + 4 * DAY)


def test_a_stable_image_that_nobody_could_verify_mends_nothing() -> None:
    moves = (Move(NOW - 8 * DAY, "old"), Move(NOW + DAY, "unknown"))
    assert look(Stream("python:3.13", (BEFORE,), moves), FIXED, NOW + 3 * DAY).promoted is None


def test_a_newer_image_that_has_it_again_is_not_mended() -> None:
    clean = build("clean", NOW - DAY)
    again = build("again", NOW + HOUR, has=True, current=True)
    found = look(Stream("python:3.13", (clean, again), (Move(NOW, "clean"),)), FIXED, NOW + 3 * DAY)
    assert (found.state, found.rebuilt, found.promoted) == (State.RUNNING, None, None)


def test_a_retracted_advisory_closes_the_clock() -> None:
    gone = history(said(NOW, "3.5.4-1"), said(NOW + DAY, retracted=True))
    found = look(Stream("python:3.13", (BEFORE,)), gone, NOW + 9 * DAY)
    assert (found.state, found.retracted) == (State.RETRACTED, NOW + DAY)
    assert not found.late(NOW + 9 * DAY)
    back = learn(gone, said(NOW + 2 * DAY, "3.5.4-1"))
    assert (back.seen, back.retracted) == (NOW + 2 * DAY, None)


def test_times_that_contradict_each_other_are_doubts_and_never_negative() -> None:
    new = build("new", NOW + 3 * DAY)
    early = look(Stream("python:3.13", (BEFORE, new), (Move(NOW + 2 * DAY, "new"),)), FIXED, NOW + 4 * DAY)
    assert early.doubts == ("it was promoted before it was there",)
    assert (early.rebuilt, early.promoted, early.measured) == (NOW + 3 * DAY, NOW + 3 * DAY, False)
    back = look(Stream("python:3.13", (BEFORE,)), FIXED, NOW - DAY)  # the clock was set back
    assert back.doubts == ("seen lies in the future", "fix lies in the future")
    assert {at for _, at in back.stages} == {NOW - DAY}


def test_stages_are_ordered_and_not_after_now_whatever_the_facts() -> None:
    chance = random.Random(20260301)
    for _ in range(2000):

        def some() -> dt.datetime:
            return NOW + chance.randrange(-400, 400) * HOUR

        builds = [
            build(f"b{n}", some(), has=chance.random() < 0.5, current=chance.random() < 0.5) for n in range(4)
        ]
        builds.append(build("b4", some(), has=True))
        names = [*(b.digest for b in builds), "unknown"]
        moves = tuple(Move(some(), chance.choice(names)) for _ in range(chance.randrange(4)))
        taken = tuple(
            Taken(chance.choice("xyz"), chance.choice(names), some()) for _ in range(chance.randrange(8))
        )
        words = [
            said(
                some(),
                chance.choice(["", "9"]),
                chance.choice(list(Severity)),
                retracted=chance.random() < 0.2,
            )
            for _ in range(3)
        ]
        now = some()
        found = look(Stream("python:3.13", tuple(builds), moves, taken), history(said(some()), *words), now)
        times = [at for _, at in found.stages]
        assert times == sorted(times)
        assert times[-1] <= now
        assert found.movers <= found.takers
        assert found.due is None or (found.fix is not None and found.due > found.fix)
        assert not (found.measured and found.doubts)
        assert found.state is not State.ADOPTED or found.promoted is not None


def test_only_what_is_new_is_remembered() -> None:
    package, today = (OLD.release, OLD.package, OLD.version), "2026-06-01T00:00:00Z"
    first = said(NOW)
    (noted,) = news({}, [first], {package: first.database}, NOW)
    known = {OLD: learn(None, noted)}
    assert news(known, [first], {package: first.database}, NOW + DAY) == ()
    (fix,) = news(known, [said(NOW + DAY, "3.5.4-1")], {package: today}, NOW + DAY)
    assert learn(known[OLD], fix).fix == NOW + DAY
    (worse,) = news(known, [said(NOW + DAY, known_exploited=True)], {package: today}, NOW + DAY)
    assert learn(known[OLD], worse).rating == Rating(NOW + DAY, Severity.CRITICAL, True)
    (gone,) = news(known, [], {package: today}, NOW + DAY)
    assert gone.retracted
    assert news(known, [], {package: first.database}, NOW) == (), "the same database cannot retract"
    assert news(known, [], {}, NOW + DAY) == (), "the package is in no image any more"
    older = said(NOW - DAY, "3.5.4-1")
    assert news(known, [older], {package: older.database}, NOW) == (), "what an older database says"


def test_the_journal_gives_back_what_was_written_and_lives_with_torn_lines(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "clock")
    assert journal.read() == Memory()
    journal.append([])
    assert not journal.path.exists()
    words = [said(NOW), said(NOW + DAY, "3.5.4-1", known_exploited=True)]
    journal.append([image_line("sha256:1", "python:3.13", NOW), *map(said_line, words)])
    whole = journal.read()
    assert whole.images == {"sha256:1": NOW}
    assert whole.sightings == {OLD: history(*words)}
    with open(journal.path, "ab") as handle:
        handle.write(b'{"kind": "sa')  # a kill in the middle of a line
    journal.append([said_line(said(NOW + 2 * DAY, retracted=True))])
    after = journal.read()
    assert after.unreadable == 1
    assert after.sightings[OLD].retracted == NOW + 2 * DAY
    journal.path.write_bytes(b'[]\n{"kind": 7}\n{"kind": "said"}\n' + b"x" * 40_000 + b"\n\xff\n")
    assert journal.read().sightings == {}
    assert journal.read().unreadable >= 5
    blocked = Journal(journal.path)  # a file where the folder should be
    with pytest.raises(ToolError, match="cannot be"):
        blocked.append([image_line("sha256:1", "python:3.13", NOW)])


def test_a_line_that_is_long_is_read_back_and_not_written_again(tmp_path: Path) -> None:
    """Of other scripts' characters each takes twelve bytes in a line."""
    journal, package = Journal(tmp_path), OLD.where
    told = replace(said(NOW, "\U0001f600" * 300), spot=replace(OLD, version="1" * 300, package="p" * 300))
    journal.append([said_line(told)])
    memory = journal.read()
    assert (memory.unreadable, list(memory.sightings)) == (0, [told.spot])
    assert news(memory.sightings, [told], {package: told.database}, NOW) == ()


def mended(hours: Iterable[float], start: dt.datetime = NOW, exploited: bool = False) -> list[Mended]:
    return [
        Mended(
            "python:3.13",
            f"CVE-2026-{n}",
            "hello",
            Severity.HIGH,
            exploited,
            start,
            start,
            start,
            start + h * HOUR,
        )
        for n, h in enumerate(hours)
    ]


def test_percentiles_by_week_and_severity() -> None:
    assert [percentile([4.0, 1.0, 3.0, 2.0], share) for share in (0.5, 0.95, 1)] == [2, 4, 4]
    assert percentile([], 0.5) == 0
    monday = dt.datetime(2026, 3, 2, tzinfo=dt.UTC)
    found = [*mended(range(1, 21), monday), *mended([5], monday, True), *mended([7], monday + 7 * DAY)]
    rows = by_week(Clock(monday + 30 * DAY, (), tuple(found), {found[0].key: monday + 50 * HOUR}))
    assert [(r.week, r.severity, r.count, r.p50, r.p95) for r in rows] == [
        ("2026-03-09", "high", 1, 7, 7),
        ("2026-03-02", KNOWN_EXPLOITED, 1, 5, 5),
        ("2026-03-02", "high", 20, 10, 19),
    ]
    assert (rows[2].adopted, rows[2].adopted_p95) == (1, 50)


def test_what_ended_is_remembered_once_and_the_metrics_can_be_read() -> None:
    new = build("new", NOW + DAY + HOUR, current=True)
    moves = (Move(NOW - 8 * DAY, "old"), Move(NOW + DAY + 5 * HOUR, "new"))
    now = NOW + 2 * DAY
    done = look(Stream("python:3.13", (BEFORE, new), moves), FIXED, now)
    memory = Memory()
    for line in ended_lines(done, memory):
        memory.take(json.loads(json.dumps(line)))
    assert [m.promoted for m in memory.mended.values()] == [done.promoted]
    assert list(ended_lines(done, memory)) == []
    late = look(
        Stream("base:13", (BEFORE,)),
        history(said(NOW - 3 * DAY, "2", known_exploited=True)),
        now,
    )
    clock = Clock(now, order([done, late], now), tuple(memory.mended.values()), {}, 2)
    assert clock.remediations[0] is late
    read = {
        (s.name, *sorted(s.labels.values())): s.value
        for family in text_string_to_metric_families(exposition(clock).decode())
        for s in family.samples
    }
    assert read["goldsmith_clock_late", KNOWN_EXPLOITED] == 1
    assert read["goldsmith_clock_remediations", KNOWN_EXPLOITED, "running"] == 1
    assert read["goldsmith_clock_oldest_seconds", KNOWN_EXPLOITED] == 5 * 86400
    assert read["goldsmith_clock_fix_hours", "0.95", "critical", "promoted"] == 5
    assert read[("goldsmith_clock_unverified",)] == 2
    told = as_dict(clock, {}, OURS)
    assert (told["late"], told["last_30_days"][0]["p50_hours"]) == (1, 5)
    assert told["remediations"][0]["hint"] == "goldsmith run base:13"
