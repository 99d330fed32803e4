"""JSON from strangers: an unambiguous object, or refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from builder.errors import ToolError
from builder.tools.strict_json import clean, load_object, parse_object


def test_an_object_is_read() -> None:
    assert parse_object(b' {"a": [1, 2.5, null, "\xc3\xa4"]} ', size_max=100, what="it") == {
        "a": [1, 2.5, None, "ä"]
    }


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "is empty"),
        (b" \n", "is empty"),
        (b"[]", "not a JSON object"),
        (b"null", "not a JSON object"),
        (b'{"a": 1', "not readable JSON"),
        (b'{"a": 1} {}', "not readable JSON"),
        (b'\xef\xbb\xbf{"a": 1}', "not readable JSON"),
        (b'{"a": "\xff"}', "not readable JSON"),
        (b'{"a": 1, "a": 1}', "not readable JSON"),
        (b'{"x": {"a": 1, "a": 2}}', "not readable JSON"),
        (b'{"a": NaN}', "not readable JSON"),
        (b'{"a": -Infinity}', "not readable JSON"),
        (b'{"a": 1e999}', "not readable JSON"),
        (b'{"a": ' + b"9" * 5000 + b"}", "not readable JSON"),
        (b'{"a":' * 10_000, "not readable JSON"),
        (b'{"a": "' + b"x" * 10_000_000 + b'"}', "larger than"),
    ],
)
def test_anything_else_is_refused(data: bytes, reason: str) -> None:
    with pytest.raises(ToolError, match=reason):
        parse_object(data, size_max=1_000_000, what="it")


def test_a_file_is_read_up_to_its_limit_only(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b'{"a": 1}')
    assert load_object(tmp_path / "a", size_max=8, what="it") == {"a": 1}
    with pytest.raises(ToolError, match="larger than 7 bytes"):
        load_object(tmp_path / "a", size_max=7, what="it")
    with pytest.raises(ToolError, match="it is missing"):
        load_object(tmp_path / "b", size_max=7, what="it")


def test_text_is_made_harmless() -> None:
    assert clean("a\x1b[31m\x00\u202e\ud800b\n") == "a\ufffd[31m\ufffd\ufffd\ufffdb\ufffd"
    assert clean("x" * 1000, 10) == "x" * 10
    assert clean(None) == clean(3) == clean(["a"]) == ""
