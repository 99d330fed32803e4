"""From a real registry to a mended Dockerfile: export, check offline, fix."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from builder.cli import main as command_line
from builder.oci.client import RegistryClient
from builder.settings import Settings
from builder.stages.publish import publish
from registry.storage import service
from tests.support.evidence import World, approval, evidence, new_keys, provenance_of
from tests.support.images import built_image
from tests.support.ports import free_address
from tests.support.requires import tool

pytestmark = pytest.mark.integration


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """An image with all its evidence, approved today, published in a docker-registry."""
    from builder.signing.trust import Trust
    from builder.stages.sign import sign

    tool("docker-registry")
    address = free_address()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GOLDSMITH_REGISTRY", address)
    monkeypatch.setenv("GOLDSMITH_MIRROR", address)
    monkeypatch.setenv("GOLDSMITH_STATE", str(tmp_path / "state"))
    monkeypatch.delenv("GOLDSMITH_CATALOGUE", raising=False)
    settings = Settings.load(needs_catalogue=False)
    monkeypatch.setenv("GOLDSMITH_KEY_PASSPHRASE", "correct horse battery staple")
    keys = new_keys(tmp_path / "state" / "keys")
    image = built_image(tmp_path / "image")
    proofs = tuple(evidence(p) for p in image.platforms)
    made = World(
        image, proofs, approval(image, proofs, settings.now), keys, Trust.load(tmp_path / "state/keys")
    )
    service.up(settings)
    try:
        signed = sign(image, proofs, made.verdict, provenance_of(image), keys, f"{address}/candidate/python")
        publish(signed, RegistryClient(address))
        yield made
    finally:
        service.down(settings)


def test_export_check_and_fix(world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    address = os.environ["GOLDSMITH_REGISTRY"]
    assert RegistryClient(address).repositories() == ("candidate/python",)
    file = tmp_path / "src" / "Dockerfile"
    file.parent.mkdir()
    file.write_bytes(b"FROM python:3.13\r\n")
    assert (
        command_line.run(
            ["catalogue", "export", "--to", "catalogue.json", "--mirror", "mirror.example", "--json"]
        )
        == 0
    )
    told = json.loads(capsys.readouterr().out)
    assert (told["images"], told["refused"]) == (["python:3.13"], {})
    assert command_line.run(["check", "src"]) == 4  # the registry itself is asked
    assert f"{address}/candidate/python:3.13@{world.image.digest}" in capsys.readouterr().out
    assert command_line.run(["check", "src", "--catalogue", "catalogue.json", "--fix"]) == 0
    assert file.read_bytes() == f"FROM mirror.example/candidate/python:3.13@{world.image.digest}\r\n".encode()
