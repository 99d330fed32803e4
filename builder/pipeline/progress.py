"""How far a run of several images is: one plain line when an image ends, with what is left."""

from __future__ import annotations

import time
from collections.abc import Sequence

from builder.model.outcome import ImageEnd
from builder.report import Reporter


class Progress:
    """Counts the ends of images, and guesses the time that is left from the pace so far."""

    def __init__(self, refs: Sequence[str], reporter: Reporter) -> None:
        self._total, self._done, self._reporter = len(refs), 0, reporter
        self._began = time.monotonic()

    def ended(self, end: ImageEnd) -> None:
        """Tell of one more image; nothing when there is but one."""
        self._done += 1
        if self._total == 1:
            return
        left = self._total - self._done
        wait = f"; {left} to go, about {self._remaining(left)}" if left else ""
        self._reporter.note(f"  [{self._done}/{self._total}] {end}{wait}")

    def _remaining(self, left: int) -> str:
        seconds = (time.monotonic() - self._began) / self._done * left
        if seconds < 90:
            return f"{seconds:.0f} s"
        return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
