"""What a plan says of each image: what would be done with it, and why."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class Action(StrEnum):
    """What the next run would do with an image.

    `build` makes a new digest; `release` takes the same one through scan and verdict again;
    `held` is not done though it is due (a guard, or a parent that is held); `blocked` cannot be
    done before somebody does something.
    """

    BUILD = "build"
    RELEASE = "release"
    NOTHING = "nothing"
    HELD = "held"
    BLOCKED = "blocked"


class Cause(StrEnum):
    """What changed, so that an image is due."""

    NEW = "new"
    DEFINITION = "definition"
    TEMPLATE = "template"
    PACKAGE = "package"
    BASE = "base"
    TOOL = "tool"
    POLICY = "policy"
    DATABASE = "database"
    KEYS = "keys"
    VERDICT = "verdict"
    LOST = "lost"
    REQUESTED = "requested"
    LOCK = "lock"


@dataclass(frozen=True, slots=True)
class Reason:
    """One cause, with what was seen of it: `openssl 3.5.1-1 -> 3.5.4-1`."""

    cause: Cause
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.cause.value}: {self.detail}" if self.detail else self.cause.value


@dataclass(frozen=True, slots=True)
class PlannedImage:
    """One image: what is to be done, why, and how urgent that is.

    `held` says what keeps it back. `exploited`, `consumers` and `since` are its urgency,
    inherited from the images that wait for it.
    """

    ref: str
    action: Action
    reasons: tuple[Reason, ...] = ()
    held: str = ""
    exploited: bool = False
    consumers: int = 0
    since: dt.datetime | None = None

    def as_dict(self) -> dict[str, object]:
        """The image as JSON data."""
        return {
            "ref": self.ref,
            "action": self.action.value,
            "reasons": [{"cause": r.cause.value, "detail": r.detail} for r in self.reasons],
            "held": self.held or None,
            "known_exploited": self.exploited,
            "consumers": self.consumers,
            "since": self.since.isoformat() if self.since else None,
        }


@dataclass(frozen=True, slots=True)
class Plan:
    """All images, in the order in which they would be taken: parents first, then by urgency."""

    images: tuple[PlannedImage, ...]

    @property
    def counts(self) -> Mapping[Action, int]:
        """How many images each action has."""
        return {action: sum(i.action is action for i in self.images) for action in Action}

    @property
    def due(self) -> tuple[str, ...]:
        """The images that a run has to take, in order."""
        return tuple(i.ref for i in self.images if i.action in (Action.BUILD, Action.RELEASE))

    def as_dict(self) -> dict[str, object]:
        """The plan as JSON data."""
        return {
            "counts": {action.value: count for action, count in self.counts.items()},
            "images": [image.as_dict() for image in self.images],
        }
