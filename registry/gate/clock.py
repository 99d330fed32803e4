"""Time that never goes back: a clock set back must not bring an expired verdict to life again."""

from __future__ import annotations

import contextlib
import datetime as dt
import threading
from collections.abc import Callable
from pathlib import Path

from builder.errors import ToolError
from builder.store import write_atomically

_KEEP_SECONDS = 60


class SteadyClock:
    """The wall clock, but never less than what has passed since the highest value it had.

    `wall` gives seconds since the epoch, `monotonic` seconds of any origin. With a `file`, the
    highest value outlives the process (`keep`); `behind` is by how many seconds the wall clock
    was behind that at the start.
    """

    def __init__(
        self, wall: Callable[[], float], monotonic: Callable[[], float], file: Path | None = None
    ) -> None:
        self._wall, self._monotonic, self._file = wall, monotonic, file
        self._lock = threading.Lock()
        self._kept = _read(file)
        began = wall()
        self.behind = max(0.0, self._kept - began)
        self._offset = began + self.behind - monotonic()
        self._stamped = (0, "")

    def keep(self) -> None:
        """Remember the time, once a minute; a disk that takes nothing is no reason to stop."""
        now = self.now()
        if self._file is None or now < self._kept + _KEEP_SECONDS:
            return
        with contextlib.suppress(OSError, ToolError):
            self._file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_atomically(self._file, f"{now:.0f}\n".encode())
            self._kept = now

    def now(self) -> float:
        """Seconds since the epoch."""
        passed, wall = self._monotonic(), self._wall()
        with self._lock:
            self._offset = max(self._offset, wall - passed)
            return passed + self._offset

    def stamp(self) -> str:
        """The same as RFC 3339, to the second."""
        second = int(self.now())
        if second != self._stamped[0]:
            text = dt.datetime.fromtimestamp(second, dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            self._stamped = (second, text)
        return self._stamped[1]

    def time(self) -> dt.datetime:
        """The same as a time in UTC."""
        return dt.datetime.fromtimestamp(self.now(), dt.UTC)


def _read(file: Path | None) -> float:
    """The kept time; 0 when there is none that can be read."""
    try:
        return float(int(file.read_bytes()[:20])) if file is not None else 0.0
    except (OSError, ValueError):
        return 0.0
