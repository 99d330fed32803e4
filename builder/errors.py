"""The errors a user can meet: each has a message, a context, a hint and an exit code.

This module imports nothing of ours, so that everything may raise these. Only the
command line catches them; library code neither prints nor exits.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


class GoldsmithError(Exception):
    """Something the user can act on.

    `reference` is a stable kebab-case name for documentation and `--json`;
    `message` says what is wrong, `context` what was seen, `hint` what to do next.
    """

    exit_code = 1

    def __init__(self, message: str, *, context: str = "", hint: str = "", reference: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.context = context
        self.hint = hint
        self.reference = reference or _kebab(type(self).__name__)

    def __reduce__(self) -> tuple[object, ...]:
        """Errors travel between processes whole, whatever their constructors take."""
        return _restored, (type(self), self.args, self.__dict__)

    def as_dict(self) -> dict[str, object]:
        """The error as plain data for `--json`."""
        return {
            "error": self.reference,
            "message": self.message,
            "context": self.context,
            "hint": self.hint,
            "exit_code": self.exit_code,
        }


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake in a file: where it is (`path` inside the file, dotted) and how to mend it."""

    file: str
    path: str
    message: str
    hint: str = ""

    @property
    def where_and_what(self) -> str:
        """`FILE: PLACE: MISTAKE`; a mistake of the whole file has no place."""
        return ": ".join(part for part in (self.file, self.path, self.message) if part)


class DefinitionError(GoldsmithError):
    """One or more mistakes in the catalogue's files; all of them are reported at once."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        count = len(self.problems)
        super().__init__(
            f"{count} {'mistake' if count == 1 else 'mistakes'} in the catalogue",
            context="\n".join(
                p.where_and_what + (f" ({p.hint})" if p.hint and count > 1 else "") for p in self.problems
            ),
            hint=self.problems[0].hint if count == 1 else "",
        )

    def as_dict(self) -> dict[str, object]:
        return {
            **super().as_dict(),
            "problems": [
                {"file": p.file, "path": p.path, "message": p.message, "hint": p.hint} for p in self.problems
            ],
        }


class ChangedMeanwhile(DefinitionError):
    """A file of the catalogue is another one than when this run read it."""

    def __init__(self, files: Iterable[str]) -> None:
        hint = "leave the catalogue alone while it runs, or run from a clone of its own; then run it again"
        self.problems = tuple(
            Problem(file, "", "changed while this run was under way", hint) for file in files
        )
        GoldsmithError.__init__(
            self,
            "the catalogue was changed during the run, so nothing of this image was signed or published",
            context="\n".join(p.where_and_what for p in self.problems),
            hint=hint,
        )


class LockError(GoldsmithError):
    """The lock is missing, stale or contradicts itself, or the archive cannot be trusted."""


class NoSuchPackage(LockError):
    """The archive has no such package for a suite and architecture."""

    def __init__(self, suite: str, architecture: str, names: Iterable[str], *, context: str = "") -> None:
        self.names = tuple(sorted(names))
        super().__init__(
            f"{suite} has no package {', '.join(self.names)} for {architecture}",
            context=context,
            hint="look for the right name in the archive; names differ from release to release, "
            "and not every package is built for every architecture",
        )


class UsageError(GoldsmithError):
    """The command line or the environment asks for something that makes no sense."""

    exit_code = 2


class PolicyDenied(GoldsmithError):
    """The policy refused; the context lists every failed rule with its solution."""

    exit_code = 4


class ToolError(GoldsmithError):
    """An external program is missing, failed, hung, or gave an answer that cannot be trusted."""

    exit_code = 5


class RegistryError(GoldsmithError):
    """A registry could not be reached, refused, or returned other bytes than it promised."""

    exit_code = 6


class NotReproducible(GoldsmithError):
    """Two builds of the same input gave different digests."""

    exit_code = 7


def _restored(
    kind: type[GoldsmithError], args: tuple[object, ...], state: dict[str, object]
) -> GoldsmithError:
    error = kind.__new__(kind)
    error.args = args
    error.__dict__.update(state)
    return error


def _kebab(name: str) -> str:
    return "".join("-" + c.lower() if c.isupper() else c for c in name).lstrip("-")
