"""How far a run of several images is: a line when an image ends; what waits, and the time that is left."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from builder.model.outcome import ImageEnd
from builder.pipeline.timing import Took
from builder.report import Reporter, duration

_SHOWN = 3  # images that are named as waiting
_WHAT = "images"


class Progress:
    """Counts the ends of images, and says what time is left, from what the same images took before.

    `parents` has an image's parent, or None, parents first; `expected` what it will probably take,
    None when that is not known. So many `jobs` are built at once, and twice as many released.
    """

    def __init__(
        self,
        parents: Mapping[str, str | None],
        expected: Mapping[str, Took | None],
        jobs: int,
        reporter: Reporter,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._parents, self._jobs, self._reporter, self._clock = parents, jobs, reporter, clock
        self._expected = dict(expected)
        self._ended: set[str] = set()
        self._begun: dict[tuple[str, str], float] = {}
        self._done: dict[tuple[str, str], float] = {}
        self._lock = threading.Lock()

    @contextmanager
    def working(self, kind: str, ref: str) -> Iterator[None]:
        """Around the `build` or the `release` of an image."""
        with self._lock:
            self._begun[kind, ref] = self._clock()
        self._show()
        try:
            yield
        finally:
            with self._lock:
                self._done[kind, ref] = self._clock() - self._begun[kind, ref]

    def ended(self, end: ImageEnd) -> None:
        """Tell of one more image; nothing when there is but one."""
        with self._lock:
            self._ended.add(end.ref)
        total, done = len(self._parents), len(self._ended)
        if total == 1:
            return
        left = f"; {total - done} to go{self._about(', about {}')}" if total > done else ""
        self._reporter.note(f"  [{done}/{total}] {end}{left}")
        self._show()

    def left(self) -> float | None:
        """Seconds until all is done, by the longest chain and by the work; None when nothing is known."""
        with self._lock:
            build = {ref: self._rest("build", ref) for ref in self._parents}
            release = {ref: self._rest("release", ref) for ref in self._parents}
        if any(x is None for x in (*build.values(), *release.values())):
            return None
        built: dict[str | None, float] = {None: 0.0}
        released: dict[str | None, float] = {None: 0.0}
        for ref, parent in self._parents.items():
            above = parent if parent in built else None
            built[ref] = built[above] + (build[ref] or 0.0)
            released[ref] = max(built[ref], released[above]) + (release[ref] or 0.0)
        rest = [x for x in release.values() if x]  # the last one to be built is released after it
        work = sum(x or 0.0 for x in build.values()) / self._jobs + min(rest, default=0.0)
        return max(*released.values(), work, sum(rest) / (2 * self._jobs))

    def _rest(self, kind: str, ref: str) -> float | None:
        """Seconds that one part of an image still takes; that of the others where it never ran."""
        if ref in self._ended or (kind, ref) in self._done:
            return 0.0
        took = self._expected.get(ref)
        whole = getattr(took, kind) if took is not None else self._usual(kind)
        since = self._begun.get((kind, ref))
        if whole is None or since is None:
            return whole
        return max(0.0, whole - (self._clock() - since))

    def _usual(self, kind: str) -> float | None:
        known = [getattr(t, kind) for t in self._expected.values() if t is not None and getattr(t, kind)]
        known += [s for (what, ref), s in self._done.items() if what == kind and not self._expected.get(ref)]
        return sum(known) / len(known) if known else None

    def _show(self) -> None:
        """Below what is running: how many are done, what waits, and for how long still."""
        with self._lock:
            working = {ref for kind, ref in self._begun if (kind, ref) not in self._done}
            waits = [r for r in self._parents if r not in working and r not in self._ended]
        named = ", ".join(waits[:_SHOWN]) + (f" and {len(waits) - _SHOWN} more" * (len(waits) > _SHOWN))
        text = f"{len(self._ended)} of {len(self._parents)} images" + (f"; waiting: {named}" if waits else "")
        self._reporter.status(_WHAT, text + self._about("; about {} left"))

    def close(self) -> None:
        """Nothing is to be shown any more."""
        self._reporter.status(_WHAT, "")

    def _about(self, text: str) -> str:
        left = self.left()
        return text.format(duration(left)) if left else ""
