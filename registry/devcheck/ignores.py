"""Comments that ignore a rule at one place; they need a reason. Pure.

    # goldsmith: ignore[foreign-image]: the vendor signs it, agreed in TICKET-12

The comment stands right above the instruction or line, at the end of the line (YAML only), or right
below a `# syntax=` directive, which nothing may stand above.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from registry.devcheck.mention import Lines, Mention

_COMMENT = re.compile(rb"#\s*goldsmith:\s*ignore\b(.*)$", re.IGNORECASE)
_FORM = re.compile(r"\[([a-z, -]+)\]:?\s*(.*)")
_LINES_MAX = 20  # comment lines above that are looked at
_REASON_MIN = 5  # characters


@dataclass(frozen=True, slots=True)
class Ignore:
    """A comment in a line: the rules it ignores, and why; `problem` says why it does not count."""

    line: int
    rules: frozenset[str]
    reason: str
    problem: str = ""


def possible(data: bytes) -> bool:
    """Whether a file can have such a comment at all."""
    return b"goldsmith:" in data.lower()


def around(mention: Mention, lines: Lines, *, inline: bool, known: frozenset[str]) -> tuple[Ignore, ...]:
    """The comments that belong to a mention; `inline` are those at the end of its own line."""
    first, own = lines.position(mention.anchor)[0], lines.position(mention.span.start)[0]
    below = mention.place == "syntax directive"
    numbers = {own} if inline else set()
    for start in {first, own}:
        for number in (
            range(start + 1, start + _LINES_MAX) if below else range(start - 1, start - _LINES_MAX, -1)
        ):
            if number < 1 or not _is_comment(lines, number):
                break
            numbers.add(number)
    found = (_parse(lines.line(number), number, known) for number in sorted(numbers))
    return tuple(one for one in found if one)


def _is_comment(lines: Lines, number: int) -> bool:
    try:
        return lines.line(number).lstrip().startswith(b"#")
    except IndexError:
        return False


def _parse(line: bytes, number: int, known: frozenset[str]) -> Ignore | None:
    match = _COMMENT.search(line)
    if not match:
        return None
    form = _FORM.fullmatch(match[1].decode("utf-8", "replace").strip())
    if not form:
        return Ignore(number, frozenset(), "", "it names no rule: write ignore[RULE]: reason")
    rules = frozenset(r.strip() for r in form[1].split(",") if r.strip())
    reason = form[2].strip()
    unknown = sorted(rules - known)
    if unknown:
        return Ignore(number, rules, reason, f"there is no rule {unknown[0][:40]}")
    if len(reason) < _REASON_MIN:
        return Ignore(number, rules, reason, "it gives no reason")
    return Ignore(number, rules, reason)
