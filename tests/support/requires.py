"""Programs that tests need: missing ones skip a test on a laptop, and fail it in CI."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

_FOLDERS = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def tool(name: str) -> Path:
    """The program called `name`; without it the test is skipped, or fails when CI is set."""
    found = shutil.which(name, path=os.environ.get("PATH", "") + ":" + _FOLDERS)
    if found is None:
        missing(f"{name} is not installed")
    return Path(found)


def missing(reason: str) -> None:
    """Skip the test for want of something of this machine, or fail it when CI is set."""
    if os.environ.get("CI"):
        pytest.fail(f"{reason}, and CI must have it (.ci/bootstrap installs it)")
    pytest.skip(reason)
