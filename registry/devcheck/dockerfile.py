"""Dockerfiles and Containerfiles as instructions; each character knows where it stands in the file.

Pure. Text is the file's bytes as Latin-1, so that an index into it is an offset in bytes.
Source: Dockerfile reference ("Format", "Parser directives", "Escape", "Here-documents"), and the
order in which BuildKit's parser does things (moby/buildkit, frontend/dockerfile/parser).
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field

from registry.devcheck.mention import Span, Unreadable

_SPACE = " \t\n\v\f\r"
_BOM = "\xef\xbb\xbf"
_DIRECTIVE = re.compile(r"#\s*([a-zA-Z][a-zA-Z0-9]*)\s*=\s*(.+?)\s*")
_DIRECTIVES = ("escape", "syntax", "check")
_HEREDOC = re.compile(r"\d*<<(-?)([^<]+)")
_HEREDOC_WORDS = ("RUN", "COPY", "ADD")
_WORD = re.compile(r"[^ \t\n\v\f\r]+")
_FIRST = re.compile(r"[ \t\n\v\f\r]*([^ \t\n\v\f\r]+)[ \t\n\v\f\r]*")
_KNOWN = frozenset(
    [
        "ADD",
        "ARG",
        "CMD",
        "COPY",
        "ENTRYPOINT",
        "ENV",
        "EXPOSE",
        "FROM",
        "HEALTHCHECK",
        "LABEL",
        "MAINTAINER",
        "ONBUILD",
        "RUN",
        "SHELL",
        "STOPSIGNAL",
        "USER",
        "VOLUME",
        "WORKDIR",
    ]
)


@dataclass(frozen=True, slots=True)
class Word:
    """A piece of an instruction, and its index in the instruction's text."""

    text: str
    at: int


@dataclass(frozen=True, slots=True)
class Instruction:
    """`keyword` in upper case and the `text` after it, with continuations joined.

    `start` is the offset of the keyword in the file.
    """

    keyword: str
    text: str
    start: int
    _pieces: tuple[tuple[int, int], ...] = field(repr=False)  # (index in `text`, offset in the file)

    def span(self, word: Word) -> Span:
        """Where a word stands in the file."""
        return Span(self.offset(word.at), self.offset(word.at + len(word.text) - 1) + 1)

    def unbroken(self, word: Word) -> bool:
        """Whether the word stands in one piece: no continuation goes through it."""
        span = self.span(word)
        return span.end - span.start == len(word.text)

    def offset(self, index: int) -> int:
        """The offset in the file of a character of `text`."""
        found = bisect_right(self._pieces, (index, 1 << 62)) - 1
        at, offset = self._pieces[max(found, 0)]
        return offset + index - at

    def onbuild(self) -> Instruction:
        """What an ONBUILD instruction holds."""
        keyword, at = _keyword(self.text)
        return Instruction(keyword, self.text[at:], self.start, tuple((i - at, o) for i, o in self._pieces))

    def flags(self, escape: str) -> tuple[list[Word], int]:
        """The leading `--…` words, and the index where the rest begins."""
        found: list[Word] = []
        at = 0
        for word in words(self.text, escape):
            if not word.text.startswith("--") or word.text == "--":
                return found, word.at
            found.append(word)
            at = word.at + len(word.text)
        return found, at


@dataclass(frozen=True, slots=True)
class Dockerfile:
    """A whole file: its escape character, the frontend that `# syntax=` asks for, and instructions."""

    escape: str
    syntax: Span | None
    instructions: tuple[Instruction, ...]


def parse(text: str) -> Dockerfile:
    """Parse a file (Latin-1); raises Unreadable for what no builder would take."""
    at = len(_BOM) if text.startswith(_BOM) else 0
    directives = _directives(text, at)
    escape = "\\"
    if "escape" in directives:
        span = directives["escape"]
        escape = text[span.start : span.end]
        if escape not in ("\\", "`"):
            raise Unreadable("the escape character is neither \\ nor `", span.start)
    found = tuple(_instructions(text, at, escape))
    if not any(i.keyword == "FROM" for i in found):
        raise Unreadable("there is no FROM in it")
    return Dockerfile(escape, directives.get("syntax"), found)


def words(text: str, escape: str = "\\", start: int = 0) -> Iterator[Word]:
    """The words of a text, quotes kept; blanks inside quotes and after an escape do not end a word."""
    if '"' not in text and "'" not in text and escape not in text:
        for match in _WORD.finditer(text, start):
            yield Word(match[0], match.start())
        return
    index, size = start, len(text)
    while index < size:
        if text[index] in _SPACE:
            index += 1
            continue
        begin, quote = index, ""
        while index < size and (quote or text[index] not in _SPACE):
            char = text[index]
            if char == escape and quote != "'":
                index += 1
            elif quote:
                quote = "" if char == quote else quote
            elif char in "\"'":
                quote = char
            index += 1
        yield Word(text[begin : min(index, size)], begin)


def _directives(text: str, at: int) -> dict[str, Span]:
    """The parser directives: comments `# name=value` before anything else.

    After a shebang the frontend alone is looked for (BuildKit, `parser.DetectSyntax`).
    """
    found: dict[str, Span] = {}
    counting: tuple[str, ...] = _DIRECTIVES
    if text.startswith("#!", at):
        counting, at = ("syntax",), (text.find("\n", at) + 1 or len(text))
    while at < len(text):
        end = text.find("\n", at)
        end = len(text) if end < 0 else end
        match = _DIRECTIVE.fullmatch(text[at:end].rstrip("\r"))
        if not match:
            break
        name = match[1].lower()
        if name in found:
            raise Unreadable(f"the parser directive {name} stands here twice", at)
        if name in counting:
            found[name] = Span(at + match.start(2), at + match.end(2))
        at = end + 1
    return found


def _instructions(text: str, at: int, escape: str) -> Iterator[Instruction]:
    lines = _Lines(text, at)
    while (line := lines.next()) is not None:
        body, offset = line
        stripped = body.lstrip(_SPACE)
        if not stripped or stripped[0] == "#":
            continue
        start = offset + len(body) - len(stripped)
        fragment, more = _continued(stripped, escape)
        parts, pieces, length = [fragment], [(0, start)], len(fragment)
        while more and (line := lines.next()) is not None:
            body, offset = line
            head = body.lstrip(_SPACE)
            if not head or head[0] == "#":  # inside an instruction both count for nothing
                continue
            fragment, more = _continued(body, escape)
            parts.append(fragment)
            pieces.append((length, offset))
            length += len(fragment)
        whole = "".join(parts).rstrip(_SPACE)
        if not whole.strip(_SPACE):
            continue
        yield _instruction(whole, start, pieces, lines, escape)


def _instruction(
    whole: str, start: int, pieces: list[tuple[int, int]], lines: _Lines, escape: str
) -> Instruction:
    keyword, at = _keyword(whole)
    if keyword not in _KNOWN:
        raise Unreadable(f"unknown instruction {keyword[:40]!r}", start)
    made = Instruction(keyword, whole[at:], start, tuple((i - at, o) for i, o in pieces))
    inner = made.onbuild() if keyword == "ONBUILD" else made
    if inner.keyword in _HEREDOC_WORDS and "<<" in inner.text:
        _skip_heredocs(inner, lines, escape)
    return made


def _keyword(text: str) -> tuple[str, int]:
    """The first word in upper case, and where the second begins."""
    match = _FIRST.match(text)
    return (match[1].upper(), match.end()) if match else ("", len(text))


def _continued(line: str, escape: str) -> tuple[str, bool]:
    """The line without a continuation at its end, and whether there was one."""
    trimmed = line.rstrip(" \t")
    if trimmed.endswith(escape) and trimmed[-2:-1] != escape:
        return trimmed[:-1], True
    return line, False


def _skip_heredocs(instruction: Instruction, lines: _Lines, escape: str) -> None:
    _, at = instruction.flags(escape)
    if instruction.text[at : at + 1] == "[":
        return
    for word in words(instruction.text, escape, at):
        match = _HEREDOC.fullmatch(word.text)
        if not match:
            continue
        name = "".join(c for c in match[2] if c not in "\"'" + escape)
        while (line := lines.next()) is not None:
            if (line[0].lstrip("\t") if match[1] else line[0]) == name:
                break
        else:
            raise Unreadable(f"the here-document {name[:40]!r} does not end", instruction.offset(word.at))


class _Lines:
    """Lines with their offsets, one after the other."""

    def __init__(self, text: str, at: int) -> None:
        self._lines = iter(text[at:].split("\n"))
        self._at = at

    def next(self) -> tuple[str, int] | None:
        raw = next(self._lines, None)
        if raw is None:
            return None
        offset, self._at = self._at, self._at + len(raw) + 1
        return raw.rstrip("\r"), offset
