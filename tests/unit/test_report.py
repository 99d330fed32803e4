"""What people see while it works: live on a terminal, plain lines in a log."""

from __future__ import annotations

import datetime as dt
import json
import os
import pty
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from builder.model.channel import Channel
from builder.model.digest import Digest
from builder.report import Lines, for_people, json_text

ROOT = Path(__file__).parents[2]
_SCRIPT = """
from builder.report import for_people
reporter = for_people()
with reporter.stage("base:13", "scan", "\\x1b[31mred [bold]x[/bold]"):
    reporter.note("a note")
try:
    with reporter.stage("base:13", "judge"):
        raise ZeroDivisionError
except ZeroDivisionError:
    pass
"""


@dataclass
class Loss:
    """What JSON does not know."""

    name: str


def on_a_terminal(term: str, script: str = _SCRIPT) -> str:
    parent, child = pty.openpty()
    environment = {**os.environ, "TERM": term, "COLUMNS": "100"}
    process = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, env=environment, stderr=child)
    os.close(child)
    said = b""
    while True:
        try:
            chunk = os.read(parent, 4096)
        except OSError:  # the other side is closed
            break
        if not chunk:
            break
        said += chunk
    os.close(parent)
    assert process.wait(30) == 0
    return said.decode()


@pytest.mark.parametrize("term", ["xterm", "dumb"])
def test_a_terminal_shows_each_stage_and_its_line(term: str) -> None:
    said = on_a_terminal(term)
    assert "base:13        scan" in said
    assert "a note" in said
    assert "[bold]x[/bold]" in said
    assert "\x1b[31mred" not in said


def test_a_log_has_plain_lines_only(capsys: pytest.CaptureFixture[str]) -> None:
    reporter = for_people()
    assert isinstance(reporter, Lines)
    with reporter.stage("base:13", "scan", "direct"):
        pass
    with pytest.raises(ZeroDivisionError), reporter.stage("base:13", "judge"):
        raise ZeroDivisionError
    (line,) = capsys.readouterr().err.splitlines()
    assert line.split() == ["base:13", "scan", "0.0", "s", "direct"]


def test_what_waits_is_shown_on_a_terminal_and_not_in_a_log(capsys: pytest.CaptureFixture[str]) -> None:
    script = (
        "from builder.report import Live; live = Live()\n"
        "live.status('images', '1 of 3 images; waiting: \\x1b[31mnode')\n"
        "live._progress.refresh(); live.status('images', '2 of 3 images'); live._progress.refresh()\n"
        "live.status('images', ''); live.status('images', '')"
    )
    said = on_a_terminal("xterm", script)
    assert "1 of 3 images; waiting: " in said and "2 of 3 images" in said
    assert "\x1b[31mnode" not in said
    assert said.rindex("\x1b[?25h") > said.rindex("\x1b[?25l")
    Lines().status("images", "1 of 3 images")
    assert capsys.readouterr().err == ""


def test_the_cursor_is_back_after_an_interrupt_in_the_middle() -> None:
    script = "from builder.report import Live; live = Live(); live._begin('base:13 unpack')"
    said = on_a_terminal("xterm", script)
    assert said.rindex("\x1b[?25h") > said.rindex("\x1b[?25l")


@pytest.mark.parametrize(
    "value",
    [
        {"a": [1, 2.5, None, True, "x", [], {}, ("t",)], "b": {"c": '\\ " / \x7f'}},
        {"control": "\x9b31m", "wide": "ü \U0001f600", "half": "\ud800", "low": "\x1b\n"},
        {"when": dt.datetime(2026, 3, 1, tzinfo=dt.UTC), "where": Path("/x"), 1: 2**70},
        {"digest": Digest.of(b"x"), "channel": Channel.STABLE},
        [Loss("a")],
    ],
    ids=["plain", "text", "others", "ours", "dataclass"],
)
def test_json_is_what_the_standard_library_writes_in_ascii(value: object) -> None:
    text = json_text(value)
    assert text == json.dumps(value, indent=2, ensure_ascii=True, default=str)
    assert text.isascii()
