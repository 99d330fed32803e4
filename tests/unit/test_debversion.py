"""Debian versions are ordered as dpkg orders them."""

from __future__ import annotations

import itertools

import pytest

from builder.model.debversion import DebianVersion

# Each is older than the next; the order was taken from `dpkg --compare-versions`.
ORDER = [
    "~~", "~~a", "~", "1.0~beta1~svn1245", "1.0~beta1", "1.0", "1.0-1~deb13u1", "1.0-1", "1.0-1+b1", "1.0-1.1", "1.0-2",
    "1.0a", "1.0+dfsg", "1.0.1", "1.2", "1.10", "2.36-9+deb12u9", "2.36-9+deb12u10", "9", "1:0.1", "2:0",
]  # fmt: skip


@pytest.mark.parametrize(("older", "newer"), list(itertools.pairwise(ORDER)))
def test_the_order(older: str, newer: str) -> None:
    assert DebianVersion(older) < DebianVersion(newer)
    assert not DebianVersion(newer) <= DebianVersion(older)


@pytest.mark.parametrize(
    ("one", "two"), [("1.0", "0:1.0"), ("1.0", "1.0-0"), ("1.00", "1.0"), ("1.0-", "1.0")]
)
def test_written_differently_and_equal(one: str, two: str) -> None:
    assert DebianVersion(one) == DebianVersion(two)


@pytest.mark.parametrize("text", ["", "a:b", "²:1", "١.2", "-", ":"])
def test_any_text_can_be_compared(text: str) -> None:
    assert DebianVersion(text) <= DebianVersion("zzz")
