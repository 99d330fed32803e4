"""What is asked of the index: which images a vulnerability or a package concerns, and who pulled them."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote

from sqlalchemy import Connection, Row, Select, func, select

from builder.errors import UsageError
from builder.model.channel import Channel
from builder.model.digest import Digest
from builder.model.evidence import Finding, Severity
from builder.signing.predicates import timestamp
from registry.index import schema as s
from registry.sqlite import reader

PULLED_DAYS = 30
_VULNERABILITY = re.compile(r"[A-Za-z][A-Za-z0-9]*(-[A-Za-z0-9]+)+")
_PURL = re.compile(r"pkg:deb/debian/([^@?/]+)(?:@([^?]+))?(?:\?(.*))?")
_AT_ONCE = 900  # values in one question: SQLite has a limit


@dataclass(frozen=True, slots=True)
class Hit:
    """A package that is concerned: where the flaw is fixed (empty: nowhere yet), and how bad it is."""

    package: str
    version: str
    architecture: str
    release: str
    source: str
    vulnerability: str = ""
    severity: str = ""
    status: str = ""
    fixed_version: str = ""


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


@dataclass(frozen=True, slots=True)
class Answer:
    """The images that a vulnerability or package concerns, those that are served first."""

    asked: str
    title: str
    hits: tuple[Hit, ...]
    images: tuple[AffectedImage, ...]
    unverified: int

    def as_dict(self) -> dict[str, Any]:
        """The same as plain data for `--json`."""
        images = [{**asdict(i), "hits": [asdict(self.hits[n]) for n in i.hits]} for i in self.images]
        return {
            "asked": self.asked,
            "title": self.title,
            "fixed_versions": sorted({h.fixed_version for h in self.hits} - {""}),
            "images": images,
            "unverified": self.unverified,
        }


def affected(path: Path, asked: str, now: dt.datetime) -> Answer:
    """The images that `asked` concerns, by the index in a file; see `ask`."""
    with reader(path).connect() as connection:
        return ask(connection, asked, now)


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
    of_image = s.platforms.join(s.images).join(s.contents).join(s.packages)
    query = (
        select(p.platform, v.name, k.name, k.version, f.fixed_version, f.severity, f.status, v.title)
        .select_from(of_image.outerjoin(s.findings).outerjoin(s.vulnerabilities))
        .where(s.images.c.digest == image)
        .order_by(v.name, k.name)
    )
    found: dict[str, tuple[Finding, ...]] = {}
    with reader(path).connect() as connection:
        for platform, name, package, version, fixed, severity, status, title in connection.execute(query):
            one = () if name is None else (name, package, version, fixed, Severity(severity), status, title)
            found[platform] = found.get(platform, ()) + ((Finding(*one),) if one else ())
    return found or None


def ask(connection: Connection, asked: str, now: dt.datetime) -> Answer:
    """The images that `asked` concerns: a vulnerability's id, or a package URL of a Debian package.

    A package URL names a binary or a source package, with or without version and architecture.
    Raises UsageError for anything else.
    """
    if purl := _PURL.fullmatch(asked):
        found, title = _of_package(connection, purl), ""
    elif len(asked) <= 100 and _VULNERABILITY.fullmatch(asked):
        found, title = _of_vulnerability(connection, asked.upper())
    else:
        raise UsageError(
            f"neither a vulnerability nor a package: {asked[:100]!r}",
            hint="CVE-2026-1234, or pkg:deb/debian/openssl",
        )
    numbers = {package: n for n, (package, _) in enumerate(found)}
    images = _images(connection, numbers, now)
    unverified = connection.execute(select(func.count()).select_from(s.problems)).scalar() or 0
    return Answer(asked, title, tuple(hit for _, hit in found), images, int(unverified))


def _of_vulnerability(connection: Connection, name: str) -> tuple[list[tuple[int, Hit]], str]:
    p, f, v = s.packages.c, s.findings.c, s.vulnerabilities.c
    query = (
        select(p.id, *_package_columns(), v.name, f.severity, f.status, f.fixed_version, v.title)
        .select_from(s.vulnerabilities.join(s.findings).join(s.packages))
        .where(func.upper(v.name) == name if name != name.upper() else v.name == name)
        .order_by(p.name, p.version, p.architecture)
    )
    rows = connection.execute(query).all()
    return [(r[0], Hit(*r[1:10])) for r in rows], rows[0][10] if rows else ""


def _of_package(connection: Connection, purl: re.Match[str]) -> list[tuple[int, Hit]]:
    p = s.packages.c
    name, version = unquote(purl[1]), unquote(purl[2] or "")
    architecture = dict(parse_qsl(purl[3] or "")).get("arch", "")
    query: Select[Any] = select(p.id, *_package_columns()).order_by(p.name, p.version, p.architecture)
    query = query.where((p.name == name) | (p.source == name))
    if version:
        query = query.where(p.version == version)
    if architecture:
        query = query.where(p.architecture == architecture)
    return [(r[0], Hit(*r[1:])) for r in connection.execute(query)]


def _package_columns() -> tuple[Any, ...]:
    p = s.packages.c
    return p.name, p.version, p.architecture, p.release, p.source


def _images(
    connection: Connection, numbers: Mapping[int, int], now: dt.datetime
) -> tuple[AffectedImage, ...]:
    i, pl, c, v, ch = s.images.c, s.platforms.c, s.contents.c, s.verdicts.c, s.channels.c
    hits: dict[int, set[int]] = {}
    where: dict[int, set[str]] = {}
    for chunk in _chunks(numbers):
        query = (
            select(pl.image, pl.platform, c.package)
            .select_from(s.contents.join(s.platforms))
            .where(c.package.in_(chunk))
        )
        for image, platform, package in connection.execute(query):
            hits.setdefault(image, set()).add(numbers[package])
            where.setdefault(image, set()).add(platform)
    about = select(i.id, i.ref, i.digest, ch.channel, ch.replacement, v.approved, v.expires_at).select_from(
        s.images.outerjoin(s.channels).outerjoin(s.verdicts)
    )
    rows = _of(connection, about, i.id, hits)
    digests = {r.digest: r.id for r in rows}
    places = _lists(connection, select(s.places.c.image, s.places.c.repository), s.places.c.image, hits)
    waivers = _lists(connection, select(s.waivers.c.image, s.waivers.c.waiver), s.waivers.c.image, hits)
    tags = _lists(
        connection,
        select(s.tags.c.digest, s.tags.c.repository + ":" + s.tags.c.tag),
        s.tags.c.digest,
        digests,
    )
    pulls = _pulls(connection, digests, now)
    images = [
        AffectedImage(
            ref=r.ref,
            digest=r.digest,
            channel=r.channel or Channel.CANDIDATE.value,
            repositories=tuple(sorted(places.get(r.id, ()))),
            tags=tuple(sorted(tags.get(r.digest, ()))),
            platforms=tuple(sorted(where[r.id])),
            approved=bool(r.approved),
            expires_at=r.expires_at or "",
            replacement=r.replacement or "",
            waivers=tuple(sorted(waivers.get(r.id, ()))),
            pulls=tuple(pulls.get(r.digest, ())),
            hits=tuple(sorted(hits[r.id])),
        )
        for r in rows
    ]
    order = {c.value: n for n, c in enumerate((Channel.STABLE, Channel.DEPRECATED, Channel.CANDIDATE))}
    return tuple(sorted(images, key=lambda x: (order.get(x.channel, 9), x.ref, x.digest)))


def _pulls(connection: Connection, digests: Mapping[str, int], now: dt.datetime) -> dict[str, list[Pull]]:
    p = s.pulls.c
    since = timestamp(now - dt.timedelta(days=PULLED_DAYS))[:10]
    if connection.execute(select(p.digest).where(p.day >= since).limit(1)).first() is None:
        return {}
    found: dict[str, list[Pull]] = {}
    for chunk in _chunks(digests):
        query = (
            select(p.digest, p.who, func.sum(p.count), func.max(p.last_at))
            .where(p.digest.in_(chunk), p.day >= since)
            .group_by(p.digest, p.who)
            .order_by(func.max(p.last_at).desc(), p.who)
        )
        for digest, who, count, last in connection.execute(query):
            found.setdefault(digest, []).append(Pull(who, int(count), last))
    return found


def _of(connection: Connection, query: Select[Any], key: Any, wanted: Iterable[Any]) -> list[Row[Any]]:
    return [r for chunk in _chunks(wanted) for r in connection.execute(query.where(key.in_(chunk)))]


def _lists(
    connection: Connection, query: Select[Any], key: Any, wanted: Iterable[Any]
) -> dict[Any, list[Any]]:
    found: dict[Any, list[Any]] = {}
    for row in _of(connection, query, key, wanted):
        owner, value = tuple(row)
        found.setdefault(owner, []).append(value)
    return found


def _chunks(values: Iterable[Any]) -> Iterable[list[Any]]:
    ordered = list(values)
    return (ordered[n : n + _AT_ONCE] for n in range(0, len(ordered), _AT_ONCE))
