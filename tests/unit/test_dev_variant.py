"""dev images: dpkg's real database, so that apt works; and who may be left out of an index."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from builder.engines.direct import DirectEngine
from builder.model import layers as layering
from builder.model.assembly import NOTHING, STATUS, is_appended
from builder.model.digest import Digest
from builder.model.generated import generated
from builder.model.image import BuildContext, ImageConfig, PlatformImage
from builder.model.lock import LockedPackage, LockSection
from builder.model.platform import Platform
from builder.oci.filesystem import FileSystem, read_filesystem
from builder.oci.rootfs import read_files
from builder.stages.define import load_catalogue
from builder.stages.normalise import normalise
from builder.stages.render import image_config
from builder.stages.unpack import unpack
from tests.support.catalogue import image, stream, write
from tests.support.debs import FolderPool, directory, make_deb, member

AMD64, ARM64 = Platform("linux", "amd64"), Platform("linux", "arm64")
CONFIG = ImageConfig("0:0", {}, None, ("/usr/bin/bash",), "/", {})
SETTING = b"answer=42\n"
CERTIFICATE = b"-----BEGIN CERTIFICATE-----\n"


class World:
    """Packages in a folder, and the dev images that they become."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.files, self.number = folder, dict[str, Path](), 0

    def deb(self, name: str, *members: tuple, **fields: object) -> LockedPackage:
        package, self.files[name] = make_deb(self.folder, name, members, **fields)  # type: ignore[arg-type]
        return package

    def build(self, *packages: LockedPackage, parent: PlatformImage | None = None) -> PlatformImage:
        self.number += 1
        work = self.folder / f"work{self.number}"
        work.mkdir()
        pool = FolderPool(self.files)
        lock = LockSection("13", "dev", AMD64, "trixie", Digest.of(b""), None, tuple(sorted(packages)))
        database = read_files(parent, layering.OWN, is_appended) if parent else {}
        contents = unpack(lock.packages, pool.path, "dev", NOTHING, database)
        context = BuildContext("x:13-dev", AMD64, lock, {}, (), CONFIG, 1 if parent else 0)
        context = replace(context, parent=parent, epoch=contents.epoch, database=database)
        return normalise(DirectEngine().build(context, pool, work), contents, work / "layout")

    def files_of(self, built: PlatformImage) -> FileSystem:
        every = read_filesystem(built, ()).entries
        return read_filesystem(built, every)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.fixture
def tool(world: World) -> LockedPackage:
    return world.deb(
        "tool",
        directory("./"),
        directory("./etc/"),
        member("./etc/tool.conf", SETTING),
        directory("./usr/share/man/"),
        member("./usr/share/man/tool.1", b"manual"),
        member("./usr/share/ca-certificates/mozilla/A.crt", CERTIFICATE),
        member("./lib/tool/über", b"x"),
        extra={
            "conffiles": b"/etc/tool.conf\n/etc/gone\n",
            "postinst": b"#!/bin/sh\n",
            "triggers": b"interest-noawait ldconfig # why\ninterest /usr/lib/x\nactivate y\n\n",
        },
        control="Package: tool\nVersion: 1.0-1\nArchitecture: amd64\nMulti-Arch: same\nDescription: test\n",
    )


def test_dpkg_finds_its_whole_database(world: World, tool: LockedPackage) -> None:
    files = world.files_of(world.build(tool))
    assert (files.read(STATUS) or b"").decode() == (
        "Package: tool\nStatus: install ok installed\nVersion: 1.0-1\nArchitecture: amd64\n"
        "Multi-Arch: same\nDescription: test\nConffiles:\n"
        f" /etc/tool.conf {hashlib.md5(SETTING, usedforsecurity=False).hexdigest()}\n\n"
    )
    info = {p.rpartition("/")[2]: e for p, e in files.entries.items() if "/info/" in p}
    assert set(info) == {f"tool:amd64.{x}" for x in ("conffiles", "list", "md5sums", "postinst", "triggers")}
    assert info["tool:amd64.postinst"].mode == 0o755
    listed = (files.read("var/lib/dpkg/info/tool:amd64.list") or b"").decode().splitlines()
    assert listed[:4] == ["/.", "/etc", "/etc/tool.conf", "/usr/share/man"]
    assert "/lib/tool/über" in listed
    assert files.read("var/lib/dpkg/triggers/ldconfig") == b"tool:amd64/noawait\n"
    assert files.read("var/lib/dpkg/triggers/File") == b"/usr/lib/x tool:amd64\n"
    assert not [p for p in files.entries if "status.d" in p]


def test_manuals_stay_out_and_tools_of_certificates_stay_in(world: World, tool: LockedPackage) -> None:
    files = world.files_of(world.build(tool))
    assert not [p for p in files.entries if p.startswith("usr/share/man")]
    assert files.read("usr/share/ca-certificates/mozilla/A.crt") == CERTIFICATE
    assert files.read("etc/ssl/certs/ca-certificates.crt") == CERTIFICATE
    assert files.read("etc/ca-certificates.conf") == b"mozilla/A.crt\n"


def test_a_child_continues_its_parents_database(world: World, tool: LockedPackage) -> None:
    parent = world.build(tool)
    more = world.deb("more", member("./usr/bin/more", b"x"), extra={"triggers": b"interest /usr/lib/x\n"})
    child = world.files_of(world.build(more, parent=parent))
    before = world.files_of(parent).read(STATUS) or b""
    after = child.read(STATUS) or b""
    assert after.startswith(before)
    assert after[len(before) :].startswith(b"Package: more\nStatus: install ok installed\n")
    assert child.read("var/lib/dpkg/triggers/File") == b"/usr/lib/x tool:amd64\n/usr/lib/x more\n"
    assert child.read("var/lib/dpkg/triggers/ldconfig") == b"tool:amd64/noawait\n"


def test_the_mirror_is_named_by_who_builds_or_by_the_catalogue(tmp_path: Path) -> None:
    own = "http://mirror.corp.example/debian,http://mirror.corp.example/debian-security"
    both = {"variants": ["runtime", "dev"]}
    streams = {"1": stream(dev={"mirror": own})}
    catalogue = load_catalogue(write(tmp_path, image("bare", **both), image("own", streams=streams, **both)))
    bare, mine = (
        {e.path: e.content.decode() for e in generated(catalogue.find(ref), AMD64, True)}
        for ref in ("bare:1-dev", "own:1-dev")
    )
    assert not [path for path in bare if path.startswith("/etc/apt/mirrors/")]
    assert not [text for text in bare.values() if "://" in text]
    assert "URIs: mirror+file:/etc/apt/mirrors/debian.list" in bare["/etc/apt/sources.list.d/debian.sources"]
    assert mine["/etc/apt/mirrors/debian.list"] == "http://mirror.corp.example/debian\n"
    assert mine["/etc/apt/mirrors/debian-security.list"] == "http://mirror.corp.example/debian-security\n"
    runtime = {e.path for e in generated(catalogue.find("own:1"), AMD64, True)}
    assert not [path for path in runtime if "apt" in path or "dpkg" in path]


def test_a_dev_image_starts_as_root_with_a_shell_and_a_runtime_image_as_nobody(tmp_path: Path) -> None:
    dev = {"environment": {"A": "b"}, "entrypoint": ["/usr/bin/own"]}
    document = image("zero", variants=["runtime", "dev"], streams={"1": stream(), "2": stream(dev=dev)})
    catalogue = load_catalogue(write(tmp_path, document))
    runtime, plain, own = (
        image_config(catalogue.find(r), {}) for r in ("zero:1", "zero:1-dev", "zero:2-dev")
    )
    assert (runtime.user, runtime.command) == ("65532:65532", None)
    assert (plain.user, plain.entrypoint, plain.command) == ("0:0", None, ("/usr/bin/bash",))
    assert (own.entrypoint, own.environment["A"]) == (("/usr/bin/own",), "b")


def test_only_amd64_has_lib64(tmp_path: Path) -> None:
    target = load_catalogue(write(tmp_path, image("zero"))).find("zero")
    with_it, without_it = ({e.path for e in generated(target, p, True)} for p in (AMD64, ARM64))
    assert with_it - without_it == {"/lib64"}
