"""The storage asks everybody for its user: nobody on this machine can write past the pipeline."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from builder.cli.wiring import client_of
from builder.model.digest import Digest
from builder.oci.auth import credentials_for
from builder.oci.client import RegistryClient
from builder.oci.faults import RegistryRefused
from builder.settings import Settings
from builder.stages.publish import publish
from builder.store import Store
from registry.storage import service
from tests.support.evidence import world
from tests.support.gates import running_gate
from tests.support.ports import free_address
from tests.support.requires import tool

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    tool("docker-registry")
    address = free_address()
    folder = tmp_path_factory.mktemp("closed")
    made = Settings.load(
        {"PATH": os.environ["PATH"], "GOLDSMITH_STATE": str(folder / "state"), "GOLDSMITH_REGISTRY": address},
        directory=folder,
        needs_catalogue=False,
    )
    service.up(made, closed=True)
    yield made
    service.down(made)


def test_strangers_can_neither_write_nor_read(settings: Settings) -> None:
    stranger, blob = RegistryClient(settings.registry), Digest.of(b"x")
    client_of(settings).put_blob("a", b"x", blob)
    for act in (
        lambda: stranger.put_blob("a", b"y", Digest.of(b"y")),
        lambda: stranger.has_blob("a", blob),
        stranger.repositories,
    ):
        with pytest.raises(RegistryRefused) as raised:
            act()
        assert raised.value.status == 401
    assert client_of(settings).has_blob("a", blob)
    assert not client_of(settings).has_blob("a", Digest.of(b"y"))


def test_the_user_is_for_the_owner_alone_and_stays(settings: Settings) -> None:
    store = Store(settings.state)
    before = credentials_for(store.credentials, settings.registry)
    assert before is not None and len(before.password) > 40
    for path in (store.credentials / settings.registry, store.run / "registry.users"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert (before.password in path.read_text()) == (path.parent == store.credentials)
    assert before.password not in (store.run / "registry.yml").read_text()
    service.down(settings)
    service.up(settings, closed=True)
    assert credentials_for(store.credentials, settings.registry) == before


def test_an_open_storage_is_closed_by_the_command(settings: Settings) -> None:
    service.down(settings)
    assert service.up(settings).started
    RegistryClient(settings.registry).ping()
    assert service.up(settings, closed=True).started
    with pytest.raises(RegistryRefused):
        RegistryClient(settings.registry).ping()


def test_a_gate_serves_what_it_reads_with_the_user(settings: Settings, tmp_path: Path) -> None:
    here = replace(world(tmp_path / "world"), repository=f"{settings.registry}/candidate/python")
    publish(here.signed(), client_of(settings))
    layer = here.image.platforms[0].layers[0].blob
    user = credentials_for(Store(settings.state).credentials, settings.registry)
    with running_gate(settings.registry, here.trust, credentials=user) as gate:
        assert gate.get("/v2/candidate/python/manifests/3.13").status == 200
        assert len(gate.get(f"/v2/candidate/python/blobs/{layer.digest}").body) == layer.size
        assert gate.get(f"/v2/candidate/python/manifests/{Digest.of(b'?')}").status == 404
    with running_gate(settings.registry, here.trust) as gate:
        assert gate.get("/v2/candidate/python/manifests/3.13").status == 503
