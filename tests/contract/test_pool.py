"""The pool against mirrors that lie, break off, or have lost a file: what is bad never gets in."""

from __future__ import annotations

import contextlib
import datetime as dt
import errno
import hashlib
import http.server
from collections.abc import Iterator
from pathlib import Path

import pytest

from builder.errors import GoldsmithError, LockError, ToolError
from builder.model.lock import LockedPackage
from builder.store import Store
from builder.tools import pool as pool_module
from builder.tools.mirror import Mirror
from builder.tools.pool import Pool
from tests.support.archive import Archive, ArchiveServer, Deb, body, status
from tests.support.disk import full_disk

NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    made = Archive(tmp_path / "archive", NOW)
    made.add("hello", "1:1.0+x~1-1")
    made.add("libhello1", pocket="security")
    return made


@pytest.fixture
def server(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> Iterator[ArchiveServer]:
    monkeypatch.setattr(pool_module, "_PAUSE_SECONDS", 0)
    with archive.serve() as running:
        yield running


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "state").create()


def locked(deb: Deb) -> LockedPackage:
    name, version = deb.fields["Package"], deb.fields["Version"]
    return LockedPackage(name, version, "amd64", deb.sha256, len(deb.data), deb.path, name, version)


def both(archive: Archive) -> list[LockedPackage]:
    return [locked(deb) for pocket in ("", "security") for deb in archive.packages[pocket]]


def pool(store: Store, address: str) -> Pool:
    return Pool(store, lambda: Mirror.parse(address))


def refused(store: Store, address: str, package: LockedPackage, kind: type[GoldsmithError]) -> GoldsmithError:
    """Fetching fails in words that name the package, and leaves nothing behind."""
    before = sorted(store.pool.iterdir())
    with pytest.raises(kind) as caught:
        pool(store, address).fetch([package])
    assert f"{package.name} {package.version}" in caught.value.message
    assert caught.value.hint
    assert sorted(store.pool.iterdir()) == before
    assert list(store.tmp.iterdir()) == []
    return caught.value


@pytest.mark.parametrize("over_http", [True, False], ids=["http", "in place"])
def test_packages_of_both_archives_arrive(
    archive: Archive, server: ArchiveServer, store: Store, over_http: bool
) -> None:
    packages = both(archive)
    ours = pool(store, server.address if over_http else archive.address)
    ours.fetch(packages)
    for package in packages:
        assert hashlib.sha256(ours.path(package).read_bytes()).hexdigest() == package.sha256
    assert list(store.tmp.iterdir()) == []


def test_what_is_there_is_not_fetched_again_and_needs_no_mirror(
    archive: Archive, server: ArchiveServer, store: Store
) -> None:
    pool(store, server.address).fetch(both(archive))
    server.requests.clear()

    def no_mirror() -> Mirror:
        raise AssertionError("nothing is missing")

    Pool(store, no_mirror).fetch(both(archive))
    assert server.requests == []


def test_a_moved_pool_path_does_not_matter_once_the_package_is_here(
    archive: Archive, server: ArchiveServer, store: Store
) -> None:
    (package, _) = both(archive)
    pool(store, server.address).fetch([package])
    (deb,) = archive.packages[""]
    archive.file(deb).rename(archive.file(deb).with_name("renamed.deb"))
    pool(store, server.address).fetch([package])
    assert pool(store, server.address).path(package).is_file()


def test_gone_from_the_archive(archive: Archive, server: ArchiveServer, store: Store) -> None:
    (package, _) = both(archive)
    archive.file(archive.packages[""][0]).unlink()
    error = refused(store, server.address, package, LockError)
    assert "gone from the archive" in error.message
    assert "goldsmith lock" in error.hint


def test_a_package_that_moved_to_the_other_archive_is_found(
    archive: Archive, server: ArchiveServer, store: Store
) -> None:
    (package, _) = both(archive)
    here = archive.file(archive.packages[""][0])
    there = archive.folder("security") / package.path
    there.parent.mkdir(parents=True)
    here.rename(there)
    pool(store, server.address).fetch([package])
    assert pool(store, server.address).path(package).is_file()


def test_other_bytes_than_locked(archive: Archive, server: ArchiveServer, store: Store) -> None:
    (package, _) = both(archive)
    file = archive.file(archive.packages[""][0])
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    assert "other bytes" in refused(store, server.address, package, LockError).message


def test_more_bytes_than_locked(archive: Archive, server: ArchiveServer, store: Store) -> None:
    (package, _) = both(archive)
    file = archive.file(archive.packages[""][0])
    file.write_bytes(file.read_bytes() + bytes(1 << 20))
    assert "other bytes" in refused(store, server.address, package, LockError).message


def test_an_answer_without_end_is_cut_off(archive: Archive, server: ArchiveServer, store: Store) -> None:
    sent = []

    def endless(handler: http.server.BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        with contextlib.suppress(OSError):
            for _ in range(200):
                handler.wfile.write(bytes(1 << 20))
                sent.append(1)
        handler.close_connection = True

    (package, _) = both(archive)
    server.answers[".deb"] = endless
    refused(store, server.address, package, LockError)
    assert len(sent) < 50, "no more is read than was promised, but for buffers"


@pytest.mark.parametrize("announced", [None, 10**6], ids=["short file", "cut connection"])
def test_fewer_bytes_than_locked(
    archive: Archive, server: ArchiveServer, store: Store, announced: int | None
) -> None:
    (package, _) = both(archive)
    server.answers[".deb"] = body(archive.packages[""][0].data[:100], announced)
    refused(store, server.address, package, ToolError)
    assert len(server.requests) == 3, "the number of attempts is bounded"


@pytest.mark.parametrize("code", [429, 500, 503])
def test_a_mirror_in_trouble(archive: Archive, server: ArchiveServer, store: Store, code: int) -> None:
    (package, _) = both(archive)
    server.answers[".deb"] = status(code)
    assert str(code) in refused(store, server.address, package, ToolError).context
    assert len(server.requests) == 3


def test_trouble_that_passes(archive: Archive, server: ArchiveServer, store: Store) -> None:
    (package, _) = both(archive)

    def once(handler: object) -> None:
        del server.answers[".deb"]
        status(503)(handler)  # type: ignore[arg-type]

    server.answers[".deb"] = once
    pool(store, server.address).fetch([package])
    assert pool(store, server.address).path(package).is_file()


def test_a_mirror_that_only_trickles(
    archive: Archive, server: ArchiveServer, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool_module, "_PACKAGE_SECONDS", -1)
    (package, _) = both(archive)
    refused(store, server.address, package, ToolError)


def test_an_endless_redirect(archive: Archive, server: ArchiveServer, store: Store) -> None:
    def around(handler: object) -> None:
        handler.send_response(302)  # type: ignore[attr-defined]
        handler.send_header("Location", handler.path)  # type: ignore[attr-defined]
        handler.send_header("Content-Length", "0")  # type: ignore[attr-defined]
        handler.end_headers()  # type: ignore[attr-defined]

    (package, _) = both(archive)
    server.answers[".deb"] = around
    refused(store, server.address, package, ToolError)


def test_no_mirror_listens(archive: Archive, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "_PAUSE_SECONDS", 0)
    with archive.serve() as server:
        address = server.address
    (package, _) = both(archive)
    refused(store, address, package, ToolError)


def test_one_bad_package_does_not_take_the_good_one_with_it(
    archive: Archive, server: ArchiveServer, store: Store
) -> None:
    bad, good = both(archive)
    archive.file(archive.packages[""][0]).unlink()
    with pytest.raises(LockError, match="hello"):
        pool(store, server.address).fetch([good, bad])
    assert [p.name for p in store.pool.iterdir() if p.stem != good.sha256] == []


def test_a_proxy_is_used_for_the_mirror_but_not_for_loopback(
    archive: Archive, server: ArchiveServer, store: Store
) -> None:
    (package, other) = both(archive)
    proxy = {"http_proxy": f"http://127.0.0.1:{server.http.server_port}"}
    server.answers["hello_1.0+x~1-1_amd64.deb"] = body(archive.packages[""][0].data)
    Pool(store, lambda: Mirror.parse("http://mirror.invalid/debian"), proxy).fetch([package])
    assert server.requests == [f"http://mirror.invalid/debian/{package.path}"]
    nowhere = {"http_proxy": "http://proxy.invalid:3128"}
    Pool(store, lambda: Mirror.parse(server.address), nowhere).fetch([other])


def test_the_disk_takes_no_more(archive: Archive, server: ArchiveServer, store: Store) -> None:
    (package, _) = both(archive)
    with full_disk(100):
        error = refused(store, server.address, package, ToolError)
    assert "make room" in error.hint


def test_the_disk_is_full_at_the_end(
    archive: Archive, server: ArchiveServer, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pool_module.os, "fsync", full)
    (package, _) = both(archive)
    assert "No space" in refused(store, server.address, package, ToolError).context


@pytest.mark.parametrize("alter", ["flip", "cut", "remove"])
def test_a_package_altered_in_the_pool_is_not_used(
    archive: Archive, server: ArchiveServer, store: Store, alter: str
) -> None:
    (package, _) = both(archive)
    ours = pool(store, server.address)
    ours.fetch([package])
    file = ours.path(package)
    data = file.read_bytes()
    if alter == "remove":
        file.unlink()
    else:
        file.write_bytes(data[:-1] + (b"?" if alter == "flip" else b""))
    with pytest.raises(LockError, match="hello") as caught:
        ours.path(package)
    assert caught.value.hint
    ours.fetch([package])
    assert ours.path(package).read_bytes() == data
