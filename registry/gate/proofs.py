"""What was approved, kept on disk: a restart needs neither the storage nor the whole verification.

An SQLite file with one row for each image. It is as trusted as the public keys beside it;
nevertheless the verdict's signature, the digests of all manifests, and that they belong together
are proved again before anything of an image is served for the first time. At start only the heads
are read, each with its checksum, so that the start of a gate takes the time of reading a list.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import hashlib
import json
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from builder.model.digest import Digest
from builder.signing.trust import Trust
from registry.gate.admission import prove_again
from registry.gate.decision import Approved
from registry.gate.kept import Kept, decode_body, encode_body, encode_head

_FILE = "approvals.db"
_BODY_MAX = 256 << 20  # bytes
_BUSY_SECONDS = 2.0  # for another gate with the same folder
_SCHEMA = """
create table if not exists heads (
  id integer primary key, repository text not null, image text not null,
  head blob not null, checksum blob not null, unique (repository, image));
create table if not exists bodies (id integer primary key references heads, body blob not null);
"""


class Proofs:
    """The folder of proofs of one gate; without one (`None`) nothing outlives the process.

    A disk that is full or a file that is damaged is no reason to stop: then less is kept. Safe in
    threads.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._lock = threading.RLock()
        self._made: sqlite3.Connection | None = None
        self._newest: dict[Digest, dt.datetime] = {}
        self._written: dict[tuple[str, Digest], tuple[dt.datetime, str, tuple[str, ...]]] = {}

    def seen(self, digest: Digest) -> dt.datetime | None:
        """The newest time of a verdict that was believed on an image."""
        return self._newest.get(digest)

    def save(self, approved: Approved | Kept, tags: Sequence[str]) -> None:
        """Keep an approval and the tags that lead to it."""
        self._note(approved)
        state = (approved.issued_at, approved.mark, tuple(sorted(tags)))
        key = (approved.repository, approved.index)
        if self._folder is None or self._written.get(key) == state:
            return
        whole = approved.approved() if isinstance(approved, Kept) else approved
        if whole is not None and self._tried(lambda db: _write(db, whole, tags), make=True):
            self._written[key] = state

    def drop(self, repository: str, digest: Digest) -> None:
        """Forget an approval."""
        if self._written.pop((repository, digest), None) is not None:
            self._tried(lambda db: _delete(db, repository, digest))

    def forget(self, repository: str, digest: Digest) -> None:
        """Forget an approval that was nobody's to give, and with it that its verdict was seen."""
        self._newest.pop(digest, None)
        self.drop(repository, digest)

    def load(self, trust: Trust) -> Iterator[Kept]:
        """All approvals that were kept; each proves itself when it is used first, by `trust`."""
        rows: list[tuple[str, str, bytes, bytes]] = []
        read = "select repository, image, head, checksum from heads"
        if not self._tried(lambda db: rows.extend(db.execute(read))):
            return
        for repository, image, head, checksum in rows:
            kept = None
            with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError):
                if hashlib.sha256(head).digest() == checksum:
                    kept = Kept(json.loads(head), lambda where, index: self._proved(where, index, trust))
            if kept is None or (kept.repository, kept.index) != (repository, image):
                self._tried(lambda db, r=repository, i=image: _delete(db, r, i))  # type: ignore[misc]
                continue
            self._note(kept)
            state = (kept.issued_at, kept.mark, tuple(sorted(kept.tags)))
            self._written[kept.repository, kept.index] = state
            yield kept

    def close(self) -> None:
        """Let go of the file; nothing is kept from here on."""
        with self._lock:
            self._leave()
            self._folder = None

    def _leave(self) -> None:
        if self._made is not None:
            self._made.close()
            self._made = None

    def _note(self, approved: Approved | Kept) -> None:
        known = self._newest.get(approved.index, approved.issued_at)
        self._newest[approved.index] = max(approved.issued_at, known)

    def _proved(self, repository: str, index: Digest, trust: Trust) -> Approved | None:
        """The approval in a body that proves itself; what does not is forgotten."""
        bodies: list[tuple[bytes]] = []
        read = (
            "select body from bodies join heads using (id) "
            "where repository = ? and image = ? and length(body) <= ?"
        )
        self._tried(lambda db: bodies.extend(db.execute(read, (repository, index, _BODY_MAX))))
        with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError):
            approved = decode_body(bodies[0][0]) if bodies else None
            same = approved is not None and (approved.repository, approved.index) == (repository, index)
            if approved is not None and same and prove_again(approved, trust):
                return approved
        self.drop(repository, index)
        return None

    def _tried(self, action: Callable[[sqlite3.Connection], Any], *, make: bool = False) -> bool:
        """Whether the file could be used; a damaged one gives way to a new one."""
        with self._lock:
            try:
                db = self._open(make)
                if db is None:
                    return False
                with db:
                    action(db)
                return True
            except (sqlite3.OperationalError, OSError):  # busy, full, not writable
                return False
            except sqlite3.DatabaseError:
                self._leave()
                for name in (_FILE, f"{_FILE}-wal", f"{_FILE}-shm"):
                    with contextlib.suppress(OSError):
                        ((self._folder or Path()) / name).unlink()
                return False

    def _open(self, make: bool) -> sqlite3.Connection | None:
        if self._made is None and self._folder is not None:
            path = self._folder / _FILE
            if make:
                self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            elif not path.exists():
                return None
            made = sqlite3.connect(path, timeout=_BUSY_SECONDS, check_same_thread=False)
            try:
                made.execute("pragma journal_mode = wal")
                made.execute("pragma synchronous = normal")
                made.executescript(_SCHEMA)
            except BaseException:
                made.close()
                raise
            self._made = made
        return self._made


def _write(db: sqlite3.Connection, approved: Approved, tags: Sequence[str]) -> None:
    head = encode_head(approved, tags)
    _delete(db, approved.repository, approved.index)
    added = db.execute(
        "insert into heads (repository, image, head, checksum) values (?, ?, ?, ?)",
        (approved.repository, approved.index, head, hashlib.sha256(head).digest()),
    )
    db.execute("insert into bodies values (?, ?)", (added.lastrowid, encode_body(approved)))


def _delete(db: sqlite3.Connection, repository: str, digest: str) -> None:
    which = "(select id from heads where repository = ? and image = ?)"
    db.execute(f"delete from bodies where id in {which}", (repository, digest))  # noqa: S608 - our own words
    db.execute("delete from heads where repository = ? and image = ?", (repository, digest))
