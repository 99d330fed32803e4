"""SPDX licence expressions: parsed strictly, and asked whether somebody accepts them.

Source: SPDX specification 2.3, annex D (licence expressions); categories are our own, after the
usual division of licences by what they ask of those who pass software on.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

NOASSERTION = "NOASSERTION"
PUBLIC_DOMAIN = "LicenseRef-public-domain"
_TEXT_MAX = 20_000  # characters of one expression
_DEPTH_MAX = 40
_TOKEN = re.compile(r"\s*(\(|\)|[A-Za-z0-9][A-Za-z0-9.+-]*)")

PERMISSIVE, WEAK, STRONG, NETWORK = "permissive", "weak-copyleft", "strong-copyleft", "network-copyleft"
CATEGORIES = ("public-domain", PERMISSIVE, WEAK, STRONG, NETWORK, "documentation", "unknown")
_BY_CATEGORY: dict[str, str] = {
    PUBLIC_DOMAIN: "public-domain",
    "CC0-1.0": "public-domain",
    "Unlicense": "public-domain",
    "0BSD": PERMISSIVE,
    **dict.fromkeys(
        [
            "Apache-1.1",
            "Apache-2.0",
            "Artistic-1.0-Perl",
            "Artistic-1.0",
            "Artistic-2.0",
            "BSD-1-Clause",
            "BSD-2-Clause",
            "BSD-3-Clause",
            "BSD-4-Clause",
            "BSD-4-Clause-UC",
            "BSD-Source-Code",
            "BSL-1.0",
            "bzip2-1.0.6",
            "CC-BY-3.0",
            "CC-BY-4.0",
            "curl",
            "FSFAP",
            "FSFUL",
            "FSFULLR",
            "FTL",
            "HPND",
            "ICU",
            "ISC",
            "Info-ZIP",
            "Libpng",
            "MIT",
            "MIT-0",
            "MIT-CMU",
            "MIT-open-group",
            "NTP",
            "OLDAP-2.8",
            "OpenSSL",
            "PHP-3.01",
            "PostgreSQL",
            "PSF-2.0",
            "Python-2.0",
            "RSA-MD",
            "Ruby",
            "SGI-B-2.0",
            "SMLNJ",
            "SunPro",
            "TCL",
            "Unicode-3.0",
            "Unicode-DFS-2016",
            "Unicode-TOU",
            "W3C",
            "WTFPL",
            "X11",
            "Zlib",
            "ZPL-2.1",
            "BlueOak-1.0.0",
            "Spencer-94",
            "NAIST-2003",
            "Beerware",
            "blessing",
            "HPND-sell-variant",
            "IJG",
            "libtiff",
        ],
        PERMISSIVE,
    ),
    **dict.fromkeys(
        [
            "LGPL-2.0-only",
            "LGPL-2.0-or-later",
            "LGPL-2.1-only",
            "LGPL-2.1-or-later",
            "LGPL-3.0-only",
            "LGPL-3.0-or-later",
            "MPL-1.1",
            "MPL-2.0",
            "CDDL-1.0",
            "EPL-1.0",
            "EPL-2.0",
            "CC-BY-SA-3.0",
            "CC-BY-SA-4.0",
            "OFL-1.1",
            "Sleepycat",
        ],
        WEAK,
    ),
    **dict.fromkeys(
        [
            "GPL-1.0-only",
            "GPL-1.0-or-later",
            "GPL-2.0-only",
            "GPL-2.0-or-later",
            "GPL-3.0-only",
            "GPL-3.0-or-later",
        ],
        STRONG,
    ),
    **dict.fromkeys(["AGPL-3.0-only", "AGPL-3.0-or-later"], NETWORK),
    **dict.fromkeys(
        [
            "GFDL-1.1-or-later",
            "GFDL-1.2-only",
            "GFDL-1.2-or-later",
            "GFDL-1.3-only",
            "GFDL-1.3-or-later",
            "GFDL-1.3-no-invariants-or-later",
            "GFDL-1.2-no-invariants-or-later",
        ],
        "documentation",
    ),
}
# Exceptions that take the copyleft away from what is linked or generated.
_SOFTENED = frozenset(
    (
        "GCC-exception-3.1",
        "Autoconf-exception-2.0",
        "Autoconf-exception-3.0",
        "Libtool-exception",
        "Bison-exception-2.2",
        "Font-exception-2.0",
        "Classpath-exception-2.0",
    )
)
KNOWN = frozenset(_BY_CATEGORY)


@dataclass(frozen=True, slots=True)
class Term:
    """One licence of an expression, with its exception if it has one."""

    licence: str
    exception: str = ""

    @property
    def category(self) -> str:
        """What kind of licence it is; `unknown` for one that is not in the table."""
        found = _BY_CATEGORY.get(self.licence, "unknown")
        return WEAK if found == STRONG and self.exception in _SOFTENED else found

    def __str__(self) -> str:
        return f"{self.licence} WITH {self.exception}" if self.exception else self.licence


@dataclass(frozen=True, slots=True)
class Choice:
    """Several expressions, of which all count (`AND`) or one is chosen (`OR`)."""

    operator: str
    parts: tuple[Term | Choice, ...]


Expression = Term | Choice


def parse_expression(text: str) -> Expression:
    """The parsed expression; raises ValueError for anything that is none, too long or too deep."""
    if len(text) > _TEXT_MAX:
        raise ValueError("the licence expression is too long")
    tokens: list[str] = []
    position = 0
    while text[position:].strip():
        match = _TOKEN.match(text, position)
        if match is None:
            raise ValueError(f"not a licence expression: {text[:80]!r}")
        tokens.append(match[1])
        position = match.end()
    parsed, rest = _either(tokens, 0)
    if rest:
        raise ValueError(f"not a licence expression: {text[:80]!r}")
    return parsed


def refused(expression: Expression, accepts: Callable[[Term], bool]) -> tuple[Term, ...]:
    """The terms for which the expression is not acceptable; nothing when it is.

    Of a choice the part with the fewest refusals counts.
    """
    if isinstance(expression, Term):
        return () if accepts(expression) else (expression,)
    parts = [refused(part, accepts) for part in expression.parts]
    if expression.operator == "OR":
        return min(parts, key=len)
    return tuple(dict.fromkeys(term for part in parts for term in part))


def terms(expression: Expression) -> Iterator[Term]:
    """Every licence in an expression."""
    if isinstance(expression, Term):
        yield expression
    else:
        for part in expression.parts:
            yield from terms(part)


def _either(tokens: list[str], depth: int) -> tuple[Expression, list[str]]:
    return _joined(tokens, depth, "OR", _both)


def _both(tokens: list[str], depth: int) -> tuple[Expression, list[str]]:
    return _joined(tokens, depth, "AND", _single)


def _joined(
    tokens: list[str],
    depth: int,
    operator: str,
    inner: Callable[[list[str], int], tuple[Expression, list[str]]],
) -> tuple[Expression, list[str]]:
    first, rest = inner(tokens, depth)
    parts = [first]
    while rest and rest[0] == operator:
        part, rest = inner(rest[1:], depth)
        parts.append(part)
    return (first if len(parts) == 1 else Choice(operator, tuple(parts))), rest


def _single(tokens: list[str], depth: int) -> tuple[Expression, list[str]]:
    if not tokens or tokens[0] in (")", "AND", "OR", "WITH") or depth > _DEPTH_MAX:
        raise ValueError("the licence expression is cut short, or too deep")
    if tokens[0] == "(":
        inner, rest = _either(tokens[1:], depth + 1)
        if not rest or rest[0] != ")":
            raise ValueError("the licence expression lacks a bracket")
        return inner, rest[1:]
    if len(tokens) > 2 and tokens[1] == "WITH" and tokens[2] not in ("(", ")", "AND", "OR", "WITH"):
        return Term(tokens[0], tokens[2]), tokens[3:]
    return Term(tokens[0]), tokens[1:]


def categories(text: str) -> tuple[str, ...]:
    """The categories of the licences in an expression, mildest first; `unknown` for one that is none."""
    try:
        found = {term.category for term in terms(parse_expression(text))}
    except ValueError:
        found = {"unknown"}
    return tuple(category for category in CATEGORIES if category in found)
