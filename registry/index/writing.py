"""Writes what was read into the index. Rows are collected and written many at a time.

Of a package, what the newest database says counts: two images with one package have the same
flaws in it, whenever each of them was scanned.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Table, delete, func, insert, select

from builder.errors import GoldsmithError
from builder.model.channel import ChannelRecord
from builder.model.digest import Digest
from builder.model.verdict import Verdict
from builder.signing.predicates import timestamp
from registry.index import schema as s
from registry.index.cards import make_cards
from registry.index.reading import Flaw, ImageFacts, Package, PlatformFacts
from registry.pulls import Pull

# What a scanner of an extension found: the platform, the package's number, the scanner, the flaw.
Added = tuple[str, int, str, Flaw]

_ROWS = 20_000  # that are collected before they are written
_TEXT_MAX = 1000  # characters


@dataclass(frozen=True, slots=True)
class Problem:
    """An image that could not be verified, and why."""

    repository: str
    digest: str
    tags: tuple[str, ...]
    reason: str
    message: str
    context: str

    @classmethod
    def of(cls, repository: str, digest: str, tags: Iterable[str], error: GoldsmithError) -> Problem:
        """What an error says of an image."""
        return cls(
            repository,
            digest,
            tuple(tags),
            error.reference,
            error.message[:_TEXT_MAX],
            error.context[:_TEXT_MAX],
        )


class Writer:
    """The writing end of one transaction on an index."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._images: dict[str, int] = {d: i for i, d in self._all(s.images.c.id, s.images.c.digest)}
        self._newest_image = max(self._images.values(), default=0)
        columns = (s.packages.c[f] for f in Package.__slots__)
        found = self._all(s.packages.c.id, s.packages.c.looked_at, s.packages.c.database, *columns)
        self._packages = {Package(*row[3:]): row[0] for row in found}
        self._looked = {row[0]: (row[1], row[2]) for row in found}
        self._newest_package = max(self._looked, default=0)
        self._vulnerabilities = {n: i for i, n in self._all(s.vulnerabilities.c.id, s.vulnerabilities.c.name)}
        self._platforms = connection.execute(select(func.max(s.platforms.c.id))).scalar() or 0
        self._issued: dict[int, str] = dict(map(tuple, self._all(s.verdicts.c.image, s.verdicts.c.issued_at)))
        self._sequences: dict[int, int] = dict(
            map(tuple, self._all(s.channels.c.image, s.channels.c.sequence))
        )
        self._placed: set[tuple[int, str]] = set(
            map(tuple, self._all(s.places.c.image, s.places.c.repository))
        )
        self._filled: set[int] = {image for (image,) in self._all(s.platforms.c.image)}
        self._added: set[int] = {image for (image,) in self._all(s.further.c.image)}
        self._written: dict[int, dict[str, bytes]] = {}
        self._flaws: dict[int, tuple[Flaw, ...]] = {}
        self._rows = 0
        # Rows that wait to be written, by table: parents stand before those that refer to them.
        self._waiting: dict[Table, list[dict[str, Any]]] = {t: [] for t in s.metadata.sorted_tables}
        self._tags: list[dict[str, str]] = []

    def marks(self) -> dict[tuple[str, str], str]:
        """The state of the evidence of each image that the index knows, by repository and digest."""
        joined = s.places.join(s.images, s.places.c.image == s.images.c.id)
        query = select(s.places.c.repository, s.images.c.digest, s.places.c.mark).select_from(joined)
        return {(r, d): m for r, d, m in self._connection.execute(query)}

    def count(self) -> int:
        """How many images there are."""
        return int(self._connection.execute(select(func.count()).select_from(s.images)).scalar() or 0)

    def add(self, found: ImageFacts) -> None:
        """Take up an image, or what is new of one in another repository."""
        image = self._images.get(found.digest)
        if image is None:
            self._newest_image += 1
            image = self._images[found.digest] = self._newest_image
            self._insert(
                s.images,
                id=image,
                digest=found.digest,
                ref=found.verdict.ref,
                immutable_tag=found.immutable_tag,
            )
        if (image, found.repository) in self._placed:
            self._displace(image, found.repository)
        self._placed.add((image, found.repository))
        self._insert(s.places, image=image, repository=found.repository, mark=found.mark)
        newest = self._decide(image, found.verdict)
        self._record(image, found.record)
        content: dict[str, bytes] = {}
        for platform in found.platforms:
            numbers = [self._package(p) for p in platform.packages]
            content[platform.digest] = s.packed(sorted(numbers))
            self._look(platform, numbers)
        if self._written.get(image) != content:
            if image in self._filled:
                self._forget(s.platforms, image)
            self._filled.add(image)
            self._written[image] = content
            for platform in found.platforms:
                self._platform(image, platform, content[platform.digest])
        if newest:
            self._further(
                image,
                (
                    (p.platform, self._package(a.package), a.scanner, a.flaw)
                    for p in found.platforms
                    for a in p.further
                ),
            )
        if self._rows >= _ROWS:
            self._flush()

    def drop(self, repository: str, digest: str) -> None:
        """Forget an image in a repository."""
        image = self._images.get(digest)
        if image is not None:
            self._displace(image, repository)

    def point(self, repository: str, pointers: Mapping[str, Digest]) -> None:
        """Where the tags of a repository point."""
        self._tags += [{"repository": repository, "tag": t, "digest": d} for t, d in pointers.items()]

    def learn(self, found: Mapping[int, tuple[Flaw, ...]], database: str, updated: str) -> None:
        """What a scan with this database says of packages, by their numbers."""
        for package, flaws in found.items():
            self._flaws[package] = flaws
            self._looked[package] = (updated, database)

    def learn_further(self, digest: Digest, found: Iterable[Added]) -> None:
        """What scanners of extensions say of an image today."""
        if (image := self._images.get(digest)) is not None:
            self._further(image, found)
            self._flush()

    def finish(self, problems: Iterable[Problem], journal: Iterable[Pull]) -> None:
        """Write everything, and forget images without a place and packages without an image.

        `journal` is what was pulled; it takes the place of what was known before.
        """
        self._flush()
        self.write_flaws()
        self._execute(delete(s.tags))
        if self._tags:
            self._execute(insert(s.tags), self._tags)
        self._execute(delete(s.problems))
        rows = [
            {
                "repository": p.repository,
                "digest": p.digest,
                "tags": " ".join(p.tags),
                "reason": p.reason,
                "message": p.message,
                "context": p.context,
            }
            for p in problems
        ]
        if rows:
            self._execute(insert(s.problems), rows)
        placed = select(s.places.c.image)
        self._execute(delete(s.images).where(s.images.c.id.not_in(placed)))
        self._pulled(journal)
        used = make_cards(self._connection)
        if unused := [(n,) for n in self._looked if n not in used]:
            self._connection.exec_driver_sql("DELETE FROM findings WHERE package = ?", unused)
            self._connection.exec_driver_sql("DELETE FROM packages WHERE id = ?", unused)

    def write_flaws(self) -> None:
        """Write what is known of packages."""
        if not self._flaws:
            return
        titles = {f.id: f.title for flaws in self._flaws.values() for f in flaws}
        new = sorted(set(titles) - set(self._vulnerabilities))
        start = max(self._vulnerabilities.values(), default=0) + 1
        self._vulnerabilities |= {name: start + n for n, name in enumerate(new)}
        if new:
            named = [{"id": self._vulnerabilities[n], "name": n, "title": titles[n]} for n in new]
            self._execute(insert(s.vulnerabilities), named)
        touched = [(p,) for p in self._flaws]
        self._connection.exec_driver_sql("DELETE FROM findings WHERE package = ?", touched)
        rows = [
            (self._vulnerabilities[f.id], package, f.severity, f.status, f.fixed_version)
            for package, flaws in self._flaws.items()
            for f in {f.id: f for f in flaws}.values()
        ]
        if rows:
            self._connection.exec_driver_sql(
                "INSERT INTO findings (vulnerability, package, severity, status, fixed_version) "
                "VALUES (?, ?, ?, ?, ?)",
                rows,
            )
        self._connection.exec_driver_sql(
            "UPDATE packages SET looked_at = ?, database = ? WHERE id = ?",
            [(*self._looked[p], p) for p in self._flaws],
        )
        self._flaws.clear()

    def _pulled(self, journal: Iterable[Pull]) -> None:
        """Who pulled what.

        A client pulls the index and then a platform of it: that is one pull. What is pulled by a
        platform's digest alone is a pull of the image, too.
        """
        joined = s.platforms.join(s.images, s.platforms.c.image == s.images.c.id)
        query = select(s.platforms.c.digest, s.images.c.digest).select_from(joined)
        image_of: dict[str, str] = {row[0]: row[1] for row in self._connection.execute(query)}
        counts: dict[tuple[str, str, str], list[int]] = {}
        newest: dict[tuple[str, str, str], str] = {}
        for one in journal:
            at = timestamp(one.at)
            key = (image_of.get(one.digest, one.digest), one.who, at[:10])
            count = counts.setdefault(key, [0, 0])
            count[one.digest in image_of] += one.count
            newest[key] = max(newest.get(key, ""), at)
        self._execute(delete(s.pulls))
        rows = [
            {"digest": d, "who": who, "day": day, "count": max(count), "last_at": newest[d, who, day]}
            for (d, who, day), count in counts.items()
        ]
        if rows:
            self._execute(insert(s.pulls), rows)

    def _decide(self, image: int, verdict: Verdict) -> bool:
        """The newest verdict of all places holds; returns whether this is it."""
        issued = timestamp(verdict.issued_at)
        if image in self._issued:
            if self._issued[image] > issued:
                return False
            self._forget(s.verdicts, image)
            self._forget(s.waivers, image)
        self._issued[image] = issued
        database = verdict.database
        self._insert(
            s.verdicts,
            image=image,
            approved=verdict.approved,
            policy=verdict.policy,
            policy_digest=verdict.policy_digest,
            issued_at=issued,
            expires_at=timestamp(verdict.expires_at),
            database=database.digest if database else "",
            sample=bool(database and database.sample),
        )
        for waiver in dict.fromkeys(verdict.waivers):
            self._insert(s.waivers, image=image, waiver=waiver[:_TEXT_MAX])
        return True

    def _further(self, image: int, found: Iterable[Added]) -> None:
        """What was found beside takes the place of what was before."""
        if image in self._added:
            self._forget(s.further, image)
            self._added.discard(image)
        for (platform, package, scanner, name), flaw in {(*a[:3], a[3].id): a[3] for a in found}.items():
            self._added.add(image)
            self._insert(
                s.further,
                image=image,
                platform=platform,
                package=package,
                scanner=scanner,
                vulnerability=name,
                title=flaw.title,
                severity=flaw.severity,
                status=flaw.status,
                fixed_version=flaw.fixed_version,
            )

    def _record(self, image: int, record: ChannelRecord | None) -> None:
        """The record with the highest number of all places holds."""
        if record is None:
            return
        if image in self._sequences:
            if self._sequences[image] > record.sequence:
                return
            self._forget(s.channels, image)
        self._sequences[image] = record.sequence
        self._insert(
            s.channels,
            image=image,
            channel=record.channel.value,
            sequence=record.sequence,
            at=timestamp(record.at),
            why=record.why,
            replacement=record.replacement,
        )

    def _platform(self, image: int, found: PlatformFacts, packages: bytes) -> None:
        self._platforms += 1
        self._insert(
            s.platforms,
            id=self._platforms,
            image=image,
            digest=found.digest,
            platform=found.platform,
            release=found.release,
            point_release=found.point_release,
            packages=packages,
        )

    def _package(self, package: Package) -> int:
        number = self._packages.get(package)
        if number is None:
            self._newest_package += 1
            number = self._packages[package] = self._newest_package
            self._looked[number] = ("", "")
            values = {f: getattr(package, f) for f in Package.__slots__}
            self._insert(s.packages, id=number, looked_at="", database="", **values)
        return number

    def _look(self, found: PlatformFacts, numbers: Iterable[int]) -> None:
        for number, flaws in zip(numbers, found.packages.values(), strict=True):
            if found.database_updated >= self._looked[number][0]:
                self._flaws[number] = flaws
                self._looked[number] = (found.database_updated, found.database)

    def _displace(self, image: int, repository: str) -> None:
        self._flush()
        self._placed.discard((image, repository))
        self._execute(delete(s.places).where(s.places.c.image == image, s.places.c.repository == repository))

    def _forget(self, table: Table, image: int) -> None:
        self._flush()  # its rows may wait to be written
        self._execute(delete(table).where(table.c.image == image))

    def _flush(self) -> None:
        for table, waiting in self._waiting.items():
            if waiting:
                self._execute(insert(table), waiting)
                waiting.clear()
        self._rows = 0

    def _insert(self, table: Table, **values: Any) -> None:
        self._waiting[table].append(values)
        self._rows += 1

    def _execute(self, statement: Any, rows: list[Any] | None = None) -> None:
        self._connection.execute(statement, rows) if rows is not None else self._connection.execute(statement)

    def _all(self, *columns: Any) -> list[Any]:
        return list(self._connection.execute(select(*columns)))
