"""Runs one program below `process.run_live`: raw output to a file, safe lines onward.

Called as `relay.py LOG SECONDS COMMAND…`. Exit code: the program's, 124 at the deadline,
127 when it cannot be started. Standard library only; it runs in an isolated interpreter.
"""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading

_LINE_MAX = 4096  # bytes handed on of one line
_LINES_MAX = 20_000  # lines handed on; nobody watches more, and it costs time
_LOG_MAX = 256 << 20  # bytes kept of the raw output
_PR_SET_PDEATHSIG = 1


def main(log: str, seconds: str, *command: str) -> int:
    """Run `command`, copy what it prints, and return its exit code."""
    # If our parent is killed, we end too, and the program with us.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    try:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    except OSError as error:
        print(error, file=sys.stderr)
        return 127
    timed_out = threading.Event()

    def stop(*_: object) -> None:
        timed_out.set()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    timer = threading.Timer(float(seconds), stop)
    timer.start()
    assert child.stdout is not None
    with open(log, "wb") as raw:
        lines = kept = 0
        while chunk := child.stdout.readline(_LINE_MAX) if lines < _LINES_MAX else child.stdout.read(1 << 16):
            lines += 1
            raw.write(chunk[: max(0, _LOG_MAX - kept)])
            kept += len(chunk)
            if lines <= _LINES_MAX:
                line = chunk.decode("utf-8", "replace").rstrip("\r\n")
                print("".join(c if ord(c) >= 32 or c == "\t" else "?" for c in line), flush=True)
    returncode = child.wait()
    timer.cancel()
    if timed_out.is_set():
        return 124
    return returncode if returncode >= 0 else 128 - returncode


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
