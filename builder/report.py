"""The one door to the terminal: progress and tables for people, JSON for machines.

Every string from outside goes through `plain`, so that no escape sequence reaches a terminal.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol


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
    """Plain lines on standard error, one when a stage ends: for people and for logs."""

    def __init__(self) -> None:
        self._started = time.monotonic()

    @contextmanager
    def stage(self, image: str, stage: str, detail: str = "") -> Iterator[None]:
        """Say what is done, and how long it took."""
        live = sys.stderr.isatty()
        if live:
            sys.stderr.write(f"\r\033[K  {plain(image)}  {plain(stage)} …")
            sys.stderr.flush()
        began = time.monotonic()
        yield
        took = time.monotonic() - began
        if live:
            sys.stderr.write("\r\033[K")
        print(
            f"  {plain(image):<14} {plain(stage):<10} {took:6.1f} s  {plain(detail)}".rstrip(),
            file=sys.stderr,
        )

    def note(self, text: str) -> None:
        """Print one line."""
        print(plain(text), file=sys.stderr)


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
