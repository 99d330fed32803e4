"""Which licence a package has, from its Debian copyright file.

A machine-readable file is parsed; in another one the pointers to /usr/share/common-licenses,
whole known texts and lists of all files are recognised. What is none of these is unknown, and said
so. Copyright files are hostile text: sizes and counts are bounded, nothing backtracks, control
characters go.

Sources: Debian Policy 12.5; machine-readable debian/copyright format 1.0; SPDX 2.3, annex D.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from builder.checks.inventory import inventory
from builder.checks.licence_names import fingerprints, spdx_exception, spdx_name, squeezed, variant_of
from builder.model.licence import NOASSERTION

SIZE_MAX = 2 << 20  # bytes of one copyright file
_PARAGRAPHS_MAX = 20_000
_NAMES_MAX = 200  # licences in one file
_SHORT_MAX = 500  # characters of one short name or combination of them
_TERMS_MAX = 20  # licences in one combination
_POINTER = "/usr/share/common-licenses/"
_POINTED = re.compile(r"[A-Za-z0-9.-]{1,20}")
_LATER = ("any later version", "or later")
_UNSAID = "LicenseRef-unsaid"
_SLUG = re.compile(r"[^A-Za-z0-9.]+")
_NOT_PLAIN = re.compile("[\\x00-\\x08\\x0b-\\x1f\\x7f-\\x9f\\ufeff]+")

How = Literal["declared", "recognised", "unknown"]


@dataclass(frozen=True, slots=True)
class Copyright:
    """What a copyright file says: an SPDX expression, how it was found, and texts by LicenseRef."""

    expression: str = NOASSERTION
    how: How = "unknown"
    texts: Mapping[str, str] = field(default_factory=dict)


def plain_text(data: bytes) -> str:
    """The file as text, without control characters but tabs and ends of lines."""
    return _NOT_PLAIN.sub("", data.decode("utf-8", "replace").replace("\r\n", "\n"))


def read_copyright(data: bytes) -> Copyright:
    """The licences that a copyright file names; never raises: what cannot be read is unknown."""
    if len(data) > SIZE_MAX:
        return Copyright()
    text = plain_text(data)
    first = text.lstrip().partition("\n")[0].lower()
    if first.startswith("format") and ("copyright-format" in first or "dep5" in first or "dep-5" in first):
        return _declared(text)
    return _recognised(text)


def _declared(text: str) -> Copyright:
    """The licences of all its Files paragraphs: each of them counts."""
    shorts: dict[str, None] = {}
    bodies: dict[str, str] = {}
    unsaid = ""
    for number, paragraph in enumerate(_paragraphs(text)):
        if number > _PARAGRAPHS_MAX or len(shorts) > _NAMES_MAX:
            return Copyright()
        short, _, body = paragraph.get("license", "").partition("\n")
        short = " ".join(short.split())
        if not short:
            # Files of which no licence is named count too, whatever text stands there.
            unsaid = unsaid or (body.strip() or "no licence is named") if "files" in paragraph else unsaid
            continue
        if body.strip():
            bodies.setdefault(short.lower(), body)
        # A paragraph without Files only gives the text; the first one is about the whole package.
        if "files" in paragraph or (number == 0 and "format" in paragraph):
            shorts[short] = None
    parts: set[str] = set()
    texts: dict[str, str] = {}
    for short in shorts:
        expression = _combination(short, bodies, texts)
        if expression is None:
            return Copyright()
        parts.add(expression)
    if not parts:
        return Copyright()
    if unsaid:
        parts.add(_UNSAID)
        texts[_UNSAID] = unsaid
    return Copyright(_all_of(parts), "declared", texts)


def _paragraphs(text: str) -> Iterator[dict[str, str]]:
    """The paragraphs of a control file, fields in small letters; deb822(5)."""
    fields: dict[str, str] = {}
    last = ""
    for line in [*text.split("\n"), ""]:
        if not line.strip():
            if fields:
                yield fields
            fields, last = {}, ""
        elif line[0] in " \t":
            if last:
                # A dot stands for an empty line.
                fields[last] += "\n" + ("" if line.strip() == "." else line.strip())
        elif not line.startswith("#"):
            name, colon, value = line.partition(":")
            last = name.strip().lower() if colon else ""
            if last:
                fields[last] = value.strip()
    # `split` above ends with an empty line, so nothing is left.


def _combination(short: str, bodies: Mapping[str, str], texts: dict[str, str]) -> str | None:
    """A combination of short names as SPDX; None when it is longer than any that makes sense."""
    if len(short) > _SHORT_MAX:
        return None
    # A comma binds weaker than both words: "A or B, and C".
    groups: list[tuple[str, str]] = []
    for number, group in enumerate(g.strip() for g in short.split(",") if g.strip()):
        word, _, rest = group.partition(" ")
        if number and word.lower() in ("and", "or"):
            groups.append((word.upper(), rest))
        else:
            groups.append(("AND", group))
    if len(groups) > _TERMS_MAX:
        return None
    whole = ""
    for operator, group in groups:
        part = _group(group, bodies, texts)
        if not whole:
            whole = part
        elif operator == "AND":
            whole = _all_of({whole, part})
        else:
            whole = f"{_bracketed(whole)} OR {_bracketed(part)}"
    return whole


def _group(group: str, bodies: Mapping[str, str], texts: dict[str, str]) -> str:
    choices = []
    for choice in _split(group, " or "):
        choices.append(_all_of({_single(one, bodies, texts) for one in _split(choice, " and ")}))
    several = sorted(set(choices))
    return several[0] if len(several) == 1 else " OR ".join(_bracketed(c) for c in several)


def _split(text: str, word: str) -> list[str]:
    """Parts of a text between a word, whatever its letters."""
    parts, low, start = [], text.lower(), 0
    while (at := low.find(word, start)) >= 0:
        parts.append(text[start:at])
        start = at + len(word)
    return [*parts, text[start:]]


def _single(name: str, bodies: Mapping[str, str], texts: dict[str, str]) -> str:
    plain, *exception = _split(name.strip(), " with ")
    known = spdx_name(plain)
    if known and not exception:
        return known
    if known and len(exception) == 1 and (granted := spdx_exception(exception[0])):
        return f"{known} WITH {granted}"
    body = bodies.get(name.strip().lower()) or bodies.get(plain.strip().lower()) or ""
    if not exception and (same := variant_of(plain.strip(), body)):
        return same
    slug = _SLUG.sub("-", name.strip()).strip("-.")[:60] or "nameless"
    reference = f"LicenseRef-{slug}"
    texts[reference] = body or name.strip()
    return reference


def _all_of(parts: set[str]) -> str:
    """All of the expressions, sorted, each part once."""
    flat = {
        p
        for part in parts
        for p in (part.split(" AND ") if "(" not in part and " OR " not in part else [part])
    }
    if len(flat) == 1:
        return next(iter(flat))
    return " AND ".join(sorted(f"({p})" if _is_choice(p) else p for p in flat))


def _is_choice(expression: str) -> bool:
    """Whether an OR stands outside of all brackets: within an AND it needs some of its own."""
    depth = 0
    for word in expression.replace("(", "( ").replace(")", " )").split():
        depth += (word == "(") - (word == ")")
        if word == "OR" and not depth:
            return True
    return False


def _bracketed(expression: str) -> str:
    return f"({expression})" if " AND " in expression or " OR " in expression else expression


def _recognised(text: str) -> Copyright:
    """The licences whose pointers or whole texts stand in a file for people."""
    plain = squeezed(text)
    found = fingerprints(plain)
    later = any(word in plain for word in _LATER)
    listed = inventory(text) or {}
    texts: dict[str, str] = {}
    found |= {_single(name, listed, texts) for name in listed}
    start = 0
    while (at := text.find(_POINTER, start)) >= 0 and len(found) <= _NAMES_MAX:
        start = at + len(_POINTER)
        match = _POINTED.match(text, start)
        if match is None and listed:
            continue  # the folder of them all, and the list says which
        name = _pointed(match[0].rstrip(".-"), later) if match else None
        if name is None:
            return Copyright()
        found.add(name)
    return Copyright(_all_of(found), "recognised", texts) if found else Copyright()


def _pointed(name: str, later: bool) -> str | None:
    """What a file of /usr/share/common-licenses is, in SPDX; the names without a version are of any."""
    bare = {"GPL": "GPL-1.0-or-later", "LGPL": "LGPL-2.0-or-later", "GFDL": "GFDL-1.1-or-later"}
    if name in bare:
        return bare[name]
    if name == "BSD":
        return "BSD-3-Clause"
    family = name.partition("-")[0]
    return spdx_name(f"{name}+" if later and family in ("GPL", "LGPL", "AGPL", "GFDL") else name)
