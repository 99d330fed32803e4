"""Every image, variant and platform of the catalogue gives one digest on all three engines.

It takes too long for every change: `make test-full` runs it, continuous integration
builds a chosen few (`test_reproducible.py`).
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from builder.oci.layout import verify_layout
from builder.stages.define import load_catalogue
from tests.integration.conftest import ROOT, Checkout
from tests.support import oracles

pytestmark = pytest.mark.full
TARGETS = load_catalogue(ROOT).targets()
ENGINES = ("direct", "docker", "buildah")
_SECONDS_MAX = 3600  # for all builds of one image, or one build of all, on a slow machine


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, clean_environment: dict[str, str]) -> Iterator[Checkout]:
    """The catalogue as it is, locked against the archive of today; packages that are here are used."""
    folder = tmp_path_factory.mktemp("whole")
    for part in ("images", "templates"):
        shutil.copytree(ROOT / part, folder / "catalogue" / part)
    pool = Path(os.environ.get("GOLDSMITH_STATE") or ROOT / ".goldsmith") / "pool"
    if pool.is_dir():
        shutil.copytree(pool, folder / "state" / "pool")
    path = f"{oracles.buildah()}:{os.environ['PATH']}"
    checkout = Checkout(folder / "catalogue", folder / "state", {**clean_environment, "PATH": path})
    checkout.goldsmith("lock")
    yield checkout
    checkout.goldsmith("down")


@pytest.mark.parametrize("ref", [target.ref for target in TARGETS])
def test_three_engines_give_one_digest(whole: Checkout, ref: str) -> None:
    engines = [word for name in ENGINES for word in ("--engine", name)]
    # Two that differ end the command with 7 and the first difference.
    built = json.loads(whole.goldsmith("build", ref, *engines, "--json", seconds=_SECONDS_MAX).stdout)
    verify_layout(Path(built["layout"]))
    (target,) = [x for x in TARGETS if x.ref == ref]
    assert set(built["platforms"]) == {str(x) for x in target.definition.platforms}
    records = [json.loads(x.read_text()) for x in (whole.state / "records" / "built").iterdir()]
    (engines_of,) = [x["engines"] for x in records if x["digest"] == built["digest"] and x["ref"] == ref]
    assert engines_of == list(ENGINES)


def test_recorded_digests_are_given_again(whole: Checkout, clean_environment: dict[str, str]) -> None:
    """From the locks as they are checked in; their packages have to be in the pool or in the mirror."""
    recorded = Checkout(ROOT, whole.state, clean_environment)
    told = json.loads(recorded.goldsmith("facts", "--check", "--json", seconds=_SECONDS_MAX).stdout)
    assert set(told["images"]) == {target.ref for target in TARGETS}
    assert told["not_reproduced"] == []
