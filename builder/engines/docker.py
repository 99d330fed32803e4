"""The Docker engine: BuildKit runs the rendered Dockerfile, without a network.

The context is made of the rendered files, the locked packages from the pool, the assembler's
root and the parent's root file system. The result is BuildKit's plain tar of the last stage:
every version since 20.10 can write that, and the normaliser takes it from there.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

from builder.engines.assembler import Pool, assembler_tar
from builder.errors import LockError, ToolError
from builder.model.image import BuildContext, RawImage
from builder.model.lock import LockSection
from builder.oci.rootfs import flatten
from builder.store import Store
from builder.tools.docker_client import Combination, build_tar, find_combination
from builder.tools.docker_engine import ensure_engine

_BUILD_SECONDS = 900
_SUMS = "assemble/SHA256SUMS"


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
        folder = self.materialise(context, pool, work)
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

    def materialise(self, context: BuildContext, pool: Pool, work: Path) -> Path:
        """Write the build context to `work/context/`; raises LockError or ToolError."""
        folder = work / "context"
        try:
            for path, content in context.files.items():
                file = folder / path
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(content)
            (folder / "pool").mkdir()
            names = _pool_names(context)
            for package in context.lock.packages:
                _link(pool.path(package), folder / "pool" / names[package.sha256])
            _link(assembler_tar(self._assembler, pool, self._store), folder / "builder.tar")
            if context.parent:
                with open(folder / "parent.tar", "wb") as out:
                    flatten(context.parent, out)
        except OSError as error:
            raise ToolError("the build context cannot be written", context=str(error)) from None
        return folder


def _pool_names(context: BuildContext) -> dict[str, str]:
    """File names by SHA-256, as the rendered list of checksums has them."""
    names: dict[str, str] = {}
    for line in context.files[_SUMS].decode().splitlines():
        sha256, _, name = line.partition("  ")
        if "/" in name or name in ("", ".", ".."):
            raise LockError(f"{_SUMS} names {name[:100]!r}, which is no file name")
        names[sha256] = name
    if set(names) != {p.sha256 for p in context.lock.packages}:
        raise LockError(f"{_SUMS} does not list the locked packages", hint="mend the template")
    return names


def _link(source: Path, target: Path) -> None:
    """A hard link, which costs nothing; a copy where the file systems differ."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
