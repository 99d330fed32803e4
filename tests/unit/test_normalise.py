"""Whatever an engine does differently, the canonical image is the same."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from builder.engines.direct import DirectEngine
from builder.errors import LockError, NotReproducible, RegistryError
from builder.model.digest import Digest
from builder.model.image import BuildContext, GeneratedEntry, ImageConfig, PlatformImage, RawImage
from builder.model.lock import LockedPackage, LockSection
from builder.model.platform import Platform
from builder.oci.layout import blob_path, verify_layout, write_layout_index
from builder.oci.rootfs import flatten, image_tree
from builder.stages.compare import differences
from builder.stages.normalise import GENERATED_TIME, normalise
from builder.stages.unpack import unpack
from tests.support.debs import TIME, FolderPool, directory, link, make_deb, member

AMD64 = Platform("linux", "amd64")
CONFIG = ImageConfig("65532:65532", {"PATH": "/usr/bin"}, ("/usr/bin/hello",), None, "/", {"a": "b"})
BASE_FILES = [
    directory("./etc/"),
    member("./etc/debian_version", b"13.7\n"),
    directory("./tmp/", 0o1777),
    directory("./var/lock/", 0o1777),
    directory("./proc/"),
]
HELLO = [
    directory("./usr/bin/"),
    member("./usr/bin/hello", b"#!hello\n", mode=0o6755),
    link("./usr/bin/hi", "./usr/bin/hello", tarfile.LNKTYPE),
    link("./usr/bin/greet", "hello"),
    directory("./usr/share/man/man1/"),
    member("./usr/share/man/man1/hello.1", b"manual"),
    member("./usr/share/doc/hello/copyright", b"GPL-2"),
    member("./usr/share/doc/hello/changelog", b"long"),
]
ENTRIES = (
    GeneratedEntry("/etc/passwd", "file", 0o644, content=b"root:*:0:0::/:\n"),
    GeneratedEntry("/home/nonroot", "directory", 0o700, owner=65532),
    GeneratedEntry("/tmp", "directory", 0o1777),
)
Members = Sequence[tuple[tarfile.TarInfo, bytes]]


class World:
    """Packages in a folder, and the canonical image that an engine's tar of them becomes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files: dict[str, Path] = {}
        self.number = 0

    def deb(self, name: str, members: Members, **fields: str) -> LockedPackage:
        package, path = make_deb(self.folder, name, members, **fields)
        self.files[name] = path
        return package

    def context(self, *packages: LockedPackage, parent: PlatformImage | None = None) -> BuildContext:
        lock = LockSection("13", "runtime", AMD64, "trixie", Digest.of(b""), None, tuple(sorted(packages)))
        entries = () if parent else ENTRIES
        return BuildContext("base:13", AMD64, lock, {}, entries, CONFIG, 1 if parent else 0, parent)

    def build(
        self, context: BuildContext, change: Callable[[RawImage], RawImage] = lambda raw: raw
    ) -> PlatformImage:
        self.number += 1
        work = self.folder / f"work{self.number}"
        work.mkdir()
        pool = FolderPool(self.files)
        contents = unpack(context.lock.packages, pool.path)
        raw = change(DirectEngine().build(replace(context, epoch=contents.epoch), pool, work))
        return normalise(raw, contents, work / "layout")


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def rewritten(
    change: Callable[[list[tuple[tarfile.TarInfo, bytes]]], Members],
) -> Callable[[RawImage], RawImage]:
    """An engine that wrote the same tree in another way."""

    def apply(raw: RawImage) -> RawImage:
        with tarfile.open(raw.rootfs) as tar:
            members = [(m, tar.extractfile(m).read() if m.isreg() else b"") for m in tar.getmembers()]  # type: ignore[union-attr]
        out = raw.rootfs.with_name("other.tar")
        with tarfile.open(out, "w", format=tarfile.PAX_FORMAT) as tar:
            for info, content in change(members):
                tar.addfile(info, io.BytesIO(content) if info.isreg() else None)
        return replace(raw, rootfs=out)

    return apply


def edited(**fields: object) -> Callable[[list[tuple[tarfile.TarInfo, bytes]]], Members]:
    def apply(members: list[tuple[tarfile.TarInfo, bytes]]) -> Members:
        for info, _ in members:
            for key, value in fields.items():
                setattr(info, key, value)
        return members

    return apply


def changed(members: list[tuple[tarfile.TarInfo, bytes]], name: str, **fields: object) -> Members:
    """The same tree, but for some fields of one entry."""
    return edited(**fields)([m for m in members if m[0].name == name]) and members


def hard_links_the_other_way(members: list[tuple[tarfile.TarInfo, bytes]]) -> Members:
    out = []
    for info, content in members:
        if info.name == "usr/bin/hello":
            out.append(member("usr/bin/hi", content, mode=0o755))
            out.append(link("usr/bin/hello", "usr/bin/hi", tarfile.LNKTYPE))
        elif info.name != "usr/bin/hi":
            out.append((info, content))
    return out


def with_left_overs(members: list[tuple[tarfile.TarInfo, bytes]]) -> Members:
    return [
        *members,
        directory("repo"),
        directory("dev"),
        member("dev/console-left", b""),
        member("etc/resolv.conf", b"nameserver host\n"),
        member("var/log/dpkg.log", b"yesterday"),
        member("var/cache/ldconfig/aux-cache", b"x"),
    ]


@pytest.mark.parametrize(
    "engine",
    [
        edited(mtime=1),
        edited(uname="root", gname="root"),
        edited(uid=1000, gid=50),
        edited(pax_headers={"SCHILY.xattr.user.overlay": "y", "comment": "z"}),
        lambda members: (
            list(reversed([m for m in members if m[0].type != tarfile.LNKTYPE]))
            + [m for m in members if m[0].type == tarfile.LNKTYPE]
        ),
        lambda members: [(m, c) for m, c in members if not setattr(m, "name", "./" + m.name)],
        hard_links_the_other_way,
        with_left_overs,
    ],
    ids=["times", "names", "owners", "user-xattrs", "order", "dot-slash", "hard-links", "left-overs"],
)
def test_what_engines_do_differently_does_not_reach_the_digest(world: World, engine: Callable) -> None:
    context = world.context(world.deb("base-files", BASE_FILES), world.deb("hello", HELLO))
    assert world.build(context, rewritten(engine)).manifest == world.build(context).manifest


def test_a_layer_of_several_gzip_members_is_read_to_its_end(world: World) -> None:
    content = bytes(range(256)) * (5 << 12)  # 5 MiB: more than one member holds
    big = world.deb(
        "big", [directory("./usr/lib/"), member("./usr/lib/a", content), member("./usr/lib/b", b"b")]
    )
    tree = image_tree(world.build(world.context(big)))
    assert tree["usr/lib/a"].sha256 == hashlib.sha256(content).hexdigest()
    assert tree["usr/lib/b"].sha256 == hashlib.sha256(b"b").hexdigest()


def test_the_image_holds_what_was_locked_and_nothing_more(world: World) -> None:
    image = world.build(world.context(world.deb("base-files", BASE_FILES), world.deb("hello", HELLO)))
    tree = image_tree(image)
    assert {p for p, n in tree.items() if n.kind != "5"} == {
        "etc/debian_version",
        "etc/passwd",
        "usr/bin/greet",
        "usr/bin/hello",
        "usr/bin/hi",
        "usr/share/doc/hello/copyright",
        "var/lib/dpkg/status.d/base-files",
        "var/lib/dpkg/status.d/base-files.md5sums",
        "var/lib/dpkg/status.d/hello",
        "var/lib/dpkg/status.d/hello.md5sums",
    }
    assert {
        p: oct(n.mode) for p, n in tree.items() if p in ("tmp", "var/lock", "home/nonroot", "usr/bin/hello")
    } == {
        "tmp": "0o1777",
        "var/lock": "0o775",
        "home/nonroot": "0o700",
        "usr/bin/hello": "0o755",
    }
    assert tree["home/nonroot"].uid == 65532


def test_the_layout_is_sound_and_times_come_from_the_packages(world: World) -> None:
    image = world.build(world.context(world.deb("hello", HELLO)))
    write_layout_index(image.layout, [image.manifest])
    verify_layout(image.layout)
    config = json.loads(blob_path(image.layout, image.config.digest).read_bytes())
    assert config["created"] == "2023-11-14T22:13:20Z"
    for layer in image.layers:
        with tarfile.open(blob_path(image.layout, layer.blob.digest)) as tar:
            names = [m.name.encode() for m in tar]
            assert names == sorted(names)
            assert {m.mtime for m in tar} <= {TIME, GENERATED_TIME}


def test_a_fix_moves_only_the_layer_of_its_package(world: World) -> None:
    ssl = [member("./usr/lib/libssl.so.3", b"old")]
    others = [
        world.deb("libc6", [member("./usr/lib/libc.so.6", b"c")], source="glibc"),
        world.deb("hello", HELLO),
    ]
    before = world.build(world.context(*others, world.deb("libssl3t64", ssl, source="openssl")))
    fixed = [member("./usr/lib/libssl.so.3", b"new", mtime=TIME + 5)]
    after = world.build(
        world.context(*others, world.deb("libssl3t64", fixed, source="openssl", version="1.0-2"))
    )
    moved = {x.group for x in after.layers if x.blob.digest not in {y.blob.digest for y in before.layers}}
    assert moved == {"openssl"}
    assert differences(before, after)[-1].startswith(
        "layer openssl: /usr/lib/libssl.so.3 differs in content, time"
    )


def test_a_child_starts_with_its_parents_layers(world: World) -> None:
    parent = world.build(world.context(world.deb("base-files", BASE_FILES)))
    child = world.build(world.context(world.deb("hello", HELLO), parent=parent))
    assert child.layers[: len(parent.layers)] == parent.layers
    assert [p.name for p in child.packages] == ["base-files", "hello"]


def whole(parent: PlatformImage, drop: str = "", extra: Members = ()) -> Callable[[RawImage], RawImage]:
    """An engine that exports the parent's files with its own, as Docker does."""

    def apply(raw: RawImage) -> RawImage:
        flat = raw.rootfs.with_name("parent.tar")
        with open(flat, "wb") as out:
            flatten(parent, out)
        with tarfile.open(flat) as tar:
            below = [(m, tar.extractfile(m).read() if m.isreg() else b"") for m in tar if m.name != drop]  # type: ignore[union-attr]
        return replace(rewritten(lambda own: [*below, *own, *extra])(raw), whole=True)

    return apply


def test_a_whole_export_and_an_overlay_give_the_same_child(world: World) -> None:
    parent = world.build(world.context(world.deb("base-files", BASE_FILES)))
    context = world.context(world.deb("hello", HELLO), parent=parent)
    assert world.build(context, whole(parent)).manifest == world.build(context).manifest


def test_a_lost_file_of_the_parent_is_refused(world: World) -> None:
    parent = world.build(world.context(world.deb("base-files", BASE_FILES)))
    context = world.context(world.deb("hello", HELLO), parent=parent)
    with pytest.raises(NotReproducible, match="lost /etc/debian_version of its parent"):
        world.build(context, whole(parent, drop="etc/debian_version"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda m: [*m, member("etc/host-secret", b"x")],
            "brought /etc/host-secret, which belongs to no package",
        ),
        (
            lambda m: [x for x in m if x[0].name != "usr/bin/hello" and x[0].name != "usr/bin/hi"],
            "lost /usr/bin/h",
        ),
        (lambda m: [(i, c.replace(b"hello", b"hallo")) for i, c in m], "changed the content of /usr/bin/h"),
        (
            lambda m: [(i, c.replace(b"root:*", b"root::")) for i, c in m],
            "changed the content of /etc/passwd",
        ),
        (
            lambda m: [(i, c.replace(b"k installed", b"x installed")) for i, c in m],
            "changed the content of /var/lib",
        ),
        (lambda m: changed(m, "usr/bin/hello", mode=0o4755), "changed the mode of /usr/bin/hello"),
        (lambda m: changed(m, "etc", mode=0o777), "changed the mode of /etc"),
        (
            lambda m: changed(m, "usr/bin/hello", pax_headers={"SCHILY.xattr.security.capability": "x"}),
            "changed the attributes of /usr/bin/h",
        ),
        (
            lambda m: changed(m, "etc", pax_headers={"SCHILY.xattr.security.selinux": "x"}),
            "changed the attributes of /etc",
        ),
        (
            lambda m: changed(m, "usr/bin/greet", linkname="/etc/passwd"),
            "changed the target of /usr/bin/greet",
        ),
        (lambda m: changed(m, "usr/bin/greet", type=tarfile.REGTYPE), "changed the target of /usr/bin/greet"),
        (lambda m: [*m, member("dev/sda", type=tarfile.BLKTYPE)], "device"),
        (lambda m: [*m, member("../../etc/cron.d/x", b"x")], "not a path inside"),
        (lambda m: [*m, link("usr/bin/x", "usr/bin/nothing", tarfile.LNKTYPE)], "no file"),
    ],
    ids=[
        "foreign-file",
        "lost-file",
        "content",
        "generated",
        "package-database",
        "mode",
        "directory-mode",
        "capability",
        "directory-attribute",
        "link",
        "link-to-file",
        "device",
        "escape",
        "dangling-hard-link",
    ],
)
def test_what_no_image_may_hold_is_refused(world: World, change: Callable, message: str) -> None:
    context = world.context(world.deb("base-files", BASE_FILES), world.deb("hello", HELLO))
    with pytest.raises(NotReproducible, match=message):
        world.build(context, rewritten(change))


@pytest.mark.parametrize(
    ("own", "said"),
    [
        ({"Package": "goldsmith-hello"}, "goldsmith-hello 1.0-1 amd64 hello 1.0-1"),
        ({"Version": "0.9-1"}, "hello 0.9-1 amd64 hello 0.9-1"),
        ({"Source": "our-hello"}, "hello 1.0-1 amd64 our-hello 1.0-1"),
        ({"Source": "hello (9.9-1)"}, "hello 1.0-1 amd64 hello 9.9-1"),
        ({"Source": "hello (1) (2)"}, "hello 1.0-1 amd64"),
        ({"Architecture": "arm64"}, "hello 1.0-1 arm64 hello 1.0-1"),
    ],
)
def test_a_package_that_calls_itself_something_else_is_refused_by_name(
    world: World, own: dict[str, str], said: str
) -> None:
    fields = {"Package": "hello", "Source": "hello", "Version": "1.0-1", "Architecture": "amd64", **own}
    control = "".join(f"{name}: {value}\n" for name, value in fields.items())
    with pytest.raises(LockError, match=r"hello 1\.0-1 calls itself something else") as caught:
        world.build(world.context(world.deb("hello", HELLO, control=control)))
    assert f"its own words: {said}" in caught.value.context
    assert caught.value.hint


def test_a_rebuilt_package_names_the_version_of_its_source(world: World) -> None:
    control = "Package: hello\nSource: greet (1:2.0-1)\nVersion: 1.0-1\nArchitecture: amd64\n"
    package = replace(world.deb("hello", HELLO, control=control), source="greet", source_version="1:2.0-1")
    assert world.build(world.context(package)).packages == (package,)


def test_two_packages_that_bring_one_file_are_refused(world: World) -> None:
    one, two = world.deb("one", [member("./etc/x", b"1")]), world.deb("two", [member("./etc/x", b"2")])
    with pytest.raises(LockError, match="one and two both bring /etc/x"):
        world.build(world.context(one, two))


def test_other_content_is_told_from_other_compression(world: World) -> None:
    context = world.context(world.deb("hello", HELLO))
    image = world.build(context)
    layer = image.layers[0]
    packed = replace(layer, blob=replace(layer.blob, digest=Digest.of(b"other gzip")))
    manifest = replace(image.manifest, digest=Digest.of(b"other"))
    twin = replace(image, manifest=manifest, layers=(packed, *image.layers[1:]))
    assert differences(image, twin) == (f"layer {layer.group}: the same content, compressed differently",)
    assert differences(image, image) == ()


def test_a_damaged_layer_of_the_parent_is_refused(world: World) -> None:
    parent = world.build(world.context(world.deb("base-files", BASE_FILES)))
    blob = blob_path(parent.layout, parent.layers[0].blob.digest)
    blob.write_bytes(blob.read_bytes()[:-20])
    with pytest.raises(RegistryError, match=r"damaged|other content"):
        world.build(world.context(world.deb("hello", HELLO), parent=parent))


@pytest.mark.parametrize("target", ["/etc", "../etc", "../../root"])
@pytest.mark.parametrize("packages", [1, 2])
def test_what_would_be_written_through_a_link_of_a_package_is_refused(
    world: World, target: str, packages: int
) -> None:
    members = (
        [directory("./usr/share/"), link("./usr/share/x", target)],
        [member("./usr/share/x/passwd", b"root::0:0::/:\n")],
    )
    debs = (
        [world.deb("evil", [*members[0], *members[1]])]
        if packages == 1
        else [world.deb("evil", members[0]), world.deb("other", members[1])]
    )
    with pytest.raises(LockError, match=r"/usr/share/x/passwd.*/usr/share/x.*|points out of the tree"):
        world.build(world.context(world.deb("base-files", BASE_FILES), *debs))


def test_nothing_is_written_through_a_link_of_the_image_below(world: World) -> None:
    below = [*BASE_FILES, directory("./usr/share/"), link("./usr/share/x", "/etc")]
    parent = world.build(world.context(world.deb("base-files", below)))
    with pytest.raises(LockError, match="/usr/share/x/passwd would be written through /usr/share/x"):
        world.build(world.context(world.deb("evil", [member("./usr/share/x/passwd", b"x")]), parent=parent))
