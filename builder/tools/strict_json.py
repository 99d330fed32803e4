"""JSON from programs and strangers: small enough, unambiguous, and an object, or refused.

Source: RFC 8259; beyond it duplicate names, NaN, infinities and deep nesting are refused.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from builder.errors import ToolError

_HINT = "what the program wrote cannot be used; `goldsmith doctor` tells which one runs; then run again"


def load_object(path: Path, *, size_max: int, what: str) -> dict[str, Any]:
    """The JSON object in a file of at most `size_max` bytes; raises ToolError that names `what`."""
    try:
        with open(path, "rb") as handle:
            data = handle.read(size_max + 1)
    except OSError as error:
        raise ToolError(f"{what} is missing", context=str(error), hint=_HINT) from None
    return parse_object(data, size_max=size_max, what=what)


def parse_object(data: bytes, *, size_max: int, what: str) -> dict[str, Any]:
    """The JSON object in `data`; raises ToolError that names `what` when it is anything else."""
    if not data.strip():
        raise ToolError(f"{what} is empty", hint=_HINT)
    if len(data) > size_max:
        raise ToolError(f"{what} is larger than {size_max} bytes", hint=_HINT)
    try:
        value = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=_unique,
            parse_constant=_refuse_constant,
            parse_float=_finite,
        )
    except (ValueError, RecursionError) as error:
        raise ToolError(f"{what} is not readable JSON", context=str(error)[:300], hint=_HINT) from None
    if not isinstance(value, dict):
        raise ToolError(f"{what} is not a JSON object", hint=_HINT)
    return value


def clean(value: object, length_max: int = 300) -> str:
    """A string of at most `length_max` characters without control characters; "" for anything else."""
    if not isinstance(value, str):
        return ""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in value[:length_max])


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name occurs twice in one object")
    return found


def _refuse_constant(text: str) -> float:
    raise ValueError(f"{text} is not a JSON number")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("a number is too large")
    return number
