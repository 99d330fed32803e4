"""What every image of this repository's catalogue owes its users."""

from __future__ import annotations

import datetime as dt
import runpy
from pathlib import Path
from typing import Any

import pytest

from builder.cli.facts import recorded
from builder.model.image import Target
from builder.stages.define import load_catalogue

ROOT = Path(__file__).parents[2]
CATALOGUE = load_catalogue(ROOT)
# The end of Debian's long-term support.
SUPPORTED = {"bookworm": dt.date(2028, 6, 30), "trixie": dt.date(2030, 6, 30)}


RUN = [t for t in CATALOGUE.targets() if t.variant == "runtime" or "runtime" not in t.definition.variants]


@pytest.mark.parametrize("target", RUN, ids=lambda t: t.ref)
def test_every_image_is_checked_for_what_it_does_and_for_what_it_must_not(target: Target) -> None:
    for platform in target.platforms:
        files, commands = target.file_checks(platform), target.command_checks(platform)
        assert any(f.present for f in files) or any(c.exit_code == 0 for c in commands)
        assert any(not f.present for f in files) or any(c.exit_code for c in commands)


@pytest.mark.parametrize("target", CATALOGUE.targets(), ids=lambda t: t.ref)
def test_no_stream_lives_longer_than_debian_mends_it(target: Target) -> None:
    assert target.stream.end_of_life <= SUPPORTED[target.stream.suite]


@pytest.mark.parametrize("name", CATALOGUE.definitions)
def test_every_image_says_what_it_is_for(name: str) -> None:
    text = (ROOT / "images" / name / "README.md").read_text()
    assert text.startswith(f"# {name}: ")


def sizes() -> Any:
    return runpy.run_path(str(ROOT / "docs" / "sizes.py"))


def test_the_tables_of_sizes_are_what_was_recorded() -> None:
    """`python docs/sizes.py` writes them anew."""
    page = sizes()
    assert (ROOT / "docs" / "catalogue.md").read_text() == page["page"](page["measured"](CATALOGUE))


def test_no_image_is_larger_than_its_goal() -> None:
    page = sizes()
    assert page["missed"](page["measured"](CATALOGUE)) == []


def test_every_image_was_built_and_its_digest_recorded() -> None:
    """`goldsmith facts IMAGE` does both; `make test-full` gives the digests again."""
    known = {ref for name in CATALOGUE.definitions for ref in recorded(CATALOGUE, name)}
    assert {t.ref for t in CATALOGUE.targets()} - known == set()
