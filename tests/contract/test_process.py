"""The door to other programs, against programs that misbehave."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from builder.errors import ToolError
from builder.tools import process

ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"}


def script(folder: Path, text: str) -> Path:
    path = folder / "tool"
    path.write_text("#!/bin/sh\n" + text)
    path.chmod(0o755)
    return path


@pytest.fixture(params=[process.run, process.run_live], ids=["run", "run_live"])
def door(request: pytest.FixtureRequest):
    return request.param


def test_a_program_sees_only_the_environment_it_is_given(
    tmp_path: Path, door, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRIVY_SEVERITY", "CRITICAL")
    monkeypatch.setenv("SECRET_TOKEN", "x")
    out = tmp_path / "out"
    door([script(tmp_path, f"env > {out}\n")], environment=ENVIRONMENT, timeout_seconds=20)
    names = {line.partition("=")[0] for line in out.read_text().splitlines()}
    assert names <= {"PATH", "LC_ALL", "PWD", "SHLVL", "_", "OLDPWD"}


def test_a_program_gets_no_standard_input(tmp_path: Path, door) -> None:
    out = tmp_path / "out"
    door([script(tmp_path, f"cat > {out}\n")], environment=ENVIRONMENT, timeout_seconds=20)
    assert out.read_bytes() == b""


@pytest.mark.parametrize(
    ("text", "words"),
    [("echo broken >&2; exit 7\n", ("exit code 7", "broken")), ("kill -9 $$\n", ("9",))],
    ids=["exit-code", "signal"],
)
def test_a_failure_says_how_it_ended_and_what_was_said(tmp_path: Path, door, text: str, words: tuple) -> None:
    with pytest.raises(ToolError) as caught:
        door([script(tmp_path, text)], environment=ENVIRONMENT, timeout_seconds=20)
    assert all(w in caught.value.message + caught.value.context for w in words)


def test_a_program_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(ToolError, match="nothing-here is not installed"):
        process.run([tmp_path / "nothing-here"], environment=ENVIRONMENT, timeout_seconds=5)


def test_a_hanging_program_is_stopped_with_its_children(tmp_path: Path, door) -> None:
    pids = tmp_path / "pids"
    began = time.monotonic()
    with pytest.raises(ToolError, match="did not end within"):
        door(
            [script(tmp_path, f"sleep 300 & echo $! > {pids}; wait\n")],
            environment=ENVIRONMENT,
            timeout_seconds=1,
        )
    assert time.monotonic() - began < 30
    child = int(pids.read_text())
    with pytest.raises(ProcessLookupError):
        while True:  # ends as soon as the kernel has taken it away
            os.kill(child, 0)
            assert time.monotonic() - began < 60, "the child outlived its parent"


@pytest.mark.parametrize(
    "write",
    [
        "sys.stdout.buffer.write(b'x' * (9 << 20))",
        "sys.stdout.buffer.write(b'\\xff\\xfe\\n' * 1000)",
        "[sys.stdout.buffer.write(b'y' * 1000 + b'\\n') for _ in range(40_000)]",
        "sys.stdout.buffer.write(b'\\x1b]0;evil\\x07\\n')",
    ],
    ids=["9-MB-line", "invalid-utf8", "40-MB", "escapes"],
)
def test_no_output_can_hang_or_break_us(
    tmp_path: Path, door, write: str, capfd: pytest.CaptureFixture
) -> None:
    path = tmp_path / "noisy.py"
    path.write_text(
        f"import sys\n{write}\nsys.stdout.flush()\nopen({str(tmp_path / 'done')!r}, 'w').write('ok')\n"
    )
    done = door([sys.executable, path], environment=ENVIRONMENT, timeout_seconds=60)
    assert done.returncode == 0
    assert (tmp_path / "done").read_text() == "ok"
    assert "never retrieved" not in capfd.readouterr().err


def test_the_log_is_kept_byte_for_byte(tmp_path: Path) -> None:
    done = process.run(
        [script(tmp_path, "printf '\\377 ok  \\n'\n")], environment=ENVIRONMENT, timeout_seconds=20
    )
    assert done.stdout == b"\xff ok  \n"


def test_without_network_there_is_only_loopback(tmp_path: Path) -> None:
    if not process.network_isolation():
        pytest.skip("this kernel gives no network namespaces")
    done = process.run(["cat", "/proc/net/dev"], environment=ENVIRONMENT, timeout_seconds=20, network=False)
    devices = {line.split(":")[0].strip() for line in done.text.splitlines()[2:]}
    assert devices <= {"lo"}
