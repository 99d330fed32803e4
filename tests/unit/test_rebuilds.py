"""Rebuild requests: kept once, with the first time of asking; what is malformed is none."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from pathlib import Path

import pytest

from builder.errors import ToolError
from builder.model.digest import Digest
from builder.model.evidence import Severity
from builder.model.rebuild import RebuildRequest
from builder.rebuilds import ask_rebuild, waiting_rebuilds, withdraw_rebuild
from builder.store import Store

NOW = dt.datetime(2026, 11, 22, 1, tzinfo=dt.UTC)
REQUEST = RebuildRequest(
    "python:3.13", Digest.of(b"image"), "CVE-2026-1", "openssl", "3.5.4-1", Severity.HIGH, NOW
)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "state").create()


def test_a_request_waits_until_it_is_withdrawn(store: Store) -> None:
    assert waiting_rebuilds(store) == ()
    assert ask_rebuild(store, REQUEST)
    assert waiting_rebuilds(store) == (REQUEST,)
    assert withdraw_rebuild(store, REQUEST)
    assert not withdraw_rebuild(store, REQUEST)
    assert waiting_rebuilds(store) == ()


def test_asked_again_the_first_time_of_asking_stays(store: Store) -> None:
    ask_rebuild(store, REQUEST)
    assert not ask_rebuild(store, replace(REQUEST, requested_at=NOW + dt.timedelta(days=1)))
    assert [r.requested_at for r in waiting_rebuilds(store)] == [NOW]


def test_the_oldest_comes_first(store: Store) -> None:
    older = replace(REQUEST, package="libssl3t64", requested_at=NOW - dt.timedelta(hours=1))
    for request in (REQUEST, older):
        ask_rebuild(store, request)
    assert waiting_rebuilds(store) == (older, REQUEST)


@pytest.mark.parametrize(
    "changes",
    [
        {"ref": "../etc"},
        {"ref": "python"},
        {"vulnerability": ""},
        {"vulnerability": "CVE-1\x1b[2J"},
        {"package": "a b"},
        {"scanner": "a b"},
        {"requested_at": NOW.replace(tzinfo=None)},
    ],
    ids=str,
)
def test_a_malformed_request_cannot_be_made(changes: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        replace(REQUEST, **changes)


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"ref": 7}', '{"ref": "a:1", "digest": "latest"}'])
def test_a_request_that_cannot_be_read_is_said_and_not_passed_over(store: Store, content: str) -> None:
    ask_rebuild(store, REQUEST)
    (store.records / "rebuilds" / REQUEST.key.hex).write_text(content)
    with pytest.raises(ToolError, match="rebuild request"):
        waiting_rebuilds(store)
