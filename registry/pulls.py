"""Who pulled what: an append-only journal that the gate writes, and a reader of it.

One line of JSON for each identity, repository, digest and tag in a batch, with how often. Each
gate has files of its own, `YYYY-MM-DD-RANDOM.jsonl`, a new one for each day (UTC) and when one is
large; so several gates share a folder, and a torn line at the end of a file concerns nobody else.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import os
import re
import secrets
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from builder.model.digest import Digest

KEPT_DAYS = 400
_FILE_MAX = 64 << 20  # bytes
_BATCH_MAX = 20_000  # different pulls that are kept until they are written
_LINE_MAX = 2048  # bytes
_FILE = re.compile(r"(\d{4}-\d\d-\d\d)-[0-9a-f]{8}\.jsonl")
_FIELDS = {"time", "who", "repository", "digest", "tag", "count"}


@dataclass(frozen=True, slots=True)
class Pull:
    """That an identity was given a manifest `count` times; `tag` is empty when asked by digest."""

    at: dt.datetime
    who: str
    repository: str
    digest: Digest
    tag: str
    count: int


class PullJournal:
    """Takes notes in memory, and writes them together; `note` does not wait for the disk."""

    def __init__(self, folder: Path, stamp: Callable[[], str]) -> None:
        self._folder, self._stamp = folder, stamp
        self._noted: dict[tuple[str, str, str, str], int] = {}
        self._turn = threading.Lock()
        self._handle, self._day, self._size, self._torn = -1, "", 0, False
        self.dropped = 0

    def note(self, who: str, repository: str, digest: str, tag: str) -> None:
        """A manifest was handed out."""
        with self._turn:
            self._count((who, repository, digest, tag), 1)

    def _count(self, key: tuple[str, str, str, str], count: int) -> None:
        if key in self._noted or len(self._noted) < _BATCH_MAX:
            self._noted[key] = self._noted.get(key, 0) + count
        else:
            self.dropped += count

    def flush(self) -> None:
        """Bring what was noted to the disk; raises OSError, then it is kept for the next time."""
        with self._turn:
            noted, self._noted = self._noted, {}
        if not noted:
            return
        time = self._stamp()
        lines = [
            json.dumps(
                {"time": time, "who": who, "repository": name, "digest": digest, "tag": tag, "count": count}
            )
            for (who, name, digest, tag), count in noted.items()
        ]
        data = ("\n" * self._torn + "\n".join(lines) + "\n").encode()
        try:
            self._open(time[:10], len(data))
            written = os.write(self._handle, data)
            self._size += written
            self._torn = written != len(data)
            if self._torn:
                raise OSError(28, "the disk took only a part")
            os.fdatasync(self._handle)
        except OSError:
            with self._turn:
                for key, count in noted.items():
                    self._count(key, count)
            raise

    def close(self) -> None:
        """Write the rest, as far as possible."""
        with contextlib.suppress(OSError):
            self.flush()
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1

    def _open(self, day: str, more: int) -> None:
        if self._handle >= 0 and day == self._day and self._size + more <= _FILE_MAX:
            return
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        name = f"{day}-{secrets.token_hex(4)}.jsonl"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND
        self._handle = os.open(self._folder / name, flags, 0o600)
        self._day, self._size, self._torn = day, 0, False
        self._forget(day)

    def _forget(self, today: str) -> None:
        first = (dt.date.fromisoformat(today) - dt.timedelta(days=KEPT_DAYS)).isoformat()
        for path in self._folder.iterdir():
            match = _FILE.fullmatch(path.name)
            if match and match[1] < first:
                path.unlink(missing_ok=True)


def pulls(folder: Path, since: dt.datetime) -> Iterator[Pull]:
    """What was pulled from `since` on, file by file; lines that are not whole are passed over.

    Raises OSError when a file that is there cannot be read.
    """
    first = since.astimezone(dt.UTC)
    names = sorted(p.name for p in folder.iterdir()) if folder.is_dir() else []
    for name in names:
        match = _FILE.fullmatch(name)
        if match is None or match[1] < first.date().isoformat():
            continue
        with open(folder / name, "rb") as handle:
            while line := handle.readline(_LINE_MAX):
                found = _parse(line)
                if found is not None and found.at >= first:
                    yield found


def _parse(line: bytes) -> Pull | None:
    try:
        value = json.loads(line)
        if not line.endswith(b"\n") or set(value) != _FIELDS or type(value["count"]) is not int:
            return None
        at = dt.datetime.strptime(value["time"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=dt.UTC)
        who, name, tag = str(value["who"]), str(value["repository"]), str(value["tag"])
        return Pull(at, who, name, Digest(value["digest"]), tag, value["count"])
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
