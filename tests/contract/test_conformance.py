"""The gate and the pull and content-discovery cases of the OCI distribution specification's suite."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support import conformance
from tests.support.conformance import DISCOVERY, PULL, Candidate
from tests.support.gates import running_gate
from tests.support.images import BUNDLE_TYPE
from tests.support.scenes import REPO, published


@pytest.fixture(scope="module")
def candidate(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Candidate]:
    with published(tmp_path_factory.mktemp("scene")) as scene:
        image = scene.world.image
        with running_gate(scene.sim.address, scene.world.trust) as gate:
            yield Candidate(
                gate.address,
                REPO,
                manifest=image.platforms[0].manifest.digest,
                tag="3.13",
                tagged=image.digest,
                media_type=f"{image.index.media_type}, {image.platforms[0].manifest.media_type}",
                blob=image.platforms[0].config.digest,
                artifact_type=BUNDLE_TYPE,
            )


@pytest.mark.parametrize("name", PULL)
def test_pull(candidate: Candidate, name: str) -> None:
    PULL[name](candidate)


@pytest.mark.parametrize("name", DISCOVERY)
def test_content_discovery(candidate: Candidate, name: str) -> None:
    DISCOVERY[name](candidate)


def test_a_case_that_fails_is_told(candidate: Candidate) -> None:
    """The cases do fail: nothing is pushed through a gate."""
    failed = conformance.run(conformance.PUSH, candidate)
    passing = set(conformance.PUSH) - set(failed)
    assert passing == {
        "GET nonexistent blob should result in 404 response",
        "GET nonexistent manifest should return 404",
    }
