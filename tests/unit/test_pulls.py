"""The journal of pulls: batched, rotated, whole after a cut, and bounded."""

from __future__ import annotations

import datetime as dt
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from builder.model.digest import Digest
from registry import pulls as module
from registry.pulls import PullJournal, pulls

START = dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)
A, B = Digest.of(b"a"), Digest.of(b"b")


class Clock:
    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> str:
        return self.now.strftime("%Y-%m-%dT%H:%M:%SZ")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def journal(tmp_path: Path, clock: Clock) -> PullJournal:
    return PullJournal(tmp_path / "pulls", clock)


def read(folder: Path, since: dt.datetime = START) -> list[tuple[Any, ...]]:
    return [(p.who, p.repository, p.digest, p.tag, p.count) for p in pulls(folder / "pulls", since)]


def test_what_was_noted_is_read_back_counted(journal: PullJournal, tmp_path: Path) -> None:
    for _ in range(3):
        journal.note("token:ci", "python", A, "3.13")
    journal.note("token:ci", "python", A, "")
    journal.note("user:ann", "base", B, "13")
    assert read(tmp_path) == []  # nothing waits for the disk
    journal.flush()
    journal.flush()
    assert read(tmp_path) == [
        ("token:ci", "python", A, "3.13", 3),
        ("token:ci", "python", A, "", 1),
        ("user:ann", "base", B, "13", 1),
    ]
    (file,) = (tmp_path / "pulls").iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_only_what_is_recent_is_given(journal: PullJournal, tmp_path: Path, clock: Clock) -> None:
    for day in range(3):
        clock.now = START + dt.timedelta(days=day)
        journal.note(f"token:day-{day}", "python", A, "3.13")
        journal.flush()
    assert len(list((tmp_path / "pulls").iterdir())) == 3
    assert [p[0] for p in read(tmp_path)] == ["token:day-0", "token:day-1", "token:day-2"]
    assert [p[0] for p in read(tmp_path, START + dt.timedelta(hours=1))] == ["token:day-1", "token:day-2"]
    east = dt.timezone(dt.timedelta(hours=9))
    assert len(read(tmp_path, (START + dt.timedelta(days=2)).astimezone(east))) == 1
    clock.now = START + dt.timedelta(days=module.KEPT_DAYS + 1, hours=1)
    journal.note("token:late", "python", A, "3.13")
    journal.flush()
    assert [p[0] for p in read(tmp_path)] == ["token:day-1", "token:day-2", "token:late"]


def test_lines_that_are_not_whole_concern_nobody_else(journal: PullJournal, tmp_path: Path) -> None:
    journal.note("token:one", "python", A, "3.13")
    journal.flush()
    (file,) = (tmp_path / "pulls").iterdir()
    good = file.read_bytes()
    for bad in (
        good[:-9],
        b"\xff\xfe\n",
        b"[]\n",
        b"x" * 9000 + b"\n",
        good.replace(b'"count": 1', b'"count": "1"'),
    ):
        file.write_bytes(bad + (b"" if bad.endswith(b"\n") else b"\n") + good)
        assert read(tmp_path) == [("token:one", "python", A, "3.13", 1)]
    file.write_bytes(good + good[:-1])
    assert len(read(tmp_path)) == 1
    (tmp_path / "pulls" / "notes.txt").write_bytes(good)
    assert len(read(tmp_path)) == 1
    assert list(pulls(tmp_path / "nowhere", START)) == []


def test_two_gates_share_a_folder(tmp_path: Path, clock: Clock) -> None:
    both = [PullJournal(tmp_path / "pulls", clock) for _ in range(2)]
    for number, one in enumerate(both):
        one.note(f"token:{number}", "python", A, "3.13")
        one.close()
    assert {p[0] for p in read(tmp_path)} == {"token:0", "token:1"}


def test_what_the_disk_does_not_take_is_kept_and_bounded(
    journal: PullJournal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal.note("token:first", "python", A, "3.13")
    journal.flush()
    real = os.write
    monkeypatch.setattr(os, "write", lambda handle, data: real(handle, data[: len(data) // 2]))
    journal.note("token:ci", "python", A, "3.13")
    with pytest.raises(OSError, match="only a part"):
        journal.flush()
    monkeypatch.undo()
    journal.note("token:ci", "python", A, "3.13")
    journal.flush()
    assert read(tmp_path) == [("token:first", "python", A, "3.13", 1), ("token:ci", "python", A, "3.13", 2)]
    monkeypatch.setattr(module, "_BATCH_MAX", 2)
    for number in range(5):
        journal.note(f"token:{number}", "python", A, "3.13")
    assert journal.dropped == 3


def test_a_large_file_is_followed_by_another(
    journal: PullJournal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_FILE_MAX", 300)
    for number in range(4):
        journal.note(f"token:{number}", "python", A, "3.13")
        journal.flush()
    assert len(list((tmp_path / "pulls").iterdir())) > 1
    assert len(read(tmp_path)) == 4
