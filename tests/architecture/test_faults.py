"""The page of faults: each row names a test, and each test that it names exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "faults.md"
_NAMED = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


def named_in(path: str) -> set[str]:
    """The names of the test functions in a file; empty when there is no such file."""
    file = ROOT / path
    if not file.is_file():
        return set()
    return {n.name for n in ast.parse(file.read_text()).body if isinstance(n, ast.FunctionDef)}


def missing(text: str) -> list[str]:
    return [f"{path}::{name}" for path, name in _NAMED.findall(text) if name not in named_in(path)]


def rows(text: str) -> list[str]:
    """The rows of the tables, without their headings."""
    lines = text.splitlines()
    rules = {n for n, line in enumerate(lines) if line.startswith("| ---")}
    return [
        line for n, line in enumerate(lines) if line.startswith("|") and n not in rules and n + 1 not in rules
    ]


def test_every_test_that_the_page_names_exists() -> None:
    assert missing(PAGE.read_text()) == []


def test_every_fault_names_a_test() -> None:
    found = rows(PAGE.read_text())
    assert len(found) > 80
    assert [row for row in found if not _NAMED.search(row)] == []


def test_a_test_that_is_gone_is_noticed() -> None:
    assert missing("`tests/unit/test_store.py::test_nothing`") == ["tests/unit/test_store.py::test_nothing"]
    assert missing("`tests/unit/nothing.py::test_x`") == ["tests/unit/nothing.py::test_x"]
