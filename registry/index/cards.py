"""Makes what questions about many images are answered from: a card of each image, and who has which package.

Both are made of the other tables, all of them anew: that takes less than a second for ten thousand
images, and a question then needs no join.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterable
from typing import Any

from sqlalchemy import Connection, delete, insert, select

from builder.model.channel import Channel
from registry.index import schema as s

_ORDER = {c.value: n for n, c in enumerate((Channel.STABLE, Channel.DEPRECATED, Channel.CANDIDATE))}


def make_cards(connection: Connection) -> set[int]:
    """Make cards and carriers; returns the numbers of all packages that an image has."""
    connection.execute(delete(s.carriers))
    connection.execute(delete(s.cards))
    numbers = _cards(connection)
    found: dict[tuple[str, int], array[int]] = {}
    p = s.platforms.c
    rows = [(numbers[r[0]], r[1], r[2]) for r in connection.execute(select(p.image, p.platform, p.packages))]
    for card, platform, packages in sorted(rows, key=lambda r: r[0]):
        for package in s.unpacked(packages):
            here = found.get((platform, package))
            if here is None:
                here = found[platform, package] = array("I")
            if not here or here[-1] != card:
                here.append(card)
    carriers = [{"package": n, "platform": p, "cards": a.tobytes()} for (p, n), a in found.items()]
    if carriers:
        connection.execute(insert(s.carriers), carriers)
    return {n for _, n in found}


def _cards(connection: Connection) -> dict[int, int]:
    """Write a card for each image; returns its number by the image's."""
    i, v, c = s.images.c, s.verdicts.c, s.channels.c
    places = _lists(connection.execute(select(s.places.c.image, s.places.c.repository)))
    waivers = _lists(connection.execute(select(s.waivers.c.image, s.waivers.c.waiver)))
    t = s.tags.c
    tags = _lists(connection.execute(select(t.digest, t.repository + ":" + t.tag)))
    pulls = _pulls(connection)
    about = select(i.id, i.ref, i.digest, c.channel, c.replacement, v.approved, v.expires_at).select_from(
        s.images.outerjoin(s.channels).outerjoin(s.verdicts)
    )
    rows = connection.execute(about).all()
    default = Channel.CANDIDATE.value
    rows = sorted(rows, key=lambda r: (_ORDER.get(r.channel or default, 9), r.ref, r.digest))
    cards = [
        {
            "id": n,
            "ref": r.ref,
            "digest": r.digest,
            "channel": r.channel or default,
            "approved": bool(r.approved),
            "expires_at": r.expires_at or "",
            "replacement": r.replacement or "",
            "repositories": _lines(places.get(r.id, ())),
            "tags": _lines(tags.get(r.digest, ())),
            "waivers": _lines(waivers.get(r.id, ())),
            "pulls": pulls.get(r.digest, ""),
        }
        for n, r in enumerate(rows, 1)
    ]
    if cards:
        connection.execute(insert(s.cards), cards)
    return {r.id: n for n, r in enumerate(rows, 1)}


def _pulls(connection: Connection) -> dict[str, str]:
    """Who pulled each image, as JSON: the first day of all, what is told of each, and the days behind it.

    The newest pull stands first. What is told is right as long as the first day counts.
    """
    p = s.pulls.c
    found: dict[str, dict[str, tuple[list[str], list[list[Any]]]]] = {}
    for digest, who, day, count, at in connection.execute(
        select(p.digest, p.who, p.day, p.count, p.last_at).order_by(p.digest, p.who, p.day)
    ):
        times, days = found.setdefault(digest, {}).setdefault(who, ([], []))
        times.append(at)
        days.append([day, count])
    told = {}
    for digest, by_who in found.items():
        newest = sorted((max(times), who, days) for who, (times, days) in by_who.items())
        newest.sort(key=lambda one: one[0], reverse=True)  # stable: by name where the times are the same
        first = min(days[0][0] for _, _, days in newest)
        pulls = [{"who": who, "count": sum(n for _, n in days), "last_at": at} for at, who, days in newest]
        told[digest] = json.dumps([first, pulls, [days for _, _, days in newest]], ensure_ascii=False)
    return told


def _lists(rows: Iterable[Any]) -> dict[Any, list[str]]:
    found: dict[Any, list[str]] = {}
    for owner, value in rows:
        found.setdefault(owner, []).append(value)
    return found


def _lines(texts: Iterable[str]) -> str:
    """One text on each line, sorted; a line break within one becomes a blank."""
    return "\n".join(sorted(" ".join(t.splitlines()) for t in texts))
