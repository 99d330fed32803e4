"""The gate as a process: puts the parts together, watches the storage, serves, and stops in order."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import uvicorn
import uvloop

from builder.errors import RegistryError
from builder.oci.auth import Login
from builder.oci.client import RegistryClient
from builder.oci.transport import Limits
from builder.signing.trust import Trust
from registry.access.source import Source
from registry.gate.answers import Answers
from registry.gate.app import Gate
from registry.gate.approved import ApprovedSet
from registry.gate.blobs import Blobs
from registry.gate.bounds import Bounds, connections_max
from registry.gate.clock import SteadyClock
from registry.gate.door import Door
from registry.gate.journal import Journal, Metrics
from registry.gate.keyfolder import KeyFolder
from registry.gate.proofs import Proofs
from registry.gate.protocol import bounded
from registry.gate.repositories import Names
from registry.gate.upstream import Folder, Storage
from registry.gate.watch import HEED_SECONDS, Watch
from registry.pulls import PullJournal

LOOK_SECONDS = 0.3  # from the end of one look at the storage to the next
_ACCESS_SECONDS = 0.25  # between two looks at rules and tokens
_LOOK_SHARE = 2  # the pause is that much longer than the storage was asked for
_PAUSE_MAX = 30
_FLUSH_SECONDS = 0.2
_PULLS_SECONDS = 1
_KEEP_ALIVE_SECONDS = 75
_LIMITS = Limits(connect_seconds=2, read_seconds=10, total_seconds=20, attempts=2)


@dataclass(frozen=True, slots=True)
class Configuration:
    """One gate: where it listens, what storage it stands before, and which keys it believes.

    `keys` watches the folder that the keys come from, so that a rotation needs no restart.
    `link` is its address for people, in refusals. `proofs` is the folder in which approvals
    outlive a restart. `blobs` is the storage's blob folder when that is on this machine, `accel`
    the internal address that a web server in front hands blobs out from. `access` says who may pull,
    `pulls` is the folder in which is noted who did.
    """

    host: str
    port: int
    storage: str
    trust: Trust
    link: str
    access: Source
    credentials: Login | None = None
    names: Names = field(default_factory=Names)
    accept_sample: bool = False
    proofs: Path | None = None
    pulls: Path | None = None
    blobs: Path | None = None
    accel: str | None = None
    log_requests: bool = True
    bounds: Bounds = field(default_factory=Bounds)
    keys: KeyFolder | None = None


class _Server(uvicorn.Server):
    """Ends in order on SIGTERM: uvicorn's own raises the signal anew at the end, which would kill us."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Stop on SIGTERM, and on SIGINT, which is passed on."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {s: signal.signal(s, self.handle_exit) for s in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        if signal.SIGINT in self._captured_signals:
            raise KeyboardInterrupt


class Service:
    """All parts of a running gate; `wall` gives seconds since the epoch, `write` takes log lines."""

    def __init__(
        self, config: Configuration, wall: Callable[[], float], write: Callable[[str], None]
    ) -> None:
        self._config = config
        kept = config.proofs / "clock" if config.proofs else None
        self._clock = clock = SteadyClock(wall, time.monotonic, kept)
        self.journal = Journal(write, clock.stamp, requests=config.log_requests)
        self.metrics = Metrics()
        approved = ApprovedSet()
        self._proofs = Proofs(config.proofs)
        self._storage = Storage(config.storage, config.credentials)
        source = Folder(config.blobs) if config.blobs else self._storage
        self._blobs = Blobs(source, time.monotonic)
        answers = Answers(
            approved,
            self._blobs,
            self._storage,
            self.journal,
            self.metrics,
            now=clock.now,
            serves=config.names.storage,
            link=config.link,
            accel=config.accel,
        )
        self.watch = Watch(
            config.storage,
            RegistryClient(config.storage, credentials=config.credentials, limits=_LIMITS),
            config.trust,
            approved,
            self._proofs,
            clock,
            self.journal,
            config.names,
            accept_sample=config.accept_sample,
            keys=config.keys,
        )
        self._server: uvicorn.Server | None = None
        self._looked = threading.Event()
        self._stop = threading.Event()
        self._pulls = PullJournal(config.pulls, clock.stamp) if config.pulls else None
        self.door = Door(config.access, self.journal, self.metrics, now=clock.now, link=config.link)
        self.app = Gate(
            approved,
            answers,
            self.journal,
            self.metrics,
            door=self.door,
            pulls=self._pulls,
            ready=self._looked.is_set,
            bounds=config.bounds,
        )

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT; answers that have begun are finished.

        Raises RegistryError when nobody can listen at the address.
        """
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(self._serve())

    def stop(self) -> None:
        """End `run`, as SIGTERM does; from any thread."""
        if self._server is not None:
            self._server.should_exit = True

    async def _serve(self) -> None:
        config = self._config
        http = bounded(config.bounds, connections_max(config.bounds), self.journal)
        self._server = server = _Server(
            uvicorn.Config(
                self.app,
                host=config.host,
                port=config.port,
                http=http,
                ws="none",
                lifespan="off",
                log_config=None,
                log_level="critical",
                access_log=False,
                server_header=False,
                date_header=True,
                proxy_headers=False,
                timeout_keep_alive=_KEEP_ALIVE_SECONDS,
                timeout_graceful_shutdown=config.bounds.grace_seconds,
                backlog=1024,
            )
        )
        watcher = threading.Thread(target=self._watch, name="watch", daemon=True)
        watcher.start()
        for job in (self._heed_access, self._tend_issuers):
            threading.Thread(target=job, name=job.__name__, daemon=True).start()
        flusher = asyncio.create_task(self._flush())
        pulls = asyncio.create_task(self._flush_pulls())
        self.journal.event("started", listen=f"{config.host}:{config.port}", storage=config.storage)
        if self._clock.behind:
            self.journal.event(
                "clock-behind", seconds=round(self._clock.behind), goes_on_from=self._clock.stamp()
            )
        if self.door.is_open:
            self.journal.event("anonymous", warning="EVERYBODY MAY PULL EVERYTHING WITHOUT A LOGIN")
        try:
            await server.serve()
        except SystemExit:  # uvicorn's only word for an address that it cannot have
            raise RegistryError(
                f"nobody can be served at {config.host}:{config.port}",
                context="another program listens there, or it is no address of this machine",
                hint="stop that program, or choose another address: --listen",
                reference="port-taken",
            ) from None
        finally:
            self._stop.set()
            flusher.cancel()
            pulls.cancel()
            await self._blobs.close()
            await self._storage.close()
            if self._pulls is not None:
                await asyncio.to_thread(self._pulls.close)
            self._proofs.close()
            self.journal.event("stopped")
            self.journal.flush()

    def _watch(self) -> None:
        # Millions of objects that stay: the collector would look at them again and again.
        gc.disable()
        try:
            recalled = self.watch.recall()
        finally:
            gc.freeze()
            gc.enable()
        self.journal.event("recalled", images=recalled)
        while not self._stop.is_set():
            try:
                reachable = self.watch.look()
            except Exception as error:  # noqa: BLE001 - the watch must not end; what is held expires
                self.journal.event("bug", cause=repr(error))
                reachable = False
            self._clock.keep()
            self.metrics.storage_up.set(reachable)
            self.metrics.look_seconds.set(self.watch.seconds)
            for decision, count in self.watch.counts().items():
                self.metrics.images.labels(decision).set(count)
            if not self._looked.is_set():
                self.journal.event("ready", storage=reachable, seconds=round(self.watch.seconds, 3))
                self._looked.set()
            self._heed(min(_PAUSE_MAX, max(LOOK_SECONDS, _LOOK_SHARE * self.watch.asking_seconds)))

    def _heed(self, seconds: float) -> None:
        """Until the next look, ask whether something was decided."""
        ends = time.monotonic() + seconds
        while (left := ends - time.monotonic()) > 0 and not self._stop.wait(min(left, HEED_SECONDS)):
            try:
                self.watch.heed_keys()
                if self.watch.reachable:
                    self.watch.heed()
            except Exception as error:  # noqa: BLE001 - as for a look
                self.journal.event("bug", cause=repr(error))

    def _heed_access(self) -> None:
        while not self._stop.wait(_ACCESS_SECONDS):
            try:
                if self.door.refresh():
                    self.journal.event("access-changed")
            except Exception as error:  # noqa: BLE001 - what was in force stays so
                self.journal.event("bug", cause=repr(error))

    def _tend_issuers(self) -> None:
        while not self._stop.is_set():
            try:
                self.door.tend()
            except Exception as error:  # noqa: BLE001 - keys that are held are believed for a day
                self.journal.event("bug", cause=repr(error))
            self._stop.wait(_ACCESS_SECONDS)

    async def _flush(self) -> None:
        while True:
            await asyncio.sleep(_FLUSH_SECONDS)
            self.journal.flush()

    async def _flush_pulls(self) -> None:
        while self._pulls is not None:
            await asyncio.sleep(_PULLS_SECONDS)
            try:
                await asyncio.to_thread(self._pulls.flush)
            except OSError as error:
                self.journal.event("pulls-not-written", cause=str(error), dropped=self._pulls.dropped)
