"""The filters of templates: pure, and none makes more than a bounded text or list of what it gets."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from jinja2 import Undefined
from jinja2.exceptions import SecurityError

_VALUE_MAX = 1 << 16  # characters of a text, entries of a list
_CONVERSION = re.compile(r"%[-+ #0]*\d{0,3}(\.\d{1,3})?[sdioxX%]")


def size(value: Any) -> int:
    """Characters or entries of a value; 1 of anything else."""
    return len(value) if isinstance(value, str | bytes | list | tuple | dict | set | frozenset) else 1


def check_size(wanted: int) -> None:
    """Raises SecurityError for a value that is larger than any template needs."""
    if wanted > _VALUE_MAX:
        raise SecurityError(f"a value of {wanted} characters or entries: at most {_VALUE_MAX} are allowed")


def check_order(name: str, value: Any) -> None:
    """Raises SecurityError where a set would be read in the order of chance."""
    if isinstance(value, set | frozenset) and name not in ("sort", "length"):
        raise SecurityError("a set has no order: sort it first")


def formatted(pattern: str, values: Any) -> str:
    """`pattern % values` with texts and numbers, and widths of at most three digits."""
    if _CONVERSION.sub("", pattern).count("%"):
        raise SecurityError("only simple conversions are for templates, such as %04o or %s")
    given = values if isinstance(values, tuple) else (values,)
    return pattern % tuple(_text(v) if not isinstance(v, int | float) else v for v in given)


def _format(pattern: str, *values: Any) -> str:
    return formatted(pattern, values)


def _join(values: Iterable[Any], between: str = "") -> str:
    texts = [_text(v) for v in values]
    check_size(sum(map(len, texts)) + len(between) * len(texts))
    return between.join(texts)


def _text(value: Any) -> str:
    if not isinstance(value, str | int | float | Undefined):
        raise SecurityError(f"a {type(value).__name__} is no text")
    return str(value)


def _replace(text: str, old: str, new: str) -> str:
    check_size(len(text) + text.count(old) * len(new))
    return text.replace(old, new)


def _default(value: Any, other: Any = "") -> Any:
    return other if isinstance(value, Undefined) else value


FILTERS: Mapping[str, Callable[..., Any]] = {
    "default": _default,
    "first": lambda values: next(iter(values)),
    "format": _format,
    "join": _join,
    "last": lambda values: values[-1],
    "length": len,
    "list": list,
    "lower": str.lower,
    "replace": _replace,
    "sort": sorted,
    "trim": str.strip,
    "unique": lambda values: list(dict.fromkeys(values)),
    "upper": str.upper,
}
