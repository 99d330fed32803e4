"""What is asked of the index: which images a vulnerability or a package concerns, and who pulled them."""

from __future__ import annotations

import datetime as dt
import re
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, overload
from urllib.parse import parse_qsl, unquote

import orjson
from sqlalchemy import Connection, Select, func, select

from builder.errors import UsageError
from builder.model.digest import Digest
from builder.model.evidence import Finding, Severity
from builder.signing.predicates import timestamp
from registry.index import schema as s
from registry.sqlite import reader

PULLED_DAYS = 30
_VULNERABILITY = re.compile(r"[A-Za-z][A-Za-z0-9]*(-[A-Za-z0-9]+)+")
_PURL = re.compile(r"pkg:([a-z][a-z0-9.+-]*)/((?:[^@?#/]+/)*)([^@?#/]+)(?:@([^?#]+))?(?:\?(.*))?")
_SYSTEM = ("deb", "apk", "rpm")
_ASKED_MAX = 1000  # characters
_AT_ONCE = 900  # values in one question: SQLite has a limit


@dataclass(frozen=True, slots=True)
class Hit:
    """A package that is concerned: where the flaw is fixed (empty: nowhere yet), and how bad it is.

    `scanner` is the scanner of an extension that says so, empty for ours.
    """

    package: str
    version: str
    architecture: str
    release: str
    source: str
    vulnerability: str = ""
    severity: str = ""
    status: str = ""
    fixed_version: str = ""
    scanner: str = ""


@dataclass(frozen=True, slots=True)
class Pull:
    """Who pulled an image how often in the last days, and when last."""

    who: str
    count: int
    last_at: str


@dataclass(frozen=True, slots=True)
class AffectedImage:
    """An image with at least one hit; `hits` are numbers in the list of the answer."""

    ref: str
    digest: str
    channel: str
    repositories: tuple[str, ...]
    tags: tuple[str, ...]
    platforms: tuple[str, ...]
    approved: bool
    expires_at: str
    replacement: str
    waivers: tuple[str, ...]
    pulls: tuple[Pull, ...]
    hits: tuple[int, ...]


class Images(Sequence[AffectedImage]):
    """The images of an answer, those that are served first; each is made when it is looked at.

    `cards` are rows of the index's cards; `hits` has the numbers of hits by the numbers of cards,
    `carriers` the cards with a hit by platform; pulls are told from the day `since` on.
    """

    def __init__(
        self,
        cards: Sequence[Sequence[Any]],
        hits: Mapping[int, list[int]],
        carriers: Mapping[str, Set[int]],
        since: str,
        told: Callable[[str], bool] = lambda name: True,
    ) -> None:
        self._cards, self._hits, self._carriers = cards, hits, carriers
        self._since, self._told = since, told

    def telling(self, told: Callable[[str], bool]) -> Images:
        """The same, with pulls of those images alone whose names `told` says yes to."""
        return Images(self._cards, self._hits, self._carriers, self._since, told)

    @overload
    def __getitem__(self, at: int) -> AffectedImage: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[AffectedImage]: ...
    def __getitem__(self, at: int | slice) -> AffectedImage | Sequence[AffectedImage]:
        if isinstance(at, slice):
            return [self._made(card) for card in self._cards[at]]
        return self._made(self._cards[at])

    def __len__(self) -> int:
        return len(self._cards)

    def __iter__(self) -> Iterator[AffectedImage]:
        return map(self._made, self._cards)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and tuple(self) == tuple(other)

    __hash__ = None  # type: ignore[assignment]

    def _made(self, card: Sequence[Any]) -> AffectedImage:
        number, ref, digest, channel, approved, expires, replacement, places, tags, waivers, pulls = card
        return AffectedImage(
            ref=ref,
            digest=digest,
            channel=channel,
            repositories=_split(places),
            tags=_split(tags),
            platforms=tuple(p for p, cards in self._carriers.items() if number in cards),
            approved=approved,
            expires_at=expires,
            replacement=replacement,
            waivers=_split(waivers),
            pulls=tuple(Pull(**one) for one in self._pulls(ref, pulls)),
            hits=tuple(self._hits[number]),
        )

    def plain(self, hits: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """All of them as plain data, with `hits` in place of their numbers."""
        return [self._plain(card, hits) for card in self._cards]

    def _plain(self, card: Sequence[Any], hits: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        number, ref, digest, channel, approved, expires, replacement, places, tags, waivers, pulls = card
        return {
            "ref": ref,
            "digest": digest,
            "channel": channel,
            "repositories": places.split("\n") if places else [],
            "tags": tags.split("\n") if tags else [],
            "platforms": [p for p, cards in self._carriers.items() if number in cards],
            "approved": approved,
            "expires_at": expires,
            "replacement": replacement,
            "waivers": waivers.split("\n") if waivers else [],
            "pulls": self._pulls(ref, pulls),
            "hits": [hits[n] for n in self._hits[number]],
        }

    def _pulls(self, ref: str, told: str) -> list[dict[str, Any]]:
        """Who pulled since a day, by a card; the newest first."""
        if not told or not self._told(ref.partition(":")[0]):
            return []
        first, pulls, days = orjson.loads(told)
        if first < self._since:
            counts = (sum(n for day, n in of_one if day >= self._since) for of_one in days)
            pulls = [{**one, "count": count} for one, count in zip(pulls, counts, strict=True) if count]
        found: list[dict[str, Any]] = pulls
        return found


@dataclass(frozen=True, slots=True)
class Answer:
    """The images that a vulnerability or package concerns, those that are served first.

    `total` is how many there are, when no more than the first of them were asked for.
    """

    asked: str
    title: str
    hits: tuple[Hit, ...]
    images: Images
    total: int
    unverified: int

    def as_dict(self) -> dict[str, Any]:
        """The same as plain data for `--json`."""
        hits = [asdict(hit) for hit in self.hits]
        return {
            "asked": self.asked,
            "title": self.title,
            "fixed_versions": sorted({h.fixed_version for h in self.hits} - {""}),
            "images": self.images.plain(hits),
            "unverified": self.unverified,
        }


def affected(path: Path, asked: str, now: dt.datetime, most: int | None = None) -> Answer:
    """The images that `asked` concerns, by the index in a file; see `ask`."""
    with reader(path).connect() as connection:
        return ask(connection, asked, now, most)


def consumers(path: Path, now: dt.datetime) -> dict[str, int]:
    """How many identities pulled any image of a stream (`NAME:TAG`) in the last days."""
    p, i = s.pulls.c, s.images.c
    since = timestamp(now - dt.timedelta(days=PULLED_DAYS))[:10]
    query = (
        select(i.ref, func.count(p.who.distinct()))
        .select_from(s.pulls.join(s.images, i.digest == p.digest))
        .where(p.day >= since)
        .group_by(i.ref)
    )
    with reader(path).connect() as connection:
        return {ref: int(count) for ref, count in connection.execute(query)}


def findings_of(path: Path, image: Digest) -> dict[str, tuple[Finding, ...]] | None:
    """What the newest scans say of an image, by platform (`linux/amd64`); None when it is not known."""
    p, k, f, v = s.platforms.c, s.packages.c, s.findings.c, s.vulnerabilities.c
    platforms = select(p.platform, p.packages).select_from(s.platforms.join(s.images))
    said = select(f.package, v.name, k.name, k.version, f.fixed_version, f.severity, f.status, v.title)
    said = said.select_from(s.findings.join(s.vulnerabilities).join(s.packages)).order_by(v.name, k.name)
    with reader(path).connect() as connection:
        rows = connection.execute(platforms.where(s.images.c.digest == image)).all()
        packages = [(platform, frozenset(s.unpacked(numbers))) for platform, numbers in rows]
        wanted = frozenset[int]().union(*(numbers for _, numbers in packages))
        found = [
            (r[0], Finding(*r[1:5], Severity(r[5]), r[6], r[7]))
            for chunk in _chunks(sorted(wanted))
            for r in connection.execute(said.where(f.package.in_(chunk)))
        ]
    found.sort(key=lambda one: (one[1].id, one[1].package))
    return {
        platform: tuple(finding for number, finding in found if number in numbers)
        for platform, numbers in packages
    } or None


def ask(connection: Connection, asked: str, now: dt.datetime, most: int | None = None) -> Answer:
    """The images that `asked` concerns: a vulnerability's id, or a package URL.

    With `most`, the first of them and how many there are.

    A package URL of a distribution names a binary or a source package; each may have a version and an
    architecture.
    Raises UsageError for anything else.
    """
    if len(asked) <= _ASKED_MAX and (purl := _PURL.fullmatch(asked)):
        found, title, beside = _of_package(connection, purl), "", _Beside()
    elif len(asked) <= 100 and _VULNERABILITY.fullmatch(asked):
        found, title = _of_vulnerability(connection, asked)
        beside = _found_beside(connection, asked, len(found))
    else:
        raise UsageError(
            f"neither a vulnerability nor a package: {asked[:100]!r}",
            hint="CVE-2026-1234, or pkg:deb/debian/openssl",
        )
    numbers = {package: n for n, (package, _) in enumerate(found)}
    images, total = _images(connection, numbers, now, most, beside.carriers)
    unverified = connection.execute(select(func.count()).select_from(s.problems)).scalar() or 0
    hits = (*(hit for _, hit in found), *beside.hits)
    return Answer(asked, title or beside.title, hits, images, total, int(unverified))


def _of_vulnerability(connection: Connection, name: str) -> tuple[list[tuple[int, Hit]], str]:
    p, f, v = s.packages.c, s.findings.c, s.vulnerabilities.c
    query = (
        select(p.id, *_package_columns(), v.name, f.severity, f.status, f.fixed_version, v.title)
        .select_from(s.vulnerabilities.join(s.findings).join(s.packages))
        .where(v.name.in_({name, name.upper()}))
        .order_by(p.name, p.version, p.architecture)
    )
    rows = connection.execute(query).all()
    return [(r[0], Hit(*r[1:10])) for r in rows], rows[0][10] if rows else ""


@dataclass(frozen=True, slots=True)
class _Beside:
    """What scanners of extensions found: hits, and by hit and platform the cards of the images with it."""

    hits: tuple[Hit, ...] = ()
    carriers: tuple[tuple[int, str, array[int]], ...] = ()
    title: str = ""


def _found_beside(connection: Connection, name: str, first: int) -> _Beside:
    """The same vulnerability by scanners of extensions; its hits are numbered from `first` on."""
    f, p = s.further.c, s.packages.c
    query = (
        select(f.image, f.platform, f.title, *_package_columns(), f.vulnerability, f.severity, f.status)
        .add_columns(f.fixed_version, f.scanner)
        .select_from(s.further.join(s.packages, f.package == p.id))
        .where(f.vulnerability.in_({name, name.upper()}))
        .order_by(p.name, p.version, p.architecture, f.scanner, f.fixed_version)
    )
    rows = connection.execute(query).all()
    if not rows:
        return _Beside()
    join = s.cards.join(s.images, s.images.c.digest == s.cards.c.digest)
    card = dict(map(tuple, connection.execute(select(s.images.c.id, s.cards.c.id).select_from(join))))
    numbers: dict[Hit, int] = {}
    carriers: dict[tuple[int, str], array[int]] = {}
    for image, platform, _, *said in rows:
        number = numbers.setdefault(Hit(*said), first + len(numbers))
        if image in card:
            carriers.setdefault((number, platform), array("I")).append(card[image])
    return _Beside(tuple(numbers), tuple((*key, cards) for key, cards in carriers.items()), rows[0][2])


def _of_package(connection: Connection, purl: re.Match[str]) -> list[tuple[int, Hit]]:
    p = s.packages.c
    name, version = unquote(purl[3]), unquote(purl[4] or "")
    architecture = dict(parse_qsl(purl[5] or "")).get("arch", "")
    family = f"pkg:{purl[1]}/{purl[2]}"
    query: Select[Any] = select(p.id, *_package_columns()).order_by(p.name, p.version, p.architecture)
    if purl[1] in _SYSTEM:
        query = query.where((p.name == name) | (p.source == name))
        query = query.where(p.purl.startswith(family, autoescape=True))
    else:
        query = query.where(p.purl.startswith(f"{family}{purl[3]}@", autoescape=True))
    if version:
        query = query.where(p.version == version)
    if architecture:
        query = query.where(p.architecture == architecture)
    return [(r[0], Hit(*r[1:])) for r in connection.execute(query)]


def _package_columns() -> tuple[Any, ...]:
    p = s.packages.c
    return p.name, p.version, p.architecture, p.release, p.source


def _images(
    connection: Connection,
    numbers: Mapping[int, int],
    now: dt.datetime,
    most: int | None,
    beside: Iterable[tuple[int, str, array[int]]] = (),
) -> tuple[Images, int]:
    """The first `most` images with one of these packages or `beside` them, and how many there are."""
    c = s.carriers.c
    found = list(beside)
    for chunk in _chunks(numbers):
        query = select(c.package, c.platform, c.cards).where(c.package.in_(chunk))
        found += [(numbers[r[0]], r[1], s.unpacked(r[2])) for r in connection.execute(query)]
    having = sorted(set[int]().union(*(cards for _, _, cards in found)))  # their order is that of the answer
    wanted = set(having[:most])
    hits: dict[int, list[int]] = {card: [] for card in wanted}
    carriers: dict[str, set[int]] = {}
    for hit, platform, cards in sorted(found, key=lambda one: one[:2]):
        here = wanted.intersection(cards)
        carriers.setdefault(platform, set()).update(here)
        for card in here:
            of_card = hits[card]
            if not of_card or of_card[-1] != hit:
                of_card.append(hit)
    query = select(*s.cards.c).order_by(s.cards.c.id)
    if len(wanted) <= _AT_ONCE:
        rows = connection.execute(query.where(s.cards.c.id.in_(wanted))).all()
    else:
        rows = [r for r in connection.execute(query) if r[0] in wanted]
    since = timestamp(now - dt.timedelta(days=PULLED_DAYS))[:10]
    return Images(rows, hits, dict(sorted(carriers.items())), since), len(having)


def _split(lines: str) -> tuple[str, ...]:
    return tuple(lines.split("\n")) if lines else ()


def _chunks(values: Iterable[Any]) -> Iterable[list[Any]]:
    ordered = list(values)
    return (ordered[n : n + _AT_ONCE] for n in range(0, len(ordered), _AT_ONCE))
