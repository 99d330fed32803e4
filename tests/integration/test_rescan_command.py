"""`goldsmith rescan` with the real scanner and the sample database, over a registry's interface."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from builder.model.image import Target
from builder.model.lock import LockedPackage
from builder.rebuilds import waiting_rebuilds
from builder.stages.publish import publish
from builder.store import Store
from tests.contract.test_promotion_commands import Town
from tests.support.evidence import DATABASE, World, approval
from tests.support.images import built_image, target
from tests.support.indexes import binary, proofs_of
from tests.support.registry_simulator import simulator
from tests.support.vulndb import sample_database

pytestmark = pytest.mark.integration

FIXED = binary("bash", "5.2.37-2+b5", "bash", "5.2.37-2")
OPEN = binary("libssl3t64", "3.5.1-1", "openssl")


@pytest.fixture
def town(tmp_path: Path) -> Iterator[Town]:
    with simulator() as sim:
        town = Town(tmp_path, sim)
        path = town.catalogue / "policies" / "here.yaml"
        policy = yaml.safe_load(path.read_text())
        policy["database"]["sample"] = "accept"
        path.write_text(yaml.safe_dump(policy))
        town.environment["GOLDSMITH_TRIVY_DB"] = str(sample_database(tmp_path))
        yield town


def published(town: Town, packages: Sequence[LockedPackage], of: Target) -> World:
    """A candidate that was clean when it was scanned."""
    house = town.house
    files = ({"etc/os-release": of.ref.encode()},)
    image = built_image(house.folder / f"image-{of.definition.name}", of.definition.name, files)
    own = (replace(p, packages=tuple(packages)) for p in image.platforms)
    image = replace(image, platforms=tuple(own), target=of)
    proofs = proofs_of(image, packages, (), "13.1", DATABASE)
    repository = f"{town.sim.address}/candidate/{of.definition.name}"
    here = World(image, proofs, approval(image, proofs, house.now), house.keys, house.trust, repository)
    publish(here.signed(), house.client)
    return here


def test_from_the_registry_to_requests_and_renewed_verdicts(town: Town, tmp_path: Path) -> None:
    bad = published(town, [OPEN, FIXED], target())
    good = published(town, [FIXED], target("base", "13", None))
    done = town.json("rescan")
    assert (done["complete"], done["coverage"], done["renewed"]) == (True, 1.0, 1)
    outcomes = {o["digest"]: o["outcome"] for o in done["outcomes"]}
    assert outcomes == {bad.image.digest: "rebuild", good.image.digest: "keep"}
    asked = waiting_rebuilds(Store(town.state))
    assert {r.digest for r in asked} == {bad.image.digest}
    assert "CVE-2025-15467" in {r.vulnerability for r in asked}
    assert town.run("rescan").stdout.startswith("unchanged: 2 images")
    metrics = (town.state / "metrics" / "rescan.prom").read_text()
    assert "goldsmith_rescan_coverage 1.0" in metrics and "goldsmith_rescan_unchanged 1.0" in metrics
    found = town.json("affected", "CVE-2025-15467")
    assert [i["digest"] for i in found["images"]] == [bad.image.digest]
