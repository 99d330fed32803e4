"""The one door to the terminal: progress and tables for people, JSON for machines.

Every string from outside goes through `plain`, so that no escape sequence reaches a terminal.
"""

from __future__ import annotations

import atexit
import io
import json
import os
import sys
import textwrap
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Protocol, TextIO, cast

if TYPE_CHECKING:
    from rich.progress import TaskID

_LOG_WIDTH = 150  # columns of a table that goes to a file
_UNFOLDED_MAX = 20  # characters: a digest as it is shown, a reference
_FOLDED_MIN = 14  # characters that each other column needs
_SEPARATOR = 3  # characters between two columns
_LABEL_INDENT = 2


class Reporter(Protocol):
    """What the pipeline tells while it works; it never decides anything."""

    def stage(self, image: str, stage: str, detail: str = "") -> Any:
        """A context manager around one stage of one image."""

    def note(self, text: str) -> None:
        """One line for people."""

    def status(self, what: str, text: str) -> None:
        """How far something is, in the place of what was said of it before; empty: it is over."""


class Silent:
    """A reporter that says nothing: for machines and tests."""

    @contextmanager
    def stage(self, image: str, stage: str, detail: str = "") -> Iterator[None]:
        """Do nothing around a stage."""
        yield

    def note(self, text: str) -> None:
        """Say nothing."""

    def status(self, what: str, text: str) -> None:
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

    def status(self, what: str, text: str) -> None:
        """Say nothing: a log has lines for what has ended."""


class Live(Lines):
    """On a terminal: the same lines, and below them what is running now, with its time."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        console = Console(stderr=True, highlight=False)
        columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
        self._progress = Progress(*columns, console=console, transient=True)
        self._running = 0
        self._status: dict[str, TaskID] = {}
        self._lock = threading.Lock()
        # An interrupt may come between start and stop; the cursor must not stay hidden.
        atexit.register(self._progress.stop)

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

    def status(self, what: str, text: str) -> None:
        """A line of its own among what is running, until it is over."""
        with self._lock:
            task = self._status.get(what)
            if not text:
                if task is not None:
                    del self._status[what]
                    self._remove(task)
            elif task is None:
                self._status[what] = self._add(plain(text))
            else:
                self._progress.update(task, description=plain(text))

    def _begin(self, text: str) -> TaskID:
        with self._lock:
            return self._add(text)

    def _end(self, task: TaskID) -> None:
        with self._lock:
            self._remove(task)

    def _add(self, text: str) -> TaskID:
        self._running += 1
        if self._running == 1:
            self._progress.start()
        return self._progress.add_task(text, total=None)

    def _remove(self, task: TaskID) -> None:
        self._running -= 1
        self._progress.remove_task(task)
        if not self._running:
            self._progress.stop()


def for_people() -> Reporter:
    """The reporter for whoever reads standard error: live on a terminal, otherwise plain lines."""
    return Live() if sys.stderr.isatty() else Lines()


def duration(seconds: float) -> str:
    """A rough time for people: 45 s, 12 min, 2.5 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def plain(text: str) -> str:
    """`text` without anything that is not printed as itself, but for newline and tab.

    Escape sequences, C1 controls, marks that turn the direction of writing, lone surrogates.
    """
    return "".join(c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in text)


def output_works() -> bool:
    """Whether standard output still takes what was printed; if not, it is dropped from now on."""
    try:
        sys.stdout.flush()
    except OSError:
        drop_output()
        return False
    return True


def drop_output() -> None:
    """Send standard output to the null device, so that the interpreter can end in peace."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)


def settle_output() -> None:
    """Write out what is pending on standard output; what cannot be written was already told, and goes."""
    try:
        if sys.stdout is not None and not sys.stdout.closed:
            sys.stdout.flush()
    except (OSError, ValueError):
        drop_output()


def complain(text: str) -> None:
    """Print an error for people on standard error."""
    sys.stderr.write(plain(text) + "\n")


def emit(text: str) -> None:
    """Print a result for people on standard output."""
    print(plain(text))


def emit_json(value: Any) -> None:
    """Print a result for machines on standard output."""
    print(json_text(value))


def json_text(value: Any) -> str:
    """A value as JSON in ASCII, indented; what JSON does not know becomes its text.

    Plain data is written forty times as fast as the standard library does it with an indent.
    """
    import orjson

    options = orjson.OPT_INDENT_2 | orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME
    with suppress(orjson.JSONEncodeError):
        data = orjson.dumps(value, option=options)
        if data.isascii() and b"\x7f" not in data:
            return data.decode()
    return json.dumps(value, indent=2, ensure_ascii=True, default=str)


def forgiving_streams() -> None:
    """Let output pass that the terminal's character set lacks, instead of failing in the middle."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # it was closed; its number must not go to the next file that is opened
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - for good
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


class _ResultsOnly:
    """Standard output that takes what the main thread prints; the rest goes to standard error."""

    def __init__(self, results: TextIO) -> None:
        self._results = results

    def write(self, text: str) -> int:
        """Write to the one or the other."""
        ours = threading.current_thread() is threading.main_thread()
        return (self._results if ours else sys.stderr).write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._results, name)


def results_only() -> None:
    """From now on nothing but results gets to standard output: code of others is to be run.

    That runs in threads. What the programs that it starts write to file descriptor 1 goes to standard
    error, too.
    """
    stream = sys.stdout
    if stream is None or isinstance(stream, _ResultsOnly):
        return
    with suppress(OSError, ValueError):  # it has no descriptor, or there is no standard error
        if stream.fileno() == 1:
            stream.flush()
            kept = os.dup(1)
            os.dup2(2, 1)
            stream = open(kept, "w", encoding=stream.encoding, errors=stream.errors)  # noqa: SIM115 - for good
    sys.stdout = cast(TextIO, _ResultsOnly(stream))


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table for people on standard output; long cells fold at blanks.

    Where the terminal is too narrow, one block a row is printed in its place.
    """
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    live = sys.stdout.isatty()
    console = Console(highlight=False, width=None if live else _LOG_WIDTH)
    cells = [[plain(cell) for cell in row] for row in rows]
    widths = [max(len(name), *(len(row[i]) for row in cells), 0) for i, name in enumerate(columns)]
    # A digest that is cut into two lines cannot be copied.
    whole = [w <= _UNFOLDED_MAX or not any(" " in row[i] for row in cells) for i, w in enumerate(widths)]
    needed = sum(w if entire else _FOLDED_MIN for w, entire in zip(widths, whole, strict=True))
    if needed + _SEPARATOR * len(columns) > console.width:
        _records(title, columns, cells, console.width)
        return
    out = Table(title=Text(plain(title)), title_justify="left", box=SIMPLE_HEAD)
    for name, entire in zip(columns, whole, strict=True):
        out.add_column(name, overflow="fold", no_wrap=entire)
    for row in cells:
        out.add_row(*map(Text, row))
    if live:
        console.print(out)
        return
    with console.capture() as captured:
        console.print(out)
    print("\n".join(line.rstrip() for line in captured.get().rstrip().splitlines()) + "\n")


def _records(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> None:
    """Each row as a block of lines, one a column: for narrow terminals."""
    label = max(map(len, columns)) + 2
    indent = " " * (_LABEL_INDENT + label)
    print(plain(title))
    for row in rows:
        print()
        for name, cell in zip(columns, row, strict=True):
            folded = textwrap.wrap(cell, max(width - len(indent), 20), break_on_hyphens=False) or [""]
            print(f"{' ' * _LABEL_INDENT}{name:<{label}}{folded[0]}".rstrip())
            for line in folded[1:]:
                print(indent + line)
    print()


def log_line(text: str) -> None:
    """Write finished lines of a service's log to standard error."""
    sys.stderr.write(text)
    sys.stderr.flush()
