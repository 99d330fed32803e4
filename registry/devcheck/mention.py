"""A place in a file that names an image; offsets are bytes of the file."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass


class Unreadable(ValueError):
    """A file cannot be understood; `offset` is where (in bytes), the text says why."""

    def __init__(self, message: str, offset: int = 0) -> None:
        super().__init__(message)
        self.offset = offset


@dataclass(frozen=True, slots=True)
class Span:
    """Bytes `start` to `end` (exclusive) of a file."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Mention:
    """One image: its reference as far as it is known, and where it stands.

    `place` is for people (`FROM`, `image of the service web`). `span` is what a finding marks, and
    `anchor` the offset of the instruction's or line's beginning, above which an ignoring comment may
    stand. `edit` are the bytes to replace by another reference; None when there is no such place,
    then `fixed_by` says why. `problem` says why `text` is not the whole truth, empty when it is.
    """

    text: str
    span: Span
    place: str
    anchor: int
    edit: Span | None = None
    fixed_by: str = ""
    problem: str = ""


class Lines:
    """Byte offsets of a file as lines and columns, both from 1; a column counts characters."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._starts = [0]
        at = data.find(b"\n")
        while at >= 0:
            self._starts.append(at + 1)
            at = data.find(b"\n", at + 1)

    def position(self, offset: int) -> tuple[int, int]:
        """Line and column of an offset; a byte order mark is no character."""
        line = bisect_right(self._starts, offset)
        start = self._starts[line - 1]
        before = self._data[start:offset].decode("utf-8", "replace")
        return line, len(before.removeprefix("\N{ZERO WIDTH NO-BREAK SPACE}")) + 1

    def line(self, number: int) -> bytes:
        """The bytes of a line (from 1) without its end."""
        start = self._starts[number - 1]
        end = self._starts[number] if number < len(self._starts) else len(self._data)
        return self._data[start:end].rstrip(b"\r\n")
