"""The `goldsmith` command: its groups, and the one place that turns errors into exit codes."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import tempfile
import traceback
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

import typer

from builder.errors import GoldsmithError, PolicyDenied, ToolError, UsageError
from builder.report import (
    complain,
    drop_output,
    emit,
    emit_json,
    forgiving_streams,
    output_works,
    settle_output,
)
from builder.store import disk_faults
from builder.version import version

_BUG, _INTERRUPTED = 3, 130
_PIPE_CLOSED = 141  # as a shell tells a program that SIGPIPE (13) ended

# Which module has which commands: of a command line only the one that it names is loaded.
COMMANDS: Mapping[str, tuple[str, ...]] = {
    "catalogue": ("schema", "images", "lint", "lock"),
    "images": ("render", "build", "run"),
    "facts": ("facts",),
    "onboarding": ("new", "try"),
    "planning": ("plan", "simulate"),
    "databases": ("db",),
    "nightly": ("nightly",),
    "evidence": ("init", "verify", "why"),
    "rules": ("rules",),
    "licences": ("licences",),
    "host": ("doctor", "up", "down"),
    "registry": ("registry",),
    "developers": ("check", "client-config", "catalogue"),
    "serve": ("serve",),
    "promotion": ("promote", "rollback", "revoke"),
    "importing": ("import",),
    "reproducing": ("reproduce",),
    "bundles": ("export",),
    "approving": ("approve", "approvals"),
    "audit": ("audit",),
    "keyring": ("keys",),
    "knowledge": ("reindex", "affected"),
    "rescanning": ("rescan",),
    "tokens": ("token",),
    "waivers": ("waive", "waivers", "vex"),
    "rehearsal": ("rehearse",),
    "inventory": ("inventory",),
    "diff": ("diff", "delta", "changes"),
    "notify": ("notify",),
    "watchdog": ("watchdog",),
    "clock": ("clock",),
}


def _root(
    show_version: Annotated[bool, typer.Option("--version", help="Print the version and end.")] = False,
) -> None:
    pass


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and leave with its exit code; no traceback reaches a user."""
    code = run(sys.argv[1:] if arguments is None else arguments)
    # Otherwise the interpreter tries again when it ends, and puts its own exit code above ours.
    settle_output()
    guard = sys.modules.get("builder.guard")
    if guard is not None and guard.unanswered():
        os._exit(code)  # the interpreter would wait for the threads of an extension that hangs
    sys.exit(code)


def run(arguments: list[str]) -> int:
    """Run one command; returns its exit code (design: 0 ok, 1 definition or lock, 2 usage, …)."""
    return guarded(lambda: _command(arguments), arguments)


def guarded(action: Callable[[], int], arguments: list[str]) -> int:
    """Run `action`; whatever it raises is shown to people as an error, and becomes an exit code."""
    forgiving_streams()
    as_json = "--json" in arguments
    try:
        with disk_faults():
            code = action()
            sys.stdout.flush()
            return code
    except GoldsmithError as error:
        return _fail(error, as_json)
    except (KeyboardInterrupt, typer.Abort):
        interrupted = GoldsmithError("interrupted; nothing was left half-done", reference="interrupted")
        interrupted.exit_code = _INTERRUPTED
        return _fail(interrupted, as_json)
    except BrokenPipeError:  # who reads us has seen enough: `goldsmith images | head -1`
        drop_output()
        return _PIPE_CLOSED
    except OSError as error:
        return _fail(_of_the_system(error), as_json)
    except Exception as error:  # noqa: BLE001 - the last door: a bug becomes a log file
        if hasattr(error, "format_message") and hasattr(error, "exit_code"):
            return _fail_usage(error, as_json)
        return _fail(_bug(arguments), as_json)


def _command(arguments: list[str]) -> int:
    if arguments == ["--version"]:
        emit(f"goldsmith {version()}")
        return 0
    named = [m for m, names in COMMANDS.items() if arguments and arguments[0] in names]
    command = application(tuple(named or COMMANDS))
    try:
        result = command.main(args=arguments, prog_name="goldsmith", standalone_mode=False)
    except SystemExit:  # click ends by itself in one case only: when who reads us has gone
        raise BrokenPipeError from None
    if result == _INTERRUPTED:  # typer turns an interruption into this, and says nothing
        raise KeyboardInterrupt
    return result if isinstance(result, int) else 0


@lru_cache(maxsize=len(COMMANDS) + 1)
def application(modules: tuple[str, ...]) -> Any:
    """The command line with the commands of these modules."""
    from builder.cli.overview import Overview

    app = typer.Typer(
        name="goldsmith",
        cls=Overview,
        help="Golden base images: built reproducibly, scanned, judged, signed and published.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"max_content_width": 110},
    )
    app.callback()(_root)
    for module in modules:
        importlib.import_module(f"builder.cli.{module}").register(app)
    return typer.main.get_command(app)


def _fail(error: GoldsmithError, as_json: bool) -> int:
    if as_json and output_works():
        with contextlib.suppress(OSError):
            emit_json(error.as_dict())
            return error.exit_code
        drop_output()
    lines = [f"{'denied' if isinstance(error, PolicyDenied) else 'error'}: {error.message}"]
    lines += [f"  {line}" for line in error.context.splitlines()]
    if error.hint:
        lines.append(f"  what to do: {error.hint}")
    complain("\n".join(lines))
    return error.exit_code


def _fail_usage(error: Any, as_json: bool) -> int:
    """An error of the option parser (click), told as every other error is."""
    if type(error).__name__ == "NoArgsIsHelpError":
        error.show()
        return int(error.exit_code)
    message = str(error.format_message())
    path = error.ctx.command_path if getattr(error, "ctx", None) else "goldsmith"
    return _fail(UsageError(message, hint=f"{path} --help"), as_json)


def _of_the_system(error: OSError) -> ToolError:
    """Missing rights, a full disk, too many open files: this machine's doing, not a bug."""
    return ToolError(
        f"this machine refused: {error.strerror or type(error).__name__}",
        context=str(error),
        hint="see to the rights, the room on the disk and the limits there, then run it again",
        reference="system-refused",
    )


def _bug(arguments: list[str]) -> GoldsmithError:
    state = Path(os.environ.get("GOLDSMITH_STATE") or ".goldsmith")
    folder = state if os.access(state, os.W_OK | os.X_OK) else None
    place = "nowhere: no log could be written"
    told = f"goldsmith {' '.join(arguments)}\npython {sys.version}\n\n{traceback.format_exc()}"
    with contextlib.suppress(OSError):
        # A name that nobody can guess: in a shared folder it could be a link to elsewhere.
        handle, place = tempfile.mkstemp(prefix="goldsmith-bug-", suffix=".log", dir=folder)
        with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as log:
            log.write(told)
    bug = GoldsmithError(
        "goldsmith met a bug of its own; nothing was published",
        hint=f"report it with {place}",
        reference="bug",
    )
    bug.exit_code = _BUG
    return bug
