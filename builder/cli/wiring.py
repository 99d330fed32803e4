"""The composition root: settings → the tools that a command works with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from builder.cli.extending import open_catalogue
from builder.errors import UsageError
from builder.model.catalogue import Catalogue
from builder.model.evidence import CheckReport
from builder.model.image import PlatformImage, Target
from builder.model.lock import LockSection
from builder.model.platform import Platform
from builder.pipeline.build import Builder, Engine
from builder.settings import Settings
from builder.store import Store
from builder.tools.pool import Pool

if TYPE_CHECKING:
    from builder.extensions import Extensions
    from builder.oci.client import RegistryClient
    from registry.storage.folder import FolderRegistry


def client_of(settings: Settings, host: str | None = None, *, writes: bool = True) -> RegistryClient:
    """The client of a registry (without `host` the configured one), with our login there, if we have one.

    With `writes=False` it is the login of who only reads there.
    At other registries, such as a gate, that is who `docker login` left there. Raises UsageError.
    """
    from builder.oci.auth import credentials_for
    from builder.oci.client import RegistryClient
    from builder.oci.stored import stored_credentials

    where = host or settings.registry
    ours = credentials_for(Store(settings.state).credentials, where, writes=writes)
    if ours is None and where != settings.registry:
        ours = stored_credentials(where, settings.child_environment)
    return RegistryClient(where, credentials=ours)


def folder_of(settings: Settings) -> FolderRegistry | None:
    """The storage's own folder, for reading, when the registry is the storage of this state directory."""
    from registry.storage import service
    from registry.storage.folder import FolderRegistry

    now = service.status(settings)
    if now.pid is None or now.address != settings.registry:
        return None
    return FolderRegistry(settings.registry, now.data)


@dataclass(frozen=True)
class Workshop:
    """One run's catalogue, state and tools; each tool is made when it is first asked for."""

    settings: Settings
    catalogue: Catalogue
    store: Store
    # The assembler's packages, when somebody else read them from the catalogue.
    assembler: LockSection | None = None

    @classmethod
    def open(cls) -> Workshop:
        """Read the surroundings and the catalogue; raises UsageError or DefinitionError."""
        settings = Settings.load()
        return cls(settings, open_catalogue(settings), Store(settings.state))

    @cached_property
    def extensions(self) -> Extensions:
        """What the named packages bring; raises ToolError when one cannot be used."""
        from builder.cli.extending import installed

        return installed(self.settings)

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

            return DockerEngine(self.store, self.settings.child_environment, self.assembler_section())
        if name == "buildah":
            from builder.engines.buildah import BuildahEngine

            return BuildahEngine(self.store, self.settings.child_environment, self.assembler_section())
        raise UsageError(f"there is no engine {name[:50]!r}", hint="direct, docker or buildah")

    def assembler_section(self, platform: Platform | None = None) -> LockSection:
        """The assembler's packages, for this machine by default; refused when the lock is stale."""
        from builder.engines.assembler import host_platform
        from builder.stages.lock import builder_section

        platform = platform or host_platform()
        if self.assembler is not None and self.assembler.platform == platform:
            return self.assembler
        return builder_section(self.catalogue, platform)

    def check(self, target: Target, image: PlatformImage) -> CheckReport:
        """Check a candidate in an engine that answers or can be started; without one, what needs
        a container is reported as not run."""
        from builder.checks.probe import PACKAGES, probe_folder
        from builder.engines.assembler import assembler_tar, narrowed
        from builder.errors import ToolError
        from builder.stages.check import check
        from builder.tools.docker_engine import Engine as ContainerEngine
        from builder.tools.docker_engine import ensure_engine
        from builder.tools.emulator import Emulator, find_emulator

        section = self.assembler_section(image.platform)

        def folder() -> Path:
            # Where nothing was assembled, the programs of the probe are enough.
            mine = narrowed(section, PACKAGES, self.store)
            return probe_folder(assembler_tar(mine, self.pool, self.store))

        environment = self.settings.child_environment
        engine: ContainerEngine | ToolError
        emulator: Emulator | ToolError
        try:
            engine = ensure_engine(self.store, environment)
        except ToolError as error:
            engine = error
        try:
            emulator = find_emulator(image.platform, environment)
        except ToolError as error:
            emulator = error
        return check(
            target,
            image,
            engine,
            folder,
            self.store,
            emulator=emulator,
            assembler_suite=section.suite,
            added=self.extensions.checks,
        )
