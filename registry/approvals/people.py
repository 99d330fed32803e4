"""Whether two names are one person's. Pure, and rather yes than no: who may be the writer approves nothing.

Names come from git (`NAME <E-MAIL>`), from the system (`ann@host`) and from the access rules
(`user:ann`, `oidc:corp:ann@example.com`). Capitals, blanks, dots and forms of letters do not matter.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping


def same_person(one: str, other: str, emails: Mapping[str, str]) -> bool:
    """Whether both may be one person; `emails` says whose an address is (an identity, `user:ann`).

    A name without a letter or digit may be anybody's.
    """
    first, second = _marks(one, emails), _marks(other, emails)
    return not first or not second or bool(first & second)


def is_one_of(who: str, people: Iterable[str], emails: Mapping[str, str]) -> bool:
    """Whether somebody may be one of these people."""
    return any(same_person(who, person, emails) for person in people)


def _marks(text: str, emails: Mapping[str, str]) -> frozenset[str]:
    """What somebody can be known by."""
    owners = {_plain(email): owner for email, owner in emails.items()}
    name, bracket, rest = text.partition("<")
    parts = [name, rest.partition(">")[0]] if bracket else [text.rpartition(":")[2]]
    for address in [p for p in parts if "@" in p]:
        local = address.rpartition("@")[0]
        # A hosting service writes NUMBER+NAME in front of its addresses, others NAME+WHAT.
        parts += [local, *(p for p in local.split("+") if not p.isdigit())]
    for part in tuple(parts):
        if owner := owners.get(_plain(part)):
            parts += [owner.rpartition(":")[2]]
    return frozenset(mark for part in parts if (mark := _letters(part)))


def _plain(text: str) -> str:
    return unicodedata.normalize("NFKC", text).casefold().strip()


def _letters(text: str) -> str:
    return "".join(c for c in _plain(text) if c.isalnum())
