"""The plan: why each image is due, what comes first, and what is held back."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from builder.model.digest import Digest
from builder.model.evidence import Severity
from builder.model.history import History
from builder.model.image import BuiltImage
from builder.model.plan import Action, PlannedImage
from builder.model.rebuild import RebuildRequest
from builder.model.release import PublishedImage
from builder.model.verdict import RuleResult, Verdict
from builder.pipeline import reasons
from builder.pipeline.guard import Limits, Need, arrange, held_back
from builder.pipeline.plan import decide, survey
from builder.pipeline.release import Tools
from builder.pipeline.run import Runner
from builder.report import Silent
from builder.store import Store
from tests.support import fleet
from tests.support.images import built_image

NOW = dt.datetime(2026, 11, 22, 1, tzinfo=dt.UTC)
DAY = dt.timedelta(days=1)
FAMILY = {"base": None, "python": "base", "app": "python", "other": None}


class Builds:
    """A builder whose images exist, without anything in them."""

    names = ("direct",)

    def __init__(self, store: Store) -> None:
        self.store = store

    def reuse(self, prepared) -> BuiltImage | None:
        record = self.store.record("built", prepared.input_hash)
        return self._image(prepared) if record else None

    def build(self, prepared, parent, stages) -> BuiltImage:
        image = self._image(prepared)
        record = {"digest": image.digest, "engines": ["direct"]}
        self.store.remember("built", prepared.input_hash, record)
        return image

    def _image(self, prepared) -> BuiltImage:
        with self.store.scratch("image") as work:
            image = built_image(work / "x", files=[{"input": prepared.input_hash.encode()}])
            final = self.store.images / image.digest.hex
            if not final.exists():
                (work / "x").rename(final)
        return replace(image, layout=final, target=prepared.target, input_hash=prepared.input_hash)


class World:
    """A catalogue that is run with tools that approve, and planned."""

    def __init__(self, folder: Path) -> None:
        self.root = fleet.define(folder / "catalogue", FAMILY)
        self.store = Store(folder / "state").create()
        self.catalogue = fleet.lock(self.root)
        self.identity = {"policy": "p1", "database": "d1", "scanner": "s1", "goldsmith": "1"}
        self.requests: list[RebuildRequest] = []
        self.approve = True

    def run(self, now: dt.datetime = NOW) -> None:
        tools = Tools(
            check=lambda target, image: "checks",
            scan=lambda *_: ("report", "sboms"),
            lint=lambda context: "lint",
            judge=self._judge(now),
            provenance=lambda *_: {},
            sign=lambda image, *_: image,
            publish=lambda image: PublishedImage(f"r@{image.digest}", image.digest, (), 0),
            identity=self.identity,
        )
        runner = Runner(
            self.catalogue, self.store, Builds(self.store), tools, lambda image: True, now, Silent()
        )
        assert runner.run([])[1] == () or not self.approve

    def _judge(self, now: dt.datetime):
        def judge(image: BuiltImage, evidence: tuple) -> Verdict:
            rule = RuleResult("r", "rule", () if self.approve else ("no",), "mend it")
            return Verdict(
                image.digest,
                image.target.ref,
                self.approve,
                "p",
                Digest.of(b""),
                now,
                now + 7 * DAY,
                None,
                {},
                (rule,),
            )

        return judge

    def lock(self, **versions: str) -> None:
        self.catalogue = fleet.lock(self.root, {k.replace("_", "-"): v for k, v in versions.items()})

    def plan(self, now: dt.datetime = NOW, **more) -> dict[str, PlannedImage]:
        surveyed = survey(self.catalogue, self.store, self.identity, ["direct"], now, **more)
        return {i.ref: i for i in decide(surveyed, self.requests, Limits(), now)}

    def why(self, ref: str, **more) -> list[str]:
        return [str(r) for r in self.plan(**more)[ref].reasons]


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def request(ref: str, package: str, fixed: str = "2", **more: object) -> RebuildRequest:
    return replace(
        RebuildRequest(ref, Digest.of(b"x"), "CVE-2026-1", package, fixed, Severity.HIGH, NOW), **more
    )


def actions(plan: dict[str, PlannedImage]) -> dict[str, str]:
    return {ref: image.action.value for ref, image in plan.items()}


def test_what_was_never_built_is_new_and_after_a_run_nothing_is_due(world: World) -> None:
    assert set(actions(world.plan()).values()) == {"build"}
    assert world.why("base:1") == ["new: never built here"]
    world.run()
    assert set(actions(world.plan()).values()) == {"nothing"}


def test_a_changed_package_is_named_and_reaches_all_that_is_built_on_it(world: World) -> None:
    world.run()
    world.lock(python_1="1.1")
    assert world.why("python:1") == ["package: python-1 1 -> 1.1"]
    assert world.why("app:1") == ["base: the image below is another one"]
    assert actions(world.plan())["base:1"] == actions(world.plan())["other:1"] == "nothing"


def test_a_changed_definition_is_named_and_an_unlocked_one_blocks(world: World) -> None:
    world.run()
    path = world.root / "images" / "other" / "image.yaml"
    document = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump({**document, "title": "Another title"}))
    world.lock()
    assert world.why("other:1") == ["definition: image.yaml changed"]
    document["streams"]["1"]["packages"].append("more")
    path.write_text(yaml.safe_dump(document))
    world.catalogue = fleet.load_catalogue(world.root)
    assert actions(world.plan())["other:1"] == "blocked"
    assert "goldsmith lock other" in world.why("other:1")[0]
    assert actions(world.plan())["app:1"] == "nothing"


def test_a_changed_template_is_named_but_only_where_it_changes_what_is_built(world: World) -> None:
    world.run()
    path = world.root / "templates" / "debian-runtime.Dockerfile.j2"
    text = path.read_text()
    path.write_text("{# a remark #}" + text)
    assert set(actions(world.plan()).values()) == {"nothing"}
    path.write_text("# another first line\n" + text)
    assert "template: templates/debian-runtime.Dockerfile.j2" in world.why("base:1")


def test_another_version_of_our_own_steps_is_named(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.run()
    for module in ("prepare", "history"):
        monkeypatch.setattr(f"builder.pipeline.{module}.NORMALISE_VERSION", 99)
    assert [w.partition(" ")[0] + w[-2:] for w in world.why("base:1")] == ["tool:99"]


@pytest.mark.parametrize(
    ("part", "cause"),
    [("policy", "policy"), ("database", "database"), ("scanner", "tool"), ("goldsmith", "tool")],
)
def test_what_judges_asks_for_a_release_and_not_for_a_build(world: World, part: str, cause: str) -> None:
    world.run()
    world.identity = {**world.identity, part: "another"}
    assert set(actions(world.plan()).values()) == {"release"}
    assert [w.partition(":")[0] for w in world.why("base:1")] == [cause]


def test_a_verdict_that_is_half_spent_or_was_a_denial_is_due(world: World) -> None:
    world.run()
    assert world.why("base:1", now=NOW + 4 * DAY) == ["verdict: half of the verdict's time has passed"]
    world.identity, world.approve = {**world.identity, "policy": "p2"}, False
    world.run()
    assert actions(world.plan())["base:1"] == "release"
    assert "not approved" in world.why("base:1")[0]


def test_a_tag_that_leads_elsewhere_is_seen_when_the_registry_is_asked(world: World) -> None:
    world.run()
    plan = world.plan(in_place=lambda prepared, digest: prepared.target.ref != "base:1")
    assert actions(plan) == {
        "base:1": "release",
        "python:1": "nothing",
        "app:1": "nothing",
        "other:1": "nothing",
    }


def test_a_finished_image_that_is_gone_is_built_again(world: World) -> None:
    world.run()
    for folder in world.store.images.iterdir():
        folder.rename(folder.with_name("gone-" + folder.name))
    assert world.why("base:1")[0].startswith("lost:")


def test_a_request_of_a_rescan_is_named_and_blocked_until_the_lock_has_the_fix(world: World) -> None:
    world.run()
    world.requests = [request("app:1", "python-1")]
    found = world.plan()["app:1"]
    assert found.action is Action.BLOCKED
    assert str(found.reasons[0]) == "requested: CVE-2026-1 in python-1: fixed in 2, the lock has 1"
    assert found.since == NOW
    world.lock(python_1="2")
    assert world.why("app:1")[-1] == "requested: CVE-2026-1 in python-1: fixed in 2"
    world.run(NOW + DAY)
    assert actions(world.plan(NOW + DAY))["app:1"] == "nothing"


def test_a_request_for_an_image_that_is_gone_from_the_catalogue_is_said(world: World) -> None:
    world.requests = [request("gone:1", "x")]
    assert world.plan()["gone:1"].action is Action.BLOCKED


def test_known_exploited_comes_first_then_consumers_then_age_and_parents_before(world: World) -> None:
    world.run()
    names = [f"{n}-1" for n in FAMILY]
    world.lock(**{n.replace("-", "_"): "2" for n in names})
    assert next(iter(world.plan())) == "base:1"  # three are built on it, one on the other
    world.requests = [request("other:1", "other-1", known_exploited=True)]
    assert next(iter(world.plan())) == "other:1"
    world.requests += [request("app:1", "app-1", known_exploited=True)]
    order = list(world.plan())
    assert order == ["base:1", "python:1", "app:1", "other:1"]
    assert world.plan()["base:1"].exploited


def test_who_pulls_an_image_counts(world: World) -> None:
    needs = [Need(r, None, Action.BUILD) for r in ("a:1", "b:1", "c:1")]
    assert [n.ref for n in arrange(needs, {"b:1": 9, "c:1": 12})] == ["c:1", "b:1", "a:1"]


def needs(*items: tuple[str, str | None, History]) -> Sequence[Need]:
    hashed = Digest.of(b"input")
    return [Need(r, p, Action.BUILD, input_hash=hashed, history=h) for r, p, h in items]


def test_an_input_that_failed_again_and_again_is_held_with_its_children_until_it_changes() -> None:
    history = History("a:1")
    for hours in (1, 2, 3):
        history = history.failed(NOW - dt.timedelta(hours=hours), Digest.of(b"input"), "it differs")
    held = held_back(needs(("a:1", None, history), ("b:1", "a:1", History("b:1"))), Limits(), NOW)
    assert "failed 3 times in 7 days, at last: it differs" in held["a:1"]
    assert held["b:1"] == "its parent a:1 is held"
    assert held_back(needs(("a:1", None, history)), Limits(everything=True), NOW) == {}
    assert held_back(needs(("a:1", None, history)), Limits(), NOW + 8 * DAY) == {}
    other = [replace(n, input_hash=Digest.of(b"mended")) for n in needs(("a:1", None, history))]
    assert held_back(other, Limits(), NOW) == {}


def test_an_image_whose_digest_changes_again_and_again_is_held() -> None:
    history = History("a:1")
    for number in range(10):
        at = NOW - dt.timedelta(hours=20 - number)
        history = history.built(at, Digest.of(b"%d" % (number % 2)), Digest.of(b"i%d" % (number % 2)), {})
    assert "10 new digests" in held_back(needs(("a:1", None, history)), Limits(), NOW)["a:1"]
    assert held_back(needs(("a:1", None, history)), Limits(changes_max=11), NOW) == {}


def test_a_storm_is_cut_at_the_cap_the_most_urgent_first_and_over_runs_of_one_night() -> None:
    found = needs(*((f"i{n}:1", None, History(f"i{n}:1")) for n in range(5)))
    held = held_back(found, Limits(builds_max=3), NOW)
    assert set(held) == {"i3:1", "i4:1"}
    assert "storm" in held["i3:1"]
    done = History("i0:1").built(NOW - dt.timedelta(hours=2), Digest.of(b"x"), Digest.of(b"y"), {})
    found = [replace(found[0], action=Action.NOTHING, history=done), *found[1:]]
    assert set(held_back(found, Limits(builds_max=3), NOW)) == {"i3:1", "i4:1"}
    assert set(held_back(found, Limits(builds_max=3), NOW + DAY)) == {"i4:1"}


def test_many_changed_packages_are_shortened(world: World) -> None:
    old = {"linux/amd64": {f"p{n}": ["1", "x"] for n in range(30)}}
    found = list(reasons._packages(old, {"linux/amd64": {}}))
    assert len(found) == 6
    assert str(found[-1]) == "package: and 25 more"


def test_a_history_that_cannot_be_read_is_none(world: World) -> None:
    world.run()
    for path in (world.store.records / "history").iterdir():
        path.write_text('{"ref": "base:1", "attempts": 7}')
    world.lock(base_1="2")
    assert world.why("base:1") == ["new: never built here"]
