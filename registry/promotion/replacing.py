"""Deprecates what was replaced, naming the replacement; a run that is cut is completed by the next one.

What is to be done is written down before: once the ledger says `deprecated`, nothing else would tell
that the registry does not say so yet.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from builder.errors import GoldsmithError
from builder.model.channel import Channel
from builder.model.digest import Digest
from builder.store import read_file, write_atomically
from registry.audit.ledger import Entry
from registry.promotion.callback import change
from registry.promotion.office import Office
from registry.promotion.replaced import Replaced, replaced

_NOTES_MAX = 4 << 20  # bytes


@dataclass(frozen=True, slots=True)
class Done:
    """What was deprecated, and what could not be, with the reason."""

    deprecated: tuple[Replaced, ...]
    failed: tuple[tuple[Replaced, GoldsmithError], ...]


def deprecate_replaced(
    office: Office, notes: Path, why: str, allowed: Callable[[Replaced], None] = lambda one: None
) -> Done:
    """Deprecate every stable image whose tag has moved on; `notes` is a file to go on from.

    `allowed` raises PolicyDenied for what the caller may not decide. One that fails stops no other.
    """
    history = office.ledger.entries()
    left = [one for one in _read(notes) if _is_cut(one, history)]
    due = (*left, *replaced(history))
    if due:
        rows = [[one.ref, one.digest, one.by] for one in due]
        write_atomically(notes, json.dumps(rows).encode())
    done, failed = [], []
    for one in due:
        where = office.client.reference(one.ref.partition(":")[0], digest=one.digest)
        try:
            if office.client.head_manifest(where) is None:
                continue  # the registry has it no more
            allowed(one)
            if change(office, where, Channel.DEPRECATED, why, one.replacement).changed:
                done.append(one)
        except GoldsmithError as error:
            failed.append((one, error))
    if not failed:
        notes.unlink(missing_ok=True)
    return Done(tuple(done), tuple(failed))


def _is_cut(one: Replaced, history: Sequence[Entry]) -> bool:
    """Whether the newest decision on the image is the one that was noted."""
    of_it = [e.fact.after for e in history if e.fact.digest == one.digest and "channel" in e.fact.after]
    last = of_it[-1] if of_it else {}
    return last.get("channel") == Channel.DEPRECATED and last.get("replacement") == one.replacement


def _read(notes: Path) -> list[Replaced]:
    try:
        rows = json.loads(read_file(notes, _NOTES_MAX))
        return [Replaced(str(ref), Digest(digest), Digest(by)) for ref, digest, by in rows]
    except (OSError, ValueError, TypeError):
        return []
