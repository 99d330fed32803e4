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

from builder.errors import GoldsmithError
from builder.model.digest import Digest
from builder.model.outcome import ImageEnd
from builder.model.plan import PlannedImage
from builder.report import Reporter
from builder.store import StateBusy, read_file, write_atomically

_RECORD_MAX = 4 << 20  # bytes
_LOOK_SECONDS = 0.5  # between two looks at whether another night has ended
DENIED = 4  # the exit code of a night in which something is blocked


@dataclass(frozen=True, slots=True)
class Step:
    """A step of the night; it needs the steps `after` to have succeeded. `act` returns what it did."""

    name: str
    act: Callable[[], str]
    after: tuple[str, ...] = ()


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
    """What became of the promotion of one image: `promoted`, `in place`, or why it was refused."""

    ref: str
    state: str
    detail: str = ""
    error: GoldsmithError | None = None


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


def go_through(steps: Sequence[Step], folder: Path, reporter: Reporter) -> tuple[tuple[StepEnd, ...], str]:
    """Take the steps in order; returns what became of each, and where the night before was cut.

    Only errors that a user can act on are kept; a bug ends the night.
    """
    mark = folder / "step"
    cut = ""
    with contextlib.suppress(OSError):
        cut = read_file(mark, 200).decode("utf-8", "replace")
    ends: dict[str, StepEnd] = {}
    for step in steps:
        missing = [name for name in step.after if ends[name].state != "done"]
        if missing:
            ends[step.name] = StepEnd(step.name, "skipped", f"because of {missing[0]}")
            continue
        write_atomically(mark, step.name.encode())
        began = time.monotonic()
        try:
            with reporter.stage("nightly", step.name):
                detail = step.act()
            ends[step.name] = StepEnd(step.name, "done", detail, time.monotonic() - began)
        except GoldsmithError as error:
            took = time.monotonic() - began
            ends[step.name] = StepEnd(step.name, "failed", error.message, took, error)
        reporter.note(f"  {step.name}: {ends[step.name].state}: {ends[step.name].detail}")
    mark.unlink(missing_ok=True)
    return tuple(ends.values()), cut


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
            found.setdefault(f"step {step.name}", (step.error.message, step.error.hint))
    for end in images:
        if end.error is not None:
            found.setdefault(end.ref, (end.error.message, end.error.hint))
        elif end.state.value in ("denied", "skipped", "held"):
            found.setdefault(end.ref, (end.because or "denied by the policy", f"goldsmith why {end.ref}"))
    for image in planned:
        if image.action.value == "blocked":
            reasons = "; ".join(map(str, image.reasons))
            found.setdefault(image.ref, (reasons, "goldsmith plan"))
    for one in promoted:
        if one.error is not None:
            found.setdefault(f"promotion of {one.ref}", (one.error.message, one.error.hint))
    return found


def not_looked_at(steps: Iterable[StepEnd]) -> Callable[[str], bool]:
    """Tells of an obstacle whether this night could not look at it: its step did not come to its end."""
    done = {step.name for step in steps if step.state == "done"}

    def unsure(what: str) -> bool:
        if what.startswith("step "):
            return False
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
