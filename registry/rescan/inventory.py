"""What there is to be scanned, by the index: served images, their platforms and packages.

Served is what the gate may hand out: stable and deprecated images, and the candidates that their
stream's tag points to. What is in quarantine is looked at too: it may come out of it.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, select

from builder.model.channel import Channel
from builder.model.digest import Digest
from registry.index import schema as s
from registry.index.reading import Package
from registry.rescan.union import why_not
from registry.sqlite import reader

_OF_VERDICT = ("issued_at", "expires_at", "database", "policy", "policy_digest")
_SERVED = frozenset({Channel.STABLE, Channel.DEPRECATED})


@dataclass(frozen=True, slots=True)
class Platform:
    """A platform of an image, and the numbers of its packages."""

    digest: Digest
    release: str
    point_release: str
    packages: array[int]


@dataclass(frozen=True, slots=True)
class Image:
    """An image that is looked at; `issued_at` and `expires_at` (RFC 3339) are its verdict's."""

    ref: str
    digest: Digest
    channel: Channel
    repositories: tuple[str, ...]
    issued_at: str
    expires_at: str
    database: str
    policy: str  # the name of the one that judged it
    policy_digest: str
    waivers: frozenset[str]  # that its verdict used
    current: bool  # whether its stream's tag points to it
    platforms: tuple[Platform, ...]

    @property
    def served(self) -> bool:
        """Whether it may be handed out, as far as its channel goes."""
        return self.channel is not Channel.QUARANTINE


@dataclass(frozen=True, slots=True)
class Inventory:
    """Images, and the packages in them; `unfit` says which images cannot be scanned, and why."""

    images: tuple[Image, ...]
    packages: Mapping[int, Package]
    unfit: Mapping[Digest, str]

    def of_release(self, release: str) -> tuple[str, dict[int, Package]]:
        """The newest point release of a release, and its packages that can be scanned."""
        points = {p.point_release for i in self.images for p in i.platforms if p.release == release}
        found = {n: p for n, p in self.packages.items() if p.release == release and not why_not(p)}
        return max(points, key=_order), found

    def without(self, releases: Mapping[str, str]) -> Inventory:
        """The same, with the images of these releases unfit for the reasons that are given."""
        unfit = dict(self.unfit)
        for image in self.images:
            for platform in image.platforms:
                if platform.release in releases:
                    unfit.setdefault(image.digest, releases[platform.release])
        return replace(self, unfit=unfit)

    @property
    def releases(self) -> tuple[str, ...]:
        """The releases of which there are packages that can be scanned."""
        return tuple(sorted({p.release for p in self.packages.values() if not why_not(p)}))


def read_inventory(path: Path) -> Inventory:
    """Everything that is to be looked at, from an index."""
    with reader(path).connect() as connection:
        images = _images(connection)
        numbers = {n for i in images for p in i.platforms for n in p.packages}
        columns = [s.packages.c[f] for f in Package.__slots__]
        rows = connection.execute(select(s.packages.c.id, *columns))
        packages = {r[0]: Package(*r[1:]) for r in rows if r[0] in numbers}
    unfit = {n: reason for n, p in packages.items() if (reason := why_not(p))}
    return Inventory(images, packages, {i.digest: r for i in images if (r := _reason(i, unfit))})


def _reason(image: Image, unfit: Mapping[int, str]) -> str:
    for platform in image.platforms:
        if not platform.packages:
            return "its SBOM names no package"
        if unfit:
            for number in platform.packages:
                if number in unfit:
                    return unfit[number]
    return ""


def _images(connection: Connection) -> tuple[Image, ...]:
    platforms: dict[int, list[Platform]] = {}
    p = s.platforms.c
    for image, digest, release, point, packages in connection.execute(
        select(p.image, p.digest, p.release, p.point_release, p.packages).order_by(p.id)
    ):
        one = Platform(Digest(digest), release, point, s.unpacked(packages))
        platforms.setdefault(image, []).append(one)
    places = _lists(connection, s.places.c.image, s.places.c.repository)
    waivers = _lists(connection, s.waivers.c.image, s.waivers.c.waiver)
    pointers = connection.execute(select(s.tags.c.repository, s.tags.c.tag, s.tags.c.digest))
    tags = {(r, t): d for r, t, d in pointers}
    i, v = s.images.c, s.verdicts.c
    about = (
        select(i.id, i.ref, i.digest, s.channels.c.channel, *(v[name] for name in _OF_VERDICT))
        .select_from(s.images.join(s.verdicts).outerjoin(s.channels))
        .order_by(i.ref, i.digest)
    )
    found = []
    for row in connection.execute(about):
        channel = Channel(row.channel or Channel.CANDIDATE)
        repositories = tuple(sorted(places.get(row.id, ())))
        tag = row.ref.partition(":")[2]
        current = any(tags.get((r, tag)) == row.digest for r in repositories)
        if channel in _SERVED or channel is Channel.QUARANTINE or (channel is Channel.CANDIDATE and current):
            found.append(
                Image(
                    row.ref,
                    Digest(row.digest),
                    channel,
                    repositories,
                    row.issued_at,
                    row.expires_at,
                    row.database,
                    row.policy,
                    row.policy_digest,
                    frozenset(waivers.get(row.id, ())),
                    current,
                    tuple(platforms.get(row.id, ())),
                )
            )
    return tuple(found)


def _lists(connection: Connection, owner: Any, value: Any) -> dict[int, list[str]]:
    found: dict[int, list[str]] = {}
    for number, text in connection.execute(select(owner, value)):
        found.setdefault(number, []).append(text)
    return found


def _order(point: str) -> tuple[int, ...]:
    return tuple(int(part) for part in point.split(".") if part.isdecimal())
