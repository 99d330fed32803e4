"""The one door to the terminal: progress and tables for people, JSON for machines.

Every string from outside goes through `plain`, so that no escape sequence reaches a terminal.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from rich.progress import TaskID


class Reporter(Protocol):
    """What the pipeline tells while it works; it never decides anything."""

    def stage(self, image: str, stage: str, detail: str = "") -> Any:
        """A context manager around one stage of one image."""

    def note(self, text: str) -> None:
        """One line for people."""


class Silent:
    """A reporter that says nothing: for machines and tests."""

    @contextmanager
    def stage(self, image: str, stage: str, detail: str = "") -> Iterator[None]:
        """Do nothing around a stage."""
        yield

    def note(self, text: str) -> None:
        """Say nothing."""


class Lines:
    """Plain lines on standard error, one when a stage ends: for logs."""

    @contextmanager
    def stage(self, image: str, stage: str, detail: str = "") -> Iterator[None]:
        """Say what was done, and how long it took; nothing of a stage that failed."""
        began = time.monotonic()
        yield
        took = time.monotonic() - began
        self.note(f"  {image:<14} {stage:<10} {took:6.1f} s  {detail}".rstrip())

    def note(self, text: str) -> None:
        """Print one line."""
        print(plain(text), file=sys.stderr)


class Live(Lines):
    """On a terminal: the same lines, and below them what is running now, with its time."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        console = Console(stderr=True, highlight=False)
        columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
        self._progress = Progress(*columns, console=console, transient=True)
        self._running = 0
        self._lock = threading.Lock()

    @contextmanager
    def stage(self, image: str, stage: str, detail: str = "") -> Iterator[None]:
        """Show the stage while it runs, then print its line."""
        task = self._begin(plain(f"{image:<14} {stage:<10} {detail}"))
        try:
            with super().stage(image, stage, detail):
                yield
        finally:
            self._end(task)

    def note(self, text: str) -> None:
        """Print one line above what is running."""
        self._progress.console.print(plain(text), markup=False, soft_wrap=True)

    def _begin(self, text: str) -> TaskID:
        with self._lock:
            self._running += 1
            if self._running == 1:
                self._progress.start()
            return self._progress.add_task(text, total=None)

    def _end(self, task: TaskID) -> None:
        with self._lock:
            self._running -= 1
            self._progress.remove_task(task)
            if not self._running:
                self._progress.stop()


def for_people() -> Reporter:
    """The reporter for whoever reads standard error: live on a terminal, otherwise plain lines."""
    return Live() if sys.stderr.isatty() else Lines()


def plain(text: str) -> str:
    """`text` without control characters (ESC, C0 and C1, but for newline and tab)."""
    return "".join(
        c if c in "\n\t" or (ord(c) >= 32 and not 127 <= ord(c) < 160) else "\N{REPLACEMENT CHARACTER}"
        for c in text
    )


def emit(text: str) -> None:
    """Print a result for people on standard output."""
    print(plain(text))


def emit_json(value: Any) -> None:
    """Print a result for machines on standard output."""
    print(json.dumps(value, indent=2, ensure_ascii=True, default=str))


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table for people on standard output; wide cells fold."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False, width=None if sys.stdout.isatty() else 150)
    out = Table(title=title, title_justify="left", box=SIMPLE_HEAD)
    for column in columns:
        out.add_column(column, overflow="fold")
    for row in rows:
        out.add_row(*(Text(plain(cell)) for cell in row))
    console.print(out)
