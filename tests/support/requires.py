"""What a test needs from the machine: missing, it skips on a laptop and fails in CI."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from builder.tools import process


def tool(name: str) -> Path:
    """The program `name`; without it the test is skipped, or fails when `CI` is set."""
    found = process.find(name, os.environ)
    if found:
        return found
    if os.environ.get("CI"):
        pytest.fail(f"{name} is not installed, and in CI nothing may be skipped")
    pytest.skip(f"{name} is not installed")
