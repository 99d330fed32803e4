"""A scheduler and workers as processes of their own, and a cheap build that publishes really."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from builder.model.digest import Digest
from builder.oci.client import RegistryClient
from builder.stages.publish import publish
from tests.support.images import built_image, signed_image, target

ROOT = Path(__file__).parents[2]
SECONDS = 90.0  # patience; a machine may be busy with other things
_SETTINGS = {
    # A machine that is busy lets a living worker miss many heartbeats.
    "DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL": "10 seconds",
    "DASK_DISTRIBUTED__SCHEDULER__NO_WORKERS_TIMEOUT": "60 seconds",
    "DASK_DISTRIBUTED__WORKER__HEARTBEAT": "500ms",
    "DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "20s",
}


@dataclass(frozen=True)
class Order:
    """A fake build: it waits for `gate` (a file), then publishes an image that follows from `ref`."""

    ref: str
    registry: str
    log: Path
    gate: Path | None = None


def work(order: Order) -> str:
    """Runs on a worker; returns the digest that was published."""
    _note(order, "begin")
    while order.gate is not None and not order.gate.exists():
        time.sleep(0.02)
    with tempfile.TemporaryDirectory() as folder:
        image = built_image(Path(folder) / "image", order.ref, files=[{"etc/name": order.ref.encode()}])
        image = replace(image, target=target(order.ref), input_hash=Digest.of(order.ref.encode()))
        published = publish(signed_image(image), RegistryClient(order.registry))
    _note(order, "end")
    return str(published.digest)


def _note(order: Order, what: str) -> None:
    with open(order.log, "a") as log:
        log.write(f"{what} {order.ref} {os.getpid()}\n")


def noted(log: Path, what: str, ref: str) -> list[int]:
    """The workers' process ids that noted this."""
    lines = log.read_text().splitlines() if log.exists() else []
    return [int(pid) for w, r, pid in map(str.split, lines) if (w, r) == (what, ref)]


def wait_until(condition: Callable[[], object], what: str) -> None:
    """Wait for a condition; raises AssertionError when it takes too long."""
    ends = time.monotonic() + SECONDS
    while not condition():
        if time.monotonic() > ends:
            raise AssertionError(f"waited in vain: {what}")
        threading.Event().wait(0.05)


@dataclass
class Processes:
    """A scheduler, its address, and the workers that were started."""

    folder: Path
    options: tuple[str, ...] = ()
    address: str = ""
    children: list[subprocess.Popen[bytes]] = field(default_factory=list)
    settings: Mapping[str, str] = field(default_factory=dict)

    def start_scheduler(self) -> subprocess.Popen[bytes]:
        """Start it on a free port and wait until it says its address."""
        protocol = "tls" if self.options else "tcp"
        child, log = self._start(
            "dask_scheduler", "--host=127.0.0.1", "--port=0", "--no-dashboard", f"--protocol={protocol}"
        )
        mark = "Scheduler at:"
        wait_until(lambda: mark in log.read_text() or child.poll() is not None, "the scheduler")
        said = log.read_text()
        assert mark in said, said[-2000:]
        self.address = said.partition(mark)[2].split()[0]
        return child

    def start_worker(
        self, *options: str, resources: str = "build=1", environment: Mapping[str, str] | None = None
    ) -> tuple[subprocess.Popen[bytes], Path]:
        """Start a worker of one thread; returns it and its log."""
        return self._start(
            "dask_worker",
            self.address,
            "--nthreads=1",
            "--no-nanny",
            "--no-dashboard",
            f"--resources={resources}",
            f"--local-directory={self.folder}",
            *options,
            environment=environment,
        )

    def _start(
        self, program: str, *options: str, environment: Mapping[str, str] | None = None
    ) -> tuple[subprocess.Popen[bytes], Path]:
        log = self.folder / f"{program}-{len(self.children)}.log"
        with open(log, "wb") as out:
            child = subprocess.Popen(
                [sys.executable, "-m", f"distributed.cli.{program}", *options, *self.options],
                stdout=out,
                stderr=out,
                stdin=subprocess.DEVNULL,
                cwd=self.folder,
                env={
                    **os.environ,
                    **_SETTINGS,
                    **self.settings,
                    "PYTHONPATH": str(ROOT),
                    **(environment or {}),
                },
            )
        self.children.append(child)
        return child, log


@contextlib.contextmanager
def processes(folder: Path, *options: str, **settings: str) -> Iterator[Processes]:
    """A scheduler with these settings of Dask; it and all workers are ended at the end, also frozen ones."""
    found = Processes(folder, options, settings=settings)
    try:
        found.start_scheduler()
        yield found
    finally:
        for child in found.children:
            if child.poll() is None:
                child.send_signal(signal.SIGKILL)
        for child in found.children:
            child.wait(SECONDS)
