"""The outbox: what is to be told, kept until it was. Each message is there once.

Events and the place in the ledger up to which they were taken are written in one transaction, so
that nothing is lost and nothing told twice because a run was cut. A message that was sent, and not
marked because the process was killed in between, is sent once more: it is at least once.
"""

from __future__ import annotations

import datetime as dt
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Column, Connection, Integer, MetaData, String, Table, UniqueConstraint, select, update
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.exc import DBAPIError

from builder.errors import ToolError, UsageError
from registry.audit.ledger import Entry
from registry.notify.events import TURNED_BAD, Event, Kind, of_entry
from registry.notify.rules import NotifyFile
from registry.sqlite import writer

WAITING, SENT, DEAD = "waiting", "sent", "dead"
ATTEMPTS_MAX = 8
_BACKOFF = dt.timedelta(minutes=1)
_BACKOFF_MAX = dt.timedelta(hours=6)
_CURSOR = "ledger"
_AT_ONCE = 100  # messages that are claimed at once
_FAILURES_MAX = 3  # in a row, of one target in one delivery
_ERROR_MAX = 300  # characters

metadata = MetaData()
messages = Table(
    "messages",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("event", String, nullable=False),
    Column("target", String, nullable=False),
    Column("kind", String, nullable=False),
    Column("ref", String, nullable=False),
    Column("digest", String, nullable=False),
    Column("title", String, nullable=False),
    Column("body", String, nullable=False),
    Column("state", String, nullable=False, index=True),
    Column("attempts", Integer, nullable=False),
    Column("due_at", String, nullable=False),
    Column("created_at", String, nullable=False),
    Column("sent_at", String, nullable=False),
    Column("error", String, nullable=False),
    UniqueConstraint("event", "target"),
)
cursors = Table(
    "cursors", metadata, Column("name", String, primary_key=True), Column("value", Integer, nullable=False)
)


@dataclass(frozen=True, slots=True)
class Message:
    """A message of the outbox, as it stands; times are RFC 3339 UTC, empty where there is none."""

    id: int
    event: str
    target: str
    kind: str
    ref: str
    digest: str
    title: str
    body: str
    state: str
    attempts: int
    due_at: str
    created_at: str
    sent_at: str
    error: str


@dataclass(frozen=True, slots=True)
class Delivered:
    """What became of the messages that were due."""

    sent: int
    failed: int
    dead: int


class Outbox:
    """The outbox in a file; `now` is the time of the run."""

    def __init__(self, path: Path, now: dt.datetime) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path, self._engine, self._now = path, writer(path), now
        with self._begin() as connection:
            metadata.create_all(connection)

    @contextmanager
    def _begin(self) -> Iterator[Connection]:
        """A transaction; raises ToolError when the file cannot be read or written."""
        try:
            with self._engine.begin() as connection:
                yield connection
        except (DBAPIError, sqlite3.Error) as error:
            raise ToolError(
                "the outbox cannot be read or written",
                context=f"{self._path}: {getattr(error, 'orig', error)}",
                hint="make room on the disk, see to its rights; what was not marked is sent again",
                reference="outbox",
            ) from None

    def collect(
        self,
        entries: Iterable[Entry],
        rules: NotifyFile,
        owner_of: Callable[[str], str],
        pulled_by: Callable[[str], Iterable[str]],
    ) -> int:
        """Take the ledger's new decisions in; returns how many messages that made.

        `owner_of` gives the owner of an image by its name, `pulled_by` the identities that lately
        pulled a digest. The first time, only what is decided from then on is told.
        """
        listed = list(entries)
        newest = listed[-1].sequence if listed else 0
        with self._begin() as connection:
            seen = connection.scalar(select(cursors.c.value).where(cursors.c.name == _CURSOR))
            made = 0
            for entry in listed if seen is not None else ():
                found = of_entry(entry) if entry.sequence > (seen or 0) else None
                if found is None:
                    continue
                made += self._add(connection, found, found.key, rules.targets(found, owner_of(found.image)))
                if found.kind in TURNED_BAD:
                    identities = pulled_by(found.digest)
                    told = dict.fromkeys(t for who in identities for t in rules.targets_of(who))
                    # Once for a digest that is not recommended any more, and once for one that is refused.
                    part = "/deprecated" if found.kind is Kind.DEPRECATED else ""
                    made += self._add(connection, found, f"pulled/{found.digest}{part}", tuple(told))
            connection.execute(
                insert(cursors)
                .values(name=_CURSOR, value=newest)
                .on_conflict_do_update(index_elements=["name"], set_={"value": newest})
            )
        return made

    def begin(self, entries: Iterable[Entry]) -> None:
        """Where nothing was collected yet: tell what is decided from now on."""
        newest = max((e.sequence for e in entries), default=0)
        self.mark(_CURSOR, newest, only_first=True)

    def marked(self, name: str) -> int | None:
        """A number that was kept under a name; None when there is none."""
        with self._begin() as connection:
            found = connection.scalar(select(cursors.c.value).where(cursors.c.name == name))
            return None if found is None else int(found)

    def mark(self, name: str, value: int, *, only_first: bool = False) -> None:
        """Keep a number under a name; with `only_first`, an earlier one stays."""
        new = insert(cursors).values(name=name, value=value)
        kept = (
            new.on_conflict_do_nothing()
            if only_first
            else new.on_conflict_do_update(index_elements=["name"], set_={"value": value})
        )
        with self._begin() as connection:
            connection.execute(kept)

    def add(self, event: Event, rules: NotifyFile, owner: str) -> int:
        """Take one event in; returns how many messages that made, 0 when it was there before."""
        with self._begin() as connection:
            return self._add(connection, event, event.key, rules.targets(event, owner))

    def deliver(self, send: Callable[[str, str, str], str]) -> Delivered:
        """Send what is due; `send(target, title, body)` returns what went wrong, empty when nothing did.

        A message is tried again after 1, 2, 4 … minutes, at most six hours, and is dead after
        eight times. A target that took nothing three times in a row is left alone until the next time.
        """
        counts = {SENT: 0, WAITING: 0, DEAD: 0}
        in_a_row: dict[str, int] = {}
        away: set[str] = set()
        while batch := self._claim(away):
            for message in batch:
                if message.target in away:
                    self._give_back(message)
                    continue
                error = send(message.target, message.title, message.body)[:_ERROR_MAX]
                state = self._note(message, error)
                counts[state] += 1
                in_a_row[message.target] = 0 if not error else in_a_row.get(message.target, 0) + 1
                if in_a_row[message.target] >= _FAILURES_MAX:
                    away.add(message.target)
        return Delivered(counts[SENT], counts[WAITING], counts[DEAD])

    def _note(self, message: Message, error: str) -> str:
        """What became of one message."""
        if not error:
            self._set(message.id, state=SENT, sent_at=_text(self._now), error="")
            return SENT
        state = DEAD if message.attempts + 1 >= ATTEMPTS_MAX else WAITING
        self._set(message.id, state=state, error=error)
        return state

    def _give_back(self, message: Message) -> None:
        """A message that was not tried after all: it is due as before."""
        with self._begin() as connection:
            change = update(messages).where(messages.c.id == message.id)
            connection.execute(change.values(attempts=message.attempts, due_at=message.due_at))

    def list(self, state: str = "") -> tuple[Message, ...]:
        """The messages, the newest first; of one state, or all."""
        query = select(messages).order_by(messages.c.id.desc())
        with self._begin() as connection:
            rows = connection.execute(query.where(messages.c.state == state) if state else query)
            return tuple(Message(**row._mapping) for row in rows)

    def replay(self, ids: Iterable[int] = ()) -> int:
        """Make dead messages (all, or these) due again; returns how many.

        Raises UsageError when one of these is none.
        """
        wanted = list(ids)
        change = update(messages).where(messages.c.state == DEAD)
        with self._begin() as connection:
            dead = set(connection.scalars(select(messages.c.id).where(messages.c.state == DEAD)))
            if others := [number for number in wanted if number not in dead]:
                raise UsageError(
                    f"no message that was given up has the number {others[0]}",
                    hint="`goldsmith notify list --state dead` lists them",
                )
            if wanted:
                change = change.where(messages.c.id.in_(wanted))
            done = connection.execute(change.values(state=WAITING, attempts=0, due_at=_text(self._now)))
            return int(done.rowcount)

    def _claim(self, away: Iterable[str]) -> tuple[Message, ...]:
        """What is due for others than these; it is put off at once, so that another sender at the same
        time leaves it alone."""
        with self._begin() as connection:
            rows = connection.execute(
                select(messages)
                .where(messages.c.state == WAITING, messages.c.due_at <= _text(self._now))
                .where(messages.c.target.not_in(sorted(away)))
                .order_by(messages.c.id)
                .limit(_AT_ONCE)
            )
            found = tuple(Message(**row._mapping) for row in rows)
            for one in found:
                pause = min(_BACKOFF * 2**one.attempts, _BACKOFF_MAX)
                connection.execute(
                    update(messages)
                    .where(messages.c.id == one.id)
                    .values(attempts=one.attempts + 1, due_at=_text(self._now + pause))
                )
        return found

    def _set(self, number: int, **values: str) -> None:
        with self._begin() as connection:
            connection.execute(update(messages).where(messages.c.id == number).values(**values))

    def _add(self, connection: Connection, event: Event, key: str, targets: tuple[str, ...]) -> int:
        made = 0
        for target in targets:
            values: Mapping[str, object] = {
                "event": key,
                "target": target,
                "kind": event.kind.value,
                "ref": event.ref,
                "digest": event.digest,
                "title": event.title,
                "body": event.body,
                "state": WAITING,
                "attempts": 0,
                "due_at": _text(self._now),
                "created_at": _text(self._now),
                "sent_at": "",
                "error": "",
            }
            done = connection.execute(insert(messages).values(**values).on_conflict_do_nothing())
            made += int(done.rowcount)
        return made


def _text(at: dt.datetime) -> str:
    return at.astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
