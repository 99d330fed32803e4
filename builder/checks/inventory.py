"""Licences from a list of all files, by holder: the form that libxcrypt's LICENSING has.

Such a file says that it is an inventory; each item is ` * HOLDERS; LICENCE:` and the files below
it. Only a text that says so is read this way, item by item: what an item says in words that are
not in the tables stays, as a licence of its own with that text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

_SAYS_SO = "inventory of the copyright holders and licenses of all files"
_ITEMS_MAX = 2000
_HEAD_MAX = 400  # characters of an item before its files
_GNU = re.compile(r"(a?gpl|lgpl) \(v([123](?:\.[01])?)( or later)?\)(?:,? with ([a-z]{1,20}) exception)?")
# As the machine-readable copyright format calls them.
_NAMES = {
    "3-clause bsd": "BSD-3-clause",
    "2-clause bsd": "BSD-2-clause",
    "0-clause bsd": "0BSD",
    "fsf all permissive license": "FSFAP",
}


def inventory(text: str) -> dict[str, str] | None:
    """Licences by Debian's short names, each with what its items say; None when it is no inventory.

    None too for an inventory that is too long, or has an item without an end.
    """
    if _SAYS_SO not in " ".join(text.lower().split()):
        return None
    found: dict[str, str] = {}
    for number, item in enumerate(_items(text)):
        head, colon, _ = item.partition(":\n")
        if number >= _ITEMS_MAX or not colon or len(head) > _HEAD_MAX:
            return None
        said = " ".join(head.split())
        name = _short(said)
        found[name] = f"{found[name]}\n{said}" if name in found else said
    return found or None


def _items(text: str) -> Iterator[str]:
    """The items of the list, without their bullets; an empty line ends one."""
    item = ""
    for line in [*text.split("\n"), ""]:
        if line.lstrip().startswith("* ") or not line.strip():
            if item:
                yield item
            item = line.lstrip()[2:] + "\n" if line.strip() else ""
        elif item:
            item += line + "\n"


def _short(said: str) -> str:
    """The short name of the licence that the head of an item names after its holders."""
    low = said.lower()
    if low.startswith("public domain"):
        return "public-domain"
    _, semicolon, licence = low.rpartition(";")
    licence = licence.strip()
    if not semicolon or "no statement of license" in low:
        return "no-statement"
    if match := _GNU.fullmatch(licence):
        with_exception = f" with {match[4].capitalize()} exception" if match[4] else ""
        return f"{match[1].upper()}-{match[2]}{'+' if match[3] else ''}{with_exception}"
    return _NAMES.get(licence, licence)
