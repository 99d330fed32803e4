"""How extensions are asked: in a thread of their own, for a while, and never trusted to end.

What raises, hangs or answers with something else is an error that names the extension, never a pass.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar

from builder.errors import ToolError
from builder.model.definition import is_name

SETTING = "GOLDSMITH_EXTENSIONS"
_THREAD = "extension"
_TEXT_MAX = 1000  # characters of a title, and so on
_ERROR_MAX = 300  # characters of what an extension raised

T = TypeVar("T")


class NoAnswer(Exception):
    """An extension did not answer; the text says why."""


def answer(question: Callable[[], T], seconds_max: float) -> T:
    """The answer, asked for in a thread that nobody waits for any longer; raises NoAnswer."""
    answers: list[T] = []
    wrong: list[str] = []

    def act() -> None:
        try:
            answers.append(question())
        except BaseException as error:  # noqa: BLE001 - told by who asked
            wrong.append(told(error))

    thread = threading.Thread(target=act, daemon=True, name=_THREAD)
    thread.start()
    thread.join(seconds_max)
    if wrong:
        raise NoAnswer(wrong[0])
    if not answers:
        raise NoAnswer(f"it did not end within {seconds_max:g} s")
    return answers[0]


def told(error: BaseException) -> str:
    """An error of an extension in words, which are its own code, too."""
    kind = type(error).__name__[:80]
    try:
        return f"{kind}: {str(error)[:_ERROR_MAX]}"
    except BaseException:  # noqa: BLE001 - whatever it raises, it has no words
        return kind


def unanswered() -> bool:
    """Whether an extension is still at a question that nobody waits for any more."""
    return any(thread.name == _THREAD for thread in threading.enumerate())


@dataclass(frozen=True, slots=True)
class Guard:
    """How an extension is asked: in a thread of its own, for a while, and never trusted to end."""

    name: str
    seconds_max: float

    def ask(self, question: Callable[[], T]) -> T:
        """The answer; raises ToolError that names the extension when there is none."""
        try:
            return answer(question, self.seconds_max)
        except NoAnswer as error:
            self.fail(str(error))

    def fail(self, why: str) -> NoReturn:
        """Raise ToolError: the extension gave no answer, or none that counts."""
        raise ToolError(
            f"the extension {self.name}: {why}",
            hint="mend the package that brings it; without its answer nothing is approved",
            reference="extension-failed",
        )

    def need(self, value: object, kind: type[T]) -> T:
        """The value, which has to be of that type; raises ToolError."""
        if not isinstance(value, kind):
            broken(self.name, f"it is a {type(value).__name__}, not a {kind.__name__.lower()}")
        return value

    def texts(self, identifier: object, *texts: object) -> None:
        """Raise ToolError unless the id is a name and each text has a sensible length."""
        if not all(isinstance(t, str) and 0 < len(t) <= _TEXT_MAX for t in (identifier, *texts)):
            broken(self.name, "its id, title and other texts must be text, and not too long")
        if not is_name(str(identifier)):
            broken(self.name, f"nothing can have the id {str(identifier)[:80]!r}")

    def free(self, identifier: str, taken: Iterable[str]) -> None:
        """Raise ToolError when the id is one of ours."""
        if identifier in taken:
            broken(self.name, f"{identifier!r} is there already")


def several(given: Any) -> Iterator[Any]:
    """What was answered, one by one; an empty text or mapping is not the same as nothing found."""
    if isinstance(given, str | bytes | Mapping):
        raise TypeError(f"it answers with a {type(given).__name__}, not with several")
    return iter(given)


def broken(name: str, why: str) -> NoReturn:
    """Raise ToolError: what that package brings is none of ours, or not what its entry point says."""
    raise ToolError(
        f"the extension {name} cannot be used",
        context=why,
        hint=f"mend the package that brings it, or take it out of {SETTING}",
        reference="extension-broken",
    )
