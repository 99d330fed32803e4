"""Our tar headers are read back by an independent reader, and are always the same bytes."""

from __future__ import annotations

import hashlib
import io
import tarfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builder.oci.tarformat import END, TarEntry, header, padding


def read(*entries: tuple[TarEntry, bytes]) -> list[tarfile.TarInfo]:
    data = b"".join(header(e) + c + padding(len(c)) for e, c in entries) + END
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return tar.getmembers()


_STEP = st.text(
    st.characters(blacklist_categories=["Cs", "Cc"], blacklist_characters="/"), min_size=1, max_size=130
)


@settings(max_examples=150, deadline=None)
@given(
    path=st.lists(_STEP.filter(lambda s: s not in (".", "..")), min_size=1, max_size=4).map("/".join),
    mode=st.integers(0, 0o7777),
    uid=st.integers(0, 0o7777777),
    mtime=st.integers(0, 2**33 - 1),
    link=st.text(st.characters(blacklist_categories=["Cs", "Cc"]), min_size=1, max_size=300),
)
def test_every_field_survives_the_round_trip(path: str, mode: int, uid: int, mtime: int, link: str) -> None:
    file, target = TarEntry(path, "0", mode, uid, uid, 3, mtime), TarEntry(path, "2", 0o777, 0, 0, 0, 0, link)
    first, second = read((file, b"abc"), (target, b""))
    assert (first.name, first.mode, first.uid, first.gid, first.mtime, first.size) == (
        path,
        mode,
        uid,
        uid,
        mtime,
        3,
    )
    assert second.linkname == link


def test_extended_attributes_are_kept_and_sorted() -> None:
    entry = TarEntry(
        "bin/ping", "0", 0o755, 0, 0, 0, 0, xattrs={"security.z": b"2", "security.capability": b"\1\0"}
    )
    (found,) = read((entry, b""))
    assert [k for k in found.pax_headers if k.startswith("SCHILY")] == [
        "SCHILY.xattr.security.capability",
        "SCHILY.xattr.security.z",
    ]


@pytest.mark.parametrize("length", [99, 100, 101, 155, 200, 256, 300])
def test_long_directory_names_keep_their_slash(length: int) -> None:
    name = "/".join(["d" * 40] * (length // 41 + 1))[:length].rstrip("/")
    (found,) = read((TarEntry(name, "5", 0o755, 0, 0, 0, 0), b""))
    assert found.isdir()
    assert found.name == name


def test_the_bytes_never_change() -> None:
    data = header(TarEntry("etc/os-release", "2", 0o777, 0, 0, 0, 1_700_000_000, "../usr/lib/os-release"))
    assert (
        hashlib.sha256(data).hexdigest() == "69158ebd626a3551937527c39f6fa60041c240c0a765188689f79fc270c82820"
    )
