"""A program of a state directory that outlives the command which started it: storage, gate.

It is a plain process of this user. Its pid file also holds when that process began, so that
another process that got the same number later is never taken for it, and never ended.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from builder.errors import RegistryError, ToolError
from builder.store import Store, file_tail, write_atomically
from builder.tools import process

READY_SECONDS = 20.0
STOP_SECONDS = 10.0
_POLL_SECONDS = 0.02
_LOG_TAIL = 1500  # bytes


@dataclass(frozen=True, slots=True)
class Daemon:
    """A daemon of `store`: `name` is that of its files in the folder `run`, `title` is for people."""

    store: Store
    name: str
    title: str

    @property
    def pid_file(self) -> Path:
        """Where its process is noted."""
        return self.store.run / f"{self.name}.pid"

    @property
    def log(self) -> Path:
        """Where it writes to."""
        return self.store.run / f"{self.name}.log"

    @property
    def pid(self) -> int | None:
        """The number of its process; None when it does not run."""
        handle = self._open()
        if handle is None:
            return None
        os.close(handle)
        pid = self.noted("pid")
        return pid if isinstance(pid, int) else None

    def noted(self, key: str) -> object:
        """What was noted at its start (see `start`); None when there is no such note."""
        try:
            record = json.loads(self.pid_file.read_bytes())
        except (OSError, ValueError):
            return None
        return record.get(key) if isinstance(record, dict) else None

    def start(self, argv: Sequence[str | Path], environment: Mapping[str, str], **notes: Any) -> int:
        """Start it and note its process with `notes`; returns its pid."""
        pid = process.start_daemon(argv, environment=environment, log=self.log, directory=self.store.run)
        record = {"pid": pid, "began": _began(pid), **notes}
        write_atomically(self.pid_file, json.dumps(record).encode())
        return pid

    def wait(self, ready: Callable[[], bool], address: str, seconds: float, hint: str = "") -> None:
        """Wait until it is ready; raises RegistryError when its process ends before, or in time is not."""
        handle = self._open()
        try:
            ends = time.monotonic() + seconds
            while not ready():
                dead = handle is None or _ended(handle, _POLL_SECONDS)
                if dead or time.monotonic() > ends:
                    raise RegistryError(
                        f"{self.title} {'ended' if dead else 'does not answer'} on {address}",
                        context=file_tail(self.log, _LOG_TAIL),
                        hint=f"see {self.log}" + (f"; {hint}" if hint else ""),
                        reference="daemon-not-ready",
                    )
        finally:
            if handle is not None:
                os.close(handle)

    def stop(self, seconds: float = STOP_SECONDS) -> bool:
        """End it, first politely; whether it ran. Raises ToolError when it does not end."""
        handle = self._open()
        if handle is not None:
            try:
                for number in (signal.SIGTERM, signal.SIGKILL):
                    with contextlib.suppress(ProcessLookupError):
                        signal.pidfd_send_signal(handle, number)
                    if _ended(handle, seconds):
                        break
                else:
                    raise ToolError(f"{self.title} does not end", context=self.pid_file.read_text())
            finally:
                os.close(handle)
            pid = self.noted("pid")
            if isinstance(pid, int):  # take the exit code of our own child, when it is one
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(pid, os.WNOHANG)
        self.pid_file.unlink(missing_ok=True)
        return handle is not None

    def _open(self) -> int | None:
        """A handle (pidfd) on the process that the pid file means; None when that one is gone.

        The handle is opened before the start time is compared, so the number cannot be given to
        another process in between.
        """
        pid, began = self.noted("pid"), self.noted("began")
        if not isinstance(pid, int) or pid <= 1 or began is None:
            return None
        try:
            handle = os.pidfd_open(pid)
        except OSError:
            return None
        if _began(pid) != began:
            os.close(handle)
            return None
        return handle


def answers(host: str, port: int) -> bool:
    """Whether something accepts connections there."""
    try:
        with socket.create_connection((host, port), timeout=2):
            return True
    except OSError:
        return False


def _began(pid: int) -> int | None:
    """When the process began, in clock ticks since boot (proc(5), stat field 22); None when dead."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])


def _ended(handle: int, seconds: float) -> bool:
    poller = select.poll()
    poller.register(handle, select.POLLIN)
    return bool(poller.poll(seconds * 1000))
