"""A run reads the same bytes once; what was refused is refused again."""

from __future__ import annotations

import pytest

from builder.signing.memo import Memo
from builder.signing.refusal import EvidenceRefused, refuse


def test_the_same_bytes_are_read_once_and_others_anew() -> None:
    read = []

    def length(data: bytes) -> int:
        read.append(data)
        return len(data)

    memo = Memo()
    assert [memo.of(length, data) for data in (b"one", b"three", b"one")] == [3, 5, 3]
    assert read == [b"one", b"three"]


def test_another_function_of_the_same_bytes_is_another_question() -> None:
    memo = Memo()
    assert (memo.of(len, b"three"), memo.of(bytes.decode, b"three")) == (5, "three")


def test_a_refusal_is_not_remembered_as_an_answer() -> None:
    def never(data: bytes) -> int:
        refuse("unparsable", "nothing")

    memo = Memo()
    for _ in range(2):
        with pytest.raises(EvidenceRefused):
            memo.of(never, b"one")
