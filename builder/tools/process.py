"""The one door to other programs: nobody else starts a process.

A program gets an argument list (never a shell), an environment built from scratch, no
standard input, its own process group and a deadline. What it prints goes to files, byte
for byte; results travel through files too, so no amount of output can be lost or can hang us.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO

from builder.errors import ToolError

_TAIL = 2000  # bytes of a log that an error quotes
_OUTPUT_MAX = 64 << 20  # bytes of standard output that are read into memory
_GRACE_SECONDS = 5
_TIMED_OUT = 124


@dataclass(frozen=True, slots=True)
class Completed:
    """A program that ended by itself: its exit code, what it printed, and the time it took."""

    argv: tuple[str, ...]
    returncode: int
    stdout: bytes
    stderr: bytes
    seconds: float

    @property
    def text(self) -> str:
        """Standard output as text; bytes that are not UTF-8 are replaced."""
        return self.stdout.decode("utf-8", "replace")

    @property
    def log(self) -> str:
        """The end of what the program said, for an error's context."""
        return (self.stderr or self.stdout)[-_TAIL:].decode("utf-8", "replace").strip()


def run(
    argv: Sequence[str | Path],
    *,
    environment: Mapping[str, str],
    timeout_seconds: float,
    directory: Path | None = None,
    ok: Sequence[int] = (0,),
    network: bool = True,
    stdin: Path | None = None,
    hint: str = "",
) -> Completed:
    """Run a program to its end.

    Raises ToolError when it cannot be started, exceeds `timeout_seconds`, or ends with a code
    that is not in `ok`. With `network=False` it runs in an empty network namespace where the
    kernel allows that (see `network_isolation`).
    """
    command = [*(network_isolation() if not network else ()), *map(str, argv)]
    name = Path(str(argv[0])).name
    began = time.monotonic()
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err, contextlib.ExitStack() as stack:
        source = stack.enter_context(open(stdin, "rb")) if stdin else subprocess.DEVNULL
        child = _start(command, name, environment, directory, source, out, err, hint)
        try:
            returncode = child.wait(timeout_seconds)
        except subprocess.TimeoutExpired:
            _kill_group(child)
            err.seek(0)
            raise ToolError(
                f"{name} did not end within {timeout_seconds:g} s and was stopped",
                context=err.read()[-_TAIL:].decode("utf-8", "replace"),
                hint=hint,
            ) from None
        except BaseException:
            _kill_group(child)
            raise
        seconds = time.monotonic() - began
        out.seek(0)
        err.seek(0)
        done = Completed(tuple(command), returncode, out.read(_OUTPUT_MAX), err.read(_OUTPUT_MAX), seconds)
    return _checked(done, name, ok, hint)


def run_live(
    argv: Sequence[str | Path],
    *,
    environment: Mapping[str, str],
    timeout_seconds: float,
    directory: Path | None = None,
    ok: Sequence[int] = (0,),
    network: bool = True,
    show: bool = False,
    hint: str = "",
) -> Completed:
    """As `run`, for long tools whose log people may want to watch (`show`).

    The tool runs below a small relay that keeps its raw output in a file, owns the deadline,
    and hands on lines that are short and valid UTF-8: subprocess-tee stops reading at a longer
    line or another byte, and the tool would then hang. Its result must travel through a file.
    """
    from subprocess_tee import run as tee

    isolation = [*network_isolation()] if not network else []
    command = [*isolation, *map(str, argv)]
    name = Path(str(argv[0])).name
    began = time.monotonic()
    with tempfile.NamedTemporaryFile(prefix="goldsmith-log-") as log:
        relay = Path(__file__).with_name("relay.py")
        try:
            result = tee(
                [sys.executable, "-I", str(relay), log.name, f"{timeout_seconds:g}", *command],
                env=dict(environment),
                cwd=str(directory) if directory else None,
                stdin=subprocess.DEVNULL,
                quiet=not show,
                tee=True,
                check=False,
            )
        except OSError as error:
            raise ToolError(f"{name} cannot be started", context=str(error), hint=hint) from None
        printed = Path(log.name).read_bytes()[-_OUTPUT_MAX:]
    done = Completed(tuple(command), result.returncode, b"", printed, time.monotonic() - began)
    if done.returncode == _TIMED_OUT:
        raise ToolError(
            f"{name} did not end within {timeout_seconds:g} s and was stopped", context=done.log, hint=hint
        )
    return _checked(done, name, ok, hint)


def find(name: str, environment: Mapping[str, str]) -> Path | None:
    """The first program called `name` in the PATH of `environment`."""
    found = shutil.which(name, path=environment.get("PATH"))
    return Path(found) if found else None


def find_all(name: str, environment: Mapping[str, str]) -> tuple[Path, ...]:
    """Every program called `name` in the PATH of `environment`, in that order."""
    found: list[Path] = []
    for folder in environment.get("PATH", "").split(os.pathsep):
        candidate = Path(folder) / name
        if folder and candidate.is_file() and os.access(candidate, os.X_OK) and candidate not in found:
            found.append(candidate)
    return tuple(found)


@lru_cache(maxsize=1)
def network_isolation() -> tuple[str, ...]:
    """The prefix that takes the network from a program; empty where the kernel refuses."""
    unshare = shutil.which("unshare", path="/usr/bin:/bin")
    if unshare is None:
        return ()
    prefix = (unshare, "--net") if os.geteuid() == 0 else (unshare, "--user", "--map-current-user", "--net")
    tried = subprocess.run(
        [*prefix, "true"], stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=10
    )
    return prefix if tried.returncode == 0 else ()


def start_daemon(
    argv: Sequence[str | Path], *, environment: Mapping[str, str], log: Path, directory: Path | None = None
) -> int:
    """Start a program that outlives us, in a session of its own; returns its pid."""
    with open(log, "ab") as out:
        child = _start(
            list(map(str, argv)),
            Path(str(argv[0])).name,
            environment,
            directory,
            subprocess.DEVNULL,
            out,
            out,
            "",
        )
    return child.pid


def _start(
    command: list[str],
    name: str,
    environment: Mapping[str, str],
    directory: Path | None,
    source: IO[bytes] | int,
    out: IO[bytes],
    err: IO[bytes],
    hint: str,
) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            command,
            env=dict(environment),
            cwd=directory,
            stdin=source,
            stdout=out,
            stderr=err,
            start_new_session=True,
            close_fds=True,
        )
    except FileNotFoundError:
        raise ToolError(
            f"{name} is not installed",
            context=command[0],
            hint=hint or "goldsmith doctor says how to install it",
        ) from None
    except OSError as error:
        raise ToolError(f"{name} cannot be started", context=str(error), hint=hint) from None


def _checked(done: Completed, name: str, ok: Sequence[int], hint: str) -> Completed:
    if done.returncode not in ok:
        # A shell and our relay report a signal as 128 and its number.
        signal_number = -done.returncode if done.returncode < 0 else done.returncode - 128
        how = f"signal {signal_number}" if 0 < signal_number <= 64 else f"exit code {done.returncode}"
        raise ToolError(f"{name} failed with {how}", context=done.log, hint=hint)
    return done


def _kill_group(child: subprocess.Popen[bytes]) -> None:
    for sig in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, sig)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(_GRACE_SECONDS)
            return
