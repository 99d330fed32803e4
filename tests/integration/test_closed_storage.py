"""The storage asks everybody for a token by one of our keys: nobody on this machine can write past the pipeline."""

from __future__ import annotations

import http.client
import os
import stat
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from builder.cli import main as command_line
from builder.cli.wiring import client_of, folder_of
from builder.errors import RegistryError
from builder.model.digest import Digest
from builder.model.image import Descriptor
from builder.model.reference import Reference
from builder.oci.auth import READER, credentials_for
from builder.oci.client import RegistryClient
from builder.oci.faults import RegistryRefused
from builder.oci.issuer import LIFE_SECONDS, Issuer, new_pem
from builder.oci.manifest import parse_manifest
from builder.settings import Settings, wall_clock
from builder.signing.verify import verify
from builder.stages.publish import publish
from builder.store import Store
from registry.storage import service
from tests.support.evidence import world
from tests.support.gates import running_gate
from tests.support.ports import free_address
from tests.support.promotion import CANDIDATE, REPO, House
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


def test_the_keys_are_for_the_owner_alone_and_stay(settings: Settings) -> None:
    store = Store(settings.state)
    files = [store.credentials / f"{settings.registry}{suffix}" for suffix in ("", READER)]
    before = [path.read_bytes() for path in files]
    assert before[0] != before[1] and all(b"PRIVATE KEY" in pem for pem in before)
    assert [stat.S_IMODE(path.stat().st_mode) for path in files] == [0o600, 0o600]
    for path in store.run.iterdir():
        assert b"PRIVATE KEY" not in path.read_bytes(), path
    service.down(settings)
    service.up(settings, closed=True)
    assert [path.read_bytes() for path in files] == before


def test_a_reader_reads_and_does_not_write(settings: Settings) -> None:
    blob = Digest.of(b"for readers")
    client_of(settings).put_blob("b/c", b"for readers", blob)
    reader = client_of(settings, writes=False)
    assert reader.get_blob_bytes("b/c", Descriptor("x", blob, 11), 100) == b"for readers"
    assert "b/c" in reader.repositories()
    with pytest.raises(RegistryError, match="does not write"):
        reader.put_blob("b/c", b"y", Digest.of(b"y"))
    with pytest.raises(RegistryError, match="does not write"):
        reader.mount_blob("b/d", blob, "b/c")


def test_another_client_reads_one_repository_with_a_token(
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    here = replace(world(tmp_path), repository=f"{settings.registry}/candidate/python")
    publish(here.signed(), client_of(settings))
    monkeypatch.setenv("GOLDSMITH_STATE", str(settings.state))
    monkeypatch.setenv("GOLDSMITH_REGISTRY", settings.registry)
    assert command_line.run(["registry", "token", "candidate/python"]) == 0
    token = capsys.readouterr().out.strip()
    argv = [tool("skopeo"), "inspect", "--raw", "--tls-verify=false", f"--registry-token={token}"]
    for name, works in (("candidate/python", True), ("b/c", False)):
        at = f"docker://{settings.registry}/{name}@{here.image.digest}"
        done = subprocess.run([*argv, at], capture_output=True, check=False, timeout=60)
        assert (done.returncode == 0) is works, done.stderr


def test_a_token_is_good_for_its_use_and_its_time_alone(settings: Settings) -> None:
    pem = (Store(settings.state).credentials / settings.registry).read_bytes()

    def status(use: str, age: float = 0, key: bytes = pem) -> int:
        issuer = Issuer.parse(key, writes=True, now=lambda: wall_clock() - age)
        asked = http.client.HTTPConnection(settings.registry)
        asked.request("GET", "/v2/b/c/tags/list", headers={"Authorization": issuer.header(use)})
        reply = asked.getresponse()
        reply.read()
        asked.close()
        return reply.status

    client_of(settings).put_blob("b/c", b"x", Digest.of(b"x"))
    assert status("pull b/c") != 401
    assert status("push b/c") != 401
    for use in ("ping", "catalog", "pull b", "pull b/c/d", "cancel b/c"):
        assert status(use) == 401, use
    assert status("pull b/c", age=LIFE_SECONDS + 120) == 401
    assert status("pull b/c", age=-3600) == 401
    assert status("pull b/c", key=new_pem(settings.now, writes=True)) == 401


def test_a_blob_is_linked_or_the_attempt_is_taken_back(settings: Settings) -> None:
    client, blob = client_of(settings), Digest.of(b"linked")
    client.put_blob("from/here", b"linked", blob)
    assert client.mount_blob("to/there", blob, "from/here")
    assert not client.mount_blob("to/there", Digest.of(b"nowhere"), "from/here")
    there = Store(settings.state).root / "registry/docker/registry/v2/repositories/to/there"
    assert (there / "_layers").is_dir() and not list(there.glob("_uploads/*/data"))


def test_a_state_directory_with_a_password_is_brought_up_to_date(settings: Settings) -> None:
    store = Store(settings.state)
    service.down(settings)
    (store.credentials / settings.registry).write_text("goldsmith:an-old-password\n")
    (store.credentials / f"{settings.registry}{READER}").unlink()
    (store.run / "registry.users").write_text("goldsmith:$2b$04$x\n")
    assert service.up(settings, closed=True).started
    blob = Digest.of(b"x")
    client_of(settings).put_blob("a", b"x", blob)
    assert client_of(settings, writes=False).has_blob("a", blob)
    assert not (store.run / "registry.users").exists()


def test_an_open_storage_is_closed_by_the_command(settings: Settings) -> None:
    service.down(settings)
    assert service.up(settings).started
    RegistryClient(settings.registry).ping()
    assert service.up(settings, closed=True).started
    with pytest.raises(RegistryRefused):
        RegistryClient(settings.registry).ping()


class Counting(RegistryClient):
    """Notes from which repositories bytes were asked for."""

    asked: list[str]

    def get_blob_bytes(self, repo: str, descriptor: Descriptor, limit: int) -> bytes:
        self.asked.append(repo)
        return super().get_blob_bytes(repo, descriptor, limit)

    def get_manifest(self, ref: Reference) -> tuple[bytes, str, Digest]:
        self.asked.append(ref.name)
        return super().get_manifest(ref)


def test_a_promotion_reads_the_candidate_in_the_folder_and_its_destination_by_requests(
    settings: Settings, tmp_path: Path
) -> None:
    login = credentials_for(Store(settings.state).credentials, settings.registry)
    client = Counting(settings.registry, credentials=login)
    client.asked = []
    house, near = House(tmp_path, client), folder_of(settings)
    assert near is not None
    good, bad = house.candidate("good"), house.candidate("bad")
    client.asked.clear()
    house.promote(good, near=near)
    assert CANDIDATE not in client.asked and client.asked.count(REPO) > 10
    where = house.at(REPO, digest=good.image.digest)
    assert verify(where, house.client, house.trust, house.now).digest == good.image.digest
    # What lies in the folder is believed no more than what comes over the wire.
    carrier = client.referrers(CANDIDATE, bad.image.digest)[0].digest
    data, media_type, _ = client.get_manifest(house.at(CANDIDATE, digest=carrier))
    hurt = parse_manifest(data, media_type).layers[0].digest
    file = settings.state / "registry/docker/registry/v2/blobs/sha256" / hurt.hex[:2] / hurt.hex / "data"
    file.write_bytes(file.read_bytes()[:-1] + b" ")
    with pytest.raises(RegistryError, match="other bytes"):
        house.promote(bad, near=near)
    assert client.head_manifest(house.at(REPO, digest=bad.image.digest)) is None


def test_a_gate_serves_what_it_reads_with_the_user(settings: Settings, tmp_path: Path) -> None:
    here = replace(world(tmp_path / "world"), repository=f"{settings.registry}/candidate/python")
    publish(here.signed(), client_of(settings))
    layer = here.image.platforms[0].layers[0].blob
    user = credentials_for(Store(settings.state).credentials, settings.registry, writes=False)
    with running_gate(settings.registry, here.trust, credentials=user) as gate:
        assert gate.get("/v2/candidate/python/manifests/3.13").status == 200
        assert len(gate.get(f"/v2/candidate/python/blobs/{layer.digest}").body) == layer.size
        assert gate.get(f"/v2/candidate/python/manifests/{Digest.of(b'?')}").status == 404
    with running_gate(settings.registry, here.trust) as gate:
        assert gate.get("/v2/candidate/python/manifests/3.13").status == 503
