"""The command line: every command with its arguments and options, and the exit codes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from generating.form import cell, first_line, page, slug, table

EXIT_CODES = {
    0: "done",
    1: "a mistake in definitions or locks; something is stale; the state directory is in use; a file or an "
    "exported catalogue that `check` cannot read",
    2: "the command line or the environment makes no sense",
    3: "a bug of goldsmith; a log was written",
    4: "denied: by the policy, or evidence was refused; `check` has findings",
    5: "an external program is missing, failed, or cannot be trusted",
    6: "a registry could not be reached, refused, or sent other bytes",
    7: "two builds of one input differ",
    130: "interrupted (Ctrl-C)",
    141: "whoever read the output left (`| head`)",
}


def command_tree() -> Any:
    """The command line as typer builds it."""
    from builder.cli.main import COMMANDS, application

    return application(tuple(COMMANDS))


def cli() -> str:
    """Every command with its arguments and options, and the exit codes."""
    tree = command_tree()
    lines = [f"# Command line\n\n{tree.help}\n"]
    lines += [
        "Without an installed `goldsmith`, `python -m builder` is the same command. `--json` prints one JSON document on",
        "standard output; progress and errors of people's output go to standard error. With `--json` an error is printed",
        "as JSON too (see [errors](errors.md)).\n",
        table(("command", ""), [(f"[{n}](#{slug(n)})", first_line(c.help)) for n, c in _commands(tree)]),
    ]
    for name, command in _commands(tree):
        lines += [f"## {name}\n", f"{command.help}\n", "```", _usage(name, command), "```\n"]
        rows = [(_spelling(p), cell(p.help or "") + _repeats(p)) for p in command.params]
        lines += [table(("argument or option", ""), rows)] if rows else []
    lines += ["## Exit codes\n", table(("code", "means"), [(str(k), v) for k, v in EXIT_CODES.items()])]
    return page(lines)


def _commands(group: Any, prefix: str = "goldsmith") -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            if command.invoke_without_command:
                yield f"{prefix} {name}", command
            yield from _commands(command, f"{prefix} {name}")
        else:
            yield f"{prefix} {name}", command


def _usage(name: str, command: Any) -> str:
    options = [f"[{_spelling(p).strip('`')}]" for p in command.params if p.param_type_name == "option"]
    return " ".join(
        [name, *options, *(_metavar(p) for p in command.params if p.param_type_name == "argument")]
    )


def _repeats(parameter: Any) -> str:
    return " May be given several times." if getattr(parameter, "multiple", False) else ""


def _metavar(parameter: Any) -> str:
    return str(parameter.metavar or parameter.name.upper())


def _spelling(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        return f"`{_metavar(parameter)}`"
    value = "" if parameter.is_flag else " " + _metavar(parameter)
    return f"`{'/'.join((parameter.opts[0], *parameter.secondary_opts))}{value}`"
