"""Templates that extend another one: which blocks they replace, and whether somebody reviewed that.

A block that is empty above is there to be filled. Whoever replaces a filled one goes without what
that will become; so its text is kept beside the template, and a build is refused once it is another.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from jinja2 import Environment

from builder.errors import Problem
from builder.model.template_blocks import ReplacedBlock, ReplacedBlocks, block_digest, replaced_blocks
from builder.store import write_atomically
from builder.tools.strict_model import read_model
from builder.tools.template_sandbox import Sandbox

_ACCEPT = "review it and what replaces it, then run `goldsmith lint --accept-blocks`"
_DIFF_MAX = 60  # lines
_LINE_MAX = 200  # characters
_CHAIN_MAX = 8  # templates that extend each other


@dataclass(frozen=True, slots=True)
class Block:
    """A block of one template, at a line; `nested` in another one of it."""

    name: str
    text: str
    line: int
    nested: bool
    filled: bool
    has_super: bool


@dataclass(frozen=True, slots=True)
class Structure:
    """What a template extends, its blocks, and the line of what it says outside of any (0: nothing)."""

    extends: str | None
    blocks: Mapping[str, Block]
    outside: int


@dataclass(frozen=True, slots=True)
class Replacement:
    """A filled block of `template`, which another template replaces at `line`."""

    block: str
    line: int
    template: str
    text: str


def replaces_file(name: str) -> str:
    """Where it is kept what a template replaces; below `templates/`, as its name."""
    return name.removesuffix(".j2") + ".replaces.yaml"


def structure(sandbox: Sandbox, name: str) -> Structure:
    """The structure of a template; raises as `Sandbox.source` does, and TemplateSyntaxError."""
    return _structure(sandbox.source(name))


def block_problems(sandbox: Sandbox, folder: Path, names: Iterable[str]) -> list[Problem]:
    """What is wrong with the blocks of these templates (those that extend another one)."""
    problems: list[Problem] = []
    for name in names:
        if not name.endswith(".j2") or structure(sandbox, name).extends is None:
            continue
        replaced, mistakes = _replacements(sandbox, name)
        kept = _kept(folder, name, problems)
        problems += mistakes
        for one in replaced:
            problems += _unaccepted(name, one, kept.pop(one.block, None))
        for gone in sorted(kept):
            message = f"block {gone}: nothing is replaced there any more"
            problems.append(Problem(f"templates/{replaces_file(name)}", f"blocks.{gone}", message, _ACCEPT))
    return problems


def accept_blocks(sandbox: Sandbox, folder: Path) -> list[str]:
    """Write down what all templates of the folder replace now; returns the files that changed."""
    changed = []
    for name in sorted(sandbox.list_templates(extensions=["j2"])):
        replaced = _replacements(sandbox, name)[0] if structure(sandbox, name).extends else []
        path = folder / replaces_file(name)
        if not replaced:
            if path.is_file():
                path.unlink()
                changed.append(f"templates/{replaces_file(name)}")
            continue
        data = replaced_blocks({one.block: (one.template, one.text) for one in replaced})
        if not path.is_file() or path.read_bytes() != data:
            write_atomically(path, data)
            changed.append(f"templates/{replaces_file(name)}")
    return changed


def _replacements(sandbox: Sandbox, name: str) -> tuple[list[Replacement], list[Problem]]:
    file, own = f"templates/{name}", structure(sandbox, name)
    above = _above(sandbox, name)
    problems, found = [], []
    if above and above[-1][0] == name:
        chain = " -> ".join([name, *(n for n, _ in above)])
        return [], [Problem(file, "template", f"templates extend each other: {chain}", "mend the template")]
    if len(above) == _CHAIN_MAX and above[-1][1].extends is not None:
        message = f"more than {_CHAIN_MAX} templates extend each other, so what it replaces was not looked at"
        return [], [Problem(file, "template", message, "mend the template")]
    if own.outside:
        hint = "put it into a block; `{% set %}` and `{% macro %}` may stand outside"
        problems.append(
            Problem(file, f"line {own.outside}", "text outside of blocks is never rendered", hint)
        )
    known = sorted({block for _, one in above for block in one.blocks})
    for block in own.blocks.values():
        holders = [(n, one.blocks[block.name]) for n, one in above if block.name in one.blocks]
        if not holders and not block.nested:
            near = difflib.get_close_matches(block.name, known, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(known)}"
            message = f"no template above has a block {block.name!r}"
            problems.append(Problem(file, f"line {block.line}", message, hint))
        text, filled = _text_above(holders)
        if filled:
            found.append(Replacement(block.name, block.line, holders[0][0], text))
    return found, problems


def _above(sandbox: Sandbox, name: str) -> list[tuple[str, Structure]]:
    """The templates above one, nearest first; where they close a circle, that one is the last."""
    found: list[tuple[str, Structure]] = []
    following = structure(sandbox, name).extends
    while following is not None and len(found) < _CHAIN_MAX:
        one = structure(sandbox, following)
        found.append((following, one))
        following = None if following == name else one.extends
    return found


def _text_above(holders: list[tuple[str, Block]]) -> tuple[str, bool]:
    """What a block is without its replacement; further up as long as `super()` may lead there."""
    texts: list[str] = []
    filled = False
    for name, block in holders:
        texts.append(block.text if not texts else f"{{# {name} #}}\n{block.text}")
        filled = filled or block.filled
        if not block.has_super:
            break
    return "".join(texts), filled


def _unaccepted(name: str, one: Replacement, kept: ReplacedBlock | None) -> Iterator[Problem]:
    file, where = f"templates/{name}", f"line {one.line}"
    now = block_digest(one.text)
    if kept is None:
        message = (
            f"the block {one.block} of {one.template} is replaced, and nobody accepted that: sha256 {now}"
        )
        yield Problem(file, where, message, _ACCEPT)
    elif block_digest(kept.whole) != kept.sha256:
        message = f"the text of block {one.block} is not what its sha256 says"
        yield Problem(f"templates/{replaces_file(name)}", f"blocks.{one.block}", message, _ACCEPT)
    elif kept.sha256 != now or kept.template != one.template:
        lines = difflib.unified_diff(
            kept.whole.splitlines(), one.text.splitlines(), "when it was accepted", "now", n=2, lineterm=""
        )
        shown = [line[:_LINE_MAX] for line in lines]
        more = [f"… {len(shown) - _DIFF_MAX} more lines"] if len(shown) > _DIFF_MAX else []
        moved = f" (it was in {kept.template})" if kept.template != one.template else ""
        message = (
            f"the block {one.block} of {one.template}{moved}, which is replaced here, has changed: "
            f"sha256 {kept.sha256} when that was accepted, {now} now"
        )
        yield Problem(file, where, "\n".join([message, *shown[:_DIFF_MAX], *more]), _ACCEPT)


def _kept(folder: Path, name: str, problems: list[Problem]) -> dict[str, ReplacedBlock]:
    file = f"templates/{replaces_file(name)}"
    if not (folder / replaces_file(name)).exists():
        return {}
    found = read_model(folder.parent, file, ReplacedBlocks, problems)
    return dict(found.blocks) if found else {}


@lru_cache(maxsize=256)
def _structure(source: str) -> Structure:
    # An environment without trimming: its tokens, put together, are the source.
    tokens = list(Environment(keep_trailing_newline=True).lex(source))  # noqa: S701 - it only reads
    blocks: dict[str, Block] = {}
    opened: list[tuple[str, int, int]] = []
    extends, outside, depth = None, 0, 0
    for position, (line, kind, value) in enumerate(tokens):
        if kind in ("data", "variable_begin") and not opened and not depth and value.strip():
            outside = outside or line + value[: -len(value.lstrip())].count("\n")
        if kind != "block_begin":
            continue
        end, words = _statement(tokens, position)
        keyword = words[0] if words else ""
        if keyword == "extends" and len(words) > 1 and extends is None:
            extends = words[1].strip("'\"")
        elif keyword in ("macro", "call", "filter") or (keyword == "set" and "=" not in words):
            depth += 1
        elif keyword in ("endmacro", "endcall", "endfilter", "endset"):
            depth -= 1
        elif keyword == "block":
            opened.append((words[1] if len(words) > 1 else "", end + 1, line))
        elif keyword == "endblock" and opened:
            name, start, first = opened.pop()
            inner = tokens[start:position]
            text = "".join(t for _, _, t in inner).strip("\n")
            blocks[name] = Block(
                name, f"{text}\n" if text else "", first, bool(opened), _filled(inner), _has(inner, "super")
            )
    return Structure(extends, blocks, outside if extends is not None else 0)


def _statement(tokens: list[Any], begin: int) -> tuple[int, list[str]]:
    """Where the statement that begins there ends, and its words."""
    end = next(n for n in range(begin, len(tokens)) if tokens[n][1] == "block_end")
    return end, [t for _, kind, t in tokens[begin + 1 : end] if kind != "whitespace"]


def _filled(tokens: list[Any]) -> bool:
    """Whether there is anything but space, comments, and blocks that are empty as well."""
    bare = [(k, t) for _, k, t in tokens if not k.startswith("comment")]
    text = "".join(t for _, t in bare)
    return bool(re.sub(r"\{%[-+]?\s*(end)?block(\s+\w+)*\s*[-+]?%\}", "", text).strip())


def _has(tokens: list[Any], word: str) -> bool:
    return any(kind == "name" and text == word for _, kind, text in tokens)
