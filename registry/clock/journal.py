"""The clock's memory: an append-only file of what was seen first, and of what was mended when.

One line of JSON for each of: an image's first verdict (`image`), what a scan said that is other than
before (`said`), a remediation that was promoted (`mended`) or taken up by all who had the old image
(`adopted`). Lines are never changed. A lost file begins anew from what the registry attests; what is lost
with it are the earlier times and the statistics of past weeks. A torn line concerns nobody else.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import fcntl
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from builder.errors import ToolError
from builder.model.evidence import Severity
from builder.signing.predicates import timestamp
from registry.clock.remediation import Remediation
from registry.clock.sightings import Said, Sighting, Spot, learn

_LINE_MAX = 16_384  # bytes; the longest texts of the index need half of it


@dataclass(frozen=True, slots=True)
class Mended:
    """A remediation that took time and ended with a promotion; times are UTC."""

    ref: str
    vulnerability: str
    package: str
    severity: Severity
    known_exploited: bool
    seen: dt.datetime
    fix: dt.datetime
    rebuilt: dt.datetime
    promoted: dt.datetime

    @property
    def key(self) -> tuple[str, str, str, dt.datetime]:
        """What tells it from others: the same finding may come back, and be mended again."""
        return self.ref, self.vulnerability, self.package, self.promoted


@dataclass
class Memory:
    """What the journal says; `unreadable` lines of it say nothing."""

    images: dict[str, dt.datetime] = field(default_factory=dict)
    sightings: dict[Spot, Sighting] = field(default_factory=dict)
    mended: dict[tuple[str, str, str, dt.datetime], Mended] = field(default_factory=dict)
    adopted: dict[tuple[str, str, str, dt.datetime], dt.datetime] = field(default_factory=dict)
    unreadable: int = 0

    def take(self, line: dict[str, Any]) -> None:
        """Learn what a line says; raises ValueError, KeyError or TypeError when it says nothing."""
        kind = line["kind"]
        if kind == "image":
            at = _time(line["at"])
            self.images[_text(line["digest"])] = min(at, self.images.get(line["digest"], at))
        elif kind == "said":
            said = _said(line)
            self.sightings[said.spot] = learn(self.sightings.get(said.spot), said)
        elif kind == "mended":
            one = _mended(line)
            self.mended.setdefault(one.key, one)
        elif kind == "adopted":
            key = (*(_text(line[k]) for k in ("ref", "vulnerability", "package")), _time(line["promoted"]))
            self.adopted.setdefault(key, _time(line["at"]))  # type: ignore[arg-type]
        else:
            raise ValueError("a line of another kind")


class Journal:
    """The file in a folder."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "journal.jsonl"

    def read(self) -> Memory:
        """What it says; nothing when it is not there. Raises ToolError when it cannot be read."""
        memory = Memory()
        try:
            with open(self.path, "rb") as handle:
                while line := handle.readline(_LINE_MAX):
                    try:
                        memory.take(json.loads(line))
                    except (ValueError, KeyError, TypeError, RecursionError):
                        memory.unreadable += bool(line.strip())
        except FileNotFoundError:
            return memory
        except OSError as error:
            raise ToolError("the clock's journal cannot be read", context=str(error)) from None
        return memory

    def append(self, lines: Iterable[dict[str, Any]]) -> None:
        """Write lines behind what is there, together; raises ToolError. Nothing is touched without lines."""
        data = b"".join(json.dumps(line, sort_keys=True).encode() + b"\n" for line in lines)
        if not data:
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self._exclusive() as handle:
                end = os.fstat(handle).st_size
                if end and os.pread(handle, 1, end - 1) != b"\n":  # a line that was cut
                    data = b"\n" + data
                if os.write(handle, data) != len(data):
                    os.ftruncate(handle, end)
                    raise OSError("the disk took only a part")
                os.fsync(handle)
        except OSError as error:
            raise ToolError(
                "the clock's journal cannot be written",
                context=f"{self.path}: {error}",
                hint="make room on the disk, then: goldsmith clock",
            ) from None

    @contextlib.contextmanager
    def _exclusive(self) -> Iterator[int]:
        handle = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield handle
        finally:
            os.close(handle)


def image_line(digest: str, ref: str, at: dt.datetime) -> dict[str, Any]:
    """That an image had its first verdict."""
    return {"kind": "image", "digest": digest, "ref": ref, "at": timestamp(at)}


def said_line(said: Said) -> dict[str, Any]:
    """What a scan said."""
    spot = said.spot
    return {
        "kind": "said",
        "release": spot.release,
        "package": spot.package,
        "version": spot.version,
        "vulnerability": spot.vulnerability,
        "at": timestamp(said.at),
        "database": said.database,
        "severity": said.severity.value,
        "fixed_version": said.fixed_version,
        "known_exploited": said.known_exploited,
        "retracted": said.retracted,
    }


def ended_lines(one: Remediation, memory: Memory) -> Iterator[dict[str, Any]]:
    """What is to be remembered of a remediation that has ended, if it is not yet."""
    if not one.measured or one.promoted is None or one.fix is None or one.rebuilt is None:
        return
    about = {"ref": one.ref, "vulnerability": one.vulnerability, "package": one.package}
    key = (*one.key, one.promoted)
    if key not in memory.mended:
        yield {
            "kind": "mended",
            **about,
            "severity": one.severity.value,
            "known_exploited": one.known_exploited,
            **{k: timestamp(at) for k, at in one.stages if k != "adopted"},
        }
    if one.adopted is not None and key not in memory.adopted:
        yield {
            "kind": "adopted",
            **about,
            "promoted": timestamp(one.promoted),
            "at": timestamp(one.adopted),
        }


def _said(line: dict[str, Any]) -> Said:
    return Said(
        Spot(*(_text(line[k]) for k in ("release", "package", "version", "vulnerability"))),
        _time(line["at"]),
        _text(line["database"]),
        Severity(line["severity"]),
        _text(line["fixed_version"]),
        line["known_exploited"] is True,
        line["retracted"] is True,
    )


def _mended(line: dict[str, Any]) -> Mended:
    seen, fix, rebuilt, promoted = (_time(line[k]) for k in ("seen", "fix", "rebuilt", "promoted"))
    if not seen <= fix <= rebuilt <= promoted:
        raise ValueError("stages that are not in their order")
    ref, vulnerability, package = (_text(line[k]) for k in ("ref", "vulnerability", "package"))
    severity, exploited = Severity(line["severity"]), line["known_exploited"] is True
    return Mended(ref, vulnerability, package, severity, exploited, seen, fix, rebuilt, promoted)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("no text")
    return value


def _time(value: object) -> dt.datetime:
    return dt.datetime.strptime(_text(value), "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=dt.UTC)
