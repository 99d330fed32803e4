"""Commands that read the ledger: audit, audit verify."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from builder.errors import UsageError

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Iterator

    from builder.store import Store
    from registry.audit.ledger import Entry, Fact, Ledger
    from registry.bundles.recorded import Line

_FOLDER = "ledger"
_WHEN = "%Y-%m-%d %H:%M:%SZ"

LedgerFolder = Annotated[
    Path | None,
    typer.Option("--ledger", metavar="DIR", help="A copy of the ledger. Default: the state directory's."),
]
TrustFolder = Annotated[
    Path | None,
    typer.Option("--trust", metavar="DIR", help="A folder with the public keys. Default: ours."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


def register(app: typer.Typer) -> None:
    """Add this module's commands to the application."""
    group = typer.Typer(invoke_without_command=True)
    group.callback()(audit)
    group.command("verify")(verify)
    app.add_typer(group, name="audit")


def audit(
    context: typer.Context,
    who: Annotated[str, typer.Option("--who", metavar="NAME", help="Only decisions of this identity.")] = "",
    what: Annotated[
        str, typer.Option("--what", metavar="ACTION", help="Only these: promote, revoke, …")
    ] = "",
    ref: Annotated[
        str, typer.Option("--ref", metavar="REF", help="Only of this image: a name, NAME:TAG, or a digest.")
    ] = "",
    since: Annotated[str, typer.Option("--since", metavar="DATE", help="Only from this day (UTC) on.")] = "",
    ledger: LedgerFolder = None,
    trust: TrustFolder = None,
    as_json: AsJson = False,
) -> None:
    """Show who decided what, when and why; the chain of the ledger is checked on the way.

    What came in bundles where no key is there to sign it is shown as unsigned lines, at the end.
    """
    if context.invoked_subcommand is not None:
        return
    from builder.cli.moments import moment
    from builder.report import emit, emit_json, table
    from registry.audit.ledger import Action

    if what and what not in list(Action):
        raise UsageError(f"no such action: {what[:50]!r}", context=", ".join(Action))
    first = moment(since)
    if ledger is None:
        _require_reader()

    def wanted(by: str, did: str, of: str, digest: str, at: dt.datetime) -> bool:
        return (
            (not who or _is(by, who))
            and (not what or did == what)
            and (not ref or ref in (of, of.partition(":")[0], digest))
            and (first is None or at >= first)
        )

    found = [
        e for e in _entries(ledger, trust) if wanted(e.fact.who, e.fact.what, e.fact.ref, e.fact.digest, e.at)
    ]
    unsigned = [
        x
        for x in (_unsigned() if ledger is None else ())
        if wanted(x.who, Action.RECEIVE, x.ref, x.digest, x.at)
    ]
    if as_json:
        emit_json([*({**e.as_dict(), "signed": True} for e in found), *(x.as_dict() for x in unsigned)])
        return
    rows = [*(_signed_row(e) for e in found), *(_unsigned_row(x) for x in unsigned)]
    columns = ("entry", "when (UTC)", "who", "what", "of", "digest", "change", "why")
    table("Ledger", columns, rows) if rows else emit("no entries")


def _signed_row(entry: Entry) -> list[str]:
    fact = entry.fact
    what = [fact.who, fact.what, fact.ref, fact.digest.short, _change(fact), fact.why]
    return [str(entry.sequence), entry.at.strftime(_WHEN), *what]


def _unsigned_row(line: Line) -> list[str]:
    number = "unsigned" if line.chained else "unsigned; the line before it was changed"
    what = [line.who, "receive", line.ref, line.digest.short, line.outcome, line.why]
    return [number, line.at.strftime(_WHEN), *what]


def verify(
    head: Annotated[
        Path | None,
        typer.Option(
            "--head", metavar="FILE", help="A head.json that was kept elsewhere: it must be contained."
        ),
    ] = None,
    ledger: LedgerFolder = None,
    trust: TrustFolder = None,
    as_json: AsJson = False,
) -> None:
    """Prove the ledger with nothing but the public key; names the first broken entry. Exit code 4."""
    from builder.report import emit, emit_json
    from registry.audit.ledger import parse_head

    book = _ledger(ledger, trust)
    if ledger is not None and not (book.path.exists() or book.head_path.exists()):
        raise UsageError(f"there is no ledger in {ledger}", hint="its files are entries.jsonl and head.json")
    known = None
    if head is not None:
        try:
            known = parse_head(head.read_bytes())[0]
        except OSError as error:
            raise UsageError(f"cannot read {head}", context=str(error)) from None
    proof = book.prove(known)
    proved = proof.head
    if as_json:
        emit_json(
            {
                "whole": True,
                "entries": proved.entries,
                "head": proved.hash,
                "torn": book.torn(),
                "doubtful": list(proof.doubtful),
            }
        )
        return
    emit(f"the ledger is whole: {proved.entries} entries, head {proved.hash}")
    if proof.doubtful:
        numbers = ", ".join(map(str, proof.doubtful[:20]))
        emit(
            f"{len(proof.doubtful)} entries are by a key that did not hold then; they stand because later\n"
            f"ones vouch for them. See that nobody else wrote them: {numbers}"
        )
    if book.torn():
        emit("a write at its end was cut off before it counted; the next entry takes the rest of it away")


def ledger_folder(store: Store) -> Path:
    """Where the ledger of a state directory is."""
    return store.root / _FOLDER


def _entries(folder: Path | None, trust: Path | None) -> tuple[Entry, ...]:
    """The entries of a ledger; none where nobody ever decided anything, and maybe no key is."""
    from builder.settings import Settings
    from builder.store import Store

    if folder is None and not ledger_folder(Store(Settings.load(needs_catalogue=False).state)).is_dir():
        return ()
    return _ledger(folder, trust).entries()


def _unsigned() -> Iterator[Line]:
    """What came in bundles without an entry in the ledger."""
    from builder.cli.bundles import record_of
    from builder.settings import Settings
    from builder.store import Store
    from registry.bundles.recorded import unsigned_lines

    return unsigned_lines(record_of(Store(Settings.load(needs_catalogue=False).state)))


def _require_reader() -> None:
    """Pass, or raise PolicyDenied; a copy of the ledger belongs to whoever has it."""
    from builder.cli.identity import caller
    from builder.settings import Settings
    from builder.store import Store
    from registry.access.roles import EVERYTHING, Permission

    settings = Settings.load(needs_catalogue=False)
    caller(settings, Store(settings.state)).require(Permission.READ_AUDIT, EVERYTHING)


def _change(fact: Fact) -> str:
    """What changed: the state of an image, or of a token."""
    kind = "token" if "token" in fact.after else "channel"
    return f"{fact.before.get(kind, '')} → {fact.after.get(kind, '')}"


def _is(name: str, asked: str) -> bool:
    """`ann` finds `user:ann`, and `ann@host`, as names were written before there were identities."""
    return asked in (name, name.partition("@")[0], name.partition(":")[2])


def _ledger(folder: Path | None, trust: Path | None) -> Ledger:
    from builder.cli.trusting import trusted
    from builder.settings import Settings
    from builder.signing.keys import VERDICT, load_public
    from builder.signing.trust import FILE, Trust
    from builder.store import Store
    from registry.audit.ledger import Ledger

    store = Store(Settings.load(needs_catalogue=False).state)
    if folder is not None and not folder.is_dir():
        raise UsageError(f"there is no folder {folder}")
    keys = trust or store.keys
    # The ledger needs no other key than this one.
    believed = trusted(store, keys) if (keys / FILE).exists() else Trust.of(load_public(keys, VERDICT))
    return Ledger(folder or ledger_folder(store), believed)
