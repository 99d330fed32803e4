"""Layers are a pure function of the lock, and stay where they are."""

from __future__ import annotations

import pytest

from builder.errors import LockError
from builder.model.layers import BUDGETS, LAYERS_MAX, assign
from tests.support.debs import locked

SOURCES = (
    "glibc",
    "openssl",
    "tzdata",
    "gcc-14",
    "python3.13",
    "zlib",
    "expat",
    "sqlite3",
    "xz-utils",
    "libffi",
)


def packages(*sources: str) -> list:
    return [locked(f"lib{s}", s.encode(), s) for s in sources]


def test_all_binaries_of_a_source_share_a_layer() -> None:
    two = [
        locked("python3.13-minimal", b"a", "python3.13"),
        locked("libpython3.13-stdlib", b"b", "python3.13"),
    ]
    assert len(set(assign(two, 1).values())) == 1


@pytest.mark.parametrize("depth", [0, 1, 2])
def test_a_package_that_comes_or_goes_moves_no_other(depth: int) -> None:
    all_of_them = assign(packages(*SOURCES), depth)
    for gone in ("zlib", "expat", "sqlite3"):
        fewer = assign(packages(*(s for s in SOURCES if s != gone)), depth)
        assert all(fewer[name] == all_of_them[name] for name in fewer)


def test_what_is_patched_often_has_a_layer_of_its_own() -> None:
    groups = assign(packages(*SOURCES), 0)
    assert [n for n, g in groups.items() if g == groups["libopenssl"]] == ["libopenssl"]


def test_a_chain_of_images_has_at_most_twelve_layers() -> None:
    many = packages(*SOURCES, *(f"source{i}" for i in range(500)))
    for depth, budget in enumerate(BUDGETS):
        # One more layer holds what belongs to no package.
        assert len(set(assign(many, depth).values())) + 1 <= budget
    assert sum(BUDGETS) <= LAYERS_MAX


def test_a_longer_chain_is_refused() -> None:
    with pytest.raises(LockError, match="chain of parents"):
        assign(packages("zlib"), len(BUDGETS))
