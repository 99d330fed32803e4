"""Seconds by stage: told to the reporter as they pass, and kept to say how long the next run will take."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from builder.model.digest import Digest
from builder.report import Reporter
from builder.store import Store

_KIND = "seconds"
_BUILDING = frozenset({"fetch", "unpack", "build", "normalise", "finish", "compare", "push"})
_SIDE_BY_SIDE = ("check", "scan")
_AFTER = frozenset({"judge", "sign", "publish"})


@dataclass(slots=True)
class Stages:
    """Seconds by stage of one image; reported as they end."""

    image: str
    reporter: Reporter
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str, detail: str = "") -> Iterator[None]:
        """Time one stage."""
        began = time.monotonic()
        with self.reporter.stage(self.image, name, detail):
            yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - began


@dataclass(frozen=True, slots=True)
class Took:
    """How long an image took: seconds to build it, and to check, scan, judge, sign and publish it."""

    build: float = 0.0
    release: float = 0.0


def keep_seconds(store: Store, ref: str, stages: Mapping[str, float]) -> None:
    """Keep what the stages of an image took; those that did not run keep their times of before."""
    key = Digest.of(ref.encode())
    new = {name: round(seconds, 3) for name, seconds in stages.items()}
    store.remember(_KIND, key, {"ref": ref, "stages": {**_stages(store, ref), **new}})


def took_before(store: Store, ref: str) -> Took | None:
    """How long an image took when it was made last; None when that is not known."""
    stages = _stages(store, ref)
    if not stages:
        return None
    side = max(stages.get(name, 0.0) for name in _SIDE_BY_SIDE)
    return Took(
        sum(seconds for name, seconds in stages.items() if name in _BUILDING),
        side + sum(seconds for name, seconds in stages.items() if name in _AFTER),
    )


def _stages(store: Store, ref: str) -> dict[str, float]:
    record = store.record(_KIND, Digest.of(ref.encode())) or {}
    stages = record.get("stages")
    if record.get("ref") != ref or not isinstance(stages, dict):
        return {}
    return {str(name): float(s) for name, s in stages.items() if isinstance(s, int | float) and s >= 0}
