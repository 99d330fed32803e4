"""Which images a Dockerfile names, and where; whatever the file is, the answer is bounded and in words."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from registry.devcheck.dockerfile_images import mentions
from registry.devcheck.mention import Lines, Unreadable


def named(text: str) -> list[str]:
    return [m.text for m in mentions(text.encode())]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("FROM a:1\n", ["a:1"]),
        ("from a:1 as x\nFROM X\n", ["a:1"]),
        ("FROM --platform=$BUILDPLATFORM a:1 AS x\n", ["a:1"]),
        ("FROM scratch\n", []),
        ("ARG V=3\nFROM a:${V}\n", ["a:3"]),
        ("ARG V=3 W=4\nFROM a:$V.$W\n", ["a:3.4"]),
        ("ARG V\nFROM a:${V:-9}\n", ["a:9"]),
        ("ARG V=1\nARG W=a:$V\nFROM $W\n", ["a:1"]),
        ('FROM "a:1"\n', ["a:1"]),
        ("FROM a:1 AS x\nCOPY --from=x / /\nCOPY --from=0 / /\nCOPY --from=b:2 / /\n", ["a:1", "b:2"]),
        ("FROM a:1\nCOPY --chown=1 --from=b:2 --link / /\n", ["a:1", "b:2"]),
        ("FROM a:1\nRUN --mount=type=bind,from=b:2,target=/x --network=none ls\n", ["a:1", "b:2"]),
        ('FROM a:1\nRUN --mount="type=bind,from=b:2" ls\n', ["a:1", "b:2"]),
        ("FROM a:1\nRUN echo --mount=type=bind,from=b:2\n", ["a:1"]),
        ("FROM a:1\nONBUILD COPY --from=b:2 / /\n", ["a:1", "b:2"]),
        ("FROM a:1\nRUN <<EOF\nFROM evil\nCOPY --from=evil\nEOF\nFROM b:2\n", ["a:1", "b:2"]),
        ("FROM a:1\nRUN <<-'EOF' cat\n\tFROM evil\n\tEOF\nFROM b:2\n", ["a:1", "b:2"]),
        ("FROM a:1\nCOPY <<A <<B /x/\nFROM e\nA\nFROM f\nB\nFROM b:2\n", ["a:1", "b:2"]),
        ('FROM a:1\nRUN ["cat", "<<EOF"]\nFROM b:2\n', ["a:1", "b:2"]),
        ('FROM a:1\nRUN echo "a <<EOF"\nFROM b:2\n', ["a:1", "b:2"]),
        ("FROM a:1\nRUN x \\\n# FROM evil\n\n  FROM evil\nFROM b:2\n", ["a:1", "b:2"]),
        ("FROM a:1\nRUN x \\  \n  y\nFROM b:2\n", ["a:1", "b:2"]),
        ("# escape=`\nFROM a:1\nRUN dir c:\\\nFROM b:`\n2\n", ["a:1", "b:2"]),
        ("# syntax=docker/dockerfile:1\nFROM a:1\n", ["docker/dockerfile:1", "a:1"]),
        ("#!/usr/bin/env docker\n# syntax=docker/dockerfile:1\nFROM a:1\n", ["docker/dockerfile:1", "a:1"]),
        ("#!/bin/x\r\n# escape=`\r\nFROM a:\\\r\n1\r\n", ["a:1"]),  # after it, no other directive counts
        ("# a comment\n# syntax=docker/dockerfile:1\nFROM a:1\n", ["a:1"]),
        ("\ufeff# FROM x\r\nFROM a:1\r\n", ["a:1"]),
        ("   FROM \t a:1   \n", ["a:1"]),
        ("FROM a:1", ["a:1"]),
        ("ARG V=1\nFROM a:1\nARG V=2\nFROM b:$V\n", ["a:1", "b:1"]),
    ],
)
def test_images(text: str, expected: list[str]) -> None:
    assert named(text) == expected


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("ARG V\nFROM a:$V\n", "the variable V has no value in this file"),
        ("FROM a:$TARGETARCH\n", "it depends on the platform"),
        ("ARG V=1.2\nFROM a:${V%.*}\n", "changed by a pattern"),
        ("FROM a:${V:?give-it}\n", "is not set in this file"),
        ("FROM a:${V\n", "not closed"),
        (
            "ARG A="
            + "x" * 99
            + "\n"
            + "".join(f"ARG {c}=$A$A$A$A$A\nARG A=${c}\n" for c in "BCDEFG")
            + "FROM $A\n",
            "no value",
        ),
        ("FROM " + "${A:-" * 40 + "}" * 40 + "\n", "nested too deeply"),
    ],
)
def test_what_cannot_be_known_is_said(text: str, problem: str) -> None:
    (found,) = mentions(text.encode())
    assert problem in found.problem
    assert found.edit is None


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "no FROM"),
        (b"RUN x\n", "no FROM"),
        (b"FROM a b\n", "FROM wants an image"),
        (b"FROM\n", "FROM wants an image"),
        (b"FORM a\n", "unknown instruction 'FORM'"),
        (b"# escape=x\nFROM a\n", "escape character"),
        (b"# escape=`\n# escape=`\nFROM a\n", "stands here twice"),
        (b"FROM a\nRUN <<EOF\nx\n", "does not end"),
        (b"\x7fELF\0\0", "not text"),
        (b"\xff\xfeF\0R\0", "not text"),
        (b"FROM a\n" * 10_001, "more than 10000 stages"),
    ],
)
def test_unreadable_files_are_refused_in_words(data: bytes, message: str) -> None:
    with pytest.raises(Unreadable, match=message):
        mentions(data)


def test_places_are_those_of_the_file() -> None:
    data = "# é\r\nARG BASE=a:1\r\nFROM ${BASE}\r\nCOPY --from=b:2 \\\r\n / /\r\n".encode()
    first, second = mentions(data)
    lines = Lines(data)
    assert data[first.span.start : first.span.end] == b"${BASE}"
    assert first.edit and data[first.edit.start : first.edit.end] == b"a:1"
    assert lines.position(first.span.start) == (3, 6)
    assert second.edit and data[second.edit.start : second.edit.end] == b"b:2"
    assert lines.position(second.span.start) == (4, 13)
    assert Lines("\ufeffé x".encode()).position(6) == (1, 3)


@pytest.mark.parametrize(
    "text",
    [
        "ARG V=3\nFROM a:$V\n",
        "ARG B=a:1\nFROM $B\nFROM ${B}-dev\n",
        "ARG B=a:1\nARG C=$B\nFROM $B\nFROM $C\n",
        "ARG B=a:1\nFROM $B\nARG B\nRUN echo $B\n",
        "FROM a:\\\n1\n",
    ],
)
def test_a_name_that_is_used_otherwise_is_not_rewritten(text: str) -> None:
    assert mentions(text.encode())[0].edit is None
    assert mentions(text.encode())[0].fixed_by


def test_a_million_lines_take_seconds() -> None:
    assert [m.text for m in mentions(b"FROM a:1\n" + b"# x\n" * 1_000_000)] == ["a:1"]
    assert [m.text for m in mentions(b"FROM a:1\nRUN x" + b"\\\n" * 500_000 + b"y\nFROM b:2")] == [
        "a:1",
        "b:2",
    ]
    assert [m.text for m in mentions(b"FROM a:1\nRUN " + b"'" * 1_000_001 + b"\n")] == ["a:1"]


PIECES = st.sampled_from(
    [
        *("FROM ", "from", "ARG ", "COPY ", "RUN ", "ONBUILD ", "--from=", "--mount=", "from=", "type=bind,"),
        *(
            "<<EOF",
            "EOF",
            "<<-'E'",
            "\n",
            "\r\n",
            "\\\n",
            "`\n",
            "\\",
            "`",
            "'",
            '"',
            " ",
            "\t",
            "#",
            "=",
            ",",
        ),
        *(
            "# escape=`\n",
            "# syntax=x\n",
            "$",
            "${",
            "}",
            ":-",
            ":+",
            ":?",
            "a",
            "a:1",
            "AS x",
            "0",
            "\ufeff",
            "é",
            "\0",
            "[",
            "x" * 50,
        ),
    ]
)


@settings(max_examples=400, deadline=None)
@given(st.lists(PIECES, max_size=40).map("".join) | st.text(max_size=200))
def test_any_text_is_read_or_refused(text: str) -> None:
    data = text.encode("utf-8", "surrogatepass")
    try:
        found = mentions(data)
    except Unreadable as error:
        assert str(error)
        assert 0 <= error.offset <= len(data)
        return
    for mention in found:
        assert 0 <= mention.span.start <= mention.span.end <= len(data)
        assert 0 <= mention.anchor <= len(data)
        if mention.edit:
            inside = data[mention.edit.start : mention.edit.end]
            assert inside.decode("utf-8", "replace") == mention.text
        else:
            assert mention.fixed_by


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    try:
        mentions(b"FROM a\n" + data)
    except Unreadable as error:
        assert str(error)
