"""The folder of public keys, read anew when a file of it changes: rotations need no restart."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from builder.errors import GoldsmithError
from builder.signing.keys import APPROVER, BUILDER, ROOT, VERDICT, WITNESS
from builder.signing.trust import FILE, Trust
from registry.gate.journal import Journal

_FILES = (FILE, *(f"{role}.pub" for role in (ROOT, BUILDER, VERDICT, APPROVER, WITNESS)))


class KeyFolder:
    """Tells when the trusted keys have changed; `load` reads and verifies them."""

    def __init__(self, folder: Path, load: Callable[[], Trust]) -> None:
        self._folder, self._load = folder, load
        self._state = self._look()
        self.trust = load()

    def changed(self, journal: Journal) -> Trust | None:
        """The keys when they are other ones than at the last call, None when they are not.

        When the files changed to something that cannot be believed, the journal tells it and the
        keys of before go on holding, since nobody but root can take them away.
        """
        state = self._look()
        if state == self._state:
            return None
        self._state = state
        try:
            trust = self._load()
        except GoldsmithError as error:
            journal.event("trust-refused", cause=error.message, context=error.context)
            return None
        if trust == self.trust:
            return None
        self.trust = trust
        journal.event("trust-changed", version=trust.version, keys=len(trust.keys))
        return trust

    def _look(self) -> tuple[tuple[int, int, int] | None, ...]:
        return tuple(self._stamp(self._folder / name) for name in _FILES)

    def _stamp(self, path: Path) -> tuple[int, int, int] | None:
        try:
            found = path.stat()
        except OSError:
            return None
        return found.st_ino, found.st_size, found.st_mtime_ns
