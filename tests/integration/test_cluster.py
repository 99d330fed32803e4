"""A Dask cluster of real processes: what happens when workers and schedulers die, freeze and wake."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from builder.cluster import Certificates, Cluster, connect
from builder.errors import ToolError, UsageError
from builder.fleet import State, Task, run_graph
from tests.support.cluster import Order, Processes, noted, processes, wait_until, work
from tests.support.registry_simulator import Simulator, simulator
from tests.support.tls import self_signed

pytestmark = pytest.mark.integration


class Site:
    """A cluster, a registry, and orders for both."""

    def __init__(self, folder: Path, running: Processes, cluster: Cluster, sim: Simulator) -> None:
        self.folder, self.running, self.cluster, self.sim = folder, running, cluster, sim
        self.log = folder / "log"

    def order(self, ref: str, gate: str = "") -> Order:
        return Order(ref, self.sim.address, self.log, self.folder / gate if gate else None)

    def submit(self, ref: str, gate: str = "") -> Future[Any]:
        return self.cluster.submit(work, self.order(ref, gate))

    def begun(self, ref: str) -> list[int]:
        return noted(self.log, "begin", ref)

    def tags(self, ref: str) -> dict[str, str]:
        """Where the image's own tags lead; signatures have others."""
        tags = self.sim.tags.get(f"candidate/{ref}", {})
        return {tag: digest for tag, digest in tags.items() if not tag.startswith("sha256-")}

    def moves(self, ref: str) -> int:
        """How often the floating tag was written."""
        return self.sim.count("PUT", f"candidate/{ref}/manifests/3.13$")


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Processes]:
    with processes(tmp_path_factory.mktemp("cluster")) as found:
        found.start_worker()
        found.start_worker()
        yield found


@pytest.fixture
def site(tmp_path: Path, running: Processes) -> Iterator[Site]:
    with simulator() as sim, connect(running.address, None) as cluster:
        yield Site(tmp_path, running, cluster, sim)


def test_the_same_graph_runs_on_a_cluster(site: Site) -> None:
    tasks = [Task("base"), Task("python", ("base",)), Task("broken"), Task("after", ("broken",))]

    def submit(task: Task, inputs: Mapping[str, Any]) -> Future[Any]:
        if task.name == "broken":
            return site.cluster.submit(fail, "no room")
        return site.submit(task.name)

    ended = run_graph(tasks, submit)
    states = {name: end.state for name, end in ended.items()}
    assert states == {
        "base": State.DONE,
        "python": State.DONE,
        "broken": State.FAILED,
        "after": State.SKIPPED,
    }
    error = ended["broken"].error
    assert isinstance(error, ToolError)
    assert (error.message, error.hint, error.reference) == ("no room", "make some", "disk-full")
    for ref in ("base", "python"):
        assert set(site.tags(ref).values()) == {ended[ref].result}


def fail(message: str) -> None:
    raise ToolError(message, hint="make some", reference="disk-full")


def test_a_worker_killed_in_mid_build_is_built_elsewhere_and_published_once(site: Site) -> None:
    future = site.submit("killed", "gate")
    wait_until(lambda: site.begun("killed"), "the build")
    (first,) = site.begun("killed")
    child = next(c for c in site.running.children if c.pid == first)
    child.send_signal(signal.SIGKILL)
    site.running.start_worker()
    wait_until(lambda: len(site.begun("killed")) == 2, "the build elsewhere")
    (site.folder / "gate").touch()
    digest = future.result(90)
    assert set(site.tags("killed").values()) == {digest}
    assert site.moves("killed") == 1
    assert site.begun("killed")[1] != first


def test_a_worker_frozen_and_woken_finishes_too_and_changes_nothing(site: Site) -> None:
    future = site.submit("frozen", "gate")
    wait_until(lambda: site.begun("frozen"), "the build")
    (first,) = site.begun("frozen")
    child = next(c for c in site.running.children if c.pid == first)
    child.send_signal(signal.SIGSTOP)
    wait_until(lambda: len(site.begun("frozen")) == 2, "the build elsewhere")
    (site.folder / "gate").touch()
    digest = future.result(90)
    before = dict(site.tags("frozen"))
    child.send_signal(signal.SIGCONT)
    wait_until(
        lambda: len(noted(site.log, "end", "frozen")) == 2 or child.poll() is not None, "the second end"
    )
    assert site.tags("frozen") == before
    assert set(before.values()) == {digest}
    assert site.moves("frozen") == 1


def test_the_scheduler_lost_is_a_clear_error_and_the_next_run_resumes(
    tmp_path: Path, running: Processes
) -> None:
    with simulator() as sim, processes(tmp_path) as mortal:
        mortal.start_worker()
        with connect(mortal.address, None) as cluster:
            site = Site(tmp_path, mortal, cluster, sim)
            done = site.submit("done")
            done.result(90)
            waiting = site.submit("cut", "gate")
            wait_until(lambda: site.begun("cut"), "the build")
            mortal.children[0].send_signal(signal.SIGKILL)
            with pytest.raises(ToolError) as lost:
                waiting.result(90)
            assert lost.value.reference == "scheduler-lost"
            assert site.tags("cut") == {}
            with pytest.raises(ToolError):
                site.submit("more").result(90)
        (tmp_path / "gate").touch()
        with connect(running.address, None) as cluster:  # the next run has another scheduler
            site.cluster = cluster
            digest = site.submit("cut", "gate").result(90)
            assert site.submit("done").result(90) == done.result()
        assert set(site.tags("cut").values()) == {digest}
        assert site.moves("done") == 1


def test_without_a_certificate_neither_a_worker_nor_we_get_in_and_the_last_worker_lost_is_told(
    tmp_path: Path,
) -> None:
    files = certificates(tmp_path)
    tls = (f"--tls-ca-file={files.ca}", f"--tls-cert={files.certificate}", f"--tls-key={files.key}")
    patience = {"DASK_DISTRIBUTED__SCHEDULER__NO_WORKERS_TIMEOUT": "1 second"}
    with processes(tmp_path, *tls, **patience) as running, simulator() as sim:
        assert running.address.startswith("tls://")
        bare = Processes(tmp_path / "bare", address=running.address)
        bare.folder.mkdir()
        stranger, log = bare.start_worker()
        try:
            worker, _ = running.start_worker()
            with connect(running.address, files) as cluster:
                site = Site(tmp_path, running, cluster, sim)
                wait_until(lambda: cluster._client.scheduler_info()["workers"], "the worker")
                site.submit("secret").result(90)
                assert len(cluster._client.scheduler_info()["workers"]) == 1
                worker.kill()
                wait_until(lambda: not cluster._client.scheduler_info()["workers"], "the end of the worker")
                with pytest.raises(ToolError) as alone:
                    site.submit("nobody").result(90)
                assert alone.value.reference == "no-workers", alone.value.context
        finally:
            stranger.kill()
            stranger.wait(90)
        assert "Registered to" not in log.read_text()
    with pytest.raises(UsageError):
        connect(running.address, None).__enter__()
    with pytest.raises(UsageError):
        connect("http://127.0.0.1:1", None).__enter__()
    with pytest.raises(ToolError) as refused, connect("tcp://127.0.0.1:9", None):
        pass
    assert refused.value.reference == "scheduler-unreachable"


def certificates(folder: Path) -> Certificates:
    """An authority that is its only certificate, for everybody."""
    certificate, key = self_signed(folder)
    return Certificates(certificate, certificate, key)
