"""The documentation says what the code does: generated pages, links, commands and make targets."""

from __future__ import annotations

import ast
import importlib.util
import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
HIDDEN = {".goldsmith", ".venv", ".git"}
PAGES = sorted(
    path
    for path in ROOT.rglob("*.md")
    if not any(part in HIDDEN or part.startswith(".") for part in path.relative_to(ROOT).parts)
)
FENCE = re.compile(r"^```[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"\]\(([^)\s]+)\)")


@cache
def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate_docs", ROOT / "docs" / "generate.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@cache
def tree() -> Any:
    return generator().command_tree()


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def shell_lines(text: str) -> Iterator[str]:
    """Lines of code blocks, joined where they go on, without a prompt."""
    for block in FENCE.findall(text):
        for line in block.replace("\\\n", " ").splitlines():
            yield line.strip().removeprefix("$ ")


def words_of(line: str) -> list[str]:
    """The words after `goldsmith` when the line is such a command (after settings), else none."""
    match = re.match(
        r"(?:[A-Z_]+=\S+ +)*(?:goldsmith|python -m builder)\b(?! lock \d)(?![:,'/\w-])(.*)", line
    )
    if not match:
        return []
    try:
        words = shlex.split(match[1], comments=True)
    except ValueError:
        return []
    # A pipe or redirection ends the command.
    ends = [i for i, word in enumerate(words) if word in ("|", ">", ">>", "&&", ";")]
    return words[: ends[0]] if ends else words


def mistake(words: list[str]) -> str:
    """What is wrong with a command's words; empty when nothing is."""
    command, rest = tree(), list(words)
    while hasattr(command, "commands") and rest and not rest[0].startswith("-"):
        if rest[0] not in command.commands:
            return f"there is no command {rest[0]!r}"
        command = command.commands[rest.pop(0)]
    options = {spelling for p in command.params for spelling in (*p.opts, *p.secondary_opts)} | {"--help"}
    unknown = [w for w in rest if w.startswith("-") and w.partition("=")[0] not in options]
    return f"no option {unknown[0]}" if unknown else ""


def test_the_readme_of_every_image_has_its_facts() -> None:
    """`make docs` writes the tables anew; `goldsmith facts` measures."""
    found = generator().readmes()
    assert found
    assert [file for file, text in found.items() if not file.is_file() or file.read_text() != text] == []


def test_the_reference_is_what_the_code_says() -> None:
    """`make docs` writes it anew."""
    module = generator()
    stale = [
        page
        for page, text in module.pages().items()
        if not (module.REFERENCE / page).is_file() or (module.REFERENCE / page).read_text() != text
    ]
    assert stale == []
    assert {p.name for p in module.REFERENCE.glob("*.md")} == set(module.pages())


def test_a_stale_page_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = generator()
    monkeypatch.setattr(module, "REFERENCE", tmp_path)
    monkeypatch.setattr(module, "pages", lambda: {"cli.md": "new\n"})
    monkeypatch.setattr(module, "readmes", dict)
    assert module.main(["--check"]) == 1
    assert module.main([]) == 0
    assert module.main(["--check"]) == 0
    (tmp_path / "cli.md").write_text("old\n")
    assert module.main(["--check"]) == 1


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    text = FENCE.sub("", page.read_text())
    broken = []
    for link in LINK.findall(text):
        target, _, anchor = link.partition("#")
        if re.match(r"[a-z]+:", link):
            continue
        path = (page.parent / target).resolve() if target else page
        if not path.exists() or (anchor and path.suffix == ".md" and anchor not in anchors(path)):
            broken.append(link)
    assert broken == []


def anchors(path: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", path.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_command_in_a_block_parses(page: Path) -> None:
    text = page.read_text()
    wrong = []
    for line in shell_lines(text):
        words = words_of(line)
        if not words or any(w.startswith("[") for w in words):  # a usage line of the reference
            continue
        if said := mistake(words) or parse(words):
            wrong.append(f"{line}: {said}")
    assert wrong == []


def parse(words: list[str]) -> str:
    """Let typer parse it: missing arguments and values of a wrong type show too."""
    command, rest = tree(), list(words)
    while hasattr(command, "commands") and rest and rest[0] in command.commands:
        command = command.commands[rest.pop(0)]
    if "--help" in rest or hasattr(command, "commands"):
        return ""
    try:
        command.make_context("goldsmith", rest)
    except Exception as error:  # noqa: BLE001 - whatever the parser raises is what a reader would meet
        return str(error) or type(error).__name__
    return ""


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_command_in_a_sentence_exists(page: Path) -> None:
    text = FENCE.sub("", page.read_text())
    found = [(code, mistake(words)) for code in INLINE.findall(text) if (words := words_of(code))]
    assert [f"{code}: {said}" for code, said in found if said] == []


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_only_existing_make_targets_are_named(page: Path) -> None:
    targets = set(re.findall(r"^([a-z]+):.*##", (ROOT / "Makefile").read_text(), re.MULTILINE))
    text = page.read_text()
    codes = [*shell_lines(text), *INLINE.findall(FENCE.sub("", text))]
    named = {m[1] for code in codes if (m := re.match(r"make ([a-z]+)\b", code))}
    assert named - targets == set()


def test_the_packages_import_what_the_architecture_page_says() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    rows = re.findall(r"^\| `((?:builder|registry)/[^`]*)` \|.*\| ([^|]+) \|$", text, re.MULTILINE)
    assert len(rows) > 10
    wrong = []
    for place, said in rows:
        if said.startswith("everything"):
            continue
        path = ROOT / place
        files = sorted(path.rglob("*.py")) if path.is_dir() else [path]
        found = {part for file in files for part in imported(file)} - {"errors", path.stem}
        allowed = set() if said == "nothing" else set(said.split(", "))
        wrong += [f"{place}: {', '.join(sorted(found ^ allowed))}"] if found != allowed else []
    assert wrong == []


def imported(file: Path) -> Iterator[str]:
    """The parts of `builder` that a file imports: `oci`, `store`."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("builder."):
            yield (node.module or "").split(".")[1]


def test_the_files_of_the_first_image_guide_are_sound(tmp_path: Path) -> None:
    from builder.stages.define import load_catalogue

    text = (ROOT / "docs" / "guide" / "first-image.md").read_text()
    image, checks = (b for b in re.findall(r"^```yaml\n(.*?)^```", text, re.M | re.S) if "schema: 1" in b)
    shutil.copytree(ROOT / "templates", tmp_path / "templates")
    shutil.copytree(ROOT / "images" / "base", tmp_path / "images" / "base")
    folder = tmp_path / "images" / "sqlite"
    folder.mkdir()
    (folder / "image.yaml").write_text(image)
    (folder / "checks.yaml").write_text(checks)
    assert load_catalogue(tmp_path).find("sqlite").ref == "sqlite:3"


def test_the_readme_is_short_and_names_the_two_commands() -> None:
    text = (ROOT / "README.md").read_text()
    assert text.count("\n") < 200
    assert {"make demo", "make test"} <= set(shell_lines(text))


def test_a_wrong_command_is_found() -> None:
    assert mistake(["lock", "--check"]) == ""
    assert mistake(["locked"]) == "there is no command 'locked'"
    assert mistake(["registry", "sideways"]) == "there is no command 'sideways'"
    assert mistake(["lock", "--chekc"]) == "no option --chekc"
    assert parse(["build"]) != ""
    assert "goldsmith" not in sys.modules
