"""What was found running, remembered for the clock: an append-only file for each place.

One line of JSON for each look, with the digests of ours that something ran on. A look takes the
place of the one before it; lines that cannot be read are passed over.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from builder.errors import ToolError, UsageError
from builder.model.digest import Digest
from builder.signing.predicates import timestamp

_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_LINE_MAX = 4 << 20  # bytes


@dataclass(frozen=True, slots=True)
class Look:
    """What ran somewhere at a time (UTC)."""

    place: str
    at: dt.datetime
    digests: frozenset[str]


def check_name(place: str) -> None:
    """Pass, or raise UsageError for what cannot be a place's name."""
    if not _NAME.fullmatch(place):
        raise UsageError(f"not a name of a place: {place[:80]!r}", hint="such as shop-cluster")


def keep(folder: Path, look: Look) -> None:
    """Remember a look; raises UsageError for a name that is none, ToolError when it cannot be written."""
    check_name(look.place)
    line = json.dumps({"at": timestamp(look.at), "digests": sorted(look.digests)}).encode()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder / f"{look.place}.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            data = b"\n" + line + b"\n"  # so that a line that was cut ends before it
            if os.write(handle, data) != len(data):
                raise OSError("the disk took only a part")
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        raise ToolError("what runs cannot be remembered", context=f"{folder}: {error}") from None


def looks(folder: Path, since: dt.datetime) -> tuple[Look, ...]:
    """All looks from `since` on, in their order in time; raises ToolError when one cannot be read."""
    try:
        files = sorted(folder.glob("*.jsonl"))
        found = [look for path in files if _NAME.fullmatch(path.stem) for look in _of(path)]
    except OSError as error:
        raise ToolError("what ran cannot be read", context=f"{folder}: {error}") from None
    return tuple(sorted((o for o in found if o.at >= since), key=lambda o: (o.at, o.place)))


def _of(path: Path) -> Iterator[Look]:
    with open(path, "rb") as handle:
        while line := handle.readline(_LINE_MAX):
            try:
                value = json.loads(line)
                at = dt.datetime.strptime(value["at"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=dt.UTC)
                yield Look(path.stem, at, _digests(value["digests"]))
            except (ValueError, KeyError, TypeError, RecursionError):
                continue


def _digests(values: Iterable[str]) -> frozenset[str]:
    return frozenset(str(Digest(v)) for v in values)
