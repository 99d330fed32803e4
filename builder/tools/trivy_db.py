"""The vulnerability database: fetched, checked, kept by digest, and the same during a scan.

Trivy scans with any database it finds: an old one, one from which most is missing, one that
changes meanwhile, always with exit code 0. So ours is pinned by the digest of its artefact,
its metadata and its size are checked, and its files must be untouched after each scan.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import shutil
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from builder.errors import RegistryError, ToolError
from builder.model.digest import Digest
from builder.model.evidence import DatabaseIdentity
from builder.store import Store, file_digest, write_atomically
from builder.tools.strict_json import load_object
from builder.tools.trivy_db_source import Artefact, is_remote, resolve

SCHEMA = 2
REFRESH_HOURS = 6.0  # a remote database is asked for again after this time
RETRY_HOURS = 1.0  # the same, after it could not be reached: each try may take seconds
SIZE_MIN = 1 << 20  # bytes; the sample of the tests has 2 MiB, Trivy's own hundreds
SHRINK_MAX = 0.5  # of the last one's size
_FILES = ("metadata.json", "trivy.db")
_CLOCK_SKEW = dt.timedelta(hours=1)
_METADATA_MAX = 1 << 20  # bytes
_PAGE = 4096  # bytes; bbolt's page
_HINT = (
    "set GOLDSMITH_TRIVY_DB to a database you have: an OCI reference, an OCI layout, "
    "or a tar with metadata.json and trivy.db"
)
_Stamp = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class Database:
    """A checked database in `cache_dir` (Trivy's cache layout), and what its files looked like."""

    identity: DatabaseIdentity
    cache_dir: Path
    stamps: tuple[_Stamp, ...]

    def verify(self) -> None:
        """Raise ToolError unless the files are untouched since the database was opened.

        The change time is compared, which nobody but the kernel can set.
        """
        if _stamps(self.cache_dir) != self.stamps:
            raise ToolError(
                "the vulnerability database changed while it was in use",
                context=str(self.cache_dir),
                hint="nothing else may write there; run again",
                reference="database-changed",
            )


def open_database(
    store: Store,
    source: str | None,
    *,
    now: dt.datetime,
    age_days_max: float,
    refresh_hours: float = REFRESH_HOURS,
) -> Database:
    """The database of `source` (None: where Trivy normally takes it), fetched when that is due.

    When a registry cannot be reached, the last one is taken as long as it is not older than
    `age_days_max`. Raises ToolError when there is none, or it fails a check.
    """
    last = _read_record(_record_path(store, source))
    if last and is_remote(source) and not _is_due(last, now, refresh_hours):
        with contextlib.suppress(ToolError):  # damaged or too old: it is fetched anew
            return _open(store, last, now, age_days_max)
    try:
        record = _install(store, resolve(source, store.credentials), last, now)
        database = _open(store, record, now, age_days_max)
    except OSError as error:
        raise _unavailable(ToolError("its files cannot be read or written", context=str(error))) from None
    except (ToolError, RegistryError) as error:
        if error.reference.startswith("database-"):
            raise
        if not last or not is_remote(source):
            raise _unavailable(error) from None
        record = last | {"asked_at": now.isoformat(), "answered": False}
        database = _open(store, record, now, age_days_max)
    write_atomically(_record_path(store, source), json.dumps(record, sort_keys=True, indent=1).encode())
    _prune(store)
    return database


def current_digest(store: Store, source: str | None) -> Digest | None:
    """The digest of the database that was opened last for `source`; nothing is fetched or checked."""
    record = _read_record(_record_path(store, source))
    return Digest(record["digest"]) if record else None


def forget(store: Store, source: str) -> None:
    """Drop the record of a source that is no longer in use; its database goes with the next pruning."""
    _record_path(store, source).unlink(missing_ok=True)


def _record_path(store: Store, source: str | None) -> Path:
    return store.db / f"current-{Digest.of((source or '').encode()).short}.json"


def _install(
    store: Store, artefact: Artefact, last: dict[str, Any] | None, now: dt.datetime
) -> dict[str, Any]:
    """Unpack an artefact to its place in the store, unless it is there; returns its record."""
    target = store.db / artefact.digest.hex
    if not (target / "content.json").is_file():
        with store.scratch("database") as scratch:
            folder = scratch / "new" / "db"
            folder.mkdir(parents=True)
            artefact.unpack(folder)
            check_file(folder / "trivy.db")
            for name in _FILES:
                (folder / name).chmod(0o444)
            _write_content(scratch / "new")
            shutil.rmtree(target, ignore_errors=True)
            (scratch / "new").replace(target)
    size = (target / "db" / "trivy.db").stat().st_size
    if last and size < SHRINK_MAX * int(last.get("bytes", 0)):
        raise ToolError(
            f"the vulnerability database shrank from {last['bytes']} to {size} bytes",
            context=artefact.source,
            hint=f"if that is right, remove the records in {store.db}",
            reference="database-shrunk",
        )
    return {
        "digest": str(artefact.digest),
        "source": artefact.source,
        "bytes": size,
        "asked_at": now.isoformat(),
        "answered": True,
    }


def _open(store: Store, record: dict[str, Any], now: dt.datetime, age_days_max: float) -> Database:
    """Check everything that is known of a kept database; raises ToolError."""
    folder = store.db / Digest(record["digest"]).hex
    stamps = _stamps(folder)
    content = load_object(folder / "content.json", size_max=4096, what="the database's record")
    # Hashing a gigabyte takes seconds; files that nobody touched need it once.
    if content.get("stamps") != [list(stamp) for stamp in stamps]:
        if any(str(file_digest(folder / "db" / name)) != content.get(name) for name in _FILES):
            shutil.rmtree(folder, ignore_errors=True)
            raise ToolError(
                "the kept vulnerability database was altered and is removed",
                hint="run again to fetch it anew",
                reference="database-altered",
            )
        _write_content(folder)
    check_file(folder / "db" / "trivy.db")
    metadata = load_object(
        folder / "db" / "metadata.json", size_max=_METADATA_MAX, what="the database's metadata"
    )
    identity = identify(metadata, Digest(record["digest"]), str(record["source"]))
    check_age(identity, now, age_days_max)
    database = Database(identity, folder, stamps)
    database.verify()
    return database


def _write_content(folder: Path) -> None:
    """Write down what the files of a database hold, and when they were touched last."""
    digests = {name: str(file_digest(folder / "db" / name)) for name in _FILES}
    content = {**digests, "stamps": _stamps(folder)}
    write_atomically(folder / "content.json", json.dumps(content).encode())


def identify(metadata: dict[str, Any], digest: Digest, source: str) -> DatabaseIdentity:
    """The identity that a database's metadata give; raises ToolError when they are malformed."""
    if metadata.get("Version") != SCHEMA or isinstance(metadata.get("Version"), bool):
        raise ToolError(
            f"the vulnerability database has schema {str(metadata.get('Version'))[:40]}, not {SCHEMA}",
            context=source,
            hint=_HINT,
            reference="database-schema",
        )
    updated = _time(metadata.get("UpdatedAt"))
    return DatabaseIdentity(
        digest=digest,
        source=source,
        updated_at=updated.strftime("%Y-%m-%dT%H:%M:%SZ"),
        schema=SCHEMA,
        sample=metadata.get("Sample", False) is not False,
    )


class Dated(Protocol):
    """A database, or the pin of one: where it came from, and when it was updated."""

    @property
    def source(self) -> str: ...

    @property
    def updated_at(self) -> str: ...


def check_age(identity: Dated, now: dt.datetime, age_days_max: float) -> None:
    """Raise ToolError when the database is from the future or older than `age_days_max` days."""
    updated = _time(identity.updated_at)
    if updated > now + _CLOCK_SKEW:
        raise ToolError(
            f"the vulnerability database is from the future: {identity.updated_at}",
            context=f"this machine's clock says {now.isoformat()}",
            hint="set the clock, or take another database",
            reference="database-from-the-future",
        )
    age = (now - updated) / dt.timedelta(days=1)
    if age > age_days_max:
        raise ToolError(
            f"the vulnerability database is {age:.1f} days old; the policy allows {age_days_max:g}",
            context=f"{identity.source}, updated {identity.updated_at}",
            hint="let this machine reach the database's registry, or " + _HINT,
            reference="database-too-old",
        )


def check_file(path: Path) -> None:
    """Raise ToolError unless the file is a whole bbolt database of a plausible size.

    Source: etcd-io/bbolt, `internal/common/meta.go`: magic, version, page size, high-water page.
    """
    size = path.stat().st_size
    if size < SIZE_MIN:
        raise _damaged(f"it has {size} bytes, a real one at least {SIZE_MIN}")
    with open(path, "rb") as handle:
        head = handle.read(2 * _PAGE)
    pages = 0
    for start in (16, _PAGE + 16):
        magic, version, page_size = struct.unpack_from("<III", head, start)
        if (magic, version, page_size) == (0xED0CDAED, 2, _PAGE):
            pages = max(pages, *struct.unpack_from("<Q", head, start + 40))
    if not pages:
        raise _damaged("it is no bbolt file")
    if pages * _PAGE > size:
        raise _damaged(f"it is cut: {size} bytes of {pages * _PAGE}")


def _stamps(folder: Path) -> tuple[_Stamp, ...]:
    stamps = []
    for name in _FILES:
        try:
            seen = (folder / "db" / name).lstat()
        except OSError as error:
            raise ToolError(
                "the vulnerability database is missing", context=str(error), hint="run again to fetch it"
            ) from None
        stamps.append((seen.st_ino, seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns))
    return tuple(stamps)


def _read_record(path: Path) -> dict[str, Any] | None:
    """What the last run kept; None when there is nothing that can be used."""
    try:
        record = load_object(path, size_max=4096, what="the record")
        Digest(record["digest"])
        _time(record["asked_at"])
        return record if isinstance(record["bytes"], int) and isinstance(record["source"], str) else None
    except (ToolError, KeyError, ValueError, TypeError):
        return None


def _is_due(record: dict[str, Any], now: dt.datetime, refresh_hours: float) -> bool:
    """Whether the registry is to be asked again: sooner when it did not answer the last time."""
    hours = (now - _time(record["asked_at"])) / dt.timedelta(hours=1)
    return not 0 <= hours < (refresh_hours if record.get("answered") else RETRY_HOURS)


def _prune(store: Store) -> None:
    """Remove the databases that no record names any more: one can have a gigabyte."""
    records = [_read_record(path) for path in store.db.glob("current-*.json")]
    kept = {Digest(record["digest"]).hex for record in records if record}
    for folder in store.db.iterdir():
        if folder.is_dir() and folder.name not in kept:
            shutil.rmtree(folder, ignore_errors=True)


def _time(value: object) -> dt.datetime:
    try:
        time = dt.datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        time = None
    if time is None or time.tzinfo is None:
        raise ToolError(
            f"the database's metadata have no proper time: {str(value)[:60]!r}",
            hint=_HINT,
            reference="database-metadata",
        )
    return time.astimezone(dt.UTC)


def _damaged(reason: str) -> ToolError:
    return ToolError(
        f"the vulnerability database is damaged: {reason}", hint=_HINT, reference="database-damaged"
    )


def _unavailable(error: ToolError | RegistryError) -> ToolError:
    return ToolError(
        "no vulnerability database can be had",
        context="\n".join(part for part in (error.message, error.context) if part),
        hint=_HINT,
        reference="no-database",
    )
