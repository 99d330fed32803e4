"""The second night of an image that was denied: nothing is looked for twice, and nothing old can approve."""

from __future__ import annotations

import datetime as dt
import json
from dataclasses import replace
from pathlib import Path

import pytest

from builder.errors import ToolError
from builder.model.digest import Digest
from builder.model.evidence import CheckReport, CheckResult, FurtherScan, Outcome, ScanReport
from builder.model.extension import ExtensionIdentity
from builder.model.image import BuiltImage, Descriptor, PlatformImage, Target
from builder.model.outcome import ImageState
from builder.model.verdict import Verdict
from builder.nightly import obstacles, since_when
from builder.oci.layout import read_blob
from builder.pipeline.denied import Means
from builder.pipeline.release import Tools
from builder.pipeline.run import Runner
from builder.report import Silent
from tests.support.evidence import evidence
from tests.support.images import AMD64
from tests.unit.test_pipeline_run import ARM64, NOW, World

TOMORROW = NOW + dt.timedelta(days=1)


class Nights(World):
    """A catalogue with one image that is denied, whose checks and scans are counted and stand in `did`."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(folder, monkeypatch)
        self.folder, self.did, self.denied = folder, [], {"other:1"}
        self.by = {"checks": {"goldsmith": "1"}, "scan": {"database": "one", "scanner": "s"}}
        self.scan = self.look
        self.outcome = Outcome.PASSED
        self.further: tuple[FurtherScan, ...] = ()
        self.judged: list[tuple] = []

    def tools(self) -> Tools:
        return replace(super().tools(), means=lambda: Means(**self.by))

    def look(self, target: Target, image: PlatformImage, work: Path) -> tuple:
        self.did.append(f"scan {target.ref}")
        found = evidence(image)
        assert isinstance(found.scan, ScanReport)
        return replace(found.scan, further=self.further), found.sboms

    def checks(self, image: PlatformImage) -> CheckReport:
        name = next(b.target.ref for b in self.builds.images.values() if image in b.platforms)
        self.did.append(f"check {name}")
        results = (CheckResult("a", "a", Outcome.PASSED), CheckResult("b", "b", self.outcome))
        return CheckReport(image.manifest.digest, image.platform, "docker", results)

    def _judge(self, image: BuiltImage, evidence: tuple) -> Verdict:
        self.judged.append(evidence)
        return super()._judge(image, evidence)

    def night(self, now: dt.datetime = NOW) -> list[str]:
        """A night over `other` alone; returns what was done of it."""
        self.did.clear()
        self.builds.built.clear()
        runner = Runner(
            self.catalogue, self.store, self.builds, self.tools(), lambda image: True, now, Silent()
        )
        (self.end,) = runner.run_all(["other"])
        blocked = since_when(obstacles([], [], [self.end], []), self.folder, now)
        self.blocked = [(b.what, b.by, b.since) for b in blocked]
        return [*(f"build {ref}" for ref in self.builds.built), *self.did]


@pytest.fixture
def nights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Nights:
    return Nights(tmp_path, monkeypatch)


ALL = ["build other:1", "scan other:1", "check other:1"]


def records(nights: Nights) -> list[Path]:
    return sorted((nights.store.records / "denied").iterdir())


def test_the_second_night_looks_at_nothing_and_is_as_loud_as_the_first(nights: Nights) -> None:
    assert sorted(nights.night()) == sorted(ALL)
    assert nights.night(TOMORROW) == []
    assert nights.end.state is ImageState.DENIED
    assert nights.end.outcome is not None and not nights.end.outcome.approved
    assert nights.blocked == [("other:1", "denied by the policy", NOW)]
    # The policy was asked anew, by the very same evidence.
    assert len(nights.judged) == 2 and nights.judged[0] == nights.judged[1]
    assert nights.published == []


def test_what_was_found_is_told_by_the_record_of_the_night_that_found_it(nights: Nights) -> None:
    nights.night()
    (kept,) = (nights.store.records / "evidence").iterdir()
    before = json.loads(kept.read_text())
    nights.night(TOMORROW)
    assert json.loads(kept.read_text()) == before  # nobody scanned tomorrow


@pytest.mark.parametrize(
    ("part", "name", "again"),
    [
        ("scan", "database", ["scan other:1"]),
        ("scan", "scanner", ["scan other:1"]),
        ("checks", "goldsmith", ["check other:1"]),
    ],
)
def test_what_follows_from_another_thing_is_looked_for_again(
    nights: Nights, part: str, name: str, again: list[str]
) -> None:
    nights.night()
    nights.by[part] = {**nights.by[part], name: "another"}
    assert nights.night(TOMORROW) == again
    assert nights.end.state is ImageState.DENIED
    assert nights.night(TOMORROW) == []


def test_another_image_is_looked_at_again(nights: Nights) -> None:
    nights.night()
    nights.builds.images.clear()
    nights.builds.flavour = b"new"
    assert sorted(nights.night(TOMORROW)) == sorted(ALL)


def test_what_is_allowed_now_is_looked_at_again_and_approved_without_a_build(nights: Nights) -> None:
    nights.night()
    assert nights.end.outcome is not None
    digest = nights.end.outcome.digest
    nights.denied.clear()  # a waiver covers it, say
    assert sorted(nights.night(TOMORROW)) == ["check other:1", "scan other:1"]
    assert (nights.end.state, nights.published) == (ImageState.UNCHANGED, ["other:1"])
    assert nights.sent["other:1"].digest == digest
    assert nights.blocked == []


def test_what_was_kept_never_approves_even_if_somebody_wrote_it(nights: Nights) -> None:
    nights.night()
    for record in records(nights):
        value = json.loads(record.read_text().replace('"CVE-2026-1"', '"CVE-2026-2"'))
        record.write_text(json.dumps({**value, "sum": Digest.of_json(value["value"])}))

    def judge(image: BuiltImage, proofs: tuple) -> Verdict:
        nights.denied = set() if proofs[0].scan.findings[0].id == "CVE-2026-2" else {"other:1"}
        return World._judge(nights, image, proofs)

    nights._judge = judge  # type: ignore[method-assign]
    assert sorted(nights.night(TOMORROW)) == ["check other:1", "scan other:1"]
    assert (nights.end.state, nights.published) == (ImageState.DENIED, [])


def test_of_another_night_only_the_part_that_was_not_found_in_this_one_is_looked_for(nights: Nights) -> None:
    """With a new database, the scan of tonight counts; the checks of yesterday never approve."""
    nights.night()
    nights.by["scan"] = {"database": "two", "scanner": "s"}
    nights.denied.clear()
    assert nights.night(TOMORROW) == ["scan other:1", "check other:1"]
    assert nights.published == ["other:1"]


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "of-another", "other-form", "deep"])
def test_what_is_damaged_is_made_anew(nights: Nights, damage: str) -> None:
    nights.night()
    for record in records(nights):
        text = record.read_text()
        value = json.loads(text)
        other = json.loads(
            text.replace(nights.builds.images["other:1"].platforms[0].manifest.digest.hex, "0" * 64)
        )
        record.write_text(
            {
                "cut": text[: len(text) // 2],
                "flipped": text.replace('"passed"', '"failed"', 1).replace("CVE-2026-1", "CVE-2026-9", 1),
                "empty": "",
                "of-another": json.dumps({**other, "of": value["of"], "sum": Digest.of_json(other["value"])}),
                "other-form": json.dumps({**value, "value": {}, "sum": Digest.of_json({})}),
                "deep": "[" * 100_000,
            }[damage]
        )
    assert sorted(nights.night(TOMORROW)) == ["check other:1", "scan other:1"]
    assert nights.end.state is ImageState.DENIED
    assert nights.night(TOMORROW) == []


def test_an_image_that_is_gone_is_built_again(nights: Nights) -> None:
    nights.night()
    nights.builds.images.clear()
    assert "build other:1" in nights.night(TOMORROW)


def test_an_image_whose_layers_are_damaged_is_built_again_the_next_time(nights: Nights) -> None:
    """Nobody read them while it was denied; what would approve it does."""
    nights.night()
    key = Digest.of(b"other:1")
    nights.store.remember("built", key, {"digest": "whatever"})
    assert nights.night(TOMORROW) == [] and nights.store.record("built", key) is not None

    def scan(*_: object) -> tuple:
        read_blob(nights.folder, Descriptor("", Digest.of(b"layer"), 5))
        raise AssertionError

    nights.denied.clear()
    nights.scan = scan
    nights.night(TOMORROW)
    assert (nights.end.state, nights.published) == (ImageState.FAILED, [])
    assert nights.store.record("built", key) is None


@pytest.mark.parametrize("outcome", [Outcome.FAILED, Outcome.NOT_RUN])
def test_a_check_that_did_not_pass_is_made_again_each_night(nights: Nights, outcome: Outcome) -> None:
    nights.outcome = outcome
    nights.night()
    assert nights.night(TOMORROW) == ["check other:1"]


def test_scanners_of_others_are_asked_each_night(nights: Nights) -> None:
    who = ExtensionIdentity("scanner", "acme", "acme-extension", "1.2", Digest.of(b""))
    nights.further = (FurtherScan(who, ()),)
    nights.night()
    assert nights.night(TOMORROW) == ["scan other:1"]


def test_a_platform_without_an_engine_is_tried_again_each_night(nights: Nights) -> None:
    nights.builds.platforms = (AMD64, ARM64)
    passed = nights.checks

    def checks(image: PlatformImage) -> CheckReport:
        nights.outcome = Outcome.NOT_RUN if image.platform == ARM64 else Outcome.PASSED
        return passed(image)

    nights.checks = checks  # type: ignore[method-assign]
    nights.night()
    assert nights.night(TOMORROW) == ["check other:1"]
    assert nights.end.outcome is not None and nights.end.outcome.left_out == ("linux/arm64",)


def test_without_room_for_what_is_kept_the_night_says_so(nights: Nights) -> None:
    (nights.store.records / "denied").write_text("no folder")
    nights.night()
    assert isinstance(nights.end.error, ToolError)
