"""Further processes of this program, for work that one core is too slow for."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from concurrent.futures import ProcessPoolExecutor


def processes(count: int) -> ProcessPoolExecutor:
    """An executor with `count` processes, each started afresh; they end when this one does."""
    return ProcessPoolExecutor(count, multiprocessing.get_context("spawn"), initializer=_follow_parent)


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0))


def _follow_parent() -> None:
    # A parent that was killed cannot tell its workers to end.
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)
