"""Commands that tell people: notify send, list, replay, test."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from builder.errors import ToolError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from builder.cli.wiring import Workshop
    from registry.notify.events import Event
    from registry.notify.outbox import Delivered, Outbox
    from registry.notify.rules import NotifyFile

_SHOWN = 60  # characters of an error

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]


def register(app: typer.Typer) -> None:
    """Add this module's commands to the application."""
    group = typer.Typer(help="Tell people and services what was decided.", no_args_is_help=True)
    group.command("send")(send)
    group.command("list")(list_messages)
    group.command("replay")(replay)
    group.command("test")(test)
    app.add_typer(group, name="notify")


def send(as_json: AsJson = False) -> None:
    """Take in what the ledger has that is new, and send what is due.

    Ends with 5 when a message was given up: see `goldsmith notify list --state dead`.
    """
    from builder.cli.wiring import Workshop
    from builder.report import emit, emit_json

    workshop = Workshop.open()
    made, done = dispatch(workshop, _rules(workshop))
    if as_json:
        emit_json({"new": made, "sent": done.sent, "failed": done.failed, "dead": done.dead})
    else:
        emit(f"{made} new, {done.sent} sent, {done.failed} to be tried again, {done.dead} given up")
    refuse_given_up(workshop, done)


def list_messages(
    state: Annotated[str, typer.Option(metavar="STATE", help="Only waiting, sent or dead ones.")] = "",
    as_json: AsJson = False,
) -> None:
    """List the messages, the newest first."""
    from dataclasses import asdict

    from builder.cli.wiring import Workshop
    from builder.report import emit_json, table
    from registry.notify.outbox import DEAD, SENT, WAITING

    if state not in ("", WAITING, SENT, DEAD):
        raise UsageError(f"no state of a message: {state[:50]!r}", hint="waiting, sent or dead")
    found = outbox_of(Workshop.open()).list(state)
    if as_json:
        emit_json({"messages": [asdict(one) for one in found]})
        return
    rows = [
        [str(m.id), m.created_at, m.target, m.title, m.state, str(m.attempts), m.error[:_SHOWN]]
        for m in found
    ]
    table("Messages", ("number", "made", "target", "title", "state", "tries", "error"), rows)


def replay(
    numbers: Annotated[
        list[int] | None, typer.Argument(metavar="[NUMBER...]", help="Default: all dead.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make messages that were given up due again; `notify send` sends them."""
    from builder.cli.wiring import Workshop
    from builder.report import emit, emit_json

    count = outbox_of(Workshop.open()).replay(numbers or ())
    emit_json({"replayed": count}) if as_json else emit(f"{count} messages are due again")


def test(
    target: Annotated[str, typer.Argument(metavar="TARGET", help="A name of notify.yaml.")],
    as_json: AsJson = False,
) -> None:
    """Send a message to a target, to see that its address works."""
    from builder.cli.wiring import Workshop
    from builder.report import emit, emit_json
    from registry.notify.delivery import sender

    workshop = Workshop.open()
    error = sender(workshop.settings.notify_addresses)(
        target, "Goldsmith", "This is a test of the notifications."
    )
    if error:
        raise ToolError(f"{target} was not reached", context=error, hint="see docs/guide/notifications.md")
    emit_json({"target": target, "sent": True}) if as_json else emit(f"{target} took it")


def _rules(workshop: Workshop) -> NotifyFile:
    from builder.errors import DefinitionError, Problem
    from builder.tools.strict_model import read_model
    from registry.notify.rules import FILE, NotifyFile

    root = workshop.settings.catalogue
    if not (root / FILE).exists():
        raise UsageError(f"there is no {FILE} in {root}", hint="see docs/guide/notifications.md for one")
    problems: list[Problem] = []
    found = read_model(root, FILE, NotifyFile, problems)
    if found is None or problems:
        raise DefinitionError(problems)
    return found


def dispatch(workshop: Workshop, rules: NotifyFile, news: Sequence[Event] = ()) -> tuple[int, Delivered]:
    """Take in the ledger's new decisions and `news`, and send what is due; how many are new, and what
    became of those that were due. What was told before is not told again."""
    from builder.cli.audit import ledger_folder
    from builder.cli.knowledge import recent_pulls
    from builder.cli.trusting import trusted
    from registry.audit.ledger import Ledger
    from registry.notify.delivery import sender

    settings, store = workshop.settings, workshop.store
    outbox = outbox_of(workshop)
    ledger = Ledger(ledger_folder(store), trusted(store))
    known: dict[str, set[str]] = {}

    def pulled_by(digest: str) -> set[str]:
        if not known:  # the journal is long: it is read once, and only when it is asked for
            known[""] = set()
            for pull in recent_pulls(store, settings.now):
                known.setdefault(str(pull.digest), set()).add(pull.who)
        return known.get(digest, set())

    def owner_of(name: str) -> str:
        definition = workshop.catalogue.definitions.get(name)
        return definition.owner if definition else ""

    made = outbox.collect(ledger.entries(), rules, owner_of, pulled_by)
    made += sum(outbox.add(one, rules, owner_of(one.image)) for one in news)
    return made, outbox.deliver(sender(settings.notify_addresses))


def refuse_given_up(workshop: Workshop, done: Delivered) -> None:
    """Pass, or raise ToolError when messages were given up."""
    if done.dead:
        raise ToolError(
            f"{done.dead} messages were given up",
            context="; ".join(sorted({m.error for m in outbox_of(workshop).list("dead")}))[:500],
            hint="mend the target, then: goldsmith notify replay",
            reference="message-given-up",
        )


def rules_of(workshop: Workshop) -> NotifyFile | None:
    """The catalogue's rules; None when nobody wants to be told. Raises DefinitionError."""
    from registry.notify.rules import FILE

    return _rules(workshop) if (workshop.settings.catalogue / FILE).exists() else None


def outbox_of(workshop: Workshop) -> Outbox:
    """The outbox of a state directory."""
    from registry.notify.outbox import Outbox

    return Outbox(workshop.store.root / "outbox.db", workshop.settings.now)
