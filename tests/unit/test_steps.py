"""Typed steps of a definition: files, directories, what is left out, Java's trust store."""

from __future__ import annotations

import hashlib
import struct
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from builder.engines.direct import DirectEngine
from builder.errors import DefinitionError, LockError, Problem
from builder.model.digest import Digest
from builder.model.image import BuildContext
from builder.model.lock import LockedPackage, LockSection, ParentPin
from builder.model.platform import Platform
from builder.oci.layout import create_layout
from builder.stages.define import load_catalogue
from builder.stages.derive import derive
from builder.stages.normalise import normalise
from builder.stages.render import render
from builder.stages.unpack import unpack
from builder.tools.keystore import PASSWORD, java_keystore
from tests.support.catalogue import image, stream, write
from tests.support.debs import FolderPool, directory, make_deb, member
from tests.support.images import add_layer, platform_image

ROOT = Path(__file__).parents[2]
BUNDLE_PATH = "etc/ssl/certs/ca-certificates.crt"
ONE, TWO = b"\x30\x03\x02\x01\x01", b"\x30\x03\x02\x01\x02"


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def catalogue(root: Path, **changes: Any) -> Path:
    write(root, image("base"), image("web", **{"from": "base", "streams": {"1": stream(**changes)}}))
    (root / "images/web/site.conf").write_bytes(b"listen 8080;\n")
    return root


def problems(root: Path) -> tuple[Problem, ...]:
    with pytest.raises(DefinitionError) as caught:
        load_catalogue(root)
    return caught.value.problems


def conf(**changes: str) -> dict[str, Any]:
    return {"/etc/site.conf": {"source": "site.conf", "sha256": sha256(b"listen 8080;\n"), **changes}}


def pem(*certificates: bytes) -> bytes:
    import base64

    return b"".join(
        b"-----BEGIN CERTIFICATE-----\n" + base64.b64encode(c) + b"\n-----END CERTIFICATE-----\n"
        for c in certificates
    )


# --- files ---------------------------------------------------------------------------------


def test_a_file_is_read_once_and_travels_with_the_target(tmp_path: Path) -> None:
    root = catalogue(tmp_path, files=conf())
    target = load_catalogue(root).find("web")
    (root / "images/web/site.conf").write_bytes(b"changed since\n")
    assert target.files == {"site.conf": b"listen 8080;\n"}


def test_a_file_that_is_not_the_reviewed_one_is_named_with_what_it_is(tmp_path: Path) -> None:
    (problem,) = problems(catalogue(tmp_path, files=conf(sha256="0" * 64)))
    assert (problem.file, problem.path) == ("images/web/image.yaml", "streams.1.files./etc/site.conf.sha256")
    assert sha256(b"listen 8080;\n") in problem.message


def test_a_file_that_is_missing_is_named(tmp_path: Path) -> None:
    (problem,) = problems(catalogue(tmp_path, files=conf(source="none.conf")))
    assert "images/web/none.conf" in problem.message


def test_a_link_out_of_the_images_folder_is_not_followed(tmp_path: Path) -> None:
    root = catalogue(tmp_path, files=conf(source="secret"))
    (tmp_path / "outside").write_bytes(b"secret")
    (root / "images/web/secret").symlink_to(tmp_path / "outside")
    (problem,) = problems(root)
    assert (problem.file, problem.message) == (
        "images/web/secret",
        "a link that leads out of the image's folder",
    )


@pytest.mark.parametrize("source", ["../base/image.yaml", "/etc/passwd", "a/../b", ".hidden"])
def test_a_source_is_a_plain_path_in_the_folder(tmp_path: Path, source: str) -> None:
    (problem,) = problems(catalogue(tmp_path, files=conf(source=source)))
    assert problem.path.endswith(".source")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"files": conf(), "links": {"/etc/site.conf": "/etc/other"}}, "two steps"),
        ({"files": conf(), "directories": {"/etc/site.conf/d": {}}}, "lies in /etc/site.conf"),
        ({"without": ["/usr/share/doc/hello"]}, "cannot be left out"),
        ({"without": ["/usr"]}, "cannot be left out"),
        ({"without": ["/var/lib/dpkg"]}, "cannot be left out"),
    ],
)
def test_steps_that_contradict_each_other_or_the_evidence_are_refused(
    tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    assert any(said in p.message for p in problems(catalogue(tmp_path, **changes)))


def test_a_trust_store_needs_a_parent(tmp_path: Path) -> None:
    write(tmp_path, image("base", streams={"1": stream(java_trust_store="/etc/cacerts")}))
    (problem,) = problems(tmp_path)
    assert problem.path == "streams.1.java_trust_store"


# --- what is rendered and built ------------------------------------------------------------


def rendered(root: Path, packages: tuple[LockedPackage, ...], architecture: str = "amd64") -> BuildContext:
    pin = ParentPin("base:1", "runtime", Digest.of(b"parent"))
    lock = LockSection(
        "1", "runtime", Platform("linux", architecture), "trixie", Digest.of(b""), pin, packages
    )
    return render(load_catalogue(root).find("web"), lock.platform, lock, ROOT / "templates", {}, 1)


def test_steps_make_entries_and_know_the_architecture(tmp_path: Path) -> None:
    root = catalogue(
        tmp_path,
        files=conf(mode="0755"),
        directories={"/var/lib/web": {"owner": "nonroot", "mode": "0700"}},
        links={"/usr/lib/current": "/usr/lib/web-{architecture}"},
        without=["/usr/lib/web-{architecture}/debug"],
    )
    context = rendered(root, (), "arm64")
    made = {e.path: (e.kind, e.mode, e.owner, e.target, e.content) for e in context.entries}
    assert made == {
        "/etc/site.conf": ("file", 0o755, 0, "", b"listen 8080;\n"),
        "/usr/lib/current": ("link", 0o777, 0, "/usr/lib/web-arm64", b""),
        "/var/lib/web": ("directory", 0o700, 65532, "", b""),
    }
    assert context.without == ("usr/lib/web-arm64/debug",)
    assert "rm -rf usr/lib/web-arm64/debug\n" in context.files["assemble/assemble.sh"].decode()


WEB = [
    directory("./usr/bin/"),
    member("./usr/bin/web", b"web", mode=0o755),
    member("./usr/bin/gem", b"gem", mode=0o755),
    directory("./usr/lib/tools/"),
    member("./usr/lib/tools/one", b"1"),
    member("./usr/lib/toolshed", b"stays"),
    member("./etc/init.d/web", b"start"),
    member("./etc/site.conf", b"Debian's\n"),
]


def test_what_is_left_out_is_gone_and_a_file_replaces_the_packages(tmp_path: Path) -> None:
    package, path = make_deb(tmp_path, "web", WEB)
    root = catalogue(
        tmp_path / "c", files=conf(), without=["/usr/bin/gem", "/usr/lib/tools", "/etc/site.conf"]
    )
    context, pool = rendered(root, (package,)), FolderPool({"web": path})
    (tmp_path / "work").mkdir()
    contents = unpack(context.lock.packages, pool.path, "runtime", context.without)
    raw = DirectEngine().build(context, pool, tmp_path / "work")
    image_ = normalise(raw, contents, tmp_path / "layout")
    files = dict(_files(image_))
    assert files["etc/site.conf"] == b"listen 8080;\n"
    assert files["usr/lib/toolshed"] == b"stays"
    assert not {"usr/bin/gem", "usr/lib/tools/one", "etc/init.d/web"} & set(files)
    assert b"Package: web" in files["var/lib/dpkg/status.d/web"]


def test_what_no_package_brings_cannot_be_left_out(tmp_path: Path) -> None:
    package, path = make_deb(tmp_path, "web", WEB)
    with pytest.raises(LockError, match="/usr/bin/bundle, which no package"):
        unpack((package,), FolderPool({"web": path}).path, "runtime", ("usr/bin/gem", "usr/bin/bundle"))


def _files(image_: Any) -> Iterator[tuple[str, bytes]]:
    import gzip
    import io

    for layer in image_.layers:
        blob = image_.layout / "blobs/sha256" / layer.blob.digest.hex
        with tarfile.open(fileobj=io.BytesIO(gzip.decompress(blob.read_bytes()))) as tar:
            for entry in tar:
                if entry.isreg():
                    yield entry.name, tar.extractfile(entry).read()  # type: ignore[union-attr]


# --- Java's trust store ----------------------------------------------------------------------


def parsed(store: bytes) -> list[tuple[str, int, bytes]]:
    """A reader of the format, as OpenJDK's JavaKeyStore.engineLoad reads it."""
    body, digest = store[:-20], store[-20:]
    salted = PASSWORD.encode("utf-16-be") + b"Mighty Aphrodite" + body
    assert hashlib.sha1(salted, usedforsecurity=False).digest() == digest
    magic, version, count = struct.unpack_from(">III", body)
    assert (magic, version) == (0xFEEDFEED, 2)
    found, at = [], 12
    for _ in range(count):
        tag, length = struct.unpack_from(">IH", body, at)
        assert tag == 2
        alias = body[at + 6 : at + 6 + length].decode()
        at += 6 + length
        time, length = struct.unpack_from(">qH", body, at)
        assert body[at + 10 : at + 10 + length] == b"X.509"
        at += 10 + length
        (length,) = struct.unpack_from(">I", body, at)
        found.append((alias, time, body[at + 4 : at + 4 + length]))
        at += 4 + length
    assert at == len(body)
    return found


def test_the_store_holds_every_certificate_once_in_a_fixed_order() -> None:
    store = java_keystore(b"# a comment\n" + pem(TWO, ONE, TWO))
    assert store == java_keystore(pem(ONE, TWO))
    assert [(alias, der) for alias, _, der in parsed(store)] == sorted((sha256(x), x) for x in (ONE, TWO))
    assert {time for _, time, _ in parsed(store)} == {315_532_800_000}


@pytest.mark.parametrize(
    "bundle",
    [b"", pem(b"\x04\x00"), b"-----BEGIN CERTIFICATE-----\nMAA=\n", pem(ONE).replace(b"MAMC", b"MA*C")],
)
def test_a_damaged_bundle_makes_no_store(bundle: bytes) -> None:
    with pytest.raises(ValueError, match="certificate"):
        java_keystore(bundle)


def java(root: Path, parent_files: dict[str, bytes]) -> BuildContext:
    from dataclasses import replace

    context = rendered(catalogue(root, java_trust_store="/etc/cacerts"), ())
    layout = root / "parent"
    create_layout(layout)
    parent = platform_image(layout, layers=(add_layer(layout, parent_files),))
    return replace(context, parent=parent)


def test_the_trust_store_is_made_of_the_parents_certificates(tmp_path: Path) -> None:
    context = derive(java(tmp_path, {BUNDLE_PATH: pem(ONE, TWO)}))
    (entry,) = context.entries
    assert entry.content == java_keystore(pem(ONE, TWO))
    assert context.files["assemble/rootfs/etc/cacerts"] == entry.content


def test_a_parent_without_certificates_is_a_mistake_of_the_definition(tmp_path: Path) -> None:
    with pytest.raises(DefinitionError) as caught:
        derive(java(tmp_path, {"etc/hostname": b""}))
    assert caught.value.problems[0].path == "java_trust_store"
