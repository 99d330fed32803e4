"""What pure functions of bytes came to, so that one run reads the same bytes once."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class Memo:
    """The results of pure functions by their arguments, for as long as one run.

    A promotion verifies an image where it is and where it arrives: what is signed is the same bytes,
    so it says the same there, and by the same key. What raised is not remembered.
    """

    def __init__(self) -> None:
        self._known: dict[Hashable, Any] = {}

    def of(self, function: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        """`function(*arguments)`; all arguments are immutable, and the result is not changed by anybody."""
        key = (function, arguments, tuple(named.items()))
        if key not in self._known:
            self._known[key] = function(*arguments, **named)
        found: T = self._known[key]
        return found
