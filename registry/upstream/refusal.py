"""The one way to say no to what comes from outside."""

from __future__ import annotations

from typing import NoReturn

from builder.errors import PolicyDenied

_QUOTED_MAX = 160  # characters of hostile text that a message quotes
_HINT = "nothing of it was kept; ask those who made the image, or take another digest of it"


class ImportRefused(PolicyDenied):
    """The image was looked at, and is malformed, hostile, or not an image that we take.

    `reference` names the reason. What could not be looked at is a RegistryError instead.
    """


def refuse(reference: str, message: str, *, context: str = "", hint: str = _HINT) -> NoReturn:
    """Raise ImportRefused."""
    raise ImportRefused(message, context=context, hint=hint, reference=reference)


def quoted(value: object) -> str:
    """Hostile data as a short quotation."""
    return repr(value)[:_QUOTED_MAX]
