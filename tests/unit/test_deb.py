"""Packages are read as a stream, and nothing in them leaves the tree."""

from __future__ import annotations

import io
import lzma
import resource
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from builder.errors import LockError
from builder.oci.tarformat import END
from builder.tools import deb
from builder.tools.deb import read_control, read_data, write_plain
from tests.support.debs import directory, link, make_deb, member


def test_files_links_and_directories_come_with_their_content(tmp_path: Path) -> None:
    _, path = make_deb(
        tmp_path,
        "hello",
        [directory("./usr/"), member("./usr/hello", b"hi\n", mode=0o755), link("./usr/h", "hello")],
    )
    found = [(e.path, e.kind, e.mode, c.read() if c else None) for e, c in read_data(path)]
    assert found == [
        ("usr", "5", 0o755, None),
        ("usr/hello", "0", 0o755, b"hi\n"),
        ("usr/h", "2", 0o644, None),
    ]


@pytest.mark.parametrize(
    ("shipped", "merged"),
    [("./lib/x/y.so", "usr/lib/x/y.so"), ("./bin/sh", "usr/bin/sh"), ("./libexec/z", "libexec/z")],
)
def test_top_level_directories_of_old_packages_land_in_usr(tmp_path: Path, shipped: str, merged: str) -> None:
    _, path = make_deb(tmp_path, "old", [member(shipped, b"x")])
    assert [e.path for e, _ in read_data(path)] == [merged]


def test_control_and_md5sums_are_returned_as_they_stand(tmp_path: Path) -> None:
    _, path = make_deb(tmp_path, "hello", [])
    control = read_control(path)
    assert control.control.startswith("Package: hello\n")
    assert control.md5sums == "0 x\n"


@pytest.mark.parametrize(
    "bad",
    [
        member("/etc/passwd", b"x"),
        member("./../../etc/passwd", b"x"),
        member("./a\nb", b"x"),
        link("./usr/x", "../../../../etc/passwd"),
        link("./usr/x", "../../etc/shadow", tarfile.LNKTYPE),
        link("./usr/x", "/etc/shadow", tarfile.LNKTYPE),
        member("./dev/sda", type=tarfile.BLKTYPE, devmajor=8),
        member("./dev/null", type=tarfile.CHRTYPE),
        member("./pipe", type=tarfile.FIFOTYPE),
    ],
    ids=[
        "absolute",
        "dot-dot",
        "newline",
        "link-out",
        "hard-link-out",
        "hard-link-absolute",
        "block",
        "char",
        "fifo",
    ],
)
def test_an_entry_that_could_leave_the_tree_is_refused_by_name(
    tmp_path: Path, bad: tuple[tarfile.TarInfo, bytes]
) -> None:
    _, path = make_deb(tmp_path, "evil", [bad])
    with pytest.raises(LockError) as caught:
        list(read_data(path))
    assert "evil.deb" in caught.value.message


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deb, "_DATA_MAX", 1 << 20)
    _, path = make_deb(tmp_path, "bomb", [member(f"./f{i}", bytes(1 << 19)) for i in range(4)])
    seen = []
    with pytest.raises(LockError, match="more than the limit"):
        for entry, _ in read_data(path):
            seen.append(entry.path)
    assert len(seen) <= 2


def test_a_package_with_plain_archives_says_the_same(tmp_path: Path) -> None:
    members = [directory("./usr/"), member("./usr/x", b"odd"), link("./usr/y", "x")]
    _, path = make_deb(tmp_path, "twice", members, extra={"postinst": b"#!/bin/sh\n"})
    plain = tmp_path / "plain.deb"
    write_plain(path, plain)
    assert b"data.tar " in plain.read_bytes()

    def said(file: Path) -> list:
        return [(e, c.read() if c else b"") for e, c in read_data(file)]

    assert said(plain) == said(path)
    assert read_control(plain) == read_control(path)


def test_a_bomb_is_not_unpacked_either(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deb, "_DATA_MAX", 1 << 20)
    _, path = make_deb(tmp_path, "bomb", [member("./f", bytes(1 << 22))])
    with pytest.raises(LockError, match="more than the limit"):
        write_plain(path, tmp_path / "plain.deb")
    assert (tmp_path / "plain.deb").stat().st_size <= 2 << 20


@pytest.mark.parametrize("cut", [4, 100, 500])
def test_a_truncated_package_is_refused(tmp_path: Path, cut: int) -> None:
    _, path = make_deb(tmp_path, "cut", [member("./f", bytes(range(256)) * 50)])
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(LockError, match=r"cut\.deb"):
        for _, content in read_data(path):
            if content:
                content.read()


def test_another_compression_is_refused_in_words(tmp_path: Path) -> None:
    _, path = make_deb(tmp_path, "zst", [member("./f", b"x")])
    path.write_bytes(path.read_bytes().replace(b"data.tar.xz ", b"data.tar.zst"))
    with pytest.raises(LockError, match="zst"):
        list(read_data(path))


def _with_data(folder: Path, name: str, data: bytes) -> Path:
    """A package with this data.tar.xz, whatever it holds."""
    _, path = make_deb(folder, name, [])
    whole = path.read_bytes()
    start = whole.index(b"data.tar.xz")
    head = whole[start : start + 48] + b"%-10d`\n" % len(data)
    path.write_bytes(whole[:start] + head + data)
    return path


def _bomb(kind: bytes, size: int, claimed: int) -> bytes:
    """A tar whose header says `claimed` bytes, with `size` zero bytes after it, compressed."""
    info = tarfile.TarInfo("./bomb")
    info.type, info.size = kind, claimed
    packer, out = lzma.LZMACompressor(preset=0), io.BytesIO()
    out.write(packer.compress(info.tobuf(tarfile.GNU_FORMAT)))
    for _ in range(size >> 20):
        out.write(packer.compress(bytes(1 << 20)))
    return out.getvalue() + packer.flush()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda packed: packed + b"more", "something follows its end"),
        (lambda packed: packed + packed, "something follows its end"),
        (lambda packed: packed[:-20], "ends in the middle"),
        (lambda packed: packed[:-20] + bytes(20), "damaged"),
    ],
    ids=["more-bytes", "a-second-archive", "cut", "damaged"],
)
def test_an_archive_is_one_whole_xz_stream(
    tmp_path: Path, change: Callable[[bytes], bytes], said: str
) -> None:
    path = _with_data(tmp_path, "odd", change(lzma.compress(END)))
    with pytest.raises(LockError, match=said):
        write_plain(path, tmp_path / "plain.deb")


@pytest.mark.parametrize(
    "kind",
    [
        tarfile.GNUTYPE_LONGNAME,
        tarfile.GNUTYPE_LONGLINK,
        tarfile.XHDTYPE,
        tarfile.XGLTYPE,
        tarfile.GNUTYPE_SPARSE,
    ],
    ids=["long-name", "long-link", "pax", "global-pax", "sparse"],
)
def test_a_header_that_would_fill_the_memory_is_refused_unread(tmp_path: Path, kind: bytes) -> None:
    path = _with_data(tmp_path, "header", _bomb(kind, 192 << 20, 192 << 20))
    assert path.stat().st_size < 1 << 20
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(LockError, match=r"header\.deb is refused"):
        list(read_data(path))
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before  # KiB
    assert grown < 96 << 10


def test_a_file_beyond_the_limit_is_refused_at_its_header(tmp_path: Path) -> None:
    path = _with_data(tmp_path, "large", _bomb(tarfile.REGTYPE, 1 << 20, 5 << 30))
    with pytest.raises(LockError, match="more than the limit"):
        list(read_data(path))


def test_too_many_entries_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deb, "_FILES_MAX", 10)
    _, path = make_deb(tmp_path, "many", [directory(f"./d{n}") for n in range(11)])
    with pytest.raises(LockError, match="more than the limit"):
        list(read_data(path))


def test_a_control_archive_that_is_a_bomb_is_refused(tmp_path: Path) -> None:
    control = "Package: big\nDescription: " + "x" * (2 * deb._CONTROL_MAX) + "\n"
    _, path = make_deb(tmp_path, "control", [], control=control)
    with pytest.raises(LockError, match=r"control\.deb is refused"):
        read_control(path)
