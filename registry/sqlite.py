"""How our SQLite files are opened: the index, the outbox of notifications. No tables are here."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, create_engine, event

_BUSY_MS = 10_000
_WRITING = ("journal_mode = WAL", "synchronous = NORMAL", "foreign_keys = ON")


def writer(path: Path) -> Engine:
    """A file for reading and writing; every transaction takes the lock at its start.

    A transaction that reads first and writes later would otherwise fail as locked.
    """
    made = create_engine(f"sqlite+pysqlite:///{path}")
    _set_up(made, *_WRITING)

    @event.listens_for(made, "begin")
    def _begin(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return made


def reader(path: Path) -> Engine:
    """A file for reading only."""
    made = create_engine(f"sqlite+pysqlite:///file:{path}?mode=ro&uri=true")
    _set_up(made)
    return made


def _set_up(made: Engine, *pragmas: str) -> None:
    @event.listens_for(made, "connect")
    def _connect(connection: sqlite3.Connection, _: Any) -> None:
        if pragmas:
            connection.isolation_level = None  # SQLAlchemy begins and ends
        for pragma in (f"busy_timeout = {_BUSY_MS}", *pragmas):
            connection.execute(f"PRAGMA {pragma}")
