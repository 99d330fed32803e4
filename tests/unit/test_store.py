"""The state directory: one writer, atomic files, nothing left behind."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from builder.errors import ToolError
from builder.model.digest import Digest
from builder.store import StateBusy, Store, disk_faults, file_digest, file_tail, read_file, write_atomically

KEY = Digest.of(b"key")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "state").create()


def test_a_second_writer_is_refused_and_told_who_holds_it(store: Store) -> None:
    second = Store(store.root)
    with store.exclusive("first run"), pytest.raises(StateBusy) as caught, second.exclusive("second run"):
        raise AssertionError("both hold it")
    assert f"first run (pid {os.getpid()})" in caught.value.context


def test_a_killed_writer_leaves_no_lock_and_no_unfinished_work(store: Store) -> None:
    script = (
        "import os, sys; from pathlib import Path; from builder.store import Store\n"
        f"store = Store(Path({str(store.root)!r}))\n"
        "with store.exclusive('killed'):\n"
        "    (store.tmp / 'half').mkdir(); (store.tmp / 'half' / 'file').write_text('x')\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=Path(__file__).parents[2], check=False, timeout=60
    )
    assert done.returncode == -9
    assert (store.tmp / "half").exists()
    with store.exclusive("next"):
        assert list(store.tmp.iterdir()) == []


def test_a_scratch_folder_is_gone_whatever_happened(store: Store) -> None:
    with pytest.raises(ZeroDivisionError), store.scratch("work") as folder:
        (folder / "x").write_text("x")
        raise ZeroDivisionError
    assert list(store.tmp.iterdir()) == []


def test_a_file_is_the_old_one_or_the_new_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ToolError) as caught:
        write_atomically(path, b"new")
    assert "No space left" in caught.value.context
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_mode_of_a_written_file_does_not_depend_on_the_umask(tmp_path: Path) -> None:
    old = os.umask(0o077)
    try:
        write_atomically(tmp_path / "file", b"x")
    finally:
        os.umask(old)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("damaged", [b"", b"{", b"[]", b"\xff"])
def test_a_damaged_record_is_no_record(store: Store, damaged: bytes) -> None:
    store.remember("built", KEY, {"digest": "x"})
    assert store.record("built", KEY) == {"digest": "x"}
    (store.records / "built" / KEY.hex).write_bytes(damaged)
    assert store.record("built", KEY) is None


def test_keys_are_for_their_owner_only(store: Store) -> None:
    assert store.keys.stat().st_mode & 0o777 == 0o700


def test_a_state_directory_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ToolError) as caught:
        Store(tmp_path / "file" / "state").create()
    assert "GOLDSMITH_STATE" in caught.value.hint


def test_a_digest_is_that_of_the_whole_file(tmp_path: Path) -> None:
    data = os.urandom(3 << 20)
    (tmp_path / "big").write_bytes(data)
    assert file_digest(tmp_path / "big") == Digest.of(data)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO])
def test_a_full_or_broken_disk_is_an_error_of_the_machine(number: int) -> None:
    with pytest.raises(ToolError, match="the disk takes no more") as caught, disk_faults():
        raise OSError(number, os.strerror(number), "/state/tmp/x")
    assert "/state/tmp/x" in caught.value.context
    assert "make room" in caught.value.hint


def test_other_errors_are_not_taken_for_a_full_disk() -> None:
    with pytest.raises(FileNotFoundError), disk_faults():
        raise FileNotFoundError(errno.ENOENT, "No such file")


def test_a_state_directory_that_takes_no_lock_is_told(store: Store) -> None:
    (store.root / "lock").mkdir()
    with pytest.raises(ToolError) as caught, store.exclusive("run"):
        raise AssertionError("held without a lock")
    assert "GOLDSMITH_STATE" in caught.value.hint


def test_the_lock_does_not_empty_what_a_link_points_to(store: Store, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (store.root / "lock").symlink_to(victim)
    with pytest.raises(ToolError), store.exclusive("run"):
        raise AssertionError("held by way of a link")
    assert victim.read_text() == "precious"


def test_a_record_that_is_no_record_counts_as_none(store: Store) -> None:
    store.remember("kind", KEY, {"x": 1})
    path = store.records / "kind" / KEY.hex
    for content in (b"", b"[1]", b"{", b"[" * 100_000, b"\xff"):
        path.write_bytes(content)
        assert store.record("kind", KEY) is None


def test_only_so_much_of_a_plain_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    assert read_file(path, 5) == b"12345"
    assert file_tail(path, 2) == "45"
    with pytest.raises(OSError, match="larger"):
        read_file(path, 4)
    with pytest.raises(OSError, match="larger"):
        read_file("/proc/self/status", 5)  # it says that it is empty
    assert b"Name:" in read_file("/proc/self/status", 1 << 20)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="not a regular file"):
        read_file(tmp_path / "pipe", 5)
    assert file_tail(tmp_path / "none", 2) == ""
