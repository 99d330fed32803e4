"""Closures are taken again as long as the archive's signed content is the same, and no longer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from builder.errors import LockError
from builder.model.digest import Digest
from builder.model.lock import LockedPackage
from builder.pipeline.resolving import Remembering
from builder.store import Store


class FakeArchive:
    def __init__(self) -> None:
        self.asked: list[str] = []
        self.states: dict[str, Digest | None] = {"amd64": Digest.of(b"one"), "arm64": Digest.of(b"one")}
        self.version = "1"

    def resolve(self, suite: str, architecture: str, request: Sequence[str]) -> tuple[LockedPackage, ...]:
        if "unknown" in request:
            raise LockError("no package unknown")
        self.asked.append(f"{suite} {architecture} {' '.join(request)}")
        return tuple(
            LockedPackage(n, self.version, architecture, "a" * 64, 1, f"pool/{n}.deb", n, "1")
            for n in request
        )

    def state(self, suite: str, architecture: str) -> Digest | None:
        return self.states[architecture]


@pytest.fixture
def archive() -> FakeArchive:
    return FakeArchive()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "state").create()


def test_the_same_question_is_answered_once(archive: FakeArchive, store: Store) -> None:
    first = Remembering(archive, store).resolve("trixie", "amd64", ["libc6", "zlib1g"])
    assert Remembering(archive, store).resolve("trixie", "amd64", ["zlib1g", "libc6"]) == first
    assert len(archive.asked) == 1
    Remembering(archive, store).resolve("trixie", "amd64", ["libc6"])
    Remembering(archive, store).resolve("trixie", "arm64", ["libc6"])
    Remembering(archive, store).resolve("bookworm", "amd64", ["libc6"])
    assert len(archive.asked) == 4


def test_an_archive_with_other_content_is_asked_again(archive: FakeArchive, store: Store) -> None:
    remembering = Remembering(archive, store)
    remembering.resolve("trixie", "amd64", ["libc6"])
    remembering.resolve("trixie", "arm64", ["libc6"])
    archive.states["amd64"], archive.version = Digest.of(b"two"), "2"
    assert [p.version for p in remembering.resolve("trixie", "amd64", ["libc6"])] == ["2"]
    assert [p.version for p in remembering.resolve("trixie", "amd64", ["libc6"])] == ["2"]
    assert [p.version for p in remembering.resolve("trixie", "arm64", ["libc6"])] == ["1"]
    assert len(archive.asked) == 3


def test_an_archive_in_an_unknown_state_is_asked_each_time(archive: FakeArchive, store: Store) -> None:
    archive.states["amd64"] = None
    for _ in range(2):
        Remembering(archive, store).resolve("trixie", "amd64", ["libc6"])
    assert len(archive.asked) == 2


def test_a_refusal_is_not_kept(archive: FakeArchive, store: Store) -> None:
    for _ in range(2):
        with pytest.raises(LockError, match="unknown"):
            Remembering(archive, store).resolve("trixie", "amd64", ["unknown"])


@pytest.mark.parametrize("damage", [b"", b"[]", b'{"archive": "?"}', b'"packages"', b"libc6"])
def test_a_record_that_cannot_be_read_is_none(archive: FakeArchive, store: Store, damage: bytes) -> None:
    first = Remembering(archive, store).resolve("trixie", "amd64", ["libc6"])
    (path,) = (store.records / "closures").iterdir()
    path.write_bytes(path.read_bytes().replace(b'"libc6"', b'"-"') if damage == b"libc6" else damage)
    assert Remembering(archive, store).resolve("trixie", "amd64", ["libc6"]) == first
    assert len(archive.asked) == 2
