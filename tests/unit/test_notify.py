"""Who is told what, once, and what becomes of messages that nobody takes."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import socket
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from sqlalchemy.exc import SQLAlchemyError

from builder.cli import main as command_line
from builder.errors import ToolError, UsageError
from builder.model.digest import Digest
from builder.model.evidence import Severity
from builder.model.waiver import Waiver, WaiverEntry
from registry.audit.ledger import Action, Entry, Fact
from registry.notify.delivery import sender
from registry.notify.events import (
    Kind,
    event,
    of_entry,
    of_lateness,
    of_obstacle,
    of_rebuild,
    of_waiver,
)
from registry.notify.outbox import ATTEMPTS_MAX, DEAD, SENT, WAITING, Delivered, Outbox
from registry.notify.rules import NotifyFile
from tests.support.catalogue import image, write
from tests.support.disk import full_disk
from tests.support.images import NOW
from tests.support.webhook import Service

PYTHON = Digest.of(b"python")
MINUTE = dt.timedelta(minutes=1)


def entry(
    number: int, what: Action = Action.PROMOTE, ref: str = "python:3.13", why: str = "", **after: str
) -> Entry:
    fact = Fact("user:ann", what, ref, PYTHON, {}, after, why)
    return Entry(number, NOW, fact, Digest.of(b"before"), Digest.of(b"%d" % number))


def rules(*listed: dict[str, Any], pullers: Mapping[str, list[str]] | None = None) -> NotifyFile:
    return NotifyFile.model_validate_json(
        json.dumps({"schema": 1, "rules": list(listed), "pullers": pullers or {}})
    )


EVERYTHING = rules({"events": [k.value for k in Kind], "to": ["chat"]})


class Box:
    """An outbox, a clock, and a service that takes messages or does not."""

    def __init__(self, folder: Path) -> None:
        self.path, self.now = folder / "outbox.db", NOW
        self.taken: list[tuple[str, str, str]] = []
        self.error = ""
        self.pulled: list[str] = []

    @property
    def outbox(self) -> Outbox:
        return Outbox(self.path, self.now)

    def collect(self, *entries: Entry, by: NotifyFile = EVERYTHING) -> int:
        return self.outbox.collect(entries, by, lambda name: f"owner of {name}", lambda digest: self.pulled)

    def deliver(self) -> Delivered:
        def send(target: str, title: str, body: str) -> str:
            if not self.error:
                self.taken.append((target, title, body))
            return self.error

        return self.outbox.deliver(send)


@pytest.fixture
def box(tmp_path: Path) -> Box:
    made = Box(tmp_path)
    made.collect(entry(1))  # what was before anybody wanted to be told
    return made


def test_the_past_is_not_told_when_it_begins(box: Box) -> None:
    assert box.outbox.list() == ()
    assert box.collect(entry(1), entry(2)) == 1


def test_a_decision_is_told_once_however_often_it_is_met(box: Box) -> None:
    assert box.collect(entry(1), entry(2, why="new packages")) == 1
    assert box.collect(entry(1), entry(2)) == 0
    assert box.deliver() == Delivered(1, 0, 0)
    assert box.deliver() == Delivered(0, 0, 0)
    ((target, title, body),) = box.taken
    assert (target, title) == ("chat", "python:3.13 was promoted")
    assert "why: new packages" in body
    assert "by user:ann" in body


def test_what_is_no_decision_on_an_image_is_no_event() -> None:
    assert of_entry(entry(1, Action.CREATE_TOKEN)) is None


def test_a_run_that_is_cut_while_it_collects_loses_nothing(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    def cut(*_: object) -> str:
        raise SQLAlchemyError("killed")

    with pytest.raises(SQLAlchemyError):
        box.outbox.collect([entry(1), entry(2), entry(3)], EVERYTHING, cut, lambda d: ())
    assert box.collect(entry(1), entry(2), entry(3)) == 2


@pytest.mark.parametrize(
    ("rule", "told"),
    [
        ({"events": ["promoted"]}, True),
        ({"events": ["withdrawn"]}, False),
        ({"events": ["promoted"], "images": ["python*"]}, True),
        ({"events": ["promoted"], "images": ["base", "node"]}, False),
        ({"events": ["promoted"], "owners": ["owner of python"]}, True),
        ({"events": ["promoted"], "owners": ["somebody"]}, False),
        ({"events": ["promoted"], "severity": "CRITICAL"}, True),
    ],
)
def test_rules_choose_by_event_image_and_owner(box: Box, rule: dict[str, Any], told: bool) -> None:
    assert bool(box.collect(entry(2), by=rules({**rule, "to": ["chat"]}))) is told


@pytest.mark.parametrize(
    ("severity", "told"), [(Severity.CRITICAL, 1), (Severity.HIGH, 1), (Severity.LOW, 0)]
)
def test_rules_choose_by_severity(box: Box, severity: Severity, told: int) -> None:
    late = event("late/1", Kind.LATE, "python:3.13", "", "late", "it is late", severity)
    assert box.outbox.add(late, rules({"events": ["late"], "severity": "HIGH", "to": ["chat"]}), "x") == told
    assert box.outbox.add(late, rules({"events": ["late"], "severity": "HIGH", "to": ["chat"]}), "x") == 0


def test_who_pulled_a_digest_that_turned_bad_is_told_once_with_the_replacement(box: Box) -> None:
    told = rules(pullers={"token:web": ["web-team"], "*": ["everybody"]})
    box.pulled = ["token:web", "token:other", "user:ann"]
    instead = f"python:3.13@{Digest.of(b'better')}"
    withdrawn = entry(2, Action.REVOKE, why="leaks", replacement=instead)
    assert box.collect(withdrawn, by=told) == 2
    # Another decision of that kind on the same digest tells them nothing new.
    assert box.collect(withdrawn, entry(3, Action.QUARANTINE), by=told) == 0
    box.deliver()
    assert {t for t, _, _ in box.taken} == {"web-team", "everybody"}
    assert all(instead in body for _, _, body in box.taken)


def test_who_was_told_of_a_deprecation_is_told_again_when_it_is_refused(box: Box) -> None:
    told = rules(pullers={"*": ["everybody"]})
    box.pulled = ["token:web"]
    entries = [entry(2, Action.DEPRECATE), entry(3, Action.QUARANTINE), entry(4, Action.REVOKE)]
    assert box.collect(*entries, by=told) == 2


def test_a_ledger_that_was_put_back_is_told_of_from_where_it_is(box: Box) -> None:
    assert box.collect(entry(1), entry(2), entry(3)) == 2
    assert box.collect(entry(1)) == 0  # that of yesterday
    again = replace(entry(2), hash=Digest.of(b"another decision"))
    assert box.collect(entry(1), again) == 1


def test_a_target_that_is_away_holds_up_no_other_and_is_not_asked_a_thousand_times(box: Box) -> None:
    both = rules({"events": ["promoted"], "to": ["away", "chat"]})
    box.collect(*(entry(n) for n in range(2, 62)), by=both)
    asked: list[str] = []

    def send(target: str, title: str, body: str) -> str:
        asked.append(target)
        return "down" if target == "away" else ""

    assert box.outbox.deliver(send) == Delivered(60, 3, 0)
    assert (asked.count("away"), asked.count("chat")) == (3, 60)
    assert {m.attempts for m in box.outbox.list(WAITING)} == {0, 1}
    box.now += MINUTE
    assert box.outbox.deliver(lambda *_: "") == Delivered(60, 0, 0)


def test_an_outbox_on_a_full_disk_or_of_garbage_is_told_and_loses_nothing(box: Box, tmp_path: Path) -> None:
    box.collect(entry(2))
    with full_disk(4096), pytest.raises(ToolError, match="outbox") as full:
        box.collect(*(entry(n) for n in range(2, 200)))
    assert full.value.exit_code == 5
    assert len(box.outbox.list()) == 1
    assert box.collect(*(entry(n) for n in range(2, 200))) == 197
    (tmp_path / "bad.db").write_bytes(b"garbage" * 1000)
    with pytest.raises(ToolError, match="outbox"):
        Outbox(tmp_path / "bad.db", NOW)


def test_an_outbox_that_another_process_holds_is_told(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("registry.sqlite._BUSY_MS", 20)
    box.collect(entry(2))
    with contextlib.closing(sqlite3.connect(box.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(ToolError, match="outbox"):
            box.collect(entry(3))
    assert box.collect(entry(2), entry(3)) == 1


def test_nobody_who_pulled_is_told_of_good_news(box: Box) -> None:
    box.pulled = ["token:web"]
    assert box.collect(entry(2), by=rules(pullers={"*": ["everybody"]})) == 0


def test_a_message_that_is_not_taken_is_tried_again_later_and_given_up_at_last(box: Box) -> None:
    box.collect(entry(2))
    box.error = "down"
    pauses = []
    for _ in range(ATTEMPTS_MAX - 1):
        assert box.deliver() == Delivered(0, 1, 0)
        assert box.deliver() == Delivered(0, 0, 0), "not before it is due"
        (message,) = box.outbox.list(WAITING)
        due = dt.datetime.fromisoformat(message.due_at)
        pauses.append(due - box.now)
        box.now = due
    assert pauses[:4] == [MINUTE, 2 * MINUTE, 4 * MINUTE, 8 * MINUTE]
    assert box.deliver() == Delivered(0, 0, 1)
    assert [m.error for m in box.outbox.list(DEAD)] == ["down"]
    box.now += dt.timedelta(days=9)
    assert box.deliver() == Delivered(0, 0, 0)

    box.error = ""
    for other in (77, 10**30):
        with pytest.raises(UsageError, match=str(other)):
            box.outbox.replay([other])
    assert box.outbox.replay() == 1
    assert box.deliver() == Delivered(1, 0, 0)
    assert [m.state for m in box.outbox.list()] == [SENT]


def test_two_senders_at_once_send_it_once(box: Box) -> None:
    box.collect(entry(2))
    inner: list[Delivered] = []

    def send(target: str, title: str, body: str) -> str:
        inner.append(box.deliver())
        return ""

    assert box.outbox.deliver(send) == Delivered(1, 0, 0)
    assert inner == [Delivered(0, 0, 0)]


@pytest.mark.parametrize("text", ["\x1b[31mred", "a\rb", "\u202egnp.exe", "x" * 100_000])
def test_texts_of_strangers_are_cut_and_plain(text: str) -> None:
    found = of_entry(entry(2, why=text))
    assert found is not None
    assert len(found.body) <= 2000
    assert not any(bad in found.body for bad in ("\x1b", "\r", "\u202e"))


@pytest.mark.parametrize(
    "value",
    [
        {"events": ["exploded"], "to": ["chat"]},
        {"events": [], "to": ["chat"]},
        {"events": ["promoted"], "to": []},
        {"events": ["promoted"], "to": ["https://hooks.example/secret"]},
        {"events": ["promoted"], "images": ["[a-z]*"], "to": ["chat"]},
        {"events": ["promoted"], "severity": "BAD", "to": ["chat"]},
        {"events": ["promoted"], "to": ["chat"], "url": "x"},
    ],
)
def test_an_unsound_rule_is_refused(value: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        rules(value)


def test_what_a_night_found_is_told_once_however_long_it_lasts(box: Box) -> None:
    found = [
        of_rebuild("python:3.13", PYTHON, "package: openssl 3.5.1-1 -> 3.5.4-1"),
        of_obstacle("promotion of python:3.13", "an approval is missing", NOW, "goldsmith approve"),
        of_obstacle("step sync", "away", NOW, "", failed=True),
        of_lateness("python:3.13 (CVE-2026-1 in openssl)", NOW, "an approval", "goldsmith approve"),
    ]
    for made in (4, 0):
        assert sum(box.outbox.add(one, EVERYTHING, "x") for one in found) == made
    assert [(one.kind, one.image) for one in found] == [
        (Kind.REBUILT, "python"),
        (Kind.BLOCKED, "python"),
        (Kind.FAILED, "step sync"),
        (Kind.LATE, "python"),
    ]
    again = of_obstacle("step sync", "away", NOW + dt.timedelta(days=3), "", failed=True)
    assert box.outbox.add(again, EVERYTHING, "x") == 1  # it was mended in between


@pytest.mark.parametrize(
    ("days", "says"),
    [(-8, None), (-7, "ended"), (-1, "ended"), (0, "ends"), (6, "ends"), (7, None)],
)
def test_a_waiver_is_told_of_a_week_before_its_end(days: int, says: str | None) -> None:
    text = {
        "vulnerability": "CVE-2026-0001",
        "packages": ["openssl"],
        "justification": "vulnerable_code_not_present",
        "statement": "the code is not part of the build",
        "owner": "ann",
        "approver": "bob",
        "approved": "2026-01-01",
        "expires": (NOW + dt.timedelta(days=days)).date().isoformat(),
    }
    found = of_waiver(Waiver("python", WaiverEntry.model_validate_json(json.dumps(text)), False), NOW)
    assert (found.title.split()[-1] if found else None) == says
    assert found is None or "ann" in found.body


def test_where_nothing_was_collected_the_beginning_can_be_marked(tmp_path: Path) -> None:
    box = Box(tmp_path)
    box.outbox.begin([entry(1)])
    box.outbox.begin([entry(1), entry(2)])
    assert box.collect(entry(1), entry(2), entry(3)) == 2
    assert box.outbox.marked("night") is None
    box.outbox.mark("night", 7)
    box.outbox.mark("night", 8)
    assert box.outbox.marked("night") == 8


@pytest.fixture
def service() -> Iterator[Service]:
    made = Service()
    yield made
    made.stop()


def test_a_webhook_gets_the_message(service: Service) -> None:
    assert sender({"chat": service.address})("chat", "a title", "a body\nof two lines") == ""
    (taken,) = service.taken
    assert (taken["title"], taken["message"]) == ("a title", "a body\nof two lines")


def test_what_goes_wrong_is_said_without_the_secret(
    service: Service, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    send = sender({"chat": service.address, "odd": "nothing://s3cr3t-value"})
    service.code = 500
    assert send("chat", "t", "b") == "the service did not take it"
    assert send("odd", "t", "b") == "the address is none that apprise knows"
    assert "GOLDSMITH_NOTIFY_WEB_TEAM" in send("web-team", "t", "b")
    said = capsys.readouterr()
    assert "s3cr3t-value" not in said.out + said.err + caplog.text


def test_a_service_that_hangs_or_speaks_no_tls_is_one_that_did_not_take_it(service: Service) -> None:
    hangs = socket.create_server(("127.0.0.1", 0))
    port = hangs.getsockname()[1]
    plain = service.address.replace("json://", "jsons://")
    send = sender({"hangs": f"json://127.0.0.1:{port}/?rto=60&cto=60", "plain": plain}, seconds=0.3)
    assert send("hangs", "t", "b") == "the service did not answer within 0.3 s"
    hangs.close()
    assert sender({"plain": plain})("plain", "t", "b") == "the service did not take it"
    assert service.taken == []


def test_the_commands_send_and_list(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, service: Service, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write(tmp_path / "catalogue", image("base"))
    monkeypatch.chdir(root)
    monkeypatch.delenv("GOLDSMITH_CATALOGUE", raising=False)
    monkeypatch.setenv("GOLDSMITH_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("GOLDSMITH_NOTIFY_TEAM_CHAT", service.address)
    assert command_line.run(["notify", "test", "team-chat"]) == 0
    assert len(service.taken) == 1
    assert command_line.run(["notify", "test", "other"]) == 5
    assert command_line.run(["notify", "send"]) == 2
    assert "notify.yaml" in capsys.readouterr().err
    (root / "notify.yaml").write_text("schema: 1\nrules: [{events: [promoted], to: [team-chat]}]\n")
    assert command_line.run(["init", "--json"]) == 0
    capsys.readouterr()
    assert command_line.run(["notify", "send", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"new": 0, "sent": 0, "failed": 0, "dead": 0}
    assert command_line.run(["notify", "list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"messages": []}
    assert command_line.run(["notify", "list", "--state", "lost"]) == 2
