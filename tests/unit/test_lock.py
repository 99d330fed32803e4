"""What a lock says, when it is stale, and how it differs from the archive."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builder.cli.catalogue import _show
from builder.errors import DefinitionError, LockError, NoSuchPackage
from builder.model.catalogue import Catalogue
from builder.model.generated import DEV_PACKAGES
from builder.model.lock import HEADER, ImageLock, LockedPackage, LockSection
from builder.model.platform import Platform
from builder.stages import lock as stage
from builder.stages.define import load_catalogue
from tests.support.catalogue import Document, image, stream, write

AMD64, ARM64 = Platform("linux", "amd64"), Platform("linux", "arm64")
NOWHERE = "nowhere"
BOTH = ["linux/amd64", "linux/arm64"]


class World:
    """An archive in memory: package → (version, dependencies); `own` holds what differs by architecture."""

    def __init__(self, **packages: tuple[str, ...]) -> None:
        self.packages = {name.replace("_", "-"): value for name, value in packages.items()}
        self.own: dict[tuple[str, str], str] = {}

    def resolve(self, suite: str, architecture: str, request: Sequence[str]) -> tuple[LockedPackage, ...]:
        closure, waiting = set(), list(request)
        while waiting:
            name = waiting.pop()
            if name not in closure:
                closure.add(name)
                if self.own.get((name, architecture)) == NOWHERE:
                    raise NoSuchPackage(suite, architecture, [name])
                waiting += self.packages[name][1:]
        return tuple(self.package(name, architecture) for name in sorted(closure))

    def package(self, name: str, architecture: str) -> LockedPackage:
        version = self.own.get((name, architecture), self.packages[name][0])
        return LockedPackage(
            name=name,
            version=version,
            architecture=architecture,
            sha256=hashlib.sha256(f"{name} {version} {architecture}".encode()).hexdigest(),
            size=1000,
            path=f"pool/main/{name[0]}/{name}/{name}_{version}_{architecture}.deb",
            source=name,
            source_version=version.partition("+b")[0],
        )


@pytest.fixture
def world() -> World:
    return World(
        libc=("2.41",),
        certificates=("1", "setup", "libc"),
        setup=("9",),
        app=("3.0", "libapp", "certificates"),
        libapp=("3.0", "libc"),
        shell=("5", "libc", "setup"),
        **dict.fromkeys(DEV_PACKAGES, ("1",)),
    )


def two_images(**app: object) -> tuple[Document, Document]:
    variants = app.get("variants", ["runtime"])
    base = image("base", variants=variants, streams={"1": stream("certificates", omit=["setup"])})
    child = image("app", **{"from": "base", "streams": {"3": stream("app")}, **app})
    return base, child


def lock_all(catalogue: Catalogue, world: World) -> dict[str, ImageLock]:
    locks: dict[str, ImageLock] = {}
    for name in dict.fromkeys(t.definition.name for t in catalogue.targets()):
        locks[name] = stage.resolve_image(catalogue, name, world, locks)
        stage.write(stage.lock_path(catalogue, name), locks[name])
    return locks


def names(section: LockSection) -> list[str]:
    return [p.name for p in section.packages]


def test_a_child_holds_its_closure_without_the_parent_and_what_is_omitted(
    tmp_path: Path, world: World
) -> None:
    catalogue = load_catalogue(write(tmp_path, *two_images()))
    locks = lock_all(catalogue, world)
    base, child = (locks[name].sections[0] for name in ("base", "app"))
    assert names(base) == ["certificates", "libc"]
    assert names(child) == ["app", "libapp"]
    assert child.parent is not None
    assert (child.parent.image, child.parent.variant, child.parent.section) == (
        *("base:1", "runtime"),
        base.digest,
    )


def test_what_a_parent_omits_a_child_may_ask_for(tmp_path: Path, world: World) -> None:
    catalogue = load_catalogue(write(tmp_path, *two_images(streams={"3": stream("app", "setup")})))
    assert names(lock_all(catalogue, world)["app"].sections[0]) == ["app", "libapp", "setup"]


def test_a_dev_image_misses_nothing_that_apt_would_ask_for(tmp_path: Path, world: World) -> None:
    streams = {"3": stream("app", omit=["libapp"], dev={"packages": ["shell"]})}
    catalogue = load_catalogue(write(tmp_path, *two_images(streams=streams, variants=["runtime", "dev"])))
    locks = lock_all(catalogue, world)
    _, below = locks["base"].sections
    runtime, dev = locks["app"].sections
    assert names(runtime) == ["app"]
    assert names(dev) == ["app", "libapp", "shell"]
    assert set(names(below)) == {"certificates", "libc", "setup", *DEV_PACKAGES}
    assert dev.parent is not None
    assert (dev.parent.variant, dev.parent.section) == ("dev", below.digest)


def test_the_text_comes_back_as_it_went(tmp_path: Path, world: World) -> None:
    catalogue = load_catalogue(write(tmp_path, *two_images()))
    for lock in lock_all(catalogue, world).values():
        assert ImageLock.parse(lock.text()) == lock
        assert ImageLock.parse(lock.text()).text() == lock.text()


def test_an_unchanged_archive_leaves_the_file_alone(tmp_path: Path, world: World) -> None:
    catalogue = load_catalogue(write(tmp_path, *two_images()))
    lock_all(catalogue, world)
    path = stage.lock_path(catalogue, "app")
    before = path.stat()
    lock_all(catalogue, world)
    assert (path.stat().st_mtime_ns, path.stat().st_ino) == (before.st_mtime_ns, before.st_ino)
    assert f"{before.st_mode & 0o777:o}" == "644"


def test_one_new_package_changes_one_line_and_the_childs_pin(tmp_path: Path, world: World) -> None:
    catalogue = load_catalogue(write(tmp_path, *two_images()))
    old = lock_all(catalogue, world)
    world.packages["libc"] = ("2.42",)
    new = lock_all(catalogue, world)
    lines = [
        set(new[name].text().splitlines()) ^ set(old[name].text().splitlines()) for name in ("base", "app")
    ]
    assert [line.split()[:3] for line in sorted(lines[0])] == [
        ["package", "libc", "2.41"],
        ["package", "libc", "2.42"],
    ]
    assert {line.split()[0] for line in lines[1]} == {"parent"}


def test_a_locked_section_needs_no_archive(tmp_path: Path, world: World) -> None:
    catalogue = load_catalogue(write(tmp_path, *two_images()))
    locks = lock_all(catalogue, world)
    target = catalogue.find("app")
    assert stage.locked_section(catalogue, target, AMD64) == locks["app"].sections[0]


@pytest.mark.parametrize(
    ("changes", "stale"),
    [
        ({"title": "Another title"}, False),
        ({"streams": {"3": stream("app", end_of_life="2031-01-01", links={"/a": "/b"})}}, False),
        ({"streams": {"3": stream("app", "shell")}}, True),
        ({"streams": {"3": stream("app", omit=["libapp"])}}, True),
        (
            {"streams": {"3": stream("app", dev={"packages": ["shell"]})}, "variants": ["runtime", "dev"]},
            False,
        ),
        ({"from": None}, True),
    ],
    ids=["title", "life and links", "package", "omit", "another variant", "no parent"],
)
def test_a_definition_that_asks_for_something_else_is_noticed(
    tmp_path: Path, world: World, changes: Document, stale: bool
) -> None:
    lock_all(load_catalogue(write(tmp_path, *two_images())), world)
    lock_file = tmp_path / "images/app/image.lock"
    text = lock_file.read_text()
    for file in (tmp_path / "images").rglob("*"):
        if file.is_file() and file.name != "image.lock":
            file.unlink()
    again = tmp_path / "again"
    base, child = two_images(**changes)
    catalogue = load_catalogue(write(again, base, {k: v for k, v in child.items() if v is not None}))
    (again / "images/app/image.lock").write_text(text)
    (again / "images/base/image.lock").write_text((tmp_path / "images/base/image.lock").read_text())
    target = catalogue.find("app")
    if stale:
        with pytest.raises(LockError, match="asks for something else") as caught:
            stage.locked_section(catalogue, target, AMD64)
        assert "goldsmith lock app" in caught.value.hint
    else:
        assert stage.locked_section(catalogue, target, AMD64).stream == "3"


def test_the_order_of_names_does_not_count(tmp_path: Path) -> None:
    one = load_catalogue(
        write(tmp_path / "1", image("a", streams={"1": stream("x1", "x2", omit=["y1", "y2"])}))
    )
    two = load_catalogue(
        write(tmp_path / "2", image("a", streams={"1": stream("x2", "x1", omit=["y2", "y1"])}))
    )
    assert stage.intent(one.find("a")) == stage.intent(two.find("a"))


def test_a_parent_that_was_locked_anew_makes_the_child_stale(tmp_path: Path, world: World) -> None:
    catalogue = load_catalogue(write(tmp_path, *two_images()))
    lock_all(catalogue, world)
    world.packages["libc"] = ("2.42",)
    stage.write(stage.lock_path(catalogue, "base"), stage.resolve_image(catalogue, "base", world, {}))
    with pytest.raises(LockError, match="the parent's lock is another one"):
        stage.locked_section(catalogue, catalogue.find("app"), AMD64)


def test_a_child_is_not_locked_against_an_old_parent(tmp_path: Path, world: World) -> None:
    catalogue = load_catalogue(write(tmp_path, *two_images()))
    locks = lock_all(catalogue, world)
    world.packages["libc"] = ("2.42",)
    with pytest.raises(LockError, match="parent base:1 does not fit") as caught:
        stage.resolve_image(catalogue, "app", world, locks)
    assert "libc: 2.41 locked, 2.42 now" in caught.value.context
    assert "goldsmith lock base" in caught.value.hint


def test_the_same_version_with_other_bytes_is_another_package(tmp_path: Path, world: World) -> None:
    catalogue = load_catalogue(write(tmp_path, *two_images()))
    locks = lock_all(catalogue, world)
    (section,) = locks["base"].sections
    first, *rest = section.packages
    forged = dataclasses.replace(section, packages=(dataclasses.replace(first, sha256="0" * 64), *rest))
    with pytest.raises(LockError, match="does not fit"):
        stage.resolve_image(catalogue, "app", world, {"base": ImageLock((forged,))})


def test_platforms_that_disagree_are_refused(tmp_path: Path, world: World) -> None:
    base, _ = two_images()
    catalogue = load_catalogue(write(tmp_path, {**base, "platforms": BOTH}))
    world.own["libc", "arm64"] = "2.40"
    with pytest.raises(LockError, match="the platforms disagree") as caught:
        stage.resolve_image(catalogue, "base", world, {})
    assert "libc: 2.41 on linux/amd64, 2.40 on linux/arm64" in caught.value.context


@pytest.mark.parametrize(
    ("name", "file", "path"),
    [
        ("certificates", "images/base/image.yaml", "streams.1.packages.0"),
        ("app", "images/app/image.yaml", "streams.3.packages.0"),
        ("shell", "images/app/image.yaml", "streams.3.dev.packages.1"),
    ],
)
def test_a_package_that_one_platform_lacks_is_named_with_file_path_and_platform(
    tmp_path: Path, world: World, name: str, file: str, path: str
) -> None:
    base, app = two_images(variants=["runtime", "dev"], platforms=BOTH)
    app["streams"]["3"]["dev"] = {"packages": ["setup", "shell"]}
    catalogue = load_catalogue(write(tmp_path, {**base, "platforms": BOTH}, app))
    locks = lock_all(catalogue, world)
    world.own[name, "arm64"] = NOWHERE
    with pytest.raises(DefinitionError) as caught:
        stage.resolve_image(catalogue, "app", world, locks)
    (problem,) = caught.value.problems
    assert (problem.file, problem.path) == (file, path)
    assert problem.message == f"trixie has no package {name} for linux/arm64"


def test_a_binary_rebuild_on_one_platform_is_no_disagreement(tmp_path: Path, world: World) -> None:
    base, _ = two_images()
    catalogue = load_catalogue(write(tmp_path, {**base, "platforms": BOTH}))
    world.own["libc", "arm64"] = "2.41+b1"
    assert len(stage.resolve_image(catalogue, "base", world, {}).sections) == 2


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda text: text.replace(HEADER, "# something"), "image.lock:1: not a lock"),
        (lambda text: "", "image.lock:1: not a lock"),
        (lambda text: text.replace("suite trixie\n", ""), "no line 'suite'"),
        (lambda text: text.replace("intent sha256:", "intent md5:"), "image.lock"),
        (lambda text: text.replace("package libc", "packag libc"), "malformed line"),
        (lambda text: text.replace(" 1000 ", " -1 "), "malformed size"),
        (lambda text: text.replace(" 1000 ", " x "), "image.lock"),
        (lambda text: text.replace("pool/main/l/libc/", "../../../etc/"), "malformed path"),
        (lambda text: text.replace("pool/main/l/libc/", "http://x/"), "malformed path"),
        (lambda text: text + text.splitlines()[-1] + "\n", "two versions of libc"),
        (lambda text: text.replace("package libc 2.41", "package aaa 2.41"), "not sorted"),
        (lambda text: text.replace("linux/amd64", "linux/vax"), "linux/vax"),
        (
            lambda text: text.replace("[1 runtime linux/amd64]", "[2 runtime linux/amd64]"),
            "nothing is locked",
        ),
    ],
)
def test_a_lock_that_is_spoilt(tmp_path: Path, world: World, spoil: object, message: str) -> None:
    base, _ = two_images()
    catalogue = load_catalogue(write(tmp_path, base))
    lock_all(catalogue, world)
    path = stage.lock_path(catalogue, "base")
    path.write_text(spoil(path.read_text()))  # type: ignore[operator]
    with pytest.raises(LockError) as caught:
        stage.locked_section(catalogue, catalogue.find("base"), AMD64)
    assert message in caught.value.message


@pytest.mark.parametrize("content", [None, b"\xff\xff"], ids=["missing", "binary"])
def test_no_lock_at_all(tmp_path: Path, content: bytes | None) -> None:
    base, _ = two_images()
    catalogue = load_catalogue(write(tmp_path, base))
    if content is not None:
        stage.lock_path(catalogue, "base").write_bytes(content)
    with pytest.raises(LockError, match=r"images/base/image\.lock (is missing|cannot be read)"):
        stage.locked_section(catalogue, catalogue.find("base"), AMD64)


def test_the_difference_is_told_by_section(tmp_path: Path, world: World) -> None:
    catalogue = load_catalogue(write(tmp_path, *two_images()))
    old = lock_all(catalogue, world)
    world.packages["app"] = ("3.1", "certificates", "shell")
    new = lock_all(catalogue, world)
    assert stage.compare(old["base"], new["base"], "base.lock") == ()
    (difference,) = stage.compare(old["app"], new["app"], "app.lock")
    assert difference.as_dict() == {
        "file": "app.lock",
        "section": "3 runtime linux/amd64",
        "reasons": [],
        "added": ["shell 5"],
        "removed": ["libapp 3.0"],
        "changed": [{"name": "app", "old": "3.0", "new": "3.1"}],
    }


def test_sections_come_and_go(tmp_path: Path, world: World) -> None:
    catalogue = load_catalogue(write(tmp_path, *two_images()))
    (section,) = lock_all(catalogue, world)["base"].sections
    lock, gone = ImageLock((section,)), ImageLock((dataclasses.replace(section, stream="0"),))
    assert stage.compare(None, lock, "x")[0].reasons == ("not locked yet",)
    assert {d.section: d.reasons for d in stage.compare(gone, lock, "x")} == {
        "0 runtime linux/amd64": ("no longer asked for",),
        "1 runtime linux/amd64": ("not locked yet",),
    }


def test_a_section_that_went_is_one_line(
    tmp_path: Path, world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whoever takes a model's folder and says what is other sees what comes, not hundreds of lines that go."""
    catalogue = load_catalogue(write(tmp_path, *two_images()))
    (section,) = lock_all(catalogue, world)["base"].sections
    (gone, _) = stage.compare(
        ImageLock((dataclasses.replace(section, stream="0"),)), ImageLock((section,)), "x.lock"
    )
    _show(gone)
    count = len(section.packages)
    assert capsys.readouterr().out == (
        f"x.lock [0 runtime linux/amd64] (no longer asked for, with {count} packages)\n"
    )
    assert len(gone.as_dict()["removed"]) == count, "machines are told everything"


def test_what_is_not_locked_names_the_command_for_that_image(tmp_path: Path, world: World) -> None:
    catalogue = load_catalogue(write(tmp_path, *two_images()))
    target = catalogue.find("base")
    (platform,) = target.platforms
    with pytest.raises(LockError) as missing:
        stage.locked_section(catalogue, target, platform)
    (section,) = lock_all(catalogue, world)["base"].sections
    (target.directory / "image.lock").write_text(
        ImageLock((dataclasses.replace(section, stream="0"),)).text()
    )
    with pytest.raises(LockError) as other:
        stage.locked_section(catalogue, target, platform)
    assert [e.value.hint for e in (missing, other)] == [
        "run `goldsmith lock base` and review what it writes"
    ] * 2


def test_the_assembling_root_has_a_lock_of_its_own(tmp_path: Path, world: World) -> None:
    wanted = {"schema": 1, "suite": "trixie", "packages": ["shell"], "omit": ["setup"]}
    catalogue = load_catalogue(write(tmp_path, image("base"), builder=wanted))
    assert catalogue.builder is not None
    lock = stage.resolve_builder(catalogue.builder, world, [AMD64, ARM64])
    stage.write(stage.builder_lock_path(catalogue.root), lock)
    section = stage.builder_section(catalogue, ARM64)
    assert (section.label, names(section)) == ("builder runtime linux/arm64", ["libc", "shell"])
    changed = dataclasses.replace(catalogue, builder=catalogue.builder.model_copy(update={"omit": ()}))
    with pytest.raises(LockError, match="stale"):
        stage.builder_section(changed, ARM64)
    with pytest.raises(LockError, match="missing"):
        stage.builder_section(dataclasses.replace(catalogue, builder=None), ARM64)


LINES = st.sampled_from(
    [
        HEADER,
        "",
        "[1 runtime linux/amd64]",
        "suite trixie",
        "intent sha256:" + "0" * 64,
        "parent base:1 runtime sha256:" + "1" * 64,
        f"package a1 1 all {'a' * 64} 5 pool/a.deb a1 1",
        f"package b1 1:2~x amd64 {'b' * 64} 5 pool/b.deb b1 1",
    ]
)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.one_of(LINES, st.text(max_size=40)), max_size=12))
def test_no_text_does_more_to_the_parser_than_a_lock_error(lines: list[str]) -> None:
    text = "\n".join([HEADER, *lines])
    try:
        lock = ImageLock.parse(text)
    except LockError as error:
        assert error.message
    else:
        assert ImageLock.parse(lock.text()).text() == lock.text()
