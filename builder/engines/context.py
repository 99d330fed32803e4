"""The build context on disk, as engines that run the rendered Dockerfile read it.

It is made of the rendered files, the locked packages from the pool, the assembler's root and
the parent's root file system.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from builder.engines.assembler import Pool, assembler_tar
from builder.engines.elsewhere import elsewhere
from builder.errors import DefinitionError, LockError, Problem, ToolError
from builder.model.image import BuildContext
from builder.model.lock import LockSection
from builder.oci.rootfs import flatten
from builder.store import Store

_SUMS = "assemble/SHA256SUMS"


def materialise(context: BuildContext, pool: Pool, assembler: LockSection, store: Store, work: Path) -> Path:
    """Write the build context to `work/context/` and return that folder.

    `assembler` has the packages that images are assembled with. Raises LockError for a package that
    is not the locked one, ToolError when the disk is full, DefinitionError for a Dockerfile that would
    fetch something from elsewhere.
    """
    if foreign := elsewhere(context.files["Dockerfile"].decode()):
        hint = "a Dockerfile of ours builds on scratch, on its own stages and on `parent`: mend the template"
        why = f"the Dockerfile of {context.ref} would fetch something from elsewhere: {foreign}"
        raise DefinitionError([Problem("templates", "", why, hint)])
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
        _link(assembler_tar(assembler, pool, store), folder / "builder.tar")
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
