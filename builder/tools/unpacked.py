"""Packages whose archives are unpacked once: images, variants and both readers of a build share them.

Decompressing is what costs most of reading a package. What is kept is a .deb whose members are
plain tar files (deb(5) allows that), so nothing that reads packages has to know.
"""

from __future__ import annotations

import shutil
import tempfile
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

from builder.store import Store
from builder.tools.deb import write_plain

_KEPT_MAX = 1 << 30  # bytes; beyond that the least recently used ones go


class UnpackedPackages:
    """Unpacked packages by SHA-256, in a folder that goes with this object; threads may share it."""

    def __init__(self, store: Store, kept_max: int = _KEPT_MAX) -> None:
        self._store, self._max = store, kept_max
        self._lock = threading.Lock()
        self._making: dict[str, threading.Lock] = {}
        self._kept: OrderedDict[str, int] = OrderedDict()
        self._folder: Path | None = None

    def get(self, sha256: str, source: Callable[[], Path]) -> Path:
        """The unpacked package; `source` gives its verified file, and raises what it raises.

        Raises LockError when it is malformed.
        """
        with self._lock:
            making = self._making.setdefault(sha256, threading.Lock())
        with making:
            file = self._place() / f"{sha256}.deb"
            if not file.is_file():
                part = file.with_suffix(".part")
                write_plain(source(), part)
                part.replace(file)
            self._touch(sha256, file)
        return file

    def _place(self) -> Path:
        with self._lock:
            if self._folder is None or not self._folder.is_dir():
                self._store.tmp.mkdir(parents=True, exist_ok=True)
                self._folder = Path(tempfile.mkdtemp(prefix="unpacked-", dir=self._store.tmp))
                weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
            return self._folder

    def _touch(self, sha256: str, file: Path) -> None:
        """Count it as used now, and let the oldest go: what a build reads now is never among them."""
        with self._lock:
            self._kept[sha256] = file.stat().st_size
            self._kept.move_to_end(sha256)
            while sum(self._kept.values()) > self._max and len(self._kept) > 1:
                oldest, _ = self._kept.popitem(last=False)
                file.with_name(f"{oldest}.deb").unlink(missing_ok=True)
