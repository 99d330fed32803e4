"""The assembler's packages in one file, as a rebuild kit carries them.

One file, because all kits of a catalogue have the very same: one blob to look for, and not dozens.
The tar is written by our own headers: the same lock gives the same bytes.
"""

from __future__ import annotations

import os
import shutil
import tarfile
from pathlib import Path

from builder.engines.assembler import Pool
from builder.errors import LockError, ToolError
from builder.model.digest import Digest
from builder.model.image import Descriptor
from builder.model.kit import ASSEMBLER_TYPE, TITLE_ANNOTATION
from builder.model.lock import LockedPackage, LockSection
from builder.oci.tarformat import END, TarEntry, header, padding
from builder.store import Store, file_digest, own_mark

_VERSION = 1  # moves when the same lock gives other bytes


def packages_file(section: LockSection, pool: Pool, store: Store) -> tuple[Descriptor, Path]:
    """The packages of the assembler as one tar, made when it is not there yet.

    Raises LockError when a package is not the locked one, ToolError when the disk is full.
    """
    path = store.root / "assembler" / f"{section.digest.hex}-{_VERSION}.packages"
    if not path.is_file():
        pool.fetch(section.packages)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{own_mark()}.tmp")
        try:
            with open(temporary, "wb") as out:
                for package in section.packages:
                    out.write(header(TarEntry(_name(package), "0", 0o644, 0, 0, package.size, 0)))
                    with open(pool.path(package), "rb") as content:
                        shutil.copyfileobj(content, out)
                    out.write(padding(package.size))
                out.write(END)
            os.replace(temporary, path)
        except OSError as error:
            raise ToolError("the assembler's packages cannot be written", context=str(error)) from None
        finally:
            temporary.unlink(missing_ok=True)
    title = {TITLE_ANNOTATION: f"assembler-{section.platform.architecture}.tar"}
    return Descriptor(ASSEMBLER_TYPE, file_digest(path), path.stat().st_size, title), path


def unpack_packages(path: Path, section: LockSection, folder: Path) -> None:
    """Write the packages of a lock's section to `folder`, by SHA-256; nothing else that the file holds.

    They are checked where they are used. Raises LockError when the file is malformed or lacks one.
    """
    wanted = {_name(package): package for package in section.packages}
    try:
        with tarfile.open(path, mode="r:") as source:
            for member in source:
                package = wanted.pop(member.name, None)
                content = source.extractfile(member) if member.isreg() else None
                if package is None or content is None or member.size != package.size:
                    raise LockError("the assembler's packages are not those of its lock", context=path.name)
                with open(folder / f"{package.sha256}.deb", "wb") as out:
                    shutil.copyfileobj(content, out)
    except (tarfile.TarError, EOFError, ValueError) as error:
        raise LockError("the file of the assembler's packages is malformed", context=str(error)) from None
    if wanted:
        missing = sorted(package.name for package in wanted.values())
        raise LockError("the assembler lacks packages", context=", ".join(missing))


def _name(package: LockedPackage) -> str:
    return f"{Digest(f'sha256:{package.sha256}').hex}.deb"
