"""The rebuild requests that wait in the state directory: written by a rescan, read by a plan."""

from __future__ import annotations

from builder.errors import ToolError
from builder.model.digest import Digest
from builder.model.rebuild import RebuildRequest
from builder.store import Store

_KIND = "rebuilds"


def ask_rebuild(store: Store, request: RebuildRequest) -> bool:
    """Keep a request until it is withdrawn; returns False when the same one waits already.

    The first time of asking stays, because the clock of a remediation starts there.
    """
    if store.record(_KIND, request.key) is not None:
        return False
    store.remember(_KIND, request.key, request.as_dict())
    return True


def withdraw_rebuild(store: Store, request: RebuildRequest) -> bool:
    """Drop a request: it was fulfilled, or its advisory was withdrawn. Returns whether it waited."""
    try:
        (store.records / _KIND / request.key.hex).unlink()
    except FileNotFoundError:
        return False
    return True


def waiting_rebuilds(store: Store) -> tuple[RebuildRequest, ...]:
    """Every request that waits, the oldest first; raises ToolError when one cannot be read."""
    found = []
    folder = store.records / _KIND
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.name.startswith("."):  # being written
            continue
        try:
            request = RebuildRequest.parse(store.record(_KIND, Digest(f"sha256:{path.name}")) or {})
        except ValueError as error:
            raise ToolError(
                "a rebuild request cannot be read",
                context=f"{path}: {error}",
                hint="remove the file; the next rescan asks again",
                reference="rebuild-request",
            ) from None
        found.append(request)
    return tuple(sorted(found, key=lambda r: (r.requested_at, r.ref, r.vulnerability, r.package)))
