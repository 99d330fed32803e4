"""What all benchmarks share: a locked catalogue, its packages, a registry, an engine, the peers."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from builder.cli.locking import relock
from builder.cli.releasing import ReleaseTools
from builder.cli.running import run_images
from builder.cli.wiring import Workshop
from builder.model.outcome import ImageOutcome
from builder.report import Silent, emit
from builder.settings import Settings
from builder.signing.keys import create_keys
from builder.stages.define import load_catalogue
from builder.store import Store
from builder.tools import process
from builder.tools.docker_client import Combination, find_combination
from builder.tools.docker_engine import ensure_engine
from registry.storage import service
from tests.support.catalogue import small_copy
from tests.support.ports import free_address
from tests.support.vulndb import sample_database

ENGINES = ("direct",)
_SECONDS = 900


@dataclass(frozen=True)
class Scene:
    """Everything is downloaded and running before anything is timed."""

    state: Path
    settings: Settings
    docker: Combination
    database: Path

    @classmethod
    @contextlib.contextmanager
    def open(cls) -> Iterator[Scene]:
        """Prepare below `.goldsmith/bench/`, and stop the registry at the end."""
        here = Settings.load()
        state = here.state / "bench"
        shutil.rmtree(state, ignore_errors=True)
        catalogue = small_copy(here.catalogue, state / "catalogue")
        emit("preparing: packages, engine, registry, database")
        engine = ensure_engine(Store(here.state).create(), here.child_environment)
        environment = {
            **os.environ,
            "GOLDSMITH_CATALOGUE": str(catalogue),
            "GOLDSMITH_STATE": str(state / "state"),
            "GOLDSMITH_REGISTRY": f"127.0.0.1:{_free_port()}",
            "DOCKER_HOST": engine.host,
        }
        settings = Settings.load(environment)
        store = Store(settings.state).create()
        relock(load_catalogue(catalogue), settings, store, ["base", "python"], check=False)
        create_keys(store.keys, settings.key_uris, settings.passphrase)
        service.up(settings)
        try:
            combination = find_combination(engine, store, settings.child_environment)
            yield cls(state, settings, combination, sample_database(state / "database"))
        finally:
            service.down(settings)

    @property
    def store(self) -> Store:
        """The state directory of the benchmarks."""
        return Store(self.settings.state)

    def workshop(self) -> Workshop:
        """A fresh set of tools."""
        return Workshop(self.settings, load_catalogue(self.settings.catalogue), self.store)

    def tools(self) -> ReleaseTools:
        """The tools of a release with the sample database."""
        return ReleaseTools(self.workshop(), "demo", str(self.database))

    def run(self) -> tuple[ImageOutcome, ...]:
        """Our whole pipeline for both images."""
        outcomes, failures = run_images(self.tools(), ["python:3.13"], list(ENGINES), Silent())
        if failures:
            raise failures[0].error
        return outcomes

    def peer(self, argv: Sequence[str | Path], **environment: str) -> process.Completed:
        """Run a peer's command line."""
        return process.run(argv, environment=self.environment(**environment), timeout_seconds=_SECONDS)

    def environment(self, **more: str) -> Mapping[str, str]:
        """The environment of peers: ours, and the engine that is used."""
        return {**self.settings.child_environment, "DOCKER_HOST": self.docker.engine.host, **more}


class Stopwatch:
    """Wall seconds of a with block."""

    seconds = 0.0

    def __enter__(self) -> Stopwatch:
        self._began = time.monotonic()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = time.monotonic() - self._began


def _free_port() -> int:
    return int(free_address().rpartition(":")[2])
