"""`kill -9` at every step of an import, and of the release and promotion that follow it."""

from __future__ import annotations

import os
import shutil
import signal
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from builder.errors import RegistryError
from builder.model.channel import Channel
from builder.model.digest import Digest
from builder.oci.client import RegistryClient
from builder.signing.refusal import EvidenceRefused
from builder.signing.verification import Verification
from builder.signing.verify import verify
from registry.audit.ledger import Ledger
from registry.gate.admission import admit
from registry.gate.decision import Approved
from registry.promotion.promote import promote
from tests.support import registry_simulator as reg
from tests.support.importing import ImportHouse
from tests.support.registry_simulator import Content, Simulator, simulator

QUARANTINE, HOME = "quarantine/upstream", "upstream"
SECONDS = 60


class Place:
    """One registry and one office; what was there before can be had again."""

    def __init__(self, folder: Path, sim: Simulator) -> None:
        self.sim, self.folder = sim, folder
        self.house = ImportHouse(folder, RegistryClient(sim.address))
        self.source = self.house.layout()
        self.kept: tuple[Content, Path] = (sim.content(), folder / "no-ledger")

    def keep(self) -> None:
        """From now on `restore` leads to the state of this moment."""
        kept = self.folder / "kept-ledger"
        shutil.copytree(self.house.ledger.path.parent, kept)
        self.kept = (self.sim.content(), kept)

    def restore(self) -> None:
        content, ledger = self.kept
        self.sim.restore(content)
        self.sim.faults.clear()
        self.sim.requests.clear()
        shutil.rmtree(self.folder / "ledger", ignore_errors=True)
        if ledger.exists():
            shutil.copytree(ledger, self.folder / "ledger")

    def writes(self, act: Callable[[ImportHouse], object]) -> int:
        """How many writes it takes when nothing happens."""
        self.restore()
        act(self.house)
        return self.sim.count("PUT|POST")

    def killed(self, act: Callable[[ImportHouse], object], moment: int | str) -> None:
        """Do it in a process that is killed when the n-th write was served, or around its ledger entry."""
        self.restore()
        writes, children = iter(range(1, 10_000)), list[int]()

        def serve(handler: reg.Handler) -> None:
            handler.serve()
            if next(writes) == moment:
                os.kill(children[0], signal.SIGKILL)

        self.sim.fault("PUT|POST", ".*", serve)
        with self.sim.served_to_the_end():
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # the threads here only wait
                child = os.fork()
            if child == 0:
                self._in_child(act, moment)
            children.append(child)
            _, status = os.waitpid(child, 0)
        self.sim.faults.clear()
        assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL, moment

    def _in_child(self, act: Callable[[ImportHouse], object], moment: int | str) -> None:
        try:
            self.house.client = RegistryClient(self.sim.address)  # no connection of the parent's
            append = Ledger.append

            def cut(ledger: Ledger, *arguments: object) -> object:
                if moment == f"before entry {len(ledger.entries()) + 1}":
                    os.kill(os.getpid(), signal.SIGKILL)
                done = append(ledger, *arguments)  # type: ignore[arg-type]
                if moment == f"after entry {len(ledger.entries())}":
                    os.kill(os.getpid(), signal.SIGKILL)
                return done

            Ledger.append = cut  # type: ignore[method-assign, assignment]
            act(self.house)
        finally:
            os._exit(1)

    def seen(self, repo: str, digest: Digest) -> Verification | None:
        """What a consumer accepts."""
        house = self.house
        try:
            return verify(house.at(repo, digest=digest), house.client, house.trust, house.now)
        except (EvidenceRefused, RegistryError):
            return None

    def actions(self) -> list[str]:
        return [e.fact.what.value for e in self.house.ledger.entries()]


def steps(total: int) -> list[int]:
    """The first and last writes, and some of those between; all with GOLDSMITH_TEST_EVERY_STEP."""
    if os.environ.get("GOLDSMITH_TEST_EVERY_STEP"):
        return list(range(1, total))
    return sorted({1, *range(9, total, 24), total - 3, total - 1})


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with simulator() as sim:
        sim.referrers_api = False
        yield Place(tmp_path_factory.mktemp("place"), sim)


def test_an_import_that_is_killed_anywhere_shows_nothing_and_is_completed(place: Place) -> None:
    def take(house: ImportHouse) -> object:
        return house.take(place.source)

    total = place.writes(take)
    for moment in ("before entry 1", "after entry 1", *steps(total)):
        place.killed(take, moment)
        assert set(place.sim.tags) <= {QUARANTINE}, moment
        for digest in place.sim.manifests.get(QUARANTINE, {}):
            assert place.seen(QUARANTINE, Digest(digest)) is None, moment
        done = place.house.take(place.source)
        assert done.channel is Channel.QUARANTINE
        assert place.seen(QUARANTINE, done.published.digest) is None
        assert place.sim.tags[QUARANTINE]["1.0"] == done.published.digest
        assert place.house.ledger.verify().entries == 1, moment


def test_its_promotion_that_is_killed_anywhere_shows_nothing_unapproved_and_is_completed(
    place: Place,
) -> None:
    place.restore()
    digest = place.house.take(place.source).published.digest
    place.keep()

    def act(house: ImportHouse) -> object:
        return promote(house.office(), house.at(QUARANTINE, digest=digest), None, "now")

    total = place.writes(act)
    assert place.actions() == ["import", "release", "promote"]
    between = 0
    around = [f"{when} entry {n}" for n in (2, 3) for when in ("before", "after")]
    for moment in (*around, *steps(total)):
        place.killed(act, moment)
        told = place.actions()
        between += told == ["import", "release"]
        # At its own name: served by a gate, and tagged, only when the promotion was decided.
        house = place.house
        where = replace(house.at(HOME, digest=digest), tag="1.0")
        decision = admit(where, house.client, house.trust, house.now, promoted=True)
        found = place.seen(HOME, digest)
        served = found is not None and found.channel is not None and found.channel.channel is Channel.STABLE
        assert served or not isinstance(decision, Approved), moment
        tags = {t for t in place.sim.tags.get(HOME, {}) if not t.startswith("sha256-")}
        assert not (served or tags) or (served and "promote" in told), moment
        # Out of quarantine only when the release was decided.
        assert place.seen(QUARANTINE, digest) is None or "release" in told, moment
        assert act(place.house)
        assert place.actions() == ["import", "release", "promote"], moment
        found = place.seen(HOME, digest)
        assert found is not None and found.channel is not None and found.channel.channel is Channel.STABLE
        assert place.sim.tags[HOME]["1.0"] == digest
    assert between  # it was killed between release and promotion, too
