"""A real container engine for the integration tests: one that answers, or one of our own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from builder.errors import ToolError
from builder.settings import _child_environment
from builder.store import Store
from builder.tools.docker_engine import Engine, ensure_engine, find_engine
from builder.tools.dockerd import stop_engine
from tests.support.requires import missing


def environment() -> dict[str, str]:
    """What a child process of the tests may see."""
    return _child_environment(os.environ)


@contextmanager
def engine(folder: Path) -> Iterator[tuple[Engine, Store]]:
    """An engine with a store below `folder`; what was started for it is stopped."""
    store = Store(folder / "state").create()
    found = find_engine(Store(Path.cwd() / ".goldsmith"), environment())
    if isinstance(found, Engine):
        yield found, store
        return
    try:
        started = ensure_engine(store, environment())
    except ToolError as error:
        missing(f"{error.message}: {error.context}")
        raise
    try:
        yield started, store
    finally:
        stop_engine(store, environment())
