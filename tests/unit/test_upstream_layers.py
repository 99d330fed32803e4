"""Foreign layers: whatever two readers could see differently is refused, in bounded memory and time."""

from __future__ import annotations

import gzip
import io
import tarfile
import tracemalloc
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from builder.errors import RegistryError
from builder.model.digest import Digest
from builder.model.image import LAYER_TYPE, Descriptor, Layer
from builder.oci.filesystem import FileSystem
from builder.oci.layout import create_layout, write_blob
from builder.oci.tarformat import END, TarEntry, header, padding
from registry.upstream.refusal import ImportRefused
from registry.upstream.tree import DEFAULT, TreeLimits, read_tree
from tests.support.foreign import spoil
from tests.support.images import layer_tar


def entry(path: str, kind: str = "0", data: bytes = b"", link: str = "", mode: int = 0o644) -> bytes:
    """One entry of a tar."""
    return header(TarEntry(path, kind, mode, 0, 0, len(data), 0, link)) + data + padding(len(data))


def raw(name: bytes, kind: bytes, size: int, body: bytes = b"") -> bytes:
    """A header as nobody writes it, with a sound checksum."""
    block = bytearray(header(TarEntry("x", "0", 0o644, 0, 0, 0, 0)))
    block[:100] = name.ljust(100, b"\0")
    block[124:136] = b"%011o\0" % size
    block[156:157] = kind
    block[148:156] = b"        "
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block) + body + padding(len(body))


def pax(**records: str) -> bytes:
    body = b""
    for key, value in records.items():
        line = f" {key.replace('__', '.')}={value}\n".encode()
        length = len(line) + 2
        length += len(str(length)) - 2 if len(str(length)) > 2 else 0
        body += str(length).encode() + line
    return raw(b"pax", b"x", len(body), body)


def put(
    layout: Path, *tars: bytes, packed: bytes | None = None, diff_id: Digest | None = None
) -> tuple[Layer, ...]:
    create_layout(layout)
    out = []
    for tar in tars:
        blob = packed or gzip.compress(tar, mtime=0)
        described = Descriptor(LAYER_TYPE, write_blob(layout, blob), len(blob))
        out.append(Layer(described, diff_id or Digest.of(tar), "x"))
    return tuple(out)


def read(
    tmp_path: Path, *tars: bytes, limits: TreeLimits = DEFAULT, wanted: tuple[str, ...] = ()
) -> FileSystem:
    return read_tree(tmp_path, put(tmp_path, *tars), wanted, limits)


def refusal(tmp_path: Path, *tars: bytes, limits: TreeLimits = DEFAULT) -> str:
    with pytest.raises(ImportRefused) as refused:
        read(tmp_path, *tars, limits=limits)
    assert refused.value.hint
    return refused.value.reference


def test_the_merged_view_is_what_the_layers_say(tmp_path: Path) -> None:
    lower = layer_tar({"a/one": b"1", "a/two": b"22", "b": b"3", "gone/x": b"4"})
    upper = b"".join(
        (
            entry("a", "5", mode=0o755),
            entry("a/.wh.one"),
            entry(".wh.gone"),
            entry("b", "2", link="/a/two"),
            entry("a/three", "1", link="a/two"),
            entry("a/" + "n" * 150 + "/x", data=b"long"),
            END,
        )
    )
    files = read(tmp_path, lower, upper, wanted=("a/",))
    assert sorted(files.entries) == ["a", "a/" + "n" * 150 + "/x", "a/three", "a/two", "b"]
    assert files.read("/b") == b"22" == files.read("/a/three")
    assert files.entries["b"].kind == "link"


def test_an_opaque_folder_hides_only_what_is_below_it(tmp_path: Path) -> None:
    files = read(
        tmp_path, layer_tar({"d/old": b"1", "e": b"2"}), entry("d/new") + entry("d/.wh..wh..opq") + END
    )
    assert sorted(files.entries) == ["d/new", "e"]


HOSTILE: dict[str, tuple[Callable[[], list[bytes]], str]] = {
    "absolute name": (lambda: [entry("/etc/passwd") + END], "unsafe-name"),
    "name that leads out": (lambda: [entry("a/../../etc/passwd") + END], "unsafe-name"),
    "control characters": (lambda: [entry("a\x1b[2J") + END], "unsafe-name"),
    "deep name": (lambda: [entry("/".join("a" * 300)) + END], "unsafe-name"),
    "no UTF-8": (lambda: [raw(b"\xff\xfe", b"0", 0) + END], "malformed-tar"),
    "link, then written through": (
        lambda: [entry("x", "2", link="/etc") + entry("x/passwd") + END],
        "writes-through-link",
    ),
    "link below, written through above": (
        lambda: [entry("x", "2", link="/etc") + END, entry("x/passwd") + END],
        "writes-through-link",
    ),
    "hard link out of the root": (lambda: [entry("x", "1", link="../../etc/shadow") + END], "unsafe-name"),
    "hard link to nothing": (lambda: [entry("x", "1", link="etc/shadow") + END], "unsafe-link"),
    "twice": (lambda: [entry("x") + entry("./x", data=b"1") + END], "ambiguous-layer"),
    "brought and hidden": (lambda: [entry("x") + entry(".wh.x") + END], "ambiguous-layer"),
    "whiteout of the parent": (lambda: [entry("a/.wh...") + END], "unsafe-name"),
    "whiteout of the folder": (lambda: [entry("a/.wh..") + END], "unsafe-name"),
    "sparse": (lambda: [raw(b"x", b"S", 8 << 30) + END], "malformed-tar"),
    "sparse by pax": (lambda: [pax(GNU__sparse__major="1") + entry("x") + END], "malformed-tar"),
    "other size by pax": (lambda: [pax(size="5") + entry("x", data=b"12") + END], "malformed-tar"),
    "absolute name by pax": (lambda: [pax(path="/etc/passwd") + entry("x") + END], "unsafe-name"),
    "name that leads out by pax": (lambda: [pax(path="a/../../x") + entry("x") + END], "unsafe-name"),
    "hard link out of the root by pax": (
        lambda: [pax(linkpath="../../etc/shadow") + entry("x", "1", link="y") + END],
        "unsafe-name",
    ),
    "two names by pax and GNU": (
        lambda: [pax(path="a") + raw(b"x", b"L", 2, b"b\0") + entry("x") + END],
        "malformed-tar",
    ),
    "global header": (lambda: [raw(b"g", b"g", 12, b"12 path=abc\n") + entry("x") + END], "malformed-tar"),
    "huge extended header": (lambda: [raw(b"x", b"x", 8 << 30)], "malformed-tar"),
    "huge long name": (lambda: [raw(b"x", b"L", 1 << 30)], "malformed-tar"),
    "unknown type": (lambda: [raw(b"x", b"V", 0) + END], "malformed-tar"),
    "folder with content": (lambda: [raw(b"x/", b"5", 3, b"abc") + END], "malformed-tar"),
    "cut off": (lambda: [entry("x", data=b"y" * 2000)[:1024]], "malformed-tar"),
    "data behind the end": (lambda: [entry("x") + END + entry("y") + END], "malformed-tar"),
    "wrong checksum": (lambda: [b"y" + entry("x")[1:] + END], "malformed-tar"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_layer_that_readers_could_see_differently_is_refused(tmp_path: Path, name: str) -> None:
    made, reference = HOSTILE[name]
    assert refusal(tmp_path, *made()) == reference


def test_devices_and_setuid_bits_are_seen_and_left_to_the_rules(tmp_path: Path) -> None:
    files = read(tmp_path, entry("su", mode=0o4755) + raw(b"null", b"3", 0) + END)
    assert files.entries["su"].mode == 0o4755
    assert files.entries["null"].kind == "character device"


def test_names_that_differ_by_case_stay_two(tmp_path: Path) -> None:
    assert sorted(read(tmp_path, entry("A") + entry("a") + END).entries) == ["A", "a"]


def test_too_many_entries_are_refused(tmp_path: Path) -> None:
    many = b"".join(entry(f"f{n}") for n in range(30)) + END
    small = replace(DEFAULT, entries_max=20)
    assert refusal(tmp_path, many, limits=small) == "too-many-entries"
    half = [b"".join(entry(f"{k}-{n}") for n in range(15)) + END for k in "ab"]
    assert refusal(tmp_path, *half, limits=small) == "too-many-entries"


def bomb(size: int) -> bytes:
    """A layer of zeros; packed a thousandfold."""
    machine = zlib.compressobj(9, zlib.DEFLATED, 31)
    out = [machine.compress(raw(b"zeros", b"0", size))]
    out += [machine.compress(bytes(1 << 20)) for _ in range(size >> 20)]
    return b"".join((*out, machine.compress(END), machine.flush()))


def test_a_bomb_is_stopped_early_and_in_little_memory(tmp_path: Path) -> None:
    packed = bomb(256 << 20)
    layers = put(tmp_path, b"", packed=packed)
    tracemalloc.start()
    with pytest.raises(ImportRefused) as refused:
        read_tree(tmp_path, layers, limits=replace(DEFAULT, slack=1 << 20))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert refused.value.reference == "unpacks-too-far"
    assert peak < 16 << 20


def test_a_bomb_in_an_extended_header_is_not_held(tmp_path: Path) -> None:
    machine = zlib.compressobj(9, zlib.DEFLATED, 31)
    packed = machine.compress(raw(b"x", b"x", 1 << 30) + bytes(32 << 20)) + machine.flush()
    layers = put(tmp_path, b"", packed=packed)
    tracemalloc.start()
    with pytest.raises(ImportRefused):
        read_tree(tmp_path, layers)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16 << 20


def test_the_total_of_all_layers_is_bounded(tmp_path: Path) -> None:
    tars = [entry(name, data=bytes(6000)) + END for name in "ab"]
    assert refusal(tmp_path, *tars, limits=replace(DEFAULT, total_max=10_000)) == "unpacks-too-far"


def test_concatenated_gzip_members_are_one_layer(tmp_path: Path) -> None:
    tar = layer_tar({"a": b"x" * 3000})
    packed = b"".join(gzip.compress(tar[n : n + 512], mtime=0) for n in range(0, len(tar), 512))
    assert list(read_tree(tmp_path, put(tmp_path, tar, packed=packed)).entries) == ["a"]


@pytest.mark.parametrize("packed", ["truncated", "rubbish", "trailing"])
def test_a_damaged_gzip_is_refused(tmp_path: Path, packed: str) -> None:
    tar = layer_tar({"a": b"x" * 3000})
    whole = gzip.compress(tar, mtime=0)
    data = {"truncated": whole[:-9], "rubbish": b"\x28\xb5\x2f\xfd" + whole, "trailing": whole + b"more"}[
        packed
    ]
    with pytest.raises(ImportRefused):
        read_tree(tmp_path, put(tmp_path, tar, packed=data))


def test_another_diff_id_is_refused(tmp_path: Path) -> None:
    layers = put(tmp_path, layer_tar({"a": b"1"}), diff_id=Digest.of(b"other"))
    with pytest.raises(ImportRefused) as refused:
        read_tree(tmp_path, layers)
    assert refused.value.reference == "diff-id"


def test_a_flipped_byte_is_found(tmp_path: Path) -> None:
    layers = put(tmp_path, layer_tar({"a": b"1" * 5000}))
    spoil(tmp_path, layers[0].blob.digest)
    with pytest.raises((ImportRefused, RegistryError)):
        read_tree(tmp_path, layers)


def test_what_the_standard_library_writes_is_read(tmp_path: Path) -> None:
    for form in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w", format=form) as tar:
            for name in ("short", "l" * 120 + "/" + "o" * 120, "ümlaut"):
                info = tarfile.TarInfo(name)
                info.size, info.mtime = 3, 1.5 if form == tarfile.PAX_FORMAT else 1
                tar.addfile(info, io.BytesIO(b"abc"))
            link = tarfile.TarInfo("link")
            link.type, link.linkname = tarfile.SYMTYPE, "t" * 130
            tar.addfile(link)
        files = read(tmp_path / str(form), out.getvalue())
        assert len(files.entries) == 4
        assert files.entries["link"].target == "t" * 130
