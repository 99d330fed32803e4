"""The night: its steps in order, what became of each, and what is blocked by what, since when.

Every step can be cut anywhere and done again; so a night that was killed is completed by the next one.
A step that fails is told and the others go on, unless they need what it would have given.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import fcntl
import json
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from builder.errors import DefinitionError, GoldsmithError, ToolError
from builder.model.digest import Digest
from builder.model.outcome import ImageEnd
from builder.model.plan import PlannedImage
from builder.report import Reporter, duration
from builder.store import StateBusy, read_file, write_atomically

_RECORD_MAX = 4 << 20  # bytes
_SECONDS = "seconds.json"
_LOOK_SECONDS = 0.5  # between two looks at whether another night has ended
DENIED = 4  # the exit code of a night in which something is blocked


@dataclass(frozen=True, slots=True)
class Step:
    """A step of the night; it needs the steps `after` to have succeeded. `act` returns what it did.

    `expect` says how many seconds it will take, where that is not what it took before.
    """

    name: str
    act: Callable[[], str]
    after: tuple[str, ...] = ()
    expect: Callable[[], float | None] | None = None


@dataclass(frozen=True, slots=True)
class StepEnd:
    """What became of a step: `done`, `failed`, or `skipped` because of another one."""

    name: str
    state: str
    detail: str = ""
    seconds: float = 0.0
    error: GoldsmithError | None = None


@dataclass(frozen=True, slots=True)
class Promoted:
    """What became of the promotion of one image: `promoted`, `in place`, or why it was refused.

    `changes` are the lines of its change record, in short.
    """

    ref: str
    state: str
    detail: str = ""
    error: GoldsmithError | None = None
    changes: tuple[str, ...] = ()


class Deprecated(Protocol):
    """An image that another one has replaced."""

    @property
    def ref(self) -> str:
        """`NAME:TAG`."""

    @property
    def digest(self) -> Digest:
        """The image that is not to be used any more."""

    @property
    def replacement(self) -> str:
        """What to use instead."""


@dataclass(frozen=True, slots=True)
class Blocked:
    """Something that waits for somebody: what, for which reason, since when, and what to do."""

    what: str
    by: str
    since: dt.datetime
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Night:
    """A whole night; `cut` is the step at which the one before was killed, if it was."""

    began: dt.datetime
    steps: tuple[StepEnd, ...]
    images: tuple[ImageEnd, ...] = ()
    promoted: tuple[Promoted, ...] = ()
    blocked: tuple[Blocked, ...] = ()
    cut: str = ""
    seconds: float = field(default=0.0)
    deprecated: tuple[Deprecated, ...] = ()

    @property
    def exit_code(self) -> int:
        """That of the first failed step or image; 4 when something is blocked; else 0."""
        errors = [s.error for s in self.steps if s.error] + [i.error for i in self.images if i.error]
        if errors:
            return errors[0].exit_code
        return DENIED if self.blocked else 0


@contextlib.contextmanager
def only_one(folder: Path, wait_seconds: float) -> Iterator[None]:
    """One night at a time (the kernel's lock, which a killed one does not leave behind).

    Waits for another one for so long; raises StateBusy then.
    """
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
    ends = time.monotonic() + wait_seconds
    pause = threading.Event()
    try:
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= ends:
                    raise StateBusy(
                        "another night is going on",
                        context=str(folder),
                        hint="wait for it to end; --wait SECONDS waits here",
                    ) from None
                pause.wait(_LOOK_SECONDS)
        yield
    finally:
        os.close(handle)


def go_through(
    steps: Sequence[Step], folder: Path, reporter: Reporter, ends: dict[str, StepEnd] | None = None
) -> tuple[tuple[StepEnd, ...], str]:
    """Take the steps in order; returns what became of each, and where the night before was cut.

    `ends` is filled meanwhile, so that a step can look at those before it. Only errors that a user
    can act on are kept; a bug ends the night.
    """
    mark = folder / "step"
    cut = ""
    with contextlib.suppress(OSError):
        cut = read_file(mark, 200).decode("utf-8", "replace")
    ends = {} if ends is None else ends
    measured = _seconds(folder)
    for number, step in enumerate(steps):
        missing = [name for name in step.after if ends[name].state != "done"]
        if missing:
            ends[step.name] = StepEnd(step.name, "skipped", f"because of {missing[0]}")
            reporter.note(f"  {step.name}: skipped {ends[step.name].detail}")
            continue
        write_atomically(mark, step.name.encode())
        _tell_begin(steps, number, measured, reporter)
        began = time.monotonic()
        try:
            with reporter.stage("nightly", step.name):
                detail = step.act()
            ends[step.name] = StepEnd(step.name, "done", detail, time.monotonic() - began)
            measured[step.name] = ends[step.name].seconds
        except (GoldsmithError, OSError) as problem:
            error = problem if isinstance(problem, GoldsmithError) else _of_the_system(problem)
            took = time.monotonic() - began
            ends[step.name] = StepEnd(step.name, "failed", error.message, took, error)
        reporter.note(f"  {step.name}: {ends[step.name].state}: {ends[step.name].detail}")
    reporter.status("night", "")
    write_atomically(folder / _SECONDS, json.dumps(measured).encode())
    mark.unlink(missing_ok=True)
    return tuple(ends.values()), cut


def _tell_begin(
    steps: Sequence[Step], number: int, measured: Mapping[str, float], reporter: Reporter
) -> None:
    """Which step begins, what comes after it, and how long all of it took before."""
    known = [seconds for s in steps[number:] if (seconds := _expected(s, measured)) is not None]
    left = f", about {duration(sum(known))} left" if known else ""
    text = f"[{number + 1}/{len(steps)}] {steps[number].name}"
    reporter.note(text + left)
    after = ", ".join(s.name for s in steps[number + 1 :])
    reporter.status("night", text + (f"; then {after}" if after else "") + left)


def _of_the_system(error: OSError) -> ToolError:
    return ToolError(
        f"this machine refused: {error.strerror or type(error).__name__}",
        context=str(error),
        hint="see to the rights, the room on the disk and the limits there",
        reference="system-refused",
    )


def _expected(step: Step, measured: Mapping[str, float]) -> float | None:
    found = None
    with contextlib.suppress(GoldsmithError):  # what is wrong, the step itself will say
        found = step.expect() if step.expect is not None else None
    return measured.get(step.name) if found is None else found


def _seconds(folder: Path) -> dict[str, float]:
    """How long the steps took in earlier nights; what cannot be read is not known."""
    with contextlib.suppress(OSError, ValueError):
        value = json.loads(read_file(folder / _SECONDS, _RECORD_MAX))
        if isinstance(value, dict):
            return {str(k): float(v) for k, v in value.items() if isinstance(v, int | float) and v >= 0}
    return {}


def obstacles(
    steps: Iterable[StepEnd],
    planned: Iterable[PlannedImage],
    images: Iterable[ImageEnd],
    promoted: Iterable[Promoted],
) -> dict[str, tuple[str, str]]:
    """What is blocked, by what, and what to do: one reason each, the one that is found first."""
    found: dict[str, tuple[str, str]] = {}
    for step in steps:
        if step.error is not None:
            found.setdefault(f"step {step.name}", (_told(step.error), step.error.hint))
    for end in images:
        if end.error is not None:
            found.setdefault(end.ref, (_told(end.error), end.error.hint))
        elif end.state.value in ("denied", "skipped", "held"):
            found.setdefault(end.ref, (end.because or "denied by the policy", f"goldsmith why {end.ref}"))
    for image in planned:
        if image.action.value == "blocked":
            reasons = "; ".join(map(str, image.reasons))
            found.setdefault(image.ref, (reasons, "goldsmith plan"))
    for one in promoted:
        if one.error is not None:
            found.setdefault(f"promotion of {one.ref}", (_told(one.error), one.error.hint))
    return found


def _told(error: GoldsmithError) -> str:
    """An error's message; of mistakes in files, which it only counts, the first as well."""
    first = error.context.partition("\n")[0] if isinstance(error, DefinitionError) else ""
    return f"{error.message}: {first}" if first else error.message


def not_looked_at(steps: Iterable[StepEnd]) -> Callable[[str], bool]:
    """Tells of an obstacle whether this night could not look at it: its step did not come to its end."""
    known = {step.name: step.state for step in steps}
    done = {name for name, state in known.items() if state == "done"}

    def unsure(what: str) -> bool:
        if what.startswith("step "):
            return known.get(what.removeprefix("step "), "skipped") == "skipped"
        return ("promote" if what.startswith("promotion of ") else "run") not in done

    return unsure


def since_when(
    found: Mapping[str, tuple[str, str]],
    folder: Path,
    now: dt.datetime,
    unsure: Callable[[str], bool] = lambda what: False,
) -> tuple[Blocked, ...]:
    """The same with the night in which each was blocked first; the folder remembers that.

    What was blocked before and is not found now is forgotten, unless this night is `unsure` of it.
    """
    path = folder / "blocked.json"
    known: dict[str, str] = {}
    with contextlib.suppress(OSError, ValueError):
        value = json.loads(read_file(path, _RECORD_MAX))
        known = {str(k): str(v) for k, v in value.items()} if isinstance(value, dict) else {}
    out = []
    for what, (by, hint) in found.items():
        since = now
        with contextlib.suppress(KeyError, ValueError):
            since = min(now, dt.datetime.fromisoformat(known[what]))
        out.append(Blocked(what, by, since, hint))
    kept = {what: since for what, since in known.items() if unsure(what)}
    kept |= {one.what: one.since.isoformat() for one in out}
    if kept != known:
        write_atomically(path, json.dumps(kept, sort_keys=True, indent=1).encode())
    return tuple(sorted(out, key=lambda b: (b.since, b.what)))
