"""The `goldsmith` command: its groups, and the one place that turns errors into exit codes."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path

import typer

from builder.errors import GoldsmithError
from builder.report import emit_json, forgiving_streams, plain
from builder.store import disk_faults

_BUG, _INTERRUPTED, _READER_LEFT = 3, 130, 141  # the last two as a shell reports the signals

# Each module adds its commands to the application: who uses them is its name.
_GROUPS = ("catalogue", "images", "evidence", "host", "registry")

app = typer.Typer(
    name="goldsmith",
    help="Golden base images: built reproducibly, scanned, judged, signed and published.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and leave with its exit code; no traceback reaches a user."""
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: list[str]) -> int:
    """Run one command; returns its exit code (design: 0 ok, 1 definition or lock, 2 usage, …)."""
    for group in _GROUPS:
        importlib.import_module(f"builder.cli.{group}").register(app)

    def command() -> int:
        result = typer.main.get_command(app).main(
            args=arguments, prog_name="goldsmith", standalone_mode=False
        )
        return result if isinstance(result, int) else 0

    return guarded(command, arguments)


def guarded(action: Callable[[], int], arguments: list[str]) -> int:
    """Run `action`; whatever it raises is shown to people as an error, and becomes an exit code."""
    forgiving_streams()
    try:
        with disk_faults():
            code = action()
            sys.stdout.flush()
            return code
    except BrokenPipeError:
        # Python flushes once more at its end, and would complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _READER_LEFT
    except GoldsmithError as error:
        _show(error, "--json" in arguments)
        return error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        print("interrupted; nothing was left half-done", file=sys.stderr)
        return _INTERRUPTED
    except Exception as error:  # noqa: BLE001 - the last door: a bug becomes a log file
        if hasattr(error, "show") and hasattr(error, "exit_code"):  # click's own usage errors
            error.show()
            return int(error.exit_code)
        return _bug(arguments)


def _show(error: GoldsmithError, as_json: bool) -> None:
    if as_json:
        emit_json(error.as_dict())
        return
    lines = [f"error: {error.message}"]
    lines += [f"  {line}" for line in error.context.splitlines()]
    if error.hint:
        lines.append(f"  what to do: {error.hint}")
    sys.stderr.write(plain("\n".join(lines)) + "\n")


def _bug(arguments: list[str]) -> int:
    state = Path(os.environ.get("GOLDSMITH_STATE") or ".goldsmith")
    folder = state if os.access(state, os.W_OK | os.X_OK) else Path(tempfile.gettempdir())
    log = folder / f"goldsmith-bug-{os.getpid()}.log"
    with contextlib.suppress(OSError):
        log.write_text(f"goldsmith {' '.join(arguments)}\npython {sys.version}\n\n{traceback.format_exc()}")
    sys.stderr.write(
        f"error: goldsmith met a bug of its own; nothing was published\n  what to do: report it with {log}\n"
    )
    return _BUG
