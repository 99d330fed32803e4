"""A run of several images: what is reused, what a failure stops, and what is never published."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from builder.errors import GoldsmithError, LockError, NotReproducible, PolicyDenied, RegistryError, ToolError
from builder.model.catalogue import Catalogue
from builder.model.digest import Digest
from builder.model.evidence import CheckReport, CheckResult, Outcome
from builder.model.image import BuiltImage, PlatformImage, Target
from builder.model.platform import Platform
from builder.model.release import PublishedImage
from builder.model.verdict import RuleResult, Verdict
from builder.oci.layout import read_manifest
from builder.pipeline import run as running
from builder.pipeline.history import history_of
from builder.pipeline.release import Tools
from builder.pipeline.run import Runner
from builder.report import Silent
from builder.stages.define import load_catalogue
from builder.store import Store
from tests.support.catalogue import image, write
from tests.support.images import AMD64, built_image

ARM64 = Platform("linux", "arm64")
NOW = dt.datetime(2026, 11, 22, 12, tzinfo=dt.UTC)


class Builds:
    """A builder that counts, and fails where it is told to."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.built, self.broken = folder, [], set()
        self.images: dict[str, BuiltImage] = {}
        self.names = ("direct",)
        self.flavour = b""
        self.platforms = (AMD64,)

    def reuse(self, prepared) -> BuiltImage | None:
        return self.images.get(prepared.target.ref)

    def build(self, prepared, parent, stages) -> BuiltImage:
        ref = prepared.target.ref
        if ref in self.broken:
            raise NotReproducible(f"{ref} differs")
        self.built.append(ref)
        name = prepared.target.definition.name
        image = built_image(
            self.folder / f"{name}{len(self.built)}",
            name,
            files=[{"etc/name": name.encode() + self.flavour}],
            platforms=self.platforms,
        )
        self.images[ref] = replace(image, target=prepared.target)
        return self.images[ref]


class World:
    """A catalogue of three (base, its child python, and other), with tools that obey the test."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.store = Store(folder / "state").create()
        documents = (image("base"), image("python", **{"from": "base"}), image("other"))
        self.catalogue: Catalogue = load_catalogue(write(folder / "catalogue", *documents))
        self.builds = Builds(folder)
        self.published: list[str] = []
        self.sent: dict[str, BuiltImage] = {}
        self.parents: dict[str, Digest | None] = {}
        self.denied: set[str] = set()
        self.scan: Callable[[Target, PlatformImage, Path], tuple] = lambda *_: ("report", "sboms")
        self.identity = {"database": "one"}
        self.outcomes: dict[str, Outcome] = {}
        self.in_registry = True
        self.rescanned: frozenset[str] = frozenset()
        self.reporter = _Told()
        monkeypatch.setattr(running, "prepare", lambda c, target, known=None, locks=None: _Prepared(target))

    def tools(self) -> Tools:
        return Tools(
            check=lambda target, image: self.checks(image),
            scan=self.scan,
            lint=lambda context: "lint",
            judge=self._judge,
            provenance=self._provenance,
            sign=lambda image, evidence, verdict, provenance: (image, verdict),
            publish=self._publish,
            identity=self.identity,
        )

    def run(self, *refs: str, now: dt.datetime = NOW):
        tools = self.tools()
        runner = Runner(
            self.catalogue,
            self.store,
            self.builds,
            tools,
            lambda image: self.in_registry,
            now,
            Silent(),
            rescanned=self.rescanned,
        )
        outcomes, failures = runner.run(refs)
        return {o.ref: o for o in outcomes}, {f.ref: f.error for f in failures}

    def checks(self, image: PlatformImage) -> CheckReport:
        outcome = self.outcomes.get(image.platform.architecture, Outcome.PASSED)
        results = (CheckResult("a", "a", Outcome.PASSED), CheckResult("b", "b", outcome))
        return CheckReport(image.manifest.digest, image.platform, "docker", results)

    def _judge(self, image: BuiltImage, evidence: tuple) -> Verdict:
        bad = image.target.ref in self.denied
        rule = RuleResult("r", "rule", ("no",) if bad else (), "mend it")
        days = dt.timedelta(days=7)
        return Verdict(
            image.digest, image.target.ref, not bad, "p", Digest.of(b""), NOW, NOW + days, None, {}, (rule,)
        )

    def _provenance(self, prepared, image: BuiltImage, parent: BuiltImage | None) -> dict:
        self.parents[image.target.ref] = parent.digest if parent else None
        return {}

    def _publish(self, signed) -> PublishedImage:
        image = signed[0]
        self.sent[image.target.ref] = image
        self.published.append(image.target.ref)
        return PublishedImage(f"r/{image.target.ref}@{image.digest}", image.digest, (), 0)


class _Told(Silent):
    """Keeps the lines for people."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, text: str) -> None:
        self.lines.append(text)


class _Prepared:
    def __init__(self, target: Target) -> None:
        self.target = target
        self.contexts = _Anything()
        self.input_hash, self.parent = Digest.of(target.ref.encode()), None


class _Anything(dict):
    def __missing__(self, key: object) -> str:
        return "context"


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(tmp_path, monkeypatch)


def test_parents_are_built_and_published_before_their_children(world: World) -> None:
    outcomes, failures = world.run()
    assert failures == {}
    assert world.builds.built.index("base:1") < world.builds.built.index("python:1")
    assert world.published.index("base:1") < world.published.index("python:1")
    assert {o.outcome for o in outcomes.values()} == {"built"}


def test_what_did_not_change_is_neither_built_nor_judged_nor_published_again(world: World) -> None:
    world.run()
    world.builds.built.clear()
    world.published.clear()
    outcomes, _ = world.run()
    assert {o.outcome for o in outcomes.values()} == {"unchanged"}
    assert (world.builds.built, world.published) == ([], [])


@pytest.mark.parametrize("change", ["database", "registry", "half-time", "damaged-record"])
def test_a_verdict_is_given_again_when(world: World, change: str) -> None:
    world.run()
    world.published.clear()
    now = NOW
    if change == "database":
        world.identity = {"database": "two"}
    elif change == "damaged-record":
        for record in (world.store.records / "released").iterdir():
            record.write_text('{"approved": true}')
    elif change == "registry":
        world.in_registry = False
    else:
        now = NOW + dt.timedelta(days=4)
    outcomes, _ = world.run(now=now)
    assert sorted(world.published) == ["base:1", "other:1", "python:1"]
    assert {o.outcome for o in outcomes.values()} == {"unchanged"}


@pytest.mark.parametrize("change", ["database", "half-time", "denied", "registry", "another-image"])
def test_of_what_is_rescanned_a_new_database_asks_for_no_release(world: World, change: str) -> None:
    world.denied = {"other:1"} if change == "denied" else set()
    world.run()
    world.published.clear()
    world.denied.clear()
    world.rescanned = frozenset({"base:1", "other:1"})
    now = NOW
    if change == "half-time":
        now += dt.timedelta(days=4)
    else:
        world.identity = {"database": "two"}
    if change == "registry":
        world.in_registry = False
    if change == "another-image":
        world.builds.images.clear()
        world.builds.flavour = b"new"
    world.run(now=now)
    released = {
        "registry": {"base:1", "other:1"},
        "denied": {"other:1"},
        "another-image": {"base:1", "other:1"},
    }
    assert set(world.published) == {"python:1"} | released.get(change, set())


def test_a_denied_parent_keeps_its_children_back(world: World) -> None:
    world.denied = {"base:1"}
    outcomes, failures = world.run()
    assert world.published == ["other:1"]
    assert not outcomes["base:1"].approved
    assert isinstance(failures["python:1"], PolicyDenied)


def test_a_build_that_fails_stops_only_its_descendants(world: World) -> None:
    world.builds.broken = {"base:1"}
    outcomes, failures = world.run()
    assert set(outcomes) == {"other:1"}
    assert isinstance(failures["base:1"], NotReproducible)
    assert "base:1" in failures["python:1"].context


@pytest.mark.parametrize("error", [ToolError("trivy hangs"), RegistryError("away")])
def test_a_scan_that_fails_means_no_verdict_and_nothing_published(
    world: World, error: GoldsmithError
) -> None:
    def scan(target: Target, image: PlatformImage, work: Path) -> tuple:
        if target.ref == "base:1":
            raise error
        return "report", "sboms"

    world.scan = scan
    outcomes, failures = world.run()
    assert failures["base:1"] is error
    assert "python:1" not in outcomes
    assert world.published == ["other:1"]
    world.scan = lambda *_: ("report", "sboms")
    _, failures = world.run()
    assert failures == {}
    assert set(world.published) == {"base:1", "other:1", "python:1"}


def test_naming_an_image_takes_its_parents_along_and_nothing_else(world: World) -> None:
    outcomes, _ = world.run("python")
    assert set(outcomes) == {"base:1", "python:1"}


def ends(world: World, held: dict[str, str] | None = None) -> dict[str, str]:
    tools = world.tools()
    runner = Runner(
        world.catalogue, world.store, world.builds, tools, lambda image: True, NOW, world.reporter
    )
    return {e.ref: str(e) for e in runner.run_all([], held)}


def test_every_image_ends_in_a_named_state(world: World) -> None:
    assert set(ends(world).values()) == {"base:1 built", "other:1 built", "python:1 built"}
    assert set(ends(world).values()) == {"base:1 unchanged", "other:1 unchanged", "python:1 unchanged"}
    world.builds.images.clear()
    world.builds.broken = {"base:1"}
    assert ends(world)["base:1"] == "base:1 failed"
    assert ends(world)["python:1"] == "python:1 skipped because of base:1"


def test_a_denial_and_what_hangs_on_it_are_named(world: World) -> None:
    world.denied = {"base:1"}
    found = ends(world)
    assert found["base:1"] == "base:1 denied"
    assert found["python:1"].startswith("python:1 skipped because of its parent base:1 was denied")


def test_what_is_held_is_not_tried_and_neither_is_what_is_built_on_it(world: World) -> None:
    found = ends(world, {"base:1": "storm"})
    assert found["base:1"] == "base:1 held because of storm"
    assert found["python:1"] == "python:1 held because of base:1, which is held"
    assert world.builds.built == ["other:1"]


def test_an_image_that_cannot_be_prepared_stops_only_its_descendants(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def prepare(catalogue, target: Target, known=None, locks=None) -> _Prepared:
        if target.ref == "base:1":
            raise LockError("stale")
        return _Prepared(target)

    monkeypatch.setattr(running, "prepare", prepare)
    found = ends(world)
    assert (found["base:1"], found["other:1"]) == ("base:1 failed", "other:1 built")
    assert found["python:1"] == "python:1 skipped because of base:1"


def test_progress_is_told_line_by_line(world: World) -> None:
    ends(world)
    lines = world.reporter.lines
    assert len(lines) == 3
    assert "[1/3] base:1 built; 2 to go, about 0 s" in lines[0] or "other:1" in lines[0]
    assert lines[-1].startswith("  [3/3]")
    assert "to go" not in lines[-1]


def test_an_input_that_failed_is_remembered_and_passing_troubles_are_not(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.builds.broken = {"base:1"}
    ends(world)
    monkeypatch.setattr(world.builds, "build", _raise(ToolError("full", reference="disk-full")))
    ends(world)
    attempts = history_of(world.store, "base:1").attempts
    assert [(a.digest, a.error) for a in attempts] == [(None, "base:1 differs")]


def _raise(error: GoldsmithError) -> Callable[..., BuiltImage]:
    def build(*_: object) -> BuiltImage:
        raise error

    return build


def platforms_in(world: World, ref: str) -> list[str]:
    """The platforms of the index that was published last."""
    image = world.sent[ref]
    found = read_manifest(image.layout, image.index).manifests
    return [str(m.platform) for m in found]


def test_a_platform_that_cannot_be_checked_here_is_left_out_and_said(world: World) -> None:
    world.builds.platforms = (AMD64, ARM64)
    world.outcomes = {"arm64": Outcome.NOT_RUN}
    outcomes, _ = world.run()
    assert {o.left_out for o in outcomes.values()} == {("linux/arm64",)}
    assert all(o.approved for o in outcomes.values())
    assert platforms_in(world, "python:1") == ["linux/amd64"]
    # The child names the parent that was published, not the one that was built.
    assert world.parents["python:1"] == world.sent["base:1"].digest
    world.published.clear()
    again, _ = world.run()
    assert world.published == []
    assert {(o.outcome, o.left_out) for o in again.values()} == {("unchanged", ("linux/arm64",))}
    reduced = world.sent["base:1"]
    # Somebody can run the programs of arm64 now: all platforms, under another immutable tag.
    world.outcomes, world.identity = {}, {"database": "one", "runs": "both"}
    outcomes, _ = world.run()
    assert {o.left_out for o in outcomes.values()} == {()}
    assert platforms_in(world, "base:1") == ["linux/amd64", "linux/arm64"]
    assert world.sent["base:1"].immutable_tag != reduced.immutable_tag


@pytest.mark.parametrize(
    "found",
    [
        {"arm64": Outcome.FAILED},
        {"arm64": Outcome.NOT_RUN, "amd64": Outcome.NOT_RUN},
    ],
    ids=["failed", "no engine at all"],
)
def test_a_failure_is_no_reason_to_leave_a_platform_out(world: World, found: dict[str, Outcome]) -> None:
    world.builds.platforms = (AMD64, ARM64)
    world.outcomes = found
    outcomes, _ = world.run()
    assert {o.left_out for o in outcomes.values()} == {()}
    assert platforms_in(world, "python:1") == ["linux/amd64", "linux/arm64"]
