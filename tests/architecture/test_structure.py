"""The shape of the house: who may import whom, one door for each thing, and sizes."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULES = {
    ".".join(p.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): p
    for folder in ("builder", "registry")
    for p in sorted((ROOT / folder).rglob("*.py"))
}
LINES_MAX, CLI_LINES_MAX, FUNCTION_LINES_MAX = 400, 300, 60
LAYERS = ("builder.errors", "builder.model")  # what everything may use


@cache
def nodes(module: str) -> tuple[ast.AST, ...]:
    """The whole syntax tree of a module."""
    return tuple(ast.walk(ast.parse(MODULES[module].read_text())))


def imports(module: str) -> Iterator[str]:
    """Every module that `module` imports, wherever the import stands."""
    for node in nodes(module):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def inside(name: str, *packages: str) -> bool:
    return any(name == p or name.startswith(p + ".") for p in packages)


def offenders(allowed: tuple[str, ...], *targets: str, within: tuple[str, ...] = ("",)) -> list[str]:
    """Modules that import one of `targets` though they are not in `allowed`."""
    return sorted(
        f"{module} imports {name}"
        for module in MODULES
        if not inside(module, *allowed) and (within == ("",) or inside(module, *within))
        for name in imports(module)
        if inside(name, *targets)
    )


def test_the_builder_never_imports_the_registry() -> None:
    assert offenders(("builder.cli", "registry"), "registry") == []


def test_only_one_module_starts_processes() -> None:
    doors = ("builder.tools.process", "builder.tools.relay", "builder.tools.workers")
    assert (
        offenders(
            doors,
            "subprocess",
            "subprocess_tee",
            "multiprocessing",
            "concurrent.futures.ProcessPoolExecutor",
            "pty",
        )
        == []
    )


def test_only_a_few_doors_lead_to_http() -> None:
    assert offenders(("registry.gate.upstream",), "aiohttp") == []
    doors = ("builder.oci", "builder.tools.pool", "builder.tools.proxy", "registry.access.jwks")
    assert offenders(doors, "requests", "urllib.request", "http.client", "urllib3", "oras") == []


@pytest.mark.parametrize("package", ["builder.model", "builder.policy"])
def test_types_and_rules_do_no_input_or_output(package: str) -> None:
    doors = (
        "os",
        "subprocess",
        "socket",
        "requests",
        "builder.tools",
        "builder.oci",
        "builder.store",
        "builder.report",
    )
    assert offenders((), *doors, within=(package,)) == []


def test_only_the_pipeline_and_the_command_line_know_the_stages() -> None:
    assert offenders(("builder.pipeline", "builder.cli", "builder.stages"), "builder.stages") == []


def test_no_stage_imports_another_stage() -> None:
    found = [
        f"{module} imports {name}"
        for module in MODULES
        if module.startswith("builder.stages.")
        for name in imports(module)
        if inside(name, "builder.stages") and not inside(name, module)
    ]
    assert found == []


def test_errors_import_nothing_of_ours() -> None:
    assert [n for n in imports("builder.errors") if inside(n, "builder", "registry")] == []


@cache
def calls(module: str) -> tuple[tuple[str, int], ...]:
    """What a module calls or takes from something, by name, with the line."""
    used = ((n.func if isinstance(n, ast.Call) else n, n) for n in nodes(module))
    return tuple(
        (ast.unparse(name), node.lineno)
        for name, node in used
        if isinstance(name, ast.Attribute | ast.Name) and isinstance(node, ast.Call | ast.Attribute)
    )


@pytest.mark.parametrize(
    ("what", "doors"),
    [
        (("os.environ", "os.getenv"), ("builder.settings", "builder.cli.main")),
        (
            ("dt.datetime.now", "datetime.now", "dt.datetime.utcnow", "time.time", "dt.date.today"),
            ("builder.settings",),
        ),
        (("print",), ("builder.report", "builder.cli.main", "builder.tools.relay")),
        (("sys.exit", "os._exit"), ("builder.cli.main", "builder.tools.relay")),
        (("time.sleep",), ()),
    ],
    ids=["environment", "clock", "printing", "exit", "sleep"],
)
def test_there_is_one_door_for(what: tuple[str, ...], doors: tuple[str, ...]) -> None:
    found = [
        f"{m}:{line} {name}" for m in MODULES if m not in doors for name, line in calls(m) if name in what
    ]
    assert found == []


def test_modules_and_functions_stay_small() -> None:
    found = []
    for module, path in MODULES.items():
        lines = path.read_text().count("\n")
        limit = CLI_LINES_MAX if inside(module, "builder.cli") else LINES_MAX
        if lines > limit:
            found.append(f"{module} has {lines} lines")
        for node in nodes(module):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                if length > FUNCTION_LINES_MAX:
                    found.append(f"{module}.{node.name} has {length} lines")
    assert found == []


def test_importing_anything_runs_nothing(tmp_path: Path) -> None:
    """No import writes a file, opens a connection or starts a process."""
    script = f"""
import importlib, sys
sys.dont_write_bytecode = True
bad = []
def hook(event, args):
    if event in ("subprocess.Popen", "socket.connect", "os.mkdir", "os.remove", "os.rename"):
        bad.append((event, str(args)[:200]))
    if event == "open" and isinstance(args[1], str) and any(c in args[1] for c in "wax+"):
        bad.append((event, str(args)[:200]))
sys.addaudithook(hook)
for module in {sorted(m for m in MODULES if not m.endswith("__main__") and not m.endswith("relay"))!r}:
    importlib.import_module(module)
sys.exit("\\n".join(map(str, bad)) or 0)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr


def test_no_file_names_a_package_registry() -> None:
    """Mirrors come from configuration or the host; a lock with an address would bind us to it."""
    hosts = [
        f"{name}.{top}"
        for name, top in (("debian", "org"), ("pypi", "org"), ("pythonhosted", "org"), ("npmjs", "com"))
    ]
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    files = [ROOT / name for name in done.stdout.split("\0") if name]
    found = []
    for path in files:
        if path.suffix not in {".xz", ".gz", ".png"} and path.is_file():
            text = path.read_text("utf-8", "replace")
            found += [
                f"{path.relative_to(ROOT)}: {host}"
                for host in hosts
                if f"//{host}" in text or f".{host}/" in text
            ]
    assert found == []


def test_nothing_is_left_for_later() -> None:
    marks = ("TO" + "DO", "FIX" + "ME", "X" * 3)
    found = [f"{m}: {mark}" for m, p in MODULES.items() for mark in marks if mark in p.read_text()]
    assert found == []


def test_every_public_function_and_class_says_what_it_is() -> None:
    found = [
        f"{module}.{node.name}"
        for module, path in MODULES.items()
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.FunctionDef | ast.ClassDef)
        and not node.name.startswith("_")
        and ast.get_docstring(node) is None
    ]
    assert found == []


def test_what_catches_everything_is_counted() -> None:
    """What breaks while it decides denies, a keeper, a service or a cluster's client raises what it likes, a bug is logged."""
    doors = {"builder.cli.main", "builder.policy.engine", "builder.signing.keys", "builder.extensions"}
    doors |= {
        "registry.gate.admission",
        "registry.gate.server",
        "registry.notify.delivery",
        "builder.cluster",
    }
    found = {
        module
        for module, path in MODULES.items()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ExceptHandler)
        and (node.type is None or ast.unparse(node.type) == "Exception")
    }
    assert found <= doors
