"""One package, read once: the files that get into an image, and what is derived from the rest.

Both the direct engine and the unpack stage read packages this way; `model/assembly.py` says what
is kept and what is made of it.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from builder.errors import LockError
from builder.model import assembly
from builder.model.assembly import NOTHING, LeftOut
from builder.tools.deb import DebEntry, merged, read_control, read_data

_WHOLE_MAX = 16 << 20  # bytes of a certificate or a configuration file


class PackageReader:
    """The package `name` in the file `path`, as an image of `variant` takes it, without some paths.

    Read all of `files` first; then ask for what is derived. Raises LockError when it is malformed.
    """

    def __init__(self, name: str, path: Path, variant: str, left_out: LeftOut = NOTHING) -> None:
        self._name, self._path, self._variant = name, path, variant
        self._left_out = left_out
        self.named: set[str] = set()  # paths of `left_out` that the package brings
        self.control = read_control(path)
        self._names: list[str] = []
        self._certificates: dict[str, bytes] = {}
        self._md5: dict[str, str] = {}
        self.newest = 0  # the time of the newest file, in seconds; left out or not

    def files(self) -> Iterator[tuple[DebEntry, BinaryIO | None]]:
        """The entries that get into the image, with a stream of the content for regular files."""
        configuration = {merged(c.lstrip("/")): c for c in assembly.configuration_files(self.control.members)}
        for entry, content in read_data(self._path, self._names):
            if entry.kind != "5":
                self.newest = max(self.newest, entry.mtime)
            stream = content
            if content is not None and entry.path.startswith(assembly.CERTIFICATES + "/"):
                self._certificates[entry.path] = data = self._whole(entry, content)
                stream = io.BytesIO(data)
            elif content is not None and entry.path in configuration:
                data = self._whole(entry, content)
                self._md5[configuration[entry.path]] = hashlib.md5(data, usedforsecurity=False).hexdigest()
                stream = io.BytesIO(data)
            self.named.update(self._left_out.named(entry.path))
            if not self._is_dropped(entry.path):
                yield entry, stream

    def unpacked(self) -> assembly.Unpacked:
        """What was read, for `assembly.derived` and `assembly.appended`."""
        return assembly.Unpacked(
            self._name,
            self._variant,
            self.control.control,
            self.control.members,
            tuple(self._names),
            self._certificates,
            {
                path: sum_
                for path, sum_ in self._md5.items()
                if not self._is_dropped(merged(path.lstrip("/")))
            },
        )

    def _is_dropped(self, path: str) -> bool:
        return assembly.is_dropped(path, self._variant, self._left_out)

    def _whole(self, entry: DebEntry, content: BinaryIO) -> bytes:
        if entry.size > _WHOLE_MAX:
            raise LockError(f"{self._name}: /{entry.path} is larger than {_WHOLE_MAX >> 20} MiB")
        return content.read()
