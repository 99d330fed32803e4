"""Typed steps that a team brings: what a definition says of one, and the entries that it makes of that."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from builder.model.definition import Strict
from builder.model.extension import ExtensionIdentity
from builder.model.image import GeneratedEntry
from builder.model.platform import Platform


@dataclass(frozen=True, slots=True)
class Step:
    """A kind of step. `schema` is the type of what stands under `with`; `make` says what that puts
    into an image, in the operations that ours are made of: files, directories and links.

    `make` is a function of its arguments alone: it is asked twice. `identity` is set by who loads it.
    """

    id: str
    title: str
    schema: type[Strict]
    make: Callable[[Any, Platform], Iterable[GeneratedEntry]]
    identity: ExtensionIdentity | None = None
