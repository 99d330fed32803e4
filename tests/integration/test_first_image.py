"""The guide for newcomers, walked: its files and commands in their order, from nothing to a pulled image."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.conftest import ROOT, Checkout
from tests.support.engines import engine
from tests.support.ports import free_address
from tests.support.requires import tool
from tests.support.vulndb import sample_database

pytestmark = pytest.mark.integration

GUIDE = ROOT / "docs" / "guide" / "first-image.md"
GATE = "127.0.0.1:5700"
STEP = re.compile(
    r"`(?P<file>images/[\w./-]+)`:\n\n```yaml\n(?P<content>.*?)^```$"
    r"|^```sh(?P<refused> refused)?\n(?P<commands>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
_SECONDS_MAX = 600


def steps(gate: str) -> Iterator[str]:
    """The guide as a shell script: files are written where it says so, refusals have to be refusals."""
    yield "set -euo pipefail"
    for found in STEP.finditer(GUIDE.read_text()):
        if found["file"]:
            yield f"cat > {found['file']} <<'END OF FILE'\n{found['content']}END OF FILE"
        elif found["refused"]:
            yield f"if {found['commands'].strip()}; then echo 'this was not refused' >&2; exit 99; fi"
        else:
            yield found["commands"].replace(GATE, gate)


def test_a_newcomer_gets_from_nothing_to_an_image_pulled_through_the_gate(
    today: Checkout, tmp_path: Path
) -> None:
    for name in ("docker", "docker-registry", "git"):
        tool(name)
    for folder in ("images", "templates"):
        shutil.copytree(today.catalogue / folder, tmp_path / "goldsmith" / folder)
    for folder in ("pool", "apt"):  # what is there needs no download
        if (today.state / folder).is_dir():
            shutil.copytree(
                today.state / folder, tmp_path / "golden/.goldsmith" / folder, copy_function=os.link
            )
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "goldsmith").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m builder "$@"\n')
    (programs / "goldsmith").chmod(0o755)
    gate = free_address()
    with engine(tmp_path / "engine") as (found, _):
        environment = {
            **today.environment,
            "PATH": f"{programs}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "HOME": str(tmp_path),
            "DOCKER_HOST": found.host,
            "GOLDSMITH_REGISTRY": free_address(),
            "GOLDSMITH_MIRROR": gate,
            "GOLDSMITH_TRIVY_DB": str(sample_database(tmp_path / "database")),
        }
        try:
            done = subprocess.run(
                ["bash", "-c", "\n".join(steps(gate))],
                cwd=tmp_path,
                env=environment,
                capture_output=True,
                text=True,
                check=False,
                timeout=_SECONDS_MAX,
            )
        finally:
            subprocess.run(
                ["goldsmith", "down"], cwd=tmp_path / "golden", env=environment, check=False, timeout=60
            )
    assert done.returncode == 0, done.stderr + done.stdout
    assert done.stdout.endswith("42\n")
    assert "again: goldsmith try sqlite:3 --only check" in done.stdout
    assert "libreadline.so.8" in done.stdout
    assert "approved by the policy demo" in done.stdout


def test_the_guide_is_read_whole() -> None:
    """A block that the walk would pass over without a word is no guide that was tested."""
    text = "\n".join(steps(GATE))
    assert text.count("cat > images/") == 2
    assert text.count("this was not refused") == 2
    for command in ("new", "lock", "try", "init", "up", "run", "verify", "promote", "token"):
        assert f"goldsmith {command} " in text or f"goldsmith {command}\n" in text
