"""The composition root: settings → the tools that a command works with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from builder.errors import UsageError
from builder.model.catalogue import Catalogue
from builder.pipeline.build import Builder, Engine
from builder.settings import Settings
from builder.stages.define import load_catalogue
from builder.store import Store
from builder.tools.pool import Pool


@dataclass(frozen=True)
class Workshop:
    """One run's catalogue, state and tools; each tool is made when it is first asked for."""

    settings: Settings
    catalogue: Catalogue
    store: Store

    @classmethod
    def open(cls) -> Workshop:
        """Read the surroundings and the catalogue; raises UsageError or DefinitionError."""
        settings = Settings.load()
        return cls(settings, load_catalogue(settings.catalogue), Store(settings.state))

    @cached_property
    def pool(self) -> Pool:
        """The package pool over the configured Debian mirror."""
        from builder.tools.mirror import find

        return Pool(self.store, lambda: find(self.settings.debian_mirror), self.settings.child_environment)

    def builder(self, engines: Sequence[str]) -> Builder:
        """A builder on the named engines; raises UsageError for an unknown one."""
        return Builder(self.store, self.pool, [self.engine(name) for name in engines])

    def engine(self, name: str) -> Engine:
        """The engine of that name."""
        if name == "direct":
            from builder.engines.direct import DirectEngine

            return DirectEngine()
        if name == "docker":
            from builder.engines.docker import DockerEngine

            lock = self.catalogue.root / "templates" / "builder.lock"
            return DockerEngine(self.store, self.settings.child_environment, lock)
        if name == "docker":
            from builder.engines.docker import DockerEngine

            return DockerEngine(
                self.store,
                self.settings.child_environment,
                self.settings.catalogue / "templates" / "builder.lock",
                show=self.settings.verbose,
            )
        raise UsageError(f"there is no engine {name[:50]!r}", hint="direct or docker")
