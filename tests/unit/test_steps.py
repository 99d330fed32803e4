"""Typed steps of a definition: files, directories, what is left out, Java's trust store."""

from __future__ import annotations

import base64
import hashlib
import struct
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from builder.engines.direct import DirectEngine
from builder.errors import DefinitionError, LockError, Problem
from builder.model.assembly import LeftOut
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
from tests.support.images import AMD64, add_layer, platform_image

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
        ({"dev": {"without": ["/usr/share/doc/hello"]}}, "cannot be left out"),
        ({"without": ["/usr/lib/a"], "keep": ["/usr/lib/ab"]}, "/usr/lib/ab is not left out"),
        ({"without": ["/usr/lib/a"], "keep": ["/usr/lib/a"]}, "/usr/lib/a is not left out"),
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
    assert context.left_out.paths == ("usr/lib/web-arm64/debug",)
    assert "rm -rf -- usr/lib/web-arm64/debug\n" in context.files["assemble/assemble.sh"].decode()


def test_paths_know_the_folder_of_libraries(tmp_path: Path) -> None:
    root = catalogue(tmp_path, without=["/usr/lib/{multiarch}/a"], keep=["/usr/lib/{multiarch}/a/b"])
    assert rendered(root, (), "amd64").left_out.kept == ("usr/lib/x86_64-linux-gnu/a/b",)
    assert rendered(root, (), "arm64").left_out.paths == ("usr/lib/aarch64-linux-gnu/a",)


def test_each_variant_leaves_out_what_is_said_of_it(tmp_path: Path) -> None:
    own = stream(without=["/usr/share/web"], dev={"without": ["/usr/lib/web/key.pem"]})
    write(tmp_path, image("base"), image("web", variants=["runtime", "dev"], streams={"1": own}))
    left_out = {}
    for target in load_catalogue(tmp_path).targets():
        section = LockSection("1", target.variant, AMD64, "trixie", Digest.of(b""), None, ())
        context = render(target, AMD64, section, ROOT / "templates", {}, 0)
        left_out[target.ref] = context.left_out.paths
    assert left_out["web:1"] == ("usr/share/web",)
    assert left_out["web:1-dev"] == ("usr/lib/web/key.pem",)


WEB = [
    directory("./usr/bin/"),
    member("./usr/bin/web", b"web", mode=0o755),
    member("./usr/bin/gem", b"gem", mode=0o755),
    directory("./usr/lib/tools/"),
    member("./usr/lib/tools/one", b"1"),
    directory("./usr/lib/tools/more/"),
    member("./usr/lib/tools/more/two", b"2"),
    member("./usr/lib/tools/more/three", b"3"),
    member("./usr/lib/toolshed", b"stays"),
    member("./etc/init.d/web", b"start"),
    member("./etc/site.conf", b"Debian's\n"),
]


def test_what_is_left_out_is_gone_and_a_file_replaces_the_packages(tmp_path: Path) -> None:
    package, path = make_deb(tmp_path, "web", WEB)
    root = catalogue(
        tmp_path / "c",
        files=conf(),
        without=["/usr/bin/gem", "/usr/lib/tools", "/etc/site.conf"],
        keep=["/usr/lib/tools/more/two"],
    )
    context, pool = rendered(root, (package,)), FolderPool({"web": path})
    (tmp_path / "work").mkdir()
    contents = unpack(context.lock.packages, pool.path, "runtime", context.left_out)
    raw = DirectEngine().build(context, pool, tmp_path / "work")
    image_ = normalise(raw, contents, tmp_path / "layout")
    files = dict(_files(image_))
    assert files["etc/site.conf"] == b"listen 8080;\n"
    assert files["usr/lib/toolshed"] == b"stays"
    assert files["usr/lib/tools/more/two"] == b"2"
    gone = {"usr/bin/gem", "usr/lib/tools/one", "usr/lib/tools/more/three", "etc/init.d/web"}
    assert not gone & set(files)
    assert b"Package: web" in files["var/lib/dpkg/status.d/web"]


def test_what_no_package_brings_cannot_be_left_out(tmp_path: Path) -> None:
    package, path = make_deb(tmp_path, "web", WEB)
    path_of = FolderPool({"web": path}).path
    with pytest.raises(LockError, match="`without:` names /usr/bin/bundle, which no package"):
        unpack((package,), path_of, "runtime", LeftOut(("usr/bin/gem", "usr/bin/bundle")))
    with pytest.raises(LockError, match="`keep:` names /usr/lib/tools/zero, which no package"):
        unpack((package,), path_of, "runtime", LeftOut(("usr/lib/tools",), ("usr/lib/tools/zero",)))


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


# --- accounts ----------------------------------------------------------------------------------


def parented(root: Path, files: dict[str, bytes], **changes: Any) -> BuildContext:
    """The context of `web` on a parent with these files."""
    context = rendered(catalogue(root, **changes), ())
    layout = root / "parent"
    create_layout(layout)
    return replace(context, parent=platform_image(layout, layers=(add_layer(layout, files),)))


def test_accounts_come_after_those_of_the_image_below_and_own_directories(tmp_path: Path) -> None:
    context = derive(
        parented(
            tmp_path,
            {"etc/passwd": b"root:x:0:0:root:/root:/usr/sbin/nologin\n", "etc/group": b"root:x:0:"},
            users={"app": {"id": 10001, "home": "/srv/app"}},
            directories={"/srv/app": {"owner": "app", "mode": "0700"}},
        )
    )
    made = {e.path: e for e in context.entries}
    assert made["/etc/passwd"].content == (
        b"root:x:0:0:root:/root:/usr/sbin/nologin\napp:x:10001:10001:app:/srv/app:/usr/sbin/nologin\n"
    )
    assert made["/etc/group"].content == b"root:x:0:\napp:x:10001:\n"
    assert made["/srv/app"].owner == 10001
    assert context.files["assemble/rootfs/etc/passwd"] == made["/etc/passwd"].content


def test_accounts_of_an_image_without_a_parent_are_in_its_own_table(tmp_path: Path) -> None:
    write(tmp_path, image("base", streams={"1": stream(users={"app": {"id": 10001}})}))
    lock = LockSection("1", "runtime", Platform("linux", "amd64"), "trixie", Digest.of(b""), None, ())
    target = load_catalogue(tmp_path).find("base")
    context = render(target, lock.platform, lock, ROOT / "templates", {}, 0)
    (passwd,) = (e for e in context.entries if e.path == "/etc/passwd")
    assert passwd.content.endswith(b"app:x:10001:10001:app:/nonexistent:/usr/sbin/nologin\n")
    assert not passwd.derived


@pytest.mark.parametrize(
    ("changes", "path", "said"),
    [
        ({"users": {"app": {"id": 65532}}}, "users.app.id", "taken in every image"),
        ({"users": {"www-data": {"id": 10001}}}, "users.www-data", "of Debian"),
        ({"users": {"one": {"id": 5000}, "two": {"id": 5000}}}, "users.one.id", "also the id of two"),
        ({"users": {"app": {"id": 0}}}, "users.app.id", "greater than or equal to 1000"),
        ({"directories": {"/srv": {"owner": "nonrot"}}}, "directories./srv.owner", "no account"),
        ({"users": {"app": {"id": 7777}}}, "users.app.id", "7777 is the id of below in base:1"),
        ({"users": {"below": {"id": 7778}}}, "users.below", "has an account of that name"),
        ({"users": {"a": {"id": 5000}}, "links": {"/etc/passwd": "/x"}}, "", "made by two steps"),
    ],
)
def test_accounts_that_collide_are_named_with_file_and_path(
    tmp_path: Path, changes: dict[str, Any], path: str, said: str
) -> None:
    base = image("base", streams={"1": stream(users={"below": {"id": 7777}})})
    write(tmp_path, base, image("web", **{"from": "base", "streams": {"1": stream(**changes)}}))
    found = problems(tmp_path)
    assert all(p.file == "images/web/image.yaml" for p in found)
    assert any(said in p.message and p.path.startswith(f"streams.1.{path}".rstrip(".")) for p in found)


# --- certificates ------------------------------------------------------------------------------


def authority(ca: bool = True) -> bytes:
    import datetime as dt

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "Example Root")])
    start = dt.datetime(2026, 1, 1)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(start)
        .not_valid_after(start + dt.timedelta(days=9999))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    return made.public_bytes(serialization.Encoding.PEM)


def altered(certificate: bytes, before: bytes, after: bytes) -> bytes:
    """The certificate with other bytes in its encoding."""
    head, *lines, tail, _ = certificate.split(b"\n")
    encoded = base64.b64decode(b"".join(lines))
    assert before in encoded
    return b"\n".join((head, base64.b64encode(encoded.replace(before, after)), tail, b""))


def with_certificate(root: Path, content: bytes, **changes: Any) -> Path:
    given = {"certificates": [{"source": "root.pem", "sha256": sha256(content)}], **changes}
    catalogue(root, **given)
    (root / "images/web/root.pem").write_bytes(content)
    return root


def test_an_authority_of_the_company_is_trusted_beside_the_others(tmp_path: Path) -> None:
    mine = authority()
    root = with_certificate(tmp_path, mine, java_trust_store="/etc/cacerts")
    context = rendered(root, ())
    layout = root / "parent"
    create_layout(layout)
    parent = platform_image(layout, layers=(add_layer(layout, {BUNDLE_PATH: pem(ONE, TWO)}),))
    made = {e.path: e.content for e in derive(replace(context, parent=parent)).entries}
    assert made[f"/{BUNDLE_PATH}"] == pem(ONE, TWO) + mine
    assert made["/etc/cacerts"] == java_keystore(pem(ONE, TWO) + mine)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"nothing", "not a file of PEM certificates"),
        (b"\xff\xfe", "not a file of PEM certificates"),
        (b"-----BEGIN PRIVATE KEY-----\n", "holds a private key"),
        (authority(ca=False), "CN=Example Root is no certificate authority"),
        (
            altered(authority(), b"Example Root", b"Example \xff\xfe\xff\xfe"),
            "not a file of PEM certificates",
        ),
        (
            altered(authority(), b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x63"),
            "not a file of PEM certificates",
        ),
    ],
    ids=["nothing", "binary", "key", "leaf", "name", "version"],
)
def test_what_is_no_authority_is_refused(tmp_path: Path, content: bytes, said: str) -> None:
    (problem,) = problems(with_certificate(tmp_path, content))
    assert problem.file == "images/web/root.pem" and said in problem.message


def test_a_certificate_is_the_reviewed_one_and_needs_an_image_below(tmp_path: Path) -> None:
    root = with_certificate(tmp_path, authority())
    (root / "images/web/root.pem").write_bytes(authority())
    (problem,) = problems(root)
    assert problem.path == "streams.1.certificates.0.sha256"
    other = tmp_path / "other"
    document = stream(certificates=[{"source": "root.pem", "sha256": sha256(b"")}])
    write(other, image("base", streams={"1": document}))
    (other / "images/base/root.pem").write_bytes(b"")
    assert "streams.1.certificates" in {p.path for p in problems(other)}


def test_an_image_below_without_a_bundle_is_a_mistake_of_the_definition(tmp_path: Path) -> None:
    context = rendered(with_certificate(tmp_path, authority()), ())
    layout = tmp_path / "parent"
    create_layout(layout)
    parent = platform_image(layout, layers=(add_layer(layout, {"etc/hostname": b""}),))
    with pytest.raises(DefinitionError) as caught:
        derive(replace(context, parent=parent))
    assert caught.value.problems[0].path == f"/{BUNDLE_PATH}"


# --- programs that are run -----------------------------------------------------------------------

STEP = {
    "command": ["/usr/bin/web", "--index"],
    "reason": "the index has no other writer",
    "makes": {"/var/lib/web/index": {"sha256": sha256(b"index\n")}},
}


def test_a_program_is_run_without_a_shell_and_its_reason_stands_beside_it(tmp_path: Path) -> None:
    text = rendered(catalogue(tmp_path, run=[STEP]), ()).files["Dockerfile"].decode()
    assert '# the index has no other writer\nRUN ["/usr/bin/web", "--index"]\n' in text


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"reason": ""}, "run.0.reason"),
        ({"reason": "because\nRUN rm -rf /"}, "run.0.reason"),
        ({"command": ["web"]}, "run.0.command"),
        ({"makes": {}}, "run.0.makes"),
    ],
)
def test_a_run_says_why_what_and_what_it_makes(tmp_path: Path, changes: dict[str, Any], path: str) -> None:
    (problem,) = problems(catalogue(tmp_path, run=[{**STEP, **changes}]))
    assert problem.path == f"streams.1.{path}"


def test_the_direct_engine_refuses_to_run_programs(tmp_path: Path) -> None:
    context = rendered(catalogue(tmp_path, run=[STEP]), ())
    with pytest.raises(DefinitionError) as caught:
        DirectEngine().build(context, FolderPool({}), tmp_path)
    (problem,) = caught.value.problems
    assert (problem.file, problem.path) == ("images/web/image.yaml", "run")
    assert "--engine docker" in problem.hint


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"var/lib/web/index": b"index\n"}, ""),
        ({"var/lib/web/index": b"other\n"}, "changed the content of /var/lib/web/index"),
        ({"var/lib/web/index": b"index\n", "srv/web": b""}, "/srv/web, which belongs to no package"),
        ({}, "lost /var/lib/web/index"),
    ],
    ids=["as said", "other content", "another file", "nothing"],
)
def test_what_a_program_makes_has_to_be_what_was_said(
    tmp_path: Path, files: dict[str, bytes], said: str
) -> None:
    import io

    from builder.errors import NotReproducible
    from builder.model.image import RawImage

    context = parented(tmp_path, {}, run=[STEP])
    rootfs = tmp_path / "rootfs.tar"
    with tarfile.open(rootfs, "w") as tar:
        for path, content in files.items():
            entry = tarfile.TarInfo(path)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    raw = RawImage(context, rootfs, False, "docker", "1")
    contents = unpack((), FolderPool({}).path)
    if said:
        with pytest.raises(NotReproducible, match=said) as caught:
            normalise(raw, contents, tmp_path / "layout")
        assert ("content" in said) == (
            sha256(b"other\n") in caught.value.context
        )  # what to review, and write
    else:
        made = normalise(raw, contents, tmp_path / "layout")
        assert dict(_files(made))["var/lib/web/index"] == b"index\n"


def test_what_is_run_is_counted_and_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from builder.cli.main import run

    monkeypatch.setenv("GOLDSMITH_CATALOGUE", str(catalogue(tmp_path, run=[STEP])))
    assert run(["images"]) == 0
    assert "1 programs are run" in (said := capsys.readouterr().out)
    assert "web:1: the index has no other writer" in said
