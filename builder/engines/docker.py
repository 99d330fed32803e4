"""The Docker engine: BuildKit runs the rendered Dockerfile, without a network.

The result is BuildKit's plain tar of the last stage: every version since 20.10 can write that,
and the normaliser takes it from there.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

from builder.engines.assembler import Pool
from builder.engines.context import materialise
from builder.model.image import BuildContext, RawImage
from builder.model.lock import LockSection
from builder.store import Store
from builder.tools.docker_client import Combination, build_tar, find_combination
from builder.tools.docker_engine import ensure_engine

_BUILD_SECONDS = 900


class DockerEngine:
    """Builds with a container engine; one is found, or started, at the first build.

    `assembler` is the reviewed section of the packages that images are assembled with.
    """

    name = "docker"

    def __init__(
        self, store: Store, environment: Mapping[str, str], assembler: LockSection, show: bool = False
    ) -> None:
        self._store, self._environment = store, environment
        self._assembler, self._show = assembler, show

    @cached_property
    def combination(self) -> Combination:
        """The client and engine that build; raises ToolError when there are none."""
        return find_combination(ensure_engine(self._store, self._environment), self._store, self._environment)

    def build(self, context: BuildContext, pool: Pool, work: Path) -> RawImage:
        """Run the Dockerfile of `context`; the context and the resulting tar lie below `work`.

        Raises ToolError when there is no engine or the build fails, LockError for a package
        that is not the locked one.
        """
        combination = self.combination
        folder = materialise(context, pool, self._assembler, self._store, work)
        rootfs = work / "rootfs.tar"
        build_tar(
            combination,
            folder,
            rootfs,
            epoch=context.epoch,
            environment=self._environment,
            timeout_seconds=_BUILD_SECONDS,
            show=self._show,
        )
        return RawImage(context, rootfs, True, self.name, str(combination))
