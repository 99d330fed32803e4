"""Time that never goes back: a clock set back must not bring an expired verdict to life again."""

from __future__ import annotations

import datetime as dt
import threading
from collections.abc import Callable


class SteadyClock:
    """The wall clock, but never less than what has passed since the highest value it had.

    `wall` gives seconds since the epoch, `monotonic` seconds of any origin.
    """

    def __init__(self, wall: Callable[[], float], monotonic: Callable[[], float]) -> None:
        self._wall, self._monotonic = wall, monotonic
        self._lock = threading.Lock()
        self._offset = wall() - monotonic()
        self._stamped = (0, "")

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
