"""The index's tables, and where its file is.

Times are RFC 3339 in UTC, to the second: they compare as texts. A package is what the scanner
tells apart: the same name and version from another source version, of another architecture or
distribution release, is another package.

Which image has which package is a list of numbers for each platform, and its inverse for each
package: a row for each pair would be a hundred times as many, and a question about a package that
all images have would bring them one by one.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from pathlib import Path

from sqlalchemy import (
    Boolean,
    Column,
    Engine,
    ForeignKey,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    UniqueConstraint,
    select,
)
from sqlalchemy.exc import DBAPIError

from builder.errors import ToolError
from builder.store import write_atomically
from registry.sqlite import reader, writer

VERSION = "7"  # moves with every change of the tables or of what is read: another version is made anew

metadata = MetaData()


def _image() -> Column[int]:
    return Column("image", ForeignKey("images.id", ondelete="CASCADE"), primary_key=True)


# What the file is: version, keys, registry, when it was made, the ledger's length then, state.
facts = Table("facts", metadata, Column("name", String, primary_key=True), Column("value", String))

images = Table(
    "images",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("digest", String, nullable=False, unique=True),
    Column("ref", String, nullable=False, index=True),
    Column("immutable_tag", String, nullable=False),
)
# Where an image is; `mark` tells whether its evidence there has changed.
places = Table(
    "places",
    metadata,
    _image(),
    Column("repository", String, primary_key=True),
    Column("mark", String, nullable=False),
)
tags = Table(
    "tags",
    metadata,
    Column("repository", String, primary_key=True),
    Column("tag", String, primary_key=True),
    Column("digest", String, nullable=False, index=True),
)
verdicts = Table(
    "verdicts",
    metadata,
    _image(),
    Column("approved", Boolean, nullable=False),
    Column("policy", String, nullable=False),
    Column("policy_digest", String, nullable=False),
    Column("issued_at", String, nullable=False),
    Column("expires_at", String, nullable=False),
    Column("database", String, nullable=False),
    Column("sample", Boolean, nullable=False),
)
waivers = Table("waivers", metadata, _image(), Column("waiver", String, primary_key=True))
# The newest record of a decision; an image without one is a candidate.
channels = Table(
    "channels",
    metadata,
    _image(),
    Column("channel", String, nullable=False),
    Column("sequence", Integer, nullable=False),
    Column("at", String, nullable=False),
    Column("why", String, nullable=False),
    Column("replacement", String, nullable=False),
)
# `packages` are the numbers of its packages, as `packed` writes them.
platforms = Table(
    "platforms",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("image", ForeignKey("images.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("digest", String, nullable=False, index=True),
    Column("platform", String, nullable=False),
    Column("release", String, nullable=False),
    Column("point_release", String, nullable=False),
    Column("packages", LargeBinary, nullable=False),
    UniqueConstraint("image", "digest"),
)
# `facts` are the scanner's own properties of the package, as canonical JSON; empty when the SBOM
# has none. `looked_at` is the age of the newest database that it was compared with.
packages = Table(
    "packages",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("release", String, nullable=False),
    Column("name", String, nullable=False, index=True),
    Column("version", String, nullable=False),
    Column("architecture", String, nullable=False),
    Column("source", String, nullable=False, index=True),
    Column("purl", String, nullable=False),
    Column("facts", String, nullable=False),
    Column("looked_at", String, nullable=False),
    Column("database", String, nullable=False),
    UniqueConstraint("release", "purl", "facts", "name", "version"),
)
# Which images have a package on a platform: the numbers of their cards, as `packed` writes them.
carriers = Table(
    "carriers",
    metadata,
    Column("package", ForeignKey("packages.id"), primary_key=True),
    Column("platform", String, primary_key=True),
    Column("cards", LargeBinary, nullable=False),
)
# What `affected` tells of an image, in the order of its answers: made of the other tables whenever
# one of them has changed. `repositories`, `tags` and `waivers` have one on each line; `pulls` is
# JSON, `[who, newest time, how often, [[day, count], …]]` for each who, and empty when there is none.
cards = Table(
    "cards",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("ref", String, nullable=False),
    Column("digest", String, nullable=False),
    Column("channel", String, nullable=False),
    Column("approved", Boolean, nullable=False),
    Column("expires_at", String, nullable=False),
    Column("replacement", String, nullable=False),
    Column("repositories", String, nullable=False),
    Column("tags", String, nullable=False),
    Column("waivers", String, nullable=False),
    Column("pulls", String, nullable=False),
)
vulnerabilities = Table(
    "vulnerabilities",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", String, nullable=False, unique=True),
    Column("title", String, nullable=False),
)
findings = Table(
    "findings",
    metadata,
    Column("vulnerability", ForeignKey("vulnerabilities.id"), primary_key=True),
    Column("package", ForeignKey("packages.id"), primary_key=True, index=True),
    Column("severity", String, nullable=False),
    Column("status", String, nullable=False),
    Column("fixed_version", String, nullable=False),
    sqlite_with_rowid=False,
)
# What scanners of extensions found: they may look at more than packages, so it is of one platform.
further = Table(
    "further",
    metadata,
    _image(),
    Column("platform", String, primary_key=True),
    Column("package", Integer, primary_key=True),
    Column("scanner", String, primary_key=True),
    Column("vulnerability", String, primary_key=True, index=True),
    Column("title", String, nullable=False),
    Column("severity", String, nullable=False),
    Column("status", String, nullable=False),
    Column("fixed_version", String, nullable=False),
)
# Who pulled which image on which day, from the gate's journal; also one that has left the registry.
pulls = Table(
    "pulls",
    metadata,
    Column("digest", String, primary_key=True),
    Column("who", String, primary_key=True),
    Column("day", String, primary_key=True),
    Column("count", Integer, nullable=False),
    Column("last_at", String, nullable=False),
    sqlite_with_rowid=False,
)
# What could not be verified, with the reason: it is in none of the other tables. The digest is empty
# when not even that is known.
problems = Table(
    "problems",
    metadata,
    Column("repository", String, primary_key=True),
    Column("digest", String, primary_key=True),
    Column("tags", String, primary_key=True),
    Column("reason", String, nullable=False),
    Column("message", String, nullable=False),
    Column("context", String, nullable=False),
)


def engine(path: Path, *, create: bool = False) -> Engine:
    """The index in a file, for reading and writing; `create` makes its tables."""
    made = writer(path)
    if create:
        metadata.create_all(made)
    return made


def packed(numbers: Iterable[int]) -> bytes:
    """Numbers as the index keeps them, which never leaves its machine: four bytes each."""
    return array("I", numbers).tobytes()


def unpacked(data: bytes) -> array[int]:
    """What `packed` wrote."""
    numbers = array("I")
    numbers.frombytes(data)
    return numbers


def facts_of(path: Path) -> dict[str, str]:
    """What an index says of itself; empty when it cannot be read."""
    try:
        with reader(path).connect() as connection:
            rows = connection.execute(select(facts.c.name, facts.c.value))
            return {row.name: row.value for row in rows}
    except DBAPIError:
        return {}


class Place:
    """Where the index of a state directory is: files of one generation each, and the newest one's name.

    A new generation appears as a whole; who reads an older one goes on reading it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._pointer = folder / "current"
        self._stale = folder / "stale"

    def current(self) -> Path | None:
        """The newest generation's file; None when there is none that can be used."""
        try:
            path = self.folder / self._pointer.read_text().strip()[:100]
        except (OSError, ValueError):
            return None
        usable = path.parent == self.folder and path.is_file() and facts_of(path).get("version") == VERSION
        return path if usable else None

    def require(self) -> Path:
        """The newest generation's file; raises ToolError when there is none."""
        path = self.current()
        if path is None:
            other = self._pointer.exists()  # a file without it is a rebuild that was cut
            raise ToolError(
                "the index is damaged, or was made by another version" if other else "there is no index",
                context=str(self.folder),
                hint="goldsmith reindex",
                reference="no-index",
            )
        return path

    def new(self) -> Path:
        """A file for the next generation."""
        self.folder.mkdir(parents=True, exist_ok=True)
        numbers = [int(p.stem[6:]) for p in self.folder.glob("index-*.db") if p.stem[6:].isdigit()]
        path = self.folder / f"index-{max(numbers, default=0) + 1}.db"
        _remove(path)
        return path

    def publish(self, path: Path) -> None:
        """Make a finished generation the current one, and remove the others."""
        write_atomically(self._pointer, path.name.encode())
        self._stale.unlink(missing_ok=True)
        for other in self.folder.glob("index-*.db"):
            if other != path:
                _remove(other)

    def mark_stale(self, why: str) -> None:
        """Note that the registry has changed since; nothing happens where there is no index."""
        if self.folder.is_dir():
            write_atomically(self._stale, why.encode()[:500])

    def stale(self) -> str:
        """What has changed since the index was made; empty when nothing is known to have."""
        try:
            return self._stale.read_text(errors="replace")[:500]
        except OSError:
            return ""


def _remove(path: Path) -> None:
    for ending in ("", "-wal", "-shm"):
        path.with_name(path.name + ending).unlink(missing_ok=True)
