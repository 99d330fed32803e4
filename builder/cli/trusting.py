"""The public keys that a command believes, and the memory of trust files in the state directory."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

from builder.errors import ToolError
from builder.model.digest import Digest
from builder.store import Store

if TYPE_CHECKING:
    from builder.signing.trust import Trust

WARNING_DAYS = 30  # before the end of a trust file
_DAY = 86400  # seconds
_RECORDS = "trust"  # records: the newest trust file by the root key that signed it


class StoreMemory:
    """Remembers trust files in a state directory; where there is none, nothing is remembered."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def newest(self, root: Digest) -> tuple[int, str]:
        found = self._store.record(_RECORDS, root) or {}
        version, digest = found.get("version"), found.get("digest")
        return (version, digest) if isinstance(version, int) and isinstance(digest, str) else (0, "")

    def remember(self, root: Digest, version: int, digest: str) -> None:
        # A disk that is full must not keep a revocation from taking effect.
        with contextlib.suppress(ToolError):
            if self._store.root.is_dir():
                self._store.remember(_RECORDS, root, {"version": version, "digest": digest})


def trusted(store: Store, folder: Path | None = None) -> Trust:
    """The keys of a folder, by default of the state directory; warns before the end of the trust file.

    Raises UsageError, TrustRefused.
    """
    from builder.report import complain
    from builder.settings import wall_clock
    from builder.signing.trust import Trust

    found = Trust.load(folder or store.keys, StoreMemory(store))
    left = (found.expires.timestamp() - wall_clock()) / _DAY if found.expires else WARNING_DAYS
    if 0 <= left < WARNING_DAYS:
        complain(f"warning: the trust file expires in {left:.0f} days; see `goldsmith keys list`")
    return found
