"""Digests of values: one value, one digest, however it is asked."""

from __future__ import annotations

from typing import Any

import pytest

from builder.model.digest import Digest, is_digest_of_json


@pytest.mark.parametrize(
    "value",
    [
        {"b": 1, "a": ["ä", None]},
        {"a": 1e16},
        {"a": 2**70},
        {"a": 0.1},
        {"\uffff": 1, "\U00010000": 2},
        [1, True],
    ],
)
def test_a_digest_is_known_as_that_of_its_value(value: Any) -> None:
    """Also of numbers that only one of two writers can write, or each in another way."""
    assert is_digest_of_json(str(Digest.of_json(value)), value)
    assert not is_digest_of_json(str(Digest.of_json([value])), value)
    assert not is_digest_of_json(str(Digest.of(b"1e16")), value)
