"""The clock over a registry's interface: scans, rebuilds, promotions and pulls as they come; and the command."""

from __future__ import annotations

import datetime as dt
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from builder.cli import main as command_line
from builder.model.waiver import Waiver, WaiverEntry
from builder.policy.exploited import KnownExploited
from builder.rebuilds import waiting_rebuilds
from registry.clock.remediation import Remediation, State
from registry.clock.run import Clock, Rules, clock_of
from registry.index.rebuild import reindex
from registry.inventory.kept import Look
from registry.pulls import Pull
from tests.contract.test_promotion_commands import Town
from tests.support.evidence import World
from tests.support.indexes import binary
from tests.support.memory_client import MemoryClient
from tests.support.registry_simulator import simulator
from tests.support.rescans import Night

OLD, NEW = binary("libssl3t64", "3.5.1-1", "openssl"), binary("libssl3t64", "3.5.4-1", "openssl-mended")
BASH = binary("bash", "5.2.37-2")
FIXABLE = {"openssl": {"CVE-2026-0007": ("3.5.4-1", "CRITICAL")}}
UNFIXED = {"openssl": {"CVE-2026-0007": ("", "HIGH")}}
HOUR, DAY = dt.timedelta(hours=1), dt.timedelta(days=1)


class Observed(Night):
    """Nights with a clock."""

    def read(
        self, pulls: tuple[Pull, ...] = (), waiver: Waiver | None = None, looks: tuple[Look, ...] = ()
    ) -> Clock:
        if pulls:
            self.reindex(pulls)
        rules = Rules(
            self.house.policy, lambda ref: (waiver,) if waiver else (), waiting_rebuilds(self.store)
        )
        entries = self.house.ledger.entries()
        folder, now = self.folder / "clock", self.house.now
        return clock_of(self.place.require(), folder, entries, rules, now, looks=looks)

    def one(self, **options: object) -> Remediation:
        (found,) = self.read(**options).remediations  # type: ignore[arg-type]
        return found

    def reindex(self, pulls: tuple[Pull, ...] = (), *, afresh: bool = False) -> None:
        reindex(
            self.place,
            self.client.host,
            self.client,
            self.house.trust,
            self.house.now,
            journal=pulls,
            afresh=afresh,
        )

    def pull(self, who: str, here: World, at: dt.datetime) -> Pull:
        return Pull(at, who, "python", here.image.digest, "3.13", 1)

    @property
    def written(self) -> bytes:
        return (self.folder / "clock" / "journal.jsonl").read_bytes()


@pytest.fixture
def night(tmp_path: Path) -> Observed:
    return Observed(tmp_path, MemoryClient(True))


def test_from_an_advisory_to_everybody_who_pulls(night: Observed) -> None:
    old = night.image([OLD, BASH])
    night.promote(old)
    night.rescan()
    assert night.read().remediations == ()
    night.sleep()
    seen, night.scanner.advisories = night.house.now, UNFIXED
    night.rescan()
    found = night.one()
    assert (found.state, found.seen, found.fix, found.due) == (State.NO_FIX, seen, None, None)

    night.sleep()
    fix, night.scanner.advisories = night.house.now, FIXABLE
    night.rescan()
    found = night.one()
    assert (found.state, found.seen, found.fix, found.due) == (State.RUNNING, seen, fix, fix + DAY)
    written = night.written
    night.house.now += 30 * HOUR  # later, and nothing is new
    assert [r.late(night.house.now) for r in night.read().late] == [True]
    assert night.written == written

    built = night.house.now
    new = night.image([NEW, BASH])
    night.reindex()
    assert (night.one().rebuilt, night.one().promoted) == (built, None)
    night.house.now += HOUR
    night.promote(new)
    night.reindex()
    pulls = (
        night.pull("user:a", old, seen),
        night.pull("user:b", old, fix),
        night.pull("user:a", new, built + 2 * HOUR),
    )
    night.house.now += 5 * HOUR
    found = night.one(pulls=pulls)
    assert (found.state, found.promoted, found.movers, found.takers) == (
        State.PROMOTED,
        built + HOUR,
        1,
        2,
    )
    clock = night.read((*pulls, night.pull("user:b", new, built + 3 * HOUR)))
    (found,) = clock.remediations
    assert found.stages == (
        ("seen", seen),
        ("fix", fix),
        ("rebuilt", built),
        ("promoted", built + HOUR),
        ("adopted", built + 3 * HOUR),
    )
    (mended,) = clock.mended
    assert (mended.fix, mended.promoted) == (fix, built + HOUR)
    written = night.written
    assert night.read().mended == clock.mended
    assert night.written == written


def test_what_runs_counts_as_adopted_when_nothing_runs_on_the_old_image_any_more(night: Observed) -> None:
    old = night.image([OLD])
    night.promote(old)
    night.sleep()
    start, night.scanner.advisories = night.house.now, FIXABLE
    night.rescan()
    night.read()
    night.house.now += HOUR
    new = night.image([NEW])
    night.promote(new)
    night.reindex()
    night.house.now += 9 * HOUR
    platform = str(old.image.platforms[0].manifest.digest)  # what an engine names

    def seen(hours: int, place: str, *digests: str) -> Look:
        return Look(place, start + hours * HOUR, frozenset(map(str, digests)))

    both = (seen(2, "shop", platform), seen(3, "lab", old.image.digest), seen(3, "edge", new.image.digest))
    found = night.one(looks=both)
    assert (found.state, found.movers, found.takers) == (State.PROMOTED, 0, 2)
    half = (*both, seen(4, "shop", platform, new.image.digest), seen(5, "lab"))
    found = night.one(looks=half)
    assert (found.state, found.movers, found.takers) == (State.PROMOTED, 1, 2)
    found = night.one(looks=(*half, seen(7, "shop", new.image.digest)))
    assert (found.state, found.adopted) == (State.ADOPTED, start + 7 * HOUR)


def test_an_index_made_anew_forgets_no_finding_and_retracts_none(night: Observed) -> None:
    night.promote(night.image([OLD]))
    night.sleep()
    night.scanner.advisories = FIXABLE
    night.rescan()
    before = night.one()
    night.house.now += HOUR
    night.reindex(afresh=True)  # what the verdicts say: they were not renewed, and name no finding
    assert night.one() == before


def test_a_lost_journal_begins_with_what_is_attested(night: Observed) -> None:
    night.promote(night.image([OLD]))
    night.sleep()
    seen, night.scanner.advisories = night.house.now, FIXABLE
    night.rescan()
    night.read()
    night.house.now += 5 * DAY
    (night.folder / "clock" / "journal.jsonl").unlink()
    found = night.one()  # the request for the rebuild is as old as the scan
    assert (found.seen, found.fix, found.late(night.house.now)) == (seen, seen, True)


def test_an_advisory_that_is_taken_back_closes_the_clock(night: Observed) -> None:
    night.promote(night.image([OLD]))
    night.sleep()
    night.scanner.advisories = FIXABLE
    night.rescan()
    night.read()
    night.sleep()
    night.scanner.advisories = {}
    night.rescan()
    found = night.one()
    assert (found.state, found.retracted) == (State.RETRACTED, night.house.now)
    night.sleep(40)
    night.rescan()
    assert night.read().remediations == ()


def test_a_waiver_pauses_and_known_exploitation_ends_it(night: Observed) -> None:
    night.promote(night.image([OLD]))
    night.sleep()
    night.scanner.advisories = UNFIXED
    night.rescan()
    today = night.house.now.date()
    entry = WaiverEntry.model_validate_json(
        json.dumps(
            {
                "vulnerability": "CVE-2026-0007",
                "packages": ["libssl3t64"],
                "justification": "vulnerable_code_not_in_execute_path",
                "statement": "Nothing of ours opens such a connection.",
                "owner": "team-a",
                "approver": "team-b",
                "approved": today.isoformat(),
                "expires": (today + 9 * DAY).isoformat(),
            }
        )
    )
    waiver = Waiver("python", entry, inherited=False)
    found = night.one(waiver=waiver)
    assert (found.state, found.waived_until) == (State.WAIVED, waiver.ends_at)
    inherited = replace(waiver, inherited=True)  # no verdict used it
    assert night.one(waiver=inherited).state is State.NO_FIX
    exploited = KnownExploited(frozenset({"CVE-2026-0007"}), night.house.now, night.house.policy.digest)
    night.house.policy = replace(night.house.policy, exploited=exploited)
    found = night.one(waiver=waiver)
    assert (found.state, found.known_exploited) == (State.NO_FIX, True)


def test_a_clock_that_was_set_back_is_a_doubt_and_no_negative_time(night: Observed) -> None:
    night.promote(night.image([OLD]))
    night.sleep()
    night.scanner.advisories = FIXABLE
    night.rescan()
    night.read()
    night.house.now -= 12 * HOUR
    found = night.one()
    assert found.doubts == ("seen lies in the future", "fix lies in the future")
    assert {at for _, at in found.stages} == {night.house.now}


@pytest.fixture
def town(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Town]:
    with simulator() as sim:
        town = Town(tmp_path, sim)
        monkeypatch.chdir(town.catalogue)
        for name, value in {
            "GOLDSMITH_STATE": str(town.state),
            "GOLDSMITH_REGISTRY": sim.address,
            "GOLDSMITH_POLICY": "here",
        }.items():
            monkeypatch.setenv(name, value)
        yield town


def test_the_command_tells_what_is_late_and_writes_the_metrics(
    town: Town, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def told(*arguments: str, code: int = 0) -> str:
        assert command_line.run(list(arguments)) == code, capsys.readouterr()
        return "".join(capsys.readouterr())

    assert "no-index" in told("clock", "--json", code=5)
    town.house.now -= 3 * DAY
    town.house.candidate()
    told("reindex")
    metrics = tmp_path / "clock.prom"
    answer = json.loads(told("clock", "--metrics", str(metrics), "--json"))
    assert answer["late"] == 0
    (found,) = answer["remediations"]
    assert (found["ref"], found["state"], found["late"]) == ("python:3.13", "no fix", False)
    assert 'goldsmith_clock_late{severity="critical"} 0.0' in metrics.read_text()
    assert (town.state / "metrics" / "clock.prom").read_bytes() == metrics.read_bytes()

    journal = town.state / "clock" / "journal.jsonl"
    line = json.loads(journal.read_text().splitlines()[-1])
    line |= {"fixed_version": "9", "severity": "CRITICAL", "database": "2999-01-01T00:00:00Z"}
    with open(journal, "a") as handle:
        handle.write(json.dumps(line) + "\n")
    late = told("clock", "python", "--late", code=4)
    assert re.search("is 4[78] h late: blocked by no image without it was built", late)
    assert "what to do: goldsmith run python:3.13" in late
    report = town.state / "nightly" / "report.json"
    report.parent.mkdir()
    blocked = {
        "what": "python:3.13",
        "by": "the lock is old",
        "hint": "goldsmith lock",
        "since": "2026-01-01",
    }
    report.write_text(json.dumps({"blocked": [blocked]}))
    assert "blocked by the lock is old" in told("clock", "python:3.13", code=4)
    assert json.loads(told("clock", "base", "--json"))["remediations"] == []
    assert "there is no image" in told("clock", "nothing", code=2)
    report.write_text('{"blocked": [7]}')
    assert "cannot be read" in told("clock", code=5)
