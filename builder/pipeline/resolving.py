"""Closures that were resolved before: the same archive and the same request give the same packages.

apt takes more than a second for each section of a lock, and most nights bring nothing to most of them.
So what it found is kept by what was asked for, with the state of the signed archive that it was found in,
and is taken again as long as that state is the same: by content, never by time. Whether the archive is
still signed and not expired, apt says each night, before this is asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from builder.errors import LockError
from builder.model.digest import Digest
from builder.model.lock import LockedPackage
from builder.store import Store

_VERSION = 1  # moves with what a resolver makes of an archive and a request
_KIND = "closures"


class Archive(Protocol):
    """What resolves, and says in what state its archive is: `tools/apt.py`."""

    def resolve(self, suite: str, architecture: str, request: Sequence[str]) -> tuple[LockedPackage, ...]:
        """The closure of `request`, sorted by name; raises LockError."""

    def state(self, suite: str, architecture: str) -> Digest | None:
        """The signed content that is here of a suite; None when that is not known."""


class Remembering:
    """An archive whose closures are kept; for `stages/lock.py`."""

    def __init__(self, archive: Archive, store: Store) -> None:
        self._archive, self._store = archive, store

    def resolve(self, suite: str, architecture: str, request: Sequence[str]) -> tuple[LockedPackage, ...]:
        """The closure of `request`, sorted by name; raises LockError."""
        state = self._archive.state(suite, architecture)
        if state is None:
            return self._archive.resolve(suite, architecture, request)
        # One record for each request: that of today takes the place of yesterday's.
        key = Digest.of_json([_VERSION, suite, architecture, sorted(set(request))])
        known = _packages(self._store.record(_KIND, key), state)
        if known is None:
            known = self._archive.resolve(suite, architecture, request)
            fields = [[getattr(p, name) for name in LockedPackage.__slots__] for p in known]
            self._store.remember(_KIND, key, {"archive": state, "packages": fields})
        return known


def _packages(record: dict[str, Any] | None, state: Digest) -> tuple[LockedPackage, ...] | None:
    """The closure in a record of this state; None when it has none, or cannot be read."""
    if record is None or record.get("archive") != state:
        return None
    try:
        found = tuple(LockedPackage(*fields) for fields in record["packages"])
    except (LockError, KeyError, TypeError):
        return None
    return found or None
