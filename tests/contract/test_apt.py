"""Our wrapper of apt against a signed archive that misbehaves in every way we know of."""

from __future__ import annotations

import dataclasses
import datetime as dt
import gzip
import os
import shutil
import socket
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from builder.errors import LockError, ToolError
from builder.tools.apt import Apt
from builder.tools.mirror import Mirror
from tests.support import requires
from tests.support.archive import Archive, body
from tests.support.openpgp import SigningKey

NOW = dt.datetime.now(dt.UTC).replace(microsecond=0)
ENVIRONMENT = {"PATH": os.environ["PATH"]}


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    requires.tool("apt-get")
    made = Archive(tmp_path / "archive", NOW)
    made.add("hello", depends="libhello1 (>= 1:2)")
    made.add("libhello1", "1:1.0-1", source="hello")
    made.add("libhello1", "1:2.0+x~1-1+b2", pocket="security", source="hello (2.0+x~1-1)")
    made.publish()
    return made


def apt(archive: Archive, tmp_path: Path, address: str = "") -> Apt:
    return Apt(tmp_path / "apt", Mirror.parse(address or archive.address), ENVIRONMENT, archive.keyring)


def refused(archive: Archive, tmp_path: Path) -> LockError:
    with pytest.raises(LockError) as caught:
        apt(archive, tmp_path).update("trixie", "amd64")
    assert "trixie" in caught.value.message
    assert caught.value.hint
    return caught.value


def test_the_closure_comes_from_the_signed_index(archive: Archive, tmp_path: Path) -> None:
    private = apt(archive, tmp_path)
    private.update("trixie", "amd64")
    hello, library = private.resolve("trixie", "amd64", ["hello"])
    (deb,) = archive.packages["security"]
    assert (hello.name, hello.version, hello.source, hello.source_version) == (
        *("hello", "1.0-1"),
        *("hello", "1.0-1"),
    )
    assert (library.name, library.version) == ("libhello1", "1:2.0+x~1-1+b2")
    assert (library.source, library.source_version) == ("hello", "2.0+x~1-1")
    assert (library.sha256, library.size, library.path) == (deb.sha256, len(deb.data), deb.path)


def test_an_unchanged_index_is_not_fetched_again(archive: Archive, tmp_path: Path) -> None:
    with archive.serve() as server:
        private = apt(archive, tmp_path, server.address)
        private.update("trixie", "amd64")
        assert any("Packages" in path for path in server.requests)
        server.requests.clear()
        private.update("trixie", "amd64")
        assert not any("Packages" in path for path in server.requests)


def test_the_state_of_an_archive_is_its_content_and_not_when_it_was_signed(
    archive: Archive, tmp_path: Path
) -> None:
    private = apt(archive, tmp_path)
    assert private.state("trixie", "amd64") is None
    private.update("trixie", "amd64")
    before = private.state("trixie", "amd64")
    assert before is not None
    archive.publish(dated=NOW - dt.timedelta(minutes=5))
    private.update("trixie", "amd64")
    assert private.state("trixie", "amd64") == before
    archive.add("hello", "1.1-1", depends="libhello1 (>= 1:2)")
    archive.publish(dated=NOW - dt.timedelta(minutes=1))
    private.update("trixie", "amd64")
    assert private.state("trixie", "amd64") != before
    assert private.resolve("trixie", "amd64", ["hello"])[0].version == "1.1-1"


def test_the_host_configuration_is_not_used(
    archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lax = tmp_path / "lax.conf"
    lax.write_text('Acquire::Check-Valid-Until "false"; Acquire::AllowInsecureRepositories "true";')
    archive.publish(dated=NOW - dt.timedelta(days=9))
    private = Apt(
        tmp_path / "apt",
        Mirror.parse(archive.address),
        {**ENVIRONMENT, "APT_CONFIG": str(lax)},
        archive.keyring,
    )
    with pytest.raises(LockError, match="expired"):
        private.update("trixie", "amd64")


def test_a_dead_mirror_is_an_error_though_apt_has_older_indexes(archive: Archive, tmp_path: Path) -> None:
    with archive.serve() as server:
        address = server.address
        apt(archive, tmp_path, address).update("trixie", "amd64")
    with pytest.raises(LockError, match="cannot be fetched"):
        apt(archive, tmp_path, address).update("trixie", "amd64")


def test_nobody_listens(archive: Archive, tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        base = f"http://127.0.0.1:{unused.getsockname()[1]}/debian"
        with pytest.raises(LockError, match="cannot be fetched"):
            apt(archive, tmp_path, f"{base},{base}-security").update("trixie", "amd64")


def test_a_foreign_key(archive: Archive, tmp_path: Path) -> None:
    archive.publish(key=SigningKey(NOW - dt.timedelta(days=1)))
    assert "not signed by a key that is trusted" in refused(archive, tmp_path).message


def test_an_index_without_signature(archive: Archive, tmp_path: Path) -> None:
    release = archive.release("security")
    text = release.read_text().split("Hash: SHA512\n\n")[1].split("-----BEGIN PGP")[0]
    release.unlink()
    (release.parent / "Release").write_text(text)
    assert "not signed" in refused(archive, tmp_path).message


def test_an_altered_index(archive: Archive, tmp_path: Path) -> None:
    release = archive.release()
    release.write_text(release.read_text().replace("Origin: Test", "Origin: Best"))
    assert "trusted" in refused(archive, tmp_path).message


@pytest.mark.parametrize("age", [dt.timedelta(days=9), -dt.timedelta(days=9)], ids=["old", "future"])
def test_an_index_of_another_time(archive: Archive, tmp_path: Path, age: dt.timedelta) -> None:
    archive.publish(dated=NOW - age)
    assert "expired or not valid yet" in refused(archive, tmp_path).message


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def _swap(path: Path) -> None:
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()).replace(b"hello", b"jello"), mtime=0))


@pytest.mark.parametrize("spoil", [_cut, _swap], ids=["truncated", "replaced"])
def test_a_package_index_that_is_not_the_signed_one(
    archive: Archive, tmp_path: Path, spoil: Callable[[Path], None]
) -> None:
    for path in (archive.index(), archive.index().with_suffix("")):
        if path.exists():
            spoil(path)
    assert "truncated or altered" in refused(archive, tmp_path).message


def test_a_mirror_without_the_suite(archive: Archive, tmp_path: Path) -> None:
    shutil.rmtree(archive.folder("") / "dists")
    assert "cannot be fetched" in refused(archive, tmp_path).message


def test_a_flat_repository_without_release(archive: Archive, tmp_path: Path) -> None:
    for pocket in ("", "security"):
        index = archive.index(pocket).read_bytes()
        shutil.rmtree(archive.folder(pocket) / "dists")
        (archive.folder(pocket) / "Packages.gz").write_bytes(index)
    assert "cannot be fetched" in refused(archive, tmp_path).message


def test_another_architecture_has_its_own_packages(tmp_path: Path) -> None:
    requires.tool("apt-get")
    archive = Archive(tmp_path / "archive", NOW, architectures=("amd64", "arm64"))
    for architecture in archive.architectures:
        archive.add("libc", architecture=architecture)
    archive.add("hello", architecture="all", depends="libc")
    archive.publish()
    private = apt(archive, tmp_path)
    found = {}
    for architecture in archive.architectures:
        private.update("trixie", architecture)
        found[architecture] = private.resolve("trixie", architecture, ["hello"])
    assert [[p.architecture for p in packages] for packages in found.values()] == [
        ["all", "amd64"],
        ["all", "arm64"],
    ]
    assert found["amd64"][0] == found["arm64"][0]
    assert found["amd64"][1].sha256 != found["arm64"][1].sha256


def test_a_truncated_signed_file(archive: Archive, tmp_path: Path) -> None:
    archive.release().write_bytes(archive.release().read_bytes()[:300])
    refused(archive, tmp_path)


def test_a_mirror_that_cuts_every_connection_is_given_up(archive: Archive, tmp_path: Path) -> None:
    data = archive.index().read_bytes()
    with archive.serve() as server:
        server.answers["Packages.gz"] = body(data[:50], announced=len(data))
        impatient = dataclasses.replace(apt(archive, tmp_path, server.address), update_seconds=2)
        with pytest.raises((LockError, ToolError), match=r"did not end within 2 s|index of trixie"):
            impatient.update("trixie", "amd64")


def test_an_unknown_package_is_named(archive: Archive, tmp_path: Path) -> None:
    private = apt(archive, tmp_path)
    private.update("trixie", "amd64")
    with pytest.raises(LockError, match="trixie has no package no-such-thing"):
        private.resolve("trixie", "amd64", ["hello", "no-such-thing"])


def test_a_name_is_never_taken_as_a_pattern(archive: Archive, tmp_path: Path) -> None:
    private = apt(archive, tmp_path)
    private.update("trixie", "amd64")
    for name in ("hell.", "hello.*", "libhello", "hello-", "libhello1-"):
        with pytest.raises(LockError):
            private.resolve("trixie", "amd64", [name])
    with pytest.raises(LockError, match="trixie has no package hello-"):
        private.resolve("trixie", "amd64", ["libhello1", "hello-"])


def test_a_dependency_that_is_not_there_is_named(archive: Archive, tmp_path: Path) -> None:
    archive.add("broken", depends="libmissing9")
    archive.publish()
    private = apt(archive, tmp_path)
    private.update("trixie", "amd64")
    with pytest.raises(LockError) as caught:
        private.resolve("trixie", "amd64", ["broken"])
    assert "broken" in caught.value.context
    assert "libmissing9" in caught.value.context


def test_packages_that_exclude_each_other(archive: Archive, tmp_path: Path) -> None:
    archive.add("enemy", conflicts="hello")
    archive.publish()
    private = apt(archive, tmp_path)
    private.update("trixie", "amd64")
    with pytest.raises(LockError, match="cannot be installed together"):
        private.resolve("trixie", "amd64", ["hello", "enemy"])


def test_a_package_without_sha256_is_refused(archive: Archive, tmp_path: Path) -> None:
    archive.publish(without=("SHA256",))
    private = apt(archive, tmp_path)
    private.update("trixie", "amd64")
    with pytest.raises(LockError, match="the index of trixie has no SHA256 for package hello"):
        private.resolve("trixie", "amd64", ["hello"])


def test_a_pool_path_that_leads_elsewhere_is_refused(archive: Archive, tmp_path: Path) -> None:
    archive.publish(changed={"Filename: pool/main/h/hello/": "Filename: pool/../../etc/"})
    private = apt(archive, tmp_path)
    private.update("trixie", "amd64")
    with pytest.raises(LockError, match="malformed path"):
        private.resolve("trixie", "amd64", ["hello"])


def test_recommended_packages_stay_away(archive: Archive, tmp_path: Path) -> None:
    archive.add("extra")
    archive.add("main-thing", recommends="extra", suggests="hello")
    archive.publish()
    private = apt(archive, tmp_path)
    private.update("trixie", "amd64")
    assert [p.name for p in private.resolve("trixie", "amd64", ["main-thing"])] == ["main-thing"]


def test_no_archive_keys(archive: Archive, tmp_path: Path) -> None:
    archive.keyring.unlink()
    with pytest.raises(LockError, match="no archive keys"):
        apt(archive, tmp_path).update("trixie", "amd64")


def test_apt_is_not_installed(archive: Archive, tmp_path: Path) -> None:
    empty = tmp_path / "bin"
    empty.mkdir()
    with pytest.raises(ToolError, match="not installed") as caught:
        Apt(tmp_path / "apt", Mirror.parse(archive.address), {"PATH": str(empty)}, archive.keyring).update(
            "trixie", "amd64"
        )
    assert "apt" in caught.value.hint


def test_a_state_directory_with_blanks(archive: Archive, tmp_path: Path) -> None:
    private = apt(archive, tmp_path / "my projects")
    private.update("trixie", "amd64")
    assert len(private.resolve("trixie", "amd64", ["hello"])) == 2


@pytest.mark.parametrize("code", [400, 403, 404])
def test_a_mirror_that_refuses_is_no_question_of_keys(archive: Archive, tmp_path: Path, code: int) -> None:
    class Refusing(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(code)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Refusing)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        with pytest.raises(LockError, match="cannot be fetched") as caught:
            apt(archive, tmp_path, f"http://127.0.0.1:{server.server_port}/debian").update("trixie", "amd64")
    finally:
        server.shutdown()
        server.server_close()
    assert "address" in caught.value.hint


def test_a_disk_that_is_nearly_full_is_named_whatever_apt_says(
    archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1 << 20))
    private = apt(archive, tmp_path)
    private.update("trixie", "amd64")  # what succeeds is no matter of room
    with pytest.raises(LockError, match="no space is left") as caught:
        apt(archive, tmp_path, f"file:{tmp_path}/none/debian").update("trixie", "amd64")
    assert "GOLDSMITH_STATE" in caught.value.hint
