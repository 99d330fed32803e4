"""Tables and other results: they fit the terminal, and pass its character set."""

from __future__ import annotations

import io
import sys

import pytest

from builder import report

COLUMNS = ("image", "digest", "outcome", "packages", "size", "findings", "verdict", "seconds per stage")
ROW = (
    "python:3.13",
    "sha256:bce1bfb92d4f",
    "unchanged",
    "20",
    "17.0 MB",
    "1 low",
    "approved by demo (SAMPLE DATABASE)",
    ", ".join(f"stage{n} 1.0" for n in range(12)),
)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_no_digest_is_folded_and_no_line_ends_with_blanks_in_a_file(
    capsys: pytest.CaptureFixture[str],
) -> None:
    report.table("Images", COLUMNS, [ROW])
    lines = capsys.readouterr().out.splitlines()
    assert any("sha256:bce1bfb92d4f " in line and "17.0 MB" in line for line in lines)
    assert [line for line in lines if line != line.rstrip() or len(line) > 150 or "\033" in line] == []


def test_a_whole_digest_is_on_one_line_whatever_the_width(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    digest = "sha256:" + "ab" * 32
    row = ("image", digest, "signature, provenance and more " * 3, "bundles, tags")
    report.table("verified", ("of", "digest", "signed", "found as"), [row])
    assert digest in capsys.readouterr().out
    monkeypatch.setattr(sys, "stdout", out := Terminal())
    monkeypatch.setenv("COLUMNS", "90")
    report.table("verified", ("of", "digest", "signed", "found as"), [row])
    assert digest in out.getvalue()


def test_a_narrow_terminal_gets_a_block_for_each_row(monkeypatch: pytest.MonkeyPatch) -> None:
    out = Terminal()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setenv("COLUMNS", "80")
    report.table("Images", COLUMNS, [ROW, ROW])
    lines = out.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    assert sum(line.split() == ["digest", "sha256:bce1bfb92d4f"] for line in lines) == 2
    assert "stage11 1.0" in out.getvalue()


def test_a_character_set_without_our_signs_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="iso8859-9"))
    report.forgiving_streams()
    report.emit("a → b")
    sys.stdout.flush()
    assert raw.getvalue() == b"a \\u2192 b\n"
