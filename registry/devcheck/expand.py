"""Variables in words, as Dockerfiles and Compose files have them; without the environment.

Sources: Dockerfile reference, "Environment replacement"; Compose specification, "Interpolation".
Patterns (`${X#…}`, `${X/…}`) are not computed: such a word is not resolved.
"""

from __future__ import annotations

import re
from collections.abc import Callable

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*|[0-9@*#?$!-]")
_LENGTH_MAX = 4096  # characters of a result
_DEPTH_MAX = 16  # variables in defaults of variables

Lookup = Callable[[str], str | None]


class Unresolved(ValueError):
    """The word depends on something that is not in the file; the text says on what."""


def expand(word: str, lookup: Lookup, *, escape: str = "\\") -> str:
    """A Dockerfile's word without quotes, its variables replaced; raises Unresolved."""
    return _Word(word, lookup, escape).all()


def interpolate(text: str, length_max: int = _LENGTH_MAX) -> str:
    """A Compose value with its variables' defaults (none is set), `$$` as `$`; raises Unresolved."""
    word = _Word(text.replace("$$", "\0"), lambda name: None, "", length_max=length_max)
    return word.all().replace("\0", "$")


def plain(word: str) -> bool:
    """Whether a word stands for itself: no variable, quote or escape in it."""
    return not any(c in word for c in "$\"'\\`")


class _Word:
    def __init__(
        self, word: str, lookup: Lookup, escape: str, depth: int = 0, length_max: int = _LENGTH_MAX
    ) -> None:
        self._length_max = length_max
        self._word, self._lookup, self._escape, self._depth = word, lookup, escape, depth
        self._at, self._out, self._length = 0, list[str](), 0
        if depth > _DEPTH_MAX:
            raise Unresolved("its variables are nested too deeply")

    def all(self) -> str:
        word, quoted = self._word, ""
        while self._at < len(word):
            char = word[self._at]
            self._at += 1
            if self._escape and char == self._escape and quoted != "'":
                if self._at < len(word):
                    following = word[self._at]
                    kept = quoted and following not in ('"', "$", self._escape)
                    self._add(char + following if kept else following)
                    self._at += 1
            elif self._escape and char in "\"'" and quoted in ("", char):
                quoted = "" if quoted else char
            elif char == "$" and quoted != "'":
                self._add(self._variable())
            else:
                self._add(char)
        return "".join(self._out)

    def _add(self, text: str) -> None:
        self._length += len(text)
        if self._length > self._length_max:
            raise Unresolved(f"it is longer than {self._length_max} characters")
        self._out.append(text)

    def _variable(self) -> str:
        word = self._word
        braced = word[self._at : self._at + 1] == "{"
        self._at += braced
        match = _NAME.match(word, self._at)
        if not match:
            if braced:
                raise Unresolved("it has a malformed variable")
            return "$"
        name, self._at = match[0], match.end()
        value = self._lookup(name)
        if not braced:
            return self._known(name, value)
        end = _closing(word, self._at)
        inside, self._at = word[self._at : end], end + 1
        if not inside:
            return self._known(name, value)
        colon = inside.startswith(":")
        operator, argument = inside[colon : colon + 1], inside[colon + 1 :]
        unset = value is None or (colon and not value)
        if operator == "-":
            return self._nested(argument) if unset else value or ""
        if operator == "+":
            return "" if unset else self._nested(argument)
        if operator == "?" and not unset:
            return value or ""
        raise Unresolved(
            f"the variable {name} is {'not set in this file' if unset else 'changed by a pattern'}"
        )

    def _nested(self, text: str) -> str:
        return _Word(text, self._lookup, self._escape, self._depth + 1).all()

    def _known(self, name: str, value: str | None) -> str:
        if value is None:
            raise Unresolved(f"the variable {name} has no value in this file")
        return value


def _closing(word: str, at: int) -> int:
    depth = 1
    for index in range(at, len(word)):
        if word[index] == "{" and word[index - 1] == "$":
            depth += 1
        elif word[index] == "}":
            depth -= 1
            if depth == 0:
                return index
    raise Unresolved("a variable's brace is not closed")
