"""The digests beside the definitions are what building gives, here as on the machine that recorded them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from builder.cli.facts import recorded
from builder.cli.wiring import Workshop
from builder.errors import LockError
from builder.model.facts import ImageFacts
from builder.pipeline.every import build_every
from builder.report import Silent
from builder.settings import Settings
from builder.stages.define import load_catalogue
from builder.store import Store

pytestmark = pytest.mark.integration
ROOT = Path(__file__).parents[2]
# Everything that decides a digest (packages, assembly, layers, compressor, two platforms), for a second of work.
SMALLEST = "static:13"


def test_the_recorded_digest_is_built_again(tmp_path: Path) -> None:
    """When it is stale, `goldsmith facts static` records it anew; when it differs, something is not reproducible."""
    catalogue = load_catalogue(ROOT)
    settings = replace(Settings.load(directory=ROOT), state=tmp_path)
    workshop = Workshop(settings, catalogue, Store(tmp_path).create())
    target = catalogue.find(SMALLEST)
    try:
        built = build_every(catalogue, [target], workshop.builder(["direct"]), Silent())
    except LockError as error:
        # The archive keeps a package for some days only after a newer one is there.
        pytest.skip(f"the packages of {SMALLEST} are gone from the archive: {error.message}")
    now, before = ImageFacts.of(built[SMALLEST]), recorded(catalogue, "static")[SMALLEST]
    assert before.input == now.input, "run `goldsmith facts static` and review the change"
    assert before == now
