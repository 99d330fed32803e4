"""The three ways in which the question who somebody is can end: known, not proved, cannot be told now."""

from __future__ import annotations

from dataclasses import dataclass

from registry.access.identity import Identity


@dataclass(frozen=True, slots=True)
class Known:
    """Somebody's identity, and until when it is proved (seconds since the epoch)."""

    identity: Identity
    until: float


class NotAuthenticated(Exception):
    """What was shown proves nobody's identity; the message is for whoever showed it."""


class CannotTell(Exception):
    """It cannot be found out at the moment who shows this: neither a yes nor a no."""
