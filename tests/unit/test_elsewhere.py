"""A Dockerfile for the engines asks for nothing from elsewhere: no image, no frontend, no URL."""

from __future__ import annotations

from pathlib import Path

import pytest

from builder.engines.elsewhere import elsewhere

RENDERED = sorted((Path(__file__).parents[1] / "golden" / "rendered").glob("*/Dockerfile"))


@pytest.mark.parametrize("path", RENDERED, ids=lambda path: path.parent.name)
def test_ours_asks_for_nothing(path: Path) -> None:
    assert elsewhere(path.read_text()) == ""


def test_there_are_some() -> None:
    assert RENDERED


@pytest.mark.parametrize(
    "text",
    [
        "FROM debian:13\n",
        "from debian AS scratch2\n",
        "FROM --platform=linux/amd64 debian\n",
        "FROM scratch AS a\nFROM $a\n",
        "FROM \\\ndebian\n",
        "FROM \\  \n# words\ndebian\n",
        "FROM scratch\nCOPY --from=nothing /x /\n",
        "FROM scratch\nCOPY --chown=0:0 --from=nothing /x /\n",
        "FROM scratch\nRUN --mount=type=bind,from=debian,target=/x true\n",
        'FROM scratch\nRUN --mount="type=bind, from=debian" true\n',
        "FROM scratch\nRUN \\\n --mount=type=bind,from=debian true\n",
        "FROM scratch\nADD https://mirror.example/x /\n",
        'FROM scratch\nADD ["https://mirror.example/x", "/"]\n',
        "FROM scratch\nADD git@mirror.example:x /\n",
        "# syntax=mirror.example/frontend\nFROM scratch\n",
        "#Escape = `\nFROM scratch\n",
        "FROM\n",
        "FROM scratch\nLABEL a=b\x0cFROM scratch AS debian\nFROM debian\n",
        "# words \\\nFROM debian\n",
        "FROM scratch\nRUN <<END\nFROM scratch AS debian\nEND\nFROM debian\n",
        "FROM scratch\nFROM debian \\",
    ],
)
def test_what_comes_from_elsewhere_is_found(text: str) -> None:
    assert elsewhere(text)


@pytest.mark.parametrize(
    "text",
    [
        "# syntax and comments of our own\nFROM scratch AS one\nFROM one\nCOPY --from=ONE /x /\n",
        'FROM scratch\nRUN ["/usr/bin/program", "--from=debian", "https://mirror.example"]\n',
        'FROM scratch\nLABEL source="https://mirror.example"\nENV A=from=debian\n',
        "FROM scratch AS a\nRUN --network=none --mount=type=bind,from=a,target=/x true\n",
    ],
)
def test_what_only_looks_like_it_is_not(text: str) -> None:
    assert elsewhere(text) == ""
