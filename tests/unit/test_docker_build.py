"""The assembler's root and the Docker engine's context, without an engine."""

from __future__ import annotations

import hashlib
import platform as host
import tarfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from builder.checks.probe import probe_folder
from builder.cli.wiring import Workshop
from builder.engines import assembler
from builder.engines.assembler import assembler_tar, host_platform, narrowed
from builder.engines.context import materialise
from builder.engines.docker import DockerEngine
from builder.errors import DefinitionError, LockError, ToolError
from builder.model.digest import Digest
from builder.model.image import BuildContext, ImageConfig
from builder.model.lock import LockedPackage, LockSection
from builder.model.platform import Platform
from builder.oci.layout import create_layout
from builder.settings import Settings
from builder.stages.define import load_catalogue
from builder.store import Store
from tests.support.debs import directory, link, make_deb, member
from tests.support.images import add_layer, platform_image

ROOT = Path(__file__).parents[2]
NATIVE = Platform("linux", {"x86_64": "amd64", "aarch64": "arm64"}[host.machine()])


class FolderPool:
    """A pool of a few files; it counts what is asked of it."""

    def __init__(self, files: dict[str, Path]) -> None:
        self.files, self.fetched = files, 0

    def fetch(self, packages: Sequence[LockedPackage]) -> None:
        self.fetched += len(packages)

    def path(self, package: LockedPackage) -> Path:
        data = self.files[package.sha256].read_bytes()
        if hashlib.sha256(data).hexdigest() != package.sha256:
            raise LockError(f"package {package.name} was altered in the pool")
        return self.files[package.sha256]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "state").create()


@pytest.fixture
def shell(tmp_path: Path) -> tuple[LockSection, FolderPool]:
    """A lock with one package that has a little of everything."""
    members = [
        directory("./usr/bin"),
        member("./bin/dash", b"shell", mode=0o4755),
        link("./usr/bin/sh", "dash"),
        member("./usr/bin/date", b"date", mode=0o755),
        link("./usr/bin/when", "./usr/bin/date", tarfile.LNKTYPE),
        member("./usr/bin/openssl", b"openssl", mode=0o755),
        member("./usr/share/doc/dash/README", b"long"),
    ]
    locked, path = make_deb(tmp_path, "dash", members)
    section = LockSection("builder", "runtime", NATIVE, "trixie", Digest.of(b"i"), None, (locked,))
    return section, FolderPool({locked.sha256: path})


def _entries(tar: Path) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(tar) as source:
        return {m.name: m for m in source}


def test_the_root_holds_the_files_of_a_merged_usr_without_setuid(
    shell: tuple[LockSection, FolderPool], store: Store
) -> None:
    entries = _entries(assembler_tar(*shell, store))
    assert set(entries) == {"usr/bin", *(f"usr/bin/{n}" for n in ("dash", "sh", "date", "when", "openssl"))}
    assert entries["usr/bin/dash"].mode == 0o755
    assert entries["usr/bin/sh"].linkname == "dash"
    assert entries["usr/bin/when"].linkname == "usr/bin/date"


def test_the_root_is_made_once_and_the_same_everywhere(
    shell: tuple[LockSection, FolderPool], store: Store, tmp_path: Path
) -> None:
    section, pool = shell
    first = assembler_tar(section, pool, store)
    assert assembler_tar(section, pool, store) == first
    assert pool.fetched == 1
    again = assembler_tar(section, pool, Store(tmp_path / "other").create())
    assert again.read_bytes() == first.read_bytes()


def test_what_needs_a_few_packages_makes_a_root_of_those_unless_the_whole_is_there(
    shell: tuple[LockSection, FolderPool], store: Store
) -> None:
    section, pool = shell
    other = replace(section.packages[0], name="xz-utils", sha256="0" * 64)  # nowhere to be had
    both = replace(section, packages=(*section.packages, other))
    assert narrowed(both, {"dash"}, store).packages == section.packages
    assert probe_folder(assembler_tar(narrowed(both, {"dash"}, store), pool, store)).is_dir()
    assembler_tar(section, pool, store)
    assert narrowed(section, (), store) == section


def test_an_altered_package_leaves_no_root(shell: tuple[LockSection, FolderPool], store: Store) -> None:
    section, pool = shell
    next(iter(pool.files.values())).write_bytes(b"other")
    with pytest.raises(LockError, match="dash"):
        assembler_tar(section, pool, store)
    assert list((store.root / "assembler").iterdir()) == []


def test_a_machine_that_we_do_not_build_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assembler.host, "machine", lambda: "riscv64")
    with pytest.raises(ToolError) as caught:
        host_platform()
    assert "direct" in caught.value.hint


def test_the_probes_programs_come_from_the_root(shell: tuple[LockSection, FolderPool], store: Store) -> None:
    tar = assembler_tar(*shell, store)
    folder = probe_folder(tar)
    assert {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file() and p.name != "probe.sh"} == {
        "dash": b"shell",
        "date": b"date",
        "openssl": b"openssl",
    }
    assert all(p.stat().st_mode & 0o005 == 0o005 for p in (folder, folder / "dash"))
    (folder / "probe.sh").write_text("an older script")
    assert (probe_folder(tar) / "probe.sh").read_text() != "an older script"


def test_a_root_without_the_probes_programs_is_a_reason(tmp_path: Path) -> None:
    tar = tmp_path / "root.tar"
    with tarfile.open(tar, "w"):
        pass
    with pytest.raises(ToolError, match="probe"):
        probe_folder(tar)
    assert [p.name for p in tmp_path.iterdir()] == ["root.tar"]


def _context(shell: tuple[LockSection, FolderPool], sums: str | None = None) -> BuildContext:
    (package,) = shell[0].packages
    return BuildContext(
        ref="base:13",
        platform=NATIVE,
        lock=shell[0],
        files={
            "Dockerfile": b"FROM scratch\n",
            "assemble/SHA256SUMS": (sums or f"{package.sha256}  dash_1.deb\n").encode(),
        },
        entries=(),
        config=ImageConfig("65532:65532", {}, None, None, "/", {}),
        depth=0,
    )


@pytest.fixture
def engine(shell: tuple[LockSection, FolderPool], store: Store) -> DockerEngine:
    return DockerEngine(store, {"PATH": ""}, shell[0])


def test_the_context_holds_files_packages_root_and_parent(
    store: Store, shell: tuple[LockSection, FolderPool], tmp_path: Path
) -> None:
    layout = create_layout(tmp_path / "layout")
    parent = platform_image(layout, [add_layer(layout, {"etc/hello": b"hi"})])
    context = replace(_context(shell), depth=1, parent=parent)
    folder = materialise(context, shell[1], shell[0], store, tmp_path / "work")
    found = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}
    assert found == {"Dockerfile", "assemble/SHA256SUMS", "pool/dash_1.deb", "builder.tar", "parent.tar"}
    assert list(_entries(folder / "parent.tar")) == ["etc/hello"]
    assert (folder / "pool" / "dash_1.deb").samefile(next(iter(shell[1].files.values())))


@pytest.mark.parametrize("sums", ["", "00  dash_1.deb\n", "HASH  ../escape\n", "HASH  /etc/passwd\n"])
def test_a_list_of_checksums_that_is_not_the_lock_is_refused(
    store: Store, shell: tuple[LockSection, FolderPool], tmp_path: Path, sums: str
) -> None:
    context = _context(shell, sums.replace("HASH", shell[0].packages[0].sha256) or "\n")
    with pytest.raises(LockError):
        materialise(context, shell[1], shell[0], store, tmp_path / "work")


def test_what_would_be_fetched_from_elsewhere_is_refused_before_anything_is_written(
    store: Store, shell: tuple[LockSection, FolderPool], tmp_path: Path
) -> None:
    context = _context(shell)
    context = replace(context, files={**context.files, "Dockerfile": b"FROM debian:13\n"})
    with pytest.raises(DefinitionError) as refused:
        materialise(context, shell[1], shell[0], store, tmp_path / "work")
    assert "FROM debian:13" in refused.value.context
    assert "mend the template" in refused.value.hint
    assert not (tmp_path / "work").exists()


def test_without_an_engine_the_build_says_what_to_do(
    engine: DockerEngine,
    shell: tuple[LockSection, FolderPool],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("builder.tools.docker_engine._SYSTEM_SOCKET", f"unix://{tmp_path}/none.sock")
    monkeypatch.setattr("builder.tools.docker_engine.start_service", lambda *_: False)
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(ToolError) as caught:
        engine.build(_context(shell), shell[1], tmp_path / "work")
    assert caught.value.hint


def test_the_docker_engine_refuses_a_stale_assembler(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """What assembles images is as reviewed as what is in them."""
    monkeypatch.setattr(assembler.host, "machine", lambda: "x86_64")
    catalogue = load_catalogue(ROOT)
    settings = Settings.load({"GOLDSMITH_STATE": str(store.root)}, ROOT)
    workshop = Workshop(settings, catalogue, store)
    assert workshop.engine("docker").name == "docker"
    if catalogue.builder is None:
        raise AssertionError("the catalogue has no templates/builder.yaml")
    asked = (*catalogue.builder.packages, "netcat-openbsd")
    changed = replace(catalogue, builder=catalogue.builder.model_copy(update={"packages": asked}))
    with pytest.raises(LockError, match="stale"):
        Workshop(settings, changed, store).engine("docker")
