"""Packages are unpacked once, by whichever thread comes first, and the oldest ones make room."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from builder.store import Store
from builder.tools.deb import read_control
from builder.tools.unpacked import UnpackedPackages
from tests.support.debs import make_deb, member


def test_threads_share_one_unpacked_package(tmp_path: Path) -> None:
    _, path = make_deb(tmp_path, "one", [member("./x", b"content")])
    unpacked, asked = UnpackedPackages(Store(tmp_path / "state")), []

    def source() -> Path:
        asked.append(1)
        return path

    with ThreadPoolExecutor(8) as threads:
        files = set(threads.map(lambda _: unpacked.get("a", source), range(32)))
    assert len(asked) == 1
    (file,) = files
    assert read_control(file) == read_control(path)


def test_the_least_recently_used_goes_and_comes_back(tmp_path: Path) -> None:
    paths = {name: make_deb(tmp_path, f"package-{name}", [member("./x", bytes(50_000))])[1] for name in "abc"}
    paths = {f"sha-{name}": path for name, path in paths.items()}
    unpacked = UnpackedPackages(Store(tmp_path / "state"), kept_max=200_000)
    for sha in ("sha-a", "sha-b", "sha-a", "sha-c"):
        unpacked.get(sha, lambda sha=sha: paths[sha])  # type: ignore[misc]
    there = {p.stem for p in (tmp_path / "state" / "tmp").rglob("*.deb")}
    assert there == {"sha-a", "sha-c"}
    assert unpacked.get("sha-b", lambda: paths["sha-b"]).is_file()


def test_an_emptied_folder_is_made_again_and_nothing_stays_behind(tmp_path: Path) -> None:
    _, path = make_deb(tmp_path, "one", [member("./x")])
    store = Store(tmp_path / "state").create()
    unpacked = UnpackedPackages(store)
    unpacked.get("a", lambda: path)
    with store.exclusive("test"):  # removes what is unfinished
        assert unpacked.get("a", lambda: path).is_file()
    del unpacked
    assert list(store.tmp.iterdir()) == []
