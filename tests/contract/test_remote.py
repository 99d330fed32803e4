"""Images that are made elsewhere: what travels, what is pushed by whom, and what a second run asks for."""

from __future__ import annotations

import datetime as dt
import pickle
import shutil
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from builder.errors import DefinitionError, GoldsmithError, Problem, ToolError
from builder.model.digest import Digest
from builder.model.image import BuiltImage
from builder.oci.client import RegistryClient
from builder.oci.layout import blob_path, verify_layout
from builder.pipeline import remote
from builder.pipeline.guard import Limits
from builder.pipeline.plan import decide, survey
from builder.pipeline.release import Tools
from builder.pipeline.remote import Elsewhere, Made, Order
from builder.pipeline.run import Runner
from builder.report import Silent
from builder.stages.finish import reread
from builder.stages.publish import publish
from builder.store import Store
from tests.support import fleet
from tests.support.images import built_image, signed_image
from tests.support.images import verdict as approval
from tests.support.registry_simulator import Simulator, simulator

NOW = dt.datetime(2026, 11, 22, 1, tzinfo=dt.UTC)
FAMILY = {"base": None, "python": "base", "app": "python"}


class Builds:
    """A worker's builder: cheap images, kept as real ones are; a child needs its parent's layers."""

    names = ("direct",)

    def __init__(self, store: Store) -> None:
        self.store = store
        self.built: list[str] = []

    def reuse(self, item) -> BuiltImage | None:
        record = self.store.record("built", item.input_hash)
        if record is None:
            return None
        folder = self.store.images / Digest(record["digest"]).hex
        verify_layout(folder)
        return reread(item.target, folder, item.input_hash, item.version, item.locks, item.packages)

    def build(self, item, parent, stages) -> BuiltImage:
        files = [{"input": item.input_hash.encode()}]
        if item.parent is not None:
            for layer in parent.platforms[0].layers:
                assert blob_path(parent.layout, layer.blob.digest).is_file()
        with self.store.scratch("build") as work:
            image = built_image(work / "x", files=files)
            (work / "x").rename(self.store.images / image.digest.hex)
        self.built.append(item.target.ref)
        self.store.remember("built", item.input_hash, {"digest": image.digest, "engines": ["direct"]})
        found = self.reuse(item)
        assert found is not None
        return found


@dataclass
class Assay:
    """A worker's tools; the scan can be broken."""

    broken: GoldsmithError | None = None

    def check(self, target, image) -> str:
        return "checks"

    def scan(self, target, image, work) -> tuple[str, str]:
        if self.broken:
            raise self.broken
        return "report", "sboms"

    def lint(self, context) -> str:
        return "lint"


class Site:
    """Ourselves, a registry, and workers with state directories of their own that take turns."""

    def __init__(self, folder: Path, sim: Simulator) -> None:
        self.folder, self.sim = folder, sim
        self.catalogue = fleet.lock(fleet.define(folder / "catalogue", FAMILY))
        self.store = Store(folder / "ours").create()
        self.client = RegistryClient(sim.address)
        self.workers = [Builds(Store(folder / f"worker{n}").create()) for n in range(3)]
        self.assay = Assay()
        self.orders: list[Order] = []
        self.tags_seen: list[set[str]] = []

    def run(self, here: Builds | None = None):
        """On the workers, or with a builder `here`."""
        tools: Any = Tools(
            check=self._never,
            scan=self._never,
            lint=self._never,
            judge=lambda image, evidence: replace(
                approval(image), ref=image.target.ref, issued_at=NOW, expires_at=NOW + dt.timedelta(days=7)
            ),
            provenance=lambda *_: {},
            sign=lambda image, evidence, verdict, _: replace(signed_image(image), verdict=verdict),
            publish=lambda signed: publish(signed, self.client),
            identity={"database": "one"},
        )
        hands = None if here else Elsewhere(self.store, self._order, self._submit)
        builder: Any = here or Builds(self.store)
        runner = Runner(
            self.catalogue,
            self.store,
            builder,
            tools,
            self.published,
            NOW,
            Silent(),
            2,
            hands,
            made_elsewhere=lambda item: remote.made_elsewhere(item, builder, self.client, self.store),
        )
        return runner.run_all([])

    def published(self, image: BuiltImage) -> bool:
        return image.digest in self.tags(image.target.definition.name).values()

    def tags(self, name: str) -> dict[str, str]:
        tags = self.sim.tags.get(f"candidate/{name}", {})
        return {tag: digest for tag, digest in tags.items() if not tag.startswith("sha256-")}

    def _never(self, *_: object) -> Any:
        raise AssertionError("evidence is gathered where the image is built")

    def _order(self, chain, digests) -> Order:
        return Order(
            chain, digests, ("direct",), None, self.sim.address, "r/trivy-db@sha256:" + "0" * 64, 5, NOW
        )

    def _submit(self, order: Order) -> Future[Made]:
        """As a cluster does: another process, so everything is pickled on its way."""
        order = pickle.loads(pickle.dumps(order))
        worker = self.workers[len(self.orders) % len(self.workers)]
        self.orders.append(order)
        future: Future[Made] = Future()
        try:
            made = remote.carry_out(order, worker, self.assay, self.client, worker.store)
            self.tags_seen.append(set(self.tags(order.chain[-1].target.definition.name)))
            future.set_result(pickle.loads(pickle.dumps(made)))
        except GoldsmithError as error:
            future.set_exception(pickle.loads(pickle.dumps(error)))
        return future


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with simulator() as sim:
        yield Site(tmp_path, sim)


def test_workers_build_and_push_by_digest_and_we_sign_and_tag(site: Site) -> None:
    ends = site.run()
    assert [str(e) for e in ends] == ["base:1 built", "python:1 built", "app:1 built"]
    assert [worker.built for worker in site.workers] == [["base:1"], ["python:1"], ["app:1"]]
    assert site.tags_seen == [set(), set(), set()]  # when a worker is done, nobody sees its image
    for end in ends:
        assert end.outcome is not None
        assert set(site.tags(end.ref.partition(":")[0]).values()) == {end.outcome.digest}
        assert end.outcome.compressed_bytes > 0


def test_layers_go_through_the_registry_and_not_through_us(site: Site) -> None:
    site.run()
    assert list(site.store.images.iterdir()) == []
    ours = sum(p.stat().st_size for p in (site.store.root / "made").rglob("*") if p.is_file())
    assert ours < 8000
    # The third worker never built `python`: it fetched it, whole, from the registry.
    (third,) = [w for w in site.workers if w.built == ["app:1"]]
    assert len(list(third.store.images.iterdir())) == 2


def test_a_second_run_orders_nothing_and_a_plan_says_so(site: Site) -> None:
    site.run()
    site.orders.clear()
    assert {e.state.value for e in site.run()} == {"unchanged"}
    assert site.orders == []
    found = survey(site.catalogue, site.store, {"database": "one"}, ["direct"], NOW)
    assert {i.action.value for i in decide(found, [], Limits(), NOW)} == {"nothing"}


def test_what_a_cluster_made_is_brought_and_not_built_again_by_a_run_without_it(site: Site) -> None:
    site.run()
    writes = site.sim.count("PUT|POST|PATCH")
    here = Builds(site.store)
    assert {e.state.value for e in site.run(here)} == {"unchanged"}
    assert here.built == []
    assert len(list(site.store.images.iterdir())) == len(FAMILY)
    assert site.sim.count("PUT|POST|PATCH") == writes
    site.sim.requests.clear()
    assert {e.state.value for e in site.run(here)} == {"unchanged"}
    assert site.sim.count("GET", "blobs") == 0


def test_what_a_cluster_made_and_the_registry_lost_is_built(site: Site) -> None:
    site.run()
    site.sim.manifests.pop("candidate/base")
    here = Builds(site.store)
    ends = {e.ref: e.state.value for e in site.run(here)}
    assert here.built == ["base:1"]
    assert (ends["python:1"], ends["app:1"]) == ("unchanged", "unchanged")


def test_what_was_built_here_before_is_not_ordered_again(site: Site) -> None:
    site.run()
    site.orders.clear()
    for worker in site.workers:
        for part in ("images", "records/built"):
            shutil.copytree(worker.store.root / part, site.store.root / part, dirs_exist_ok=True)
    shutil.rmtree(site.store.records / "made")
    assert {e.state.value for e in site.run()} == {"unchanged"}
    assert site.orders == []


def test_a_worker_that_does_it_again_changes_nothing(site: Site) -> None:
    site.run()
    before = {n: site.tags(n) for n in FAMILY}
    writes = site.sim.count("PUT|POST|PATCH")
    again = site._submit(site.orders[2]).result()
    assert site.sim.count("PUT|POST|PATCH") == writes
    assert again.index.digest == before["app"]["1"]
    assert {n: site.tags(n) for n in FAMILY} == before


def test_what_a_worker_raises_comes_back_whole_and_stops_only_what_hangs_on_it(site: Site) -> None:
    site.assay.broken = ToolError("trivy hangs", context="seen", hint="do", reference="scan-not-trusted")
    ends = {e.ref: e for e in site.run()}
    assert ends["base:1"].error is not None
    assert ends["base:1"].error.as_dict() == site.assay.broken.as_dict()
    assert [ends[r].state.value for r in ("python:1", "app:1")] == ["skipped", "skipped"]
    assert {n: site.tags(n) for n in FAMILY} == {n: {} for n in FAMILY}
    site.assay.broken = None
    assert {e.state.value for e in site.run()} <= {"built", "unchanged"}
    assert all(site.tags(n) for n in FAMILY)


def test_an_image_below_that_is_not_in_the_registry_is_an_error(site: Site) -> None:
    site.run()
    for part in (site.sim.manifests, site.sim.blobs):
        part.pop("candidate/python")
    fresh = Builds(Store(site.folder / "fresh").create())
    with pytest.raises(GoldsmithError):
        remote.carry_out(site.orders[2], fresh, site.assay, site.client, fresh.store)
    assert list(fresh.store.images.iterdir()) == []


@pytest.mark.parametrize(
    "error",
    [
        ToolError("a", context="b", hint="c", reference="d"),
        DefinitionError([Problem("f", "p", "m", "h"), Problem("f", "p", "m")]),
    ],
    ids=lambda e: type(e).__name__,
)
def test_errors_travel_between_processes(error: GoldsmithError) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert again.as_dict() == error.as_dict()
    assert str(again) == str(error)
