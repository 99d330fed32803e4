"""Makes the index from the registry: every image that a tag names, read and verified.

A new generation starts as a copy of the one before where that was made with the same keys from
the same registry: an image whose evidence is the same is not read again, since it was verified
already and its digest says that nothing of it has changed. Everything else is read several
images at a time. What cannot be verified is counted and named among the problems. When the
registry goes away meanwhile, the index stays as it was.
"""

from __future__ import annotations

import datetime as dt
import re
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from sqlalchemy import Connection, delete, insert
from sqlalchemy.exc import DBAPIError

from builder.errors import RegistryError, ToolError
from builder.model.digest import Digest
from builder.model.reference import Reference
from builder.signing.collect import Registry
from builder.signing.predicates import timestamp
from builder.signing.trust import Trust
from registry.index import schema
from registry.index.looking import THREADS, Errand, Looker, looks
from registry.index.reading import NOT_AN_IMAGE, ImageFacts
from registry.index.writing import Problem, Writer
from registry.pulls import Pull
from registry.storage.folder import FolderRegistry

_COSIGN_TAG = re.compile(r"sha256-[0-9a-f]{64}(\.sig|\.att|\.sbom)?")


class ListingRegistry(Registry, Protocol):
    """What a rebuild asks of a registry."""

    def repositories(self) -> tuple[str, ...]:
        """The names of all repositories."""

    def tags(self, repo: str) -> tuple[str, ...]:
        """All tags of a repository."""


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """What a rebuild did: the file, images in it, those that were read anew, and what is missing.

    `others` is how many other things have a tag: databases, lists, which are no images.
    """

    path: Path
    images: int
    read: int
    problems: tuple[Problem, ...]
    others: int = 0


@dataclass(frozen=True, slots=True)
class _Repository:
    """A repository with all its tags, where they point, and those of which that cannot be read."""

    name: str
    listed: frozenset[str]
    pointers: Mapping[str, Digest]
    problems: tuple[Problem, ...]

    @property
    def images(self) -> dict[Digest, tuple[str, ...]]:
        found: dict[Digest, tuple[str, ...]] = {}
        for tag, digest in self.pointers.items():
            found[digest] = (*found.get(digest, ()), tag)
        return found

    def errands(self, host: str, known: Mapping[tuple[str, str], str]) -> Iterator[Errand]:
        """Every image, to be looked at; `known` are the marks of those that the index has."""
        for digest in self.images:
            where = Reference(host, self.name, None, digest)
            yield Errand(where, self.listed, known.get((self.name, digest)))


def reindex(
    place: schema.Place,
    host: str,
    registry: ListingRegistry,
    trust: Trust,
    now: dt.datetime,
    *,
    afresh: bool = False,
    ledger_entries: int = 0,
    journal: Iterable[Pull] = (),
) -> Rebuilt:
    """Make the next generation of the index and put it in place; `afresh` forgets the one before.

    `ledger_entries` is the ledger's length now: by it the index is known to be behind later. `journal`
    is what was pulled in the last time (`PULLED_DAYS` is what is asked for). Raises
    RegistryError when the registry cannot be read, ToolError when the file cannot be written.
    """
    identity = {"registry": host, "keys": _keys(trust)}
    old = None if afresh else place.current()
    path = place.new()
    kept: dict[str, str] = {}
    try:
        if old is not None and identity.items() <= schema.facts_of(old).items():
            _copy(old, path)
            kept = schema.facts_of(old)
        engine = schema.engine(path, create=True)
        with engine.begin() as connection:
            rebuilt = _fill(connection, path, host, registry, trust, journal)
            said = {
                **kept,
                **identity,
                "version": schema.VERSION,
                "made_at": timestamp(now),
                "ledger_entries": str(ledger_entries),
            }
            connection.execute(delete(schema.facts))
            connection.execute(insert(schema.facts), [{"name": k, "value": v} for k, v in said.items()])
        engine.dispose()
    except (sqlite3.Error, DBAPIError) as error:
        raise ToolError("the index cannot be written", context=str(error)[:500]) from None
    place.publish(path)
    return rebuilt


def _fill(
    connection: Connection,
    path: Path,
    host: str,
    registry: ListingRegistry,
    trust: Trust,
    journal: Iterable[Pull],
) -> Rebuilt:
    writer = Writer(connection)
    known = writer.marks()
    problems: list[Problem] = []
    seen: set[tuple[str, str]] = set()
    read = others = 0

    repositories = tuple(_repositories(host, registry))
    looker = Looker(registry, trust)
    for here in repositories:
        problems += here.problems
        writer.point(here.name, here.pointers)
    by_name = {here.name: here.images for here in repositories}
    for errand, first in looks(looker, [e for here in repositories for e in here.errands(host, known)]):
        name, digest, found = errand.where.name, errand.digest, first
        if isinstance(first, RegistryError):
            registry.repositories()  # raises when all of it is away
            found = looker.look(errand)
        seen.add((name, digest))
        if isinstance(found, ImageFacts):
            writer.add(found)
            read += 1
        elif found is not None and found.reference == NOT_AN_IMAGE:
            others += 1
        elif found is not None:
            writer.drop(name, digest)
            problems.append(Problem.of(name, digest, by_name[name][digest], found))
    for repository, digest_text in set(known) - seen:
        writer.drop(repository, digest_text)
    writer.finish(problems, journal)
    return Rebuilt(path, writer.count(), read, tuple(problems), others)


def _repositories(host: str, registry: ListingRegistry) -> Iterator[_Repository]:
    def point(name: str, tag: str) -> Digest | RegistryError | None:
        try:
            if isinstance(registry, FolderRegistry):  # what lies there is read and hashed with the image
                return registry.points_to(Reference(host, name, tag))
            found = registry.head_manifest(Reference(host, name, tag))
        except RegistryError as error:
            registry.repositories()  # raises when all of it is away
            return error
        return found.digest if found else None

    with ThreadPoolExecutor(THREADS, thread_name_prefix="reindex") as pool:
        for name in registry.repositories():
            listed = frozenset(registry.tags(name))
            tags = sorted(t for t in listed if not _COSIGN_TAG.fullmatch(t))
            found = dict(zip(tags, pool.map(point, [name] * len(tags), tags), strict=True))
            yield _Repository(
                name,
                listed,
                {t: d for t, d in found.items() if isinstance(d, Digest)},
                tuple(Problem.of(name, "", [t], e) for t, e in found.items() if isinstance(e, RegistryError)),
            )


def _keys(trust: Trust) -> str:
    """Which keys are believed: with others, nothing is taken over that was verified before."""
    return Digest.of_json([f"{k.id} {k.not_before} {k.not_after} {k.revoked_at}" for k in trust.keys])


def _copy(old: Path, new: Path) -> None:
    source = sqlite3.connect(old)
    target = sqlite3.connect(new)
    try:
        source.backup(target)
    finally:
        source.close()
        target.close()
