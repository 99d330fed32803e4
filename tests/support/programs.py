"""Fake programs for contract tests: small scripts that misbehave in one way."""

from __future__ import annotations

import sys
from pathlib import Path


def program(path: Path, body: str) -> Path:
    """An executable Python script at `path`; `body` may use `sys`, `os`, `json` and `time`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!{sys.executable} -I\nimport json, os, sys, time\n{body}\n")
    path.chmod(0o755)
    return path
