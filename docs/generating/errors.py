"""The error classes, and every named reason, from the source."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterator
from pathlib import Path

from generating.form import ROOT, cell, first_line, page, table

_DIFFERS = "…"
_QUOTED = 4  # messages of one reason


def errors() -> str:
    """The error classes, and every named reason, from the source."""
    from builder.errors import GoldsmithError, _kebab

    for module in sorted(_modules()):
        importlib.import_module(module)
    rows, pending = [], [GoldsmithError]
    seen: set[type] = set()
    while pending:
        kind = pending.pop(0)
        if kind in seen or not kind.__module__.startswith(("builder", "registry")):
            continue
        seen.add(kind)
        pending += sorted(kind.__subclasses__(), key=lambda k: k.__name__)
        rows.append(
            (
                f"`{kind.__name__}`",
                f"`{_kebab(kind.__name__)}`",
                str(kind.exit_code),
                cell(first_line(kind.__doc__)),
                kind.__module__,
            )
        )
    reasons: dict[str, list[str]] = {}
    for path in _modules().values():
        for name, said in _reasons(path):
            found = reasons.setdefault(name, [])
            if said != _DIFFERS and said not in found:
                found.append(said)
    lines = [
        "# Errors\n",
        "An error says what is wrong, what was seen, and what to do. For people it goes to standard error",
        "(a denial, exit code 4, begins with `denied:`):\n",
        "```\nerror: MESSAGE\n  CONTEXT\n  what to do: HINT\n```\n",
        'With `--json` it is `{"error", "message", "context", "hint", "exit_code"}` on standard output; mistakes in definitions',
        "also have `problems`, a list of `{file, path, message, hint}`. `error` is the class in kebab case (`lock-error`) or one",
        "of the reasons below.\n",
        "## Classes\n",
        table(("class", "error", "exit code", "means", "module"), rows),
        "## Reasons\n",
        "Stable names in the field `error`. `…` stands for what differs; a few of the messages are quoted.\n",
        table(
            ("error", "messages"),
            [
                (f"`{name}`", cell("; ".join(sorted(said)[:_QUOTED]) or "of several kinds"))
                for name, said in sorted(reasons.items())
            ],
        ),
    ]
    return page(lines)


def _modules() -> dict[str, Path]:
    return {
        ".".join(p.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): p
        for folder in ("builder", "registry")
        for p in sorted((ROOT / folder).rglob("*.py"))
        if p.name not in ("__main__.py", "relay.py")
    }


def _reasons(path: Path) -> Iterator[tuple[str, str]]:
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Call):
            continue
        named = {k.arg: k.value for k in node.keywords}
        reference, message = named.get("reference"), node.args[0] if node.args else None
        if isinstance(node.func, ast.Name) and node.func.id == "refuse" and len(node.args) > 1:
            reference, message = node.args[0], node.args[1]
        names = [reference.body, reference.orelse] if isinstance(reference, ast.IfExp) else [reference]
        says = [message.body, message.orelse] if isinstance(message, ast.IfExp) else [message] * len(names)
        for name, said in zip(names, says, strict=False):
            if isinstance(name, ast.Constant) and isinstance(name.value, str) and name.value:
                yield name.value, _text(said)


def _text(node: ast.expr | None) -> str:
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(v) if isinstance(v, ast.Constant) else _DIFFERS for v in node.values)
    return _DIFFERS
