"""A night that is killed anywhere: the next one goes on from there, and ends in the same state.

The steps are the real ones over a registry in memory; only building and scanning are short.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from builder.model.channel import Channel
from builder.nightly import Step, StepEnd, go_through
from builder.rebuilds import waiting_rebuilds
from builder.report import Silent
from builder.stages.publish import find_published, publish
from registry.audit.ledger import Ledger
from registry.notify import events
from registry.notify.outbox import Outbox
from registry.notify.rules import NotifyFile
from registry.promotion.promote import promote
from registry.promotion.records import read_record
from registry.promotion.replacing import deprecate_replaced
from tests.support.evidence import World
from tests.support.indexes import binary
from tests.support.memory_client import MemoryClient
from tests.support.rescans import Night

REF = "python:3.13"
OLD = binary("libssl3t64", "3.5.1-1", "openssl")
NEW = binary("libssl3t64", "3.5.4-1", "openssl-fixed")
FIXABLE = {"openssl": {"CVE-2026-0007": ("3.5.4-1", "HIGH")}}
STEPS = ("run", "rescan", "promote", "deprecate", "notify")
RULES = NotifyFile.model_validate_json(
    '{"schema": 1, "rules": [{"events": ["promoted", "deprecated", "rebuilt"], "to": ["team"]}],'
    ' "pullers": {"*": ["web"]}}'
)


class Killed(BaseException):
    """What `kill -9` is to the code."""


@dataclass
class Killer:
    """Counts what a step writes, by step, and kills before a write of one."""

    step: str = ""
    at: tuple[str, int] = ("", 0)
    written: dict[str, int] = field(default_factory=dict)

    def write(self, what: str = "") -> None:
        if self.at == (self.step, self.written.get(self.step, 0)):
            raise Killed
        self.written[self.step] = self.written.get(self.step, 0) + 1


@dataclass
class Place:
    """An old image that is served, a fix, and the nights; `sent` is what people got."""

    folder: Path
    night: Night
    old: World
    new: World
    killer: Killer
    sent: list[tuple[str, str]] = field(default_factory=list)

    def go(self, at: tuple[str, int] = ("", 0)) -> tuple[dict[str, StepEnd], str]:
        """One night, killed before the write `at`."""
        self.killer.at, self.killer.written = at, {}
        acts: dict[str, Callable[[], object]] = {
            "run": self.run,
            "rescan": self.night.rescan,
            "promote": self.promote,
            "deprecate": self.deprecate,
            "notify": self.notify,
        }
        steps = [Step(name, self.watched(name, acts[name])) for name in STEPS]
        ends, cut = go_through(steps, self.folder / "nightly", Silent())
        return {e.name: e for e in ends}, cut

    def watched(self, name: str, act: Callable[[], object]) -> Callable[[], str]:
        def watching() -> str:
            self.killer.step = name
            act()
            return ""

        return watching

    def run(self) -> None:
        image = self.new.image
        if find_published(self.night.client, image.target, image.immutable_tag) != image.digest:
            publish(self.new.signed(), self.night.client)

    def promote(self) -> None:
        where = self.night.client.reference("candidate/python", digest=self.new.image.digest)
        promote(self.night.house.office(), where, self.new.image.target, "it passed")

    def deprecate(self) -> None:
        deprecate_replaced(self.night.house.office(), self.folder / "notes", "newer")

    def notify(self) -> None:
        outbox = Outbox(self.folder / "outbox.db", self.night.house.now)
        outbox.collect(self.night.house.ledger.entries(), RULES, lambda name: "", lambda digest: ["ann"])
        rebuilt = events.of_rebuild(REF, self.new.image.digest, "")
        outbox.add(rebuilt, RULES, "")
        self.night.house.now = self.night.house.now.replace(minute=self.night.house.now.minute + 5)
        later = Outbox(self.folder / "outbox.db", self.night.house.now)
        later.deliver(self.send)

    def send(self, target: str, title: str, body: str) -> str:
        self.killer.write()
        self.sent.append((target, title))
        self.killer.write()
        return ""

    def state(self) -> dict[str, Any]:
        """All that a night changes, as others see it."""
        client, house = self.night.client, self.night.house
        channels = {}
        for here in (self.old, self.new):
            where = client.reference("python", digest=here.image.digest)
            record = read_record(client, where, here.image.digest, house.trust)
            channels[here.image.digest] = record.channel if record else None
        outbox = Outbox(self.folder / "outbox.db", house.now)
        return {
            "tags": {k: v for k, v in client.inner.tags.items() if not k[1].startswith("sha256-")},
            "channels": channels,
            "ledger": [(e.fact.what, e.fact.digest, dict(e.fact.after)) for e in house.ledger.entries()],
            "asked": [(r.ref, r.vulnerability) for r in waiting_rebuilds(self.night.store)],
            "messages": sorted((m.event, m.target, m.state) for m in outbox.list()),
            "told": set(self.sent),
        }


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Night, World, World]:
    """The world before the night: made once."""
    night = Night(tmp_path_factory.mktemp("made"), MemoryClient())
    old = night.image([OLD])
    night.promote(old)
    night.image([binary("bash", "5.2.37-2")], name="base")  # what only needs a verdict of today
    night.rescan()
    night.scanner.advisories = FIXABLE
    night.sleep()
    tags, manifests, blobs = (dict(x) for x in _content(night.client))
    new = night.image([NEW])
    inner = night.client.inner
    inner.tags, inner.manifests, inner.blobs = tags, manifests, blobs
    return night, old, new


def _content(client: MemoryClient) -> tuple[dict[Any, Any], ...]:
    return client.inner.tags, client.inner.manifests, client.inner.blobs


@pytest.fixture
def place(tmp_path: Path, made: tuple[Night, World, World], monkeypatch: pytest.MonkeyPatch) -> Place:
    """The same, to be spoilt by one test."""
    origin, old, new = made
    folder = tmp_path / "here"
    shutil.copytree(origin.folder, folder)
    shutil.rmtree(folder / "work")
    client = MemoryClient()
    inner = client.inner
    inner.tags, inner.manifests, inner.blobs = (dict(x) for x in _content(origin.client))
    night = Night(folder, client, origin.scanner, dict(origin.targets), origin.made)
    night.house.now = origin.house.now
    killer = Killer()
    client.before_write = killer.write
    append = Ledger.append

    def appended(self: Ledger, *arguments: Any, **options: Any) -> Any:
        killer.write()
        entry = append(self, *arguments, **options)
        killer.write()
        return entry

    monkeypatch.setattr(Ledger, "append", appended)
    found = Place(tmp_path, night, old, new, killer)
    Outbox(tmp_path / "outbox.db", night.house.now).begin(night.house.ledger.entries())
    (tmp_path / "nightly").mkdir()
    return found


@pytest.fixture(scope="module")
def uncut(made: tuple[Night, World, World], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The state after a night that nobody killed, and how much each of its steps wrote."""
    with pytest.MonkeyPatch.context() as patch:
        here = place.__wrapped__(tmp_path_factory.mktemp("uncut"), made, patch)  # type: ignore[attr-defined]
        ends, cut = here.go()
        assert cut == "" and {e.state for e in ends.values()} == {"done"}
        written = dict(here.killer.written)
        here.go()  # it finds that what it had asked for is there
        return {**here.state(), "written": written}


def test_the_night_does_what_it_should(uncut: dict[str, Any], made: tuple[Night, World, World]) -> None:
    _, old, new = made
    digests = {old.image.digest: Channel.DEPRECATED, new.image.digest: Channel.STABLE}
    assert uncut["channels"] == digests
    assert {state for _, _, state in uncut["messages"]} == {"sent"}
    assert uncut["told"] >= {("team", f"{REF} was {what}") for what in ("promoted", "deprecated", "rebuilt")}
    assert ("web", f"{REF} was deprecated") in uncut["told"]
    assert set(uncut["written"]) == set(STEPS)


@pytest.mark.parametrize(
    ("step", "share"),
    [
        ("run", 0.5),
        ("rescan", 0.5),
        ("promote", 0.3),
        ("promote", 0.6),
        ("promote", 1),
        ("deprecate", 0.2),
        ("deprecate", 0.7),
        ("notify", 0.3),
        ("notify", 0.4),
    ],
)
def test_killed_in_a_step_the_next_night_ends_in_the_same_state(
    place: Place, uncut: dict[str, Any], step: str, share: float
) -> None:
    with pytest.raises(Killed):
        place.go((step, int((uncut["written"][step] - 1) * share)))
    assert (place.folder / "nightly" / "step").read_text() == step
    ends, cut = place.go()
    assert cut == step
    assert {e.state for e in ends.values()} == {"done"}
    sent = len(place.sent)
    assert sent - len(set(place.sent)) <= 1  # killed between sending and noting: that one once more
    before = place.night.client.writes
    assert place.go()[1] == ""
    assert (place.night.client.writes, len(place.sent)) == (before, sent)
    assert place.state() == {k: v for k, v in uncut.items() if k != "written"}
