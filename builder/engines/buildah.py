"""The buildah engine: runs the rendered Dockerfile without a daemon, and without a network.

It reads the same context as the Docker engine, through another implementation of Dockerfiles, file
copies and tar files: one more witness of the digest. Storage is made for each build and removed
with it. The assembler is of this machine's platform; packages are unpacked, never executed.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path

from builder.engines.assembler import Pool
from builder.engines.context import materialise
from builder.model.image import BuildContext, RawImage
from builder.model.lock import LockSection
from builder.store import Store
from builder.tools import buildah

_BUILD_SECONDS = 900
_PREFIX = "buildah-"


class BuildahEngine:
    """Builds with buildah; it is looked for at the first build.

    `assembler` is the reviewed section of the packages that images are assembled with.
    """

    name = "buildah"

    def __init__(
        self, store: Store, environment: Mapping[str, str], assembler: LockSection, show: bool = False
    ) -> None:
        self._store, self._environment = store, environment
        self._assembler, self._show = assembler, show

    @cached_property
    def program(self) -> buildah.Buildah:
        """buildah as it can be used here; raises ToolError when it is missing or may not build."""
        found = buildah.locate(self._environment)
        self._sweep(found)
        with self._place(found) as place:
            buildah.prove(found, place)
        return found

    def build(self, context: BuildContext, pool: Pool, work: Path) -> RawImage:
        """Run the Dockerfile of `context`; the context and the resulting tar lie below `work`.

        Raises ToolError when there is no buildah or the build fails, LockError for a package
        that is not the locked one.
        """
        program = self.program
        folder = materialise(context, pool, self._assembler, self._store, work)
        rootfs = work / "rootfs.tar"
        with self._place(program) as place:
            buildah.build_tar(
                program,
                folder,
                rootfs,
                place,
                epoch=context.epoch,
                timeout_seconds=_BUILD_SECONDS,
                show=self._show,
            )
        return RawImage(context, rootfs, True, self.name, str(program))

    @contextlib.contextmanager
    def _place(self, program: buildah.Buildah) -> Iterator[Path]:
        with self._store.scratch(f"{_PREFIX}{os.getpid()}") as place:
            try:
                yield place
            finally:
                buildah.remove(program, place)

    def _sweep(self, program: buildah.Buildah) -> None:
        """Remove what killed builds left, which as a user only buildah can; others may be building."""
        for left in self._store.tmp.glob(f"{_PREFIX}*"):
            pid = left.name.removeprefix(_PREFIX).partition("-")[0]
            if pid.isdigit() and not Path("/proc", pid).exists():
                buildah.remove(program, left)
