"""Seconds by stage, told to the reporter as they pass."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from builder.report import Reporter


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
