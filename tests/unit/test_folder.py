"""The storage's folder read as a registry: the same answers, and no byte that is not what its digest says."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import select

from builder.errors import RegistryError
from builder.model.digest import Digest
from builder.model.image import Descriptor
from builder.model.reference import Reference
from builder.signing.verify import verify
from registry.index import looking, schema
from registry.index.rebuild import reindex
from registry.sqlite import reader
from registry.storage.folder import FolderRegistry
from tests.support.images import NOW
from tests.support.indexes import Fleet, binary
from tests.support.memory_client import MemoryClient
from tests.support.memory_registry import HOST
from tests.support.rescans import Night
from tests.support.storage_folder import StorageFolder

REPO = "candidate/python"


@pytest.fixture
def night(tmp_path: Path) -> Night:
    return Night(tmp_path, MemoryClient())


@pytest.fixture
def folder(night: Night) -> StorageFolder:
    night.promote(night.image([binary("bash", "5.2.37-2")]))
    made = StorageFolder(night.folder / "data")
    made.copy(night.client.inner)
    return made


def test_it_answers_as_the_registry_does(night: Night, folder: StorageFolder) -> None:
    here = FolderRegistry(HOST, folder.data)
    assert here.repositories() == night.client.repositories()
    assert {REPO, "python"} <= set(here.repositories())
    assert here.tags(REPO) == night.client.tags(REPO)
    assert here.tags("nobody") == ()
    for repo in (REPO, "python"):
        found = verify(Reference(HOST, repo, "3.13"), here, night.house.trust, night.house.now)
        assert found == verify(
            Reference(HOST, repo, "3.13"), night.client, night.house.trust, night.house.now
        )
    done = reindex(night.place, HOST, here, night.house.trust, NOW)
    assert (done.images, done.read, done.problems) == (1, 2, ())


def test_what_a_repository_does_not_have_is_not_there(night: Night, folder: StorageFolder) -> None:
    """Blobs are shared by all repositories; links say whose they are."""
    here = FolderRegistry(HOST, folder.data)
    other = StorageFolder(folder.data)
    blob = other.blob("another", b"secret")
    manifest = night.client.head_manifest(Reference(HOST, REPO, "3.13"))
    assert here.has_blob("another", blob, 6) and not here.has_blob(REPO, blob, 6)
    with pytest.raises(RegistryError):
        here.get_blob_bytes(REPO, Descriptor("text/plain", blob, 6), 100)
    assert here.head_manifest(Reference(HOST, "another", None, manifest.digest)) is None
    assert here.head_manifest(Reference(HOST, REPO, "none")) is None


@pytest.mark.parametrize("damage", [b"", b"{}", b"other bytes"])
def test_other_bytes_are_refused(night: Night, folder: StorageFolder, damage: bytes) -> None:
    here = FolderRegistry(HOST, folder.data)
    digest = here.get_manifest(Reference(HOST, REPO, "3.13"))[2]
    path = folder.data / "docker/registry/v2/blobs/sha256" / digest.hex[:2] / digest.hex / "data"
    path.write_bytes(damage)
    with pytest.raises(RegistryError):
        here.get_manifest(Reference(HOST, REPO, "3.13"))
    done = reindex(night.place, HOST, here, night.house.trust, NOW)
    assert {REPO, "python"} <= {p.repository for p in done.problems} and done.images == 0


@pytest.mark.parametrize("link", [b"", b"sha256:../../etc", b"sha256:" + b"A" * 64, b"x" * 1000])
def test_a_damaged_link_is_refused(folder: StorageFolder, link: bytes) -> None:
    here = FolderRegistry(HOST, folder.data)
    (folder.data / f"docker/registry/v2/repositories/{REPO}/_manifests/tags/3.13/current/link").write_bytes(
        link
    )
    with pytest.raises(RegistryError):
        here.head_manifest(Reference(HOST, REPO, "3.13"))


def test_a_folder_that_is_missing_is_no_empty_registry(tmp_path: Path) -> None:
    with pytest.raises(RegistryError):
        FolderRegistry(HOST, tmp_path).repositories()
    fleet = Fleet(tmp_path)
    with pytest.raises(RegistryError):
        reindex(fleet.place, HOST, FolderRegistry(HOST, tmp_path), fleet.trust, NOW)
    assert fleet.place.current() is None


def test_a_name_that_is_none_leads_nowhere(tmp_path: Path) -> None:
    here = FolderRegistry(HOST, tmp_path)
    for name in ("../../etc", "a//b", "A"):
        with pytest.raises(ValueError):
            here.tags(name)
    assert not here.has_blob("python", Digest.of(b"x"))


def test_several_processes_find_what_one_does(
    night: Night, folder: StorageFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = FolderRegistry(HOST, folder.data)
    other = night.image([binary("dash", "0.5.12-12")])
    folder.copy(night.client.inner)
    (
        folder.data / "docker/registry/v2/blobs/sha256" / other.image.digest.hex[:2] / other.image.digest.hex
    ).rename(folder.data / "gone")
    outcomes = []
    for many in (1, 1_000):
        monkeypatch.setattr(looking, "_MANY", many)
        done = reindex(night.place, HOST, here, night.house.trust, NOW, afresh=True)
        with reader(night.place.require()).connect() as connection:
            rows = {
                table.name: sorted(map(tuple, connection.execute(select(table))))
                for table in schema.metadata.sorted_tables
            }
        outcomes.append((done.images, done.read, done.problems, rows))
    assert outcomes[0] == outcomes[1]
    assert outcomes[0][2]  # the image that is gone is named
