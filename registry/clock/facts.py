"""What the index says for the clock: images, what was found in packages, who pulled what; and the ledger."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from sqlalchemy import Connection, func, select
from sqlalchemy.exc import DBAPIError

from builder.errors import ToolError
from builder.model.channel import Channel
from builder.model.evidence import NOT_AFFECTED, Severity
from registry.audit.ledger import Entry
from registry.clock.remediation import Move, Taken
from registry.clock.sightings import Said, Spot
from registry.index import schema as s
from registry.rescan.inventory import Image, read_inventory
from registry.sqlite import reader

_FAR = dt.datetime.max.replace(tzinfo=dt.UTC)


@dataclass(frozen=True)
class Indexed:
    """An index's facts; `packages` are (release, name, version) by their numbers.

    `compared` says with which database (its update, RFC 3339) a package was compared last.
    """

    images: tuple[Image, ...]
    packages: Mapping[int, tuple[str, str, str]]
    compared: Mapping[tuple[str, str, str], str]
    said: tuple[Said, ...]
    taken: tuple[Taken, ...]
    stable: Mapping[str, tuple[Move, ...]]
    unverified: int


def read_index(
    path: Path,
    now: dt.datetime,
    exploited: Callable[[str], bool],
    asked: Mapping[tuple[str, str], dt.datetime],
) -> Indexed:
    """The facts of an index; `asked` are the times of rebuild requests by vulnerability and package.

    The time of a scan is that of a verdict that rests on the same database; or of the first request for a
    rebuild; or else now, the first time that anybody asks.
    """
    try:
        return _read(path, now, exploited, asked)
    except DBAPIError as error:  # a newer generation took its place
        raise ToolError(
            "the index cannot be read", context=str(error)[:300], hint="run it again, or: goldsmith reindex"
        ) from None


def _read(
    path: Path,
    now: dt.datetime,
    exploited: Callable[[str], bool],
    asked: Mapping[tuple[str, str], dt.datetime],
) -> Indexed:
    inventory = read_inventory(path)
    packages = {n: (p.release, p.name, p.version) for n, p in inventory.packages.items()}
    with reader(path).connect() as connection:
        databases, updates = _databases(connection)
        judged = _judged(inventory.images, databases)
        said = _findings(connection, packages, exploited, asked, judged, now)
        compared: dict[tuple[str, str, str], str] = {}
        for number, package in packages.items():
            compared[package] = max(compared.get(package, ""), updates[number])
        return Indexed(
            inventory.images,
            packages,
            compared,
            said,
            _taken(connection, now),
            _records(connection),
            int(connection.execute(select(func.count()).select_from(s.problems)).scalar() or 0),
        )


def stable_images(entries: Iterable[Entry]) -> dict[str, tuple[Move, ...]]:
    """Which images became the stable one of each line, in the ledger's order."""
    found: dict[str, list[Move]] = {}
    for entry in entries:
        # promoted, gone back to, or put in the place of a withdrawn one
        if digest := entry.fact.after.get("tagDigest"):
            found.setdefault(entry.fact.ref, []).append(Move(entry.at, digest))
    return {ref: tuple(moves) for ref, moves in found.items()}


def first_verdicts(entries: Iterable[Entry]) -> dict[str, dt.datetime]:
    """The oldest verdict of each image that was promoted with one: verdicts are renewed, entries are not."""
    found: dict[str, dt.datetime] = {}
    for entry in entries:
        if told := entry.fact.after.get("verdict"):
            at = time_of(told)
            found[str(entry.fact.digest)] = min(at, found.get(str(entry.fact.digest), at))
    return found


def _databases(connection: Connection) -> tuple[dict[int, str], dict[int, str]]:
    p = s.packages.c
    rows = connection.execute(select(p.id, p.database, p.looked_at)).all()
    return {r[0]: r[1] for r in rows}, {r[0]: r[2] for r in rows}


def _judged(images: Iterable[Image], databases: Mapping[int, str]) -> dict[int, dt.datetime]:
    """When a package was compared with its newest database, by the verdicts that rest on that."""
    found: dict[int, dt.datetime] = {}
    for image in images:
        at = time_of(image.issued_at)
        for platform in image.platforms:
            for number in platform.packages:
                if databases[number] == image.database and at < found.get(number, _FAR):
                    found[number] = at
    return found


def _findings(
    connection: Connection,
    packages: Mapping[int, tuple[str, str, str]],
    exploited: Callable[[str], bool],
    asked: Mapping[tuple[str, str], dt.datetime],
    judged: Mapping[int, dt.datetime],
    now: dt.datetime,
) -> tuple[Said, ...]:
    f, v = s.findings.c, s.vulnerabilities.c
    query = select(f.package, v.name, f.severity, f.fixed_version, s.packages.c.looked_at).select_from(
        s.findings.join(s.vulnerabilities).join(s.packages)
    )
    found: dict[Spot, Said] = {}
    for number, name, severity, fixed, database in connection.execute(query.where(f.status != NOT_AFFECTED)):
        if number not in packages:
            continue
        release, package, version = packages[number]
        spot = Spot(release, package, version, name)
        at = min(now, judged.get(number, now), asked.get((name, package), now))
        said = Said(spot, at, database, _severity(severity), fixed, exploited(name))
        if (before := found.get(spot)) is not None:  # of another architecture
            said = replace(
                said,
                at=min(at, before.at),
                database=max(database, before.database),
                fixed_version=fixed or before.fixed_version,
            )
        found[spot] = said
    return tuple(found.values())


def _taken(connection: Connection, now: dt.datetime) -> tuple[Taken, ...]:
    p = s.pulls.c
    rows = connection.execute(select(p.who, p.digest, p.last_at))
    return tuple(t for who, digest, at in rows if (t := Taken(who, digest, time_of(at))).at <= now)


def _records(connection: Connection) -> dict[str, tuple[Move, ...]]:
    """The stable images by the signed records in the registry, for who has no ledger."""
    c, i = s.channels.c, s.images.c
    query = (
        select(i.ref, i.digest, c.at)
        .select_from(s.channels.join(s.images))
        .where(c.channel == Channel.STABLE.value)
        .order_by(c.sequence)
    )
    found: dict[str, list[Move]] = {}
    for ref, digest, at in connection.execute(query):
        found.setdefault(ref, []).append(Move(time_of(at), digest))
    return {ref: tuple(moves) for ref, moves in found.items()}


def _severity(text: str) -> Severity:
    try:
        return Severity(text)
    except ValueError:
        return Severity.UNKNOWN


def time_of(text: str) -> dt.datetime:
    """A time of the index."""
    return dt.datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=dt.UTC)
