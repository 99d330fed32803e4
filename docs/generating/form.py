"""What all pages are made of: Markdown tables and anchors, and the check that tables here match the code."""

from __future__ import annotations

import inspect
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
NOTE = "<!-- Written by docs/generate.py; do not edit. -->\n\n"


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """A Markdown table."""
    lines = [
        f"| {' | '.join(head)} |",
        f"|{' --- |' * len(head)}",
        *(f"| {' | '.join(row)} |" for row in rows),
    ]
    return "\n".join(lines) + "\n"


def cell(text: str) -> str:
    """Text that may stand in a cell."""
    return " ".join(text.split()).replace("|", "\\|")


def first_line(text: str | None) -> str:
    """The first paragraph of a docstring, as one line."""
    return " ".join(inspect.cleandoc(text or "").split("\n\n")[0].split())


def slug(heading: str) -> str:
    """The anchor of a heading."""
    return heading.lower().replace(" ", "-")


def page(lines: list[str]) -> str:
    """A page of the reference."""
    return NOTE + "\n".join(lines).rstrip() + "\n"


def same(what: str, code: set[str], documented: set[str]) -> None:
    """End with what is in the code and not in a table here, or the other way round."""
    if code != documented:
        raise SystemExit(f"docs/generating: {what} differ: {', '.join(sorted(code ^ documented))}")
