"""Conformance with real storage: the gate's reading parts, and the storage's pushing part beside a plain registry."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from builder.oci.client import RegistryClient
from builder.settings import Settings
from builder.stages.publish import publish
from registry.storage import service
from tests.support.conformance import DISCOVERY, PULL, PUSH, Candidate, run
from tests.support.evidence import world
from tests.support.gates import running_gate, wait_for
from tests.support.images import BUNDLE_TYPE
from tests.support.ports import free_address
from tests.support.requires import tool

pytestmark = pytest.mark.integration

REPO = "candidate/python"
# What Distribution itself does not do as the suite wants it; our storage must have no failure beyond these.
PLAIN = """\
version: 0.1
storage: {{filesystem: {{rootdirectory: {folder}}}}}
http: {{addr: "{address}"}}
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    tool("docker-registry")
    folder = tmp_path_factory.mktemp("storage")
    settings = Settings.load(
        {"PATH": os.environ["PATH"], "GOLDSMITH_STATE": str(folder), "GOLDSMITH_REGISTRY": free_address()},
        directory=folder,
        needs_catalogue=False,
    )
    service.up(settings)
    try:
        yield settings
    finally:
        service.down(settings)


@pytest.fixture
def plain(tmp_path: Path) -> Iterator[str]:
    """A Distribution with nothing but a folder and an address."""
    address = free_address()
    config = tmp_path / "config.yml"
    config.write_text(PLAIN.format(folder=tmp_path / "data", address=address))
    with open(tmp_path / "log", "wb") as log:
        process = subprocess.Popen([tool("docker-registry"), "serve", config], stdout=log, stderr=log)
    try:
        wait_for(lambda: answers(address), bool)
        yield address
    finally:
        process.terminate()
        process.wait(20)


def answers(address: str) -> bool:
    try:
        return Candidate(address, "x").ask("GET", "/v2/").status == 200
    except OSError:
        return False


def test_the_storage_fails_no_push_case_that_plain_distribution_passes(place: Settings, plain: str) -> None:
    theirs = run(PUSH, Candidate(plain, "conformance/push"))
    ours = run(PUSH, Candidate(place.registry, "conformance/push"))
    assert set(ours) <= set(theirs), {name: ours[name] for name in set(ours) - set(theirs)}
    assert len(PUSH) - len(ours) > 15  # it was not that nothing works


def test_the_gate_fails_no_pull_or_discovery_case(place: Settings, tmp_path: Path) -> None:
    here = replace(world(tmp_path / "world"), repository=f"{place.registry}/{REPO}")
    publish(here.signed(), RegistryClient(place.registry))
    platform = here.image.platforms[0]
    with running_gate(place.registry, here.trust) as gate:
        candidate = Candidate(
            gate.address,
            REPO,
            manifest=platform.manifest.digest,
            tag="3.13",
            tagged=here.image.digest,
            media_type=f"{here.image.index.media_type}, {platform.manifest.media_type}",
            blob=platform.config.digest,
            artifact_type=BUNDLE_TYPE,
        )
        assert run({**PULL, **DISCOVERY}, candidate) == {}
