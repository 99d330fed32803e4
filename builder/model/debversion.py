"""The order of Debian versions. Source: deb-version(7), "Sorting algorithm"."""

from __future__ import annotations

import re
from functools import total_ordering
from itertools import zip_longest

_PARTS = re.compile(r"(\D*)(\d*)")


@total_ordering
class DebianVersion:
    """`[epoch:]upstream[-revision]`, to be compared with others; any text can be one."""

    __slots__ = ("_epoch", "_revision", "_upstream", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        epoch, colon, rest = text.partition(":")
        self._epoch = int(epoch) if colon and epoch.isdecimal() and epoch.isascii() else 0
        upstream, dash, revision = (rest if colon else text).rpartition("-")
        self._upstream, self._revision = (upstream, revision) if dash else (revision, "")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, DebianVersion) and self._compare(other) == 0

    def __lt__(self, other: DebianVersion) -> bool:
        return self._compare(other) < 0

    def __hash__(self) -> int:
        raise TypeError("versions that are written differently can be equal")

    def __repr__(self) -> str:
        return f"DebianVersion({self.text!r})"

    def _compare(self, other: DebianVersion) -> int:
        if self._epoch != other._epoch:
            return self._epoch - other._epoch
        return _compare(self._upstream, other._upstream) or _compare(self._revision, other._revision)


def _compare(one: str, two: str) -> int:
    """Letters and digits in turn: letters by their weight, digits as numbers."""
    for (word, number), (other, count) in zip_longest(
        _PARTS.findall(one), _PARTS.findall(two), fillvalue=("", "")
    ):
        for a, b in zip_longest(word, other, fillvalue=""):
            if _weight(a) != _weight(b):
                return _weight(a) - _weight(b)
        if int(number or 0) != int(count or 0):
            return int(number or 0) - int(count or 0)
    return 0


def _weight(character: str) -> int:
    """`~` is before everything, even the end; letters are before other signs."""
    if character == "~":
        return -1
    if not character:
        return 0
    return ord(character) + (0 if character.isalpha() else 256)
