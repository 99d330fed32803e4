"""Commands for networks that reach nothing: export; and the other side of it, `import --bundle`."""

from __future__ import annotations

import contextlib
import datetime as dt
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from builder.errors import GoldsmithError, UsageError

if TYPE_CHECKING:
    from builder.model.digest import Digest
    from builder.model.reference import Reference
    from builder.settings import Settings
    from builder.store import Store
    from registry.bundles.arrival import Arrival
    from registry.bundles.export import Exported
    from registry.bundles.recorded import Register

_DENIED = 4
_JOURNAL = "imports.jsonl"
_SEEN = "seen"


def register(app: typer.Typer) -> None:
    """Add this module's commands to the application."""
    app.command()(export)


def export(
    refs: Annotated[list[str], typer.Argument(metavar="REF...", help="Promoted images: python:3.13")],
    to: Annotated[
        Path, typer.Option("--to", metavar="BUNDLE", help="A new folder, or a new file that ends in .tar.")
    ],
    base: Annotated[
        Path | None,
        typer.Option("--base", metavar="OLD", help="A bundle that they have: its blobs are left out."),
    ] = None,
    accept_sample: Annotated[
        bool, typer.Option("--accept-sample", help="Accept verdicts with the sample database.")
    ] = False,
    without_kits: Annotated[
        bool,
        typer.Option("--without-kits", help="Leave out what the images are rebuilt from: about half of it."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Write promoted images with their evidence and our public keys as one OCI layout."""
    from builder.cli.identity import caller
    from builder.cli.trusting import trusted
    from builder.cli.wiring import client_of
    from builder.settings import Settings
    from builder.store import Store
    from registry.access.roles import Permission
    from registry.bundles.export import export as write

    settings = Settings.load()
    store = Store(settings.state)
    who = caller(settings, store)
    references = [_reference(text, settings) for text in refs]
    for reference in references:
        who.require(Permission.EXPORT, reference.name)
    public = {p.name: p.read_bytes() for p in sorted(store.keys.glob("*.pub"))}
    done = write(
        client_of(settings, writes=False),
        references,
        trusted(store),
        public | {p.name: p.read_bytes() for p in store.keys.glob("trust.json")},
        settings.now,
        to,
        base=base,
        accept_sample=accept_sample,
        kits=not without_kits,
    )
    _tell_export(done, as_json)


def bring(path: Path, trust: Path | None, accept_sample: bool, why: str, as_json: bool) -> int:
    """`import --bundle`: verify a bundle and publish what is in it; returns the exit code."""
    from builder.cli.identity import caller
    from builder.cli.trusting import trusted
    from builder.cli.wiring import client_of
    from builder.report import Silent, complain, for_people
    from builder.settings import Settings
    from builder.store import Store
    from registry.access.roles import Permission
    from registry.bundles.arrival import Desk, take_in
    from registry.bundles.reader import open_bundle

    settings = Settings.load(needs_catalogue=False)
    store = Store(settings.state)
    keys = trusted(store, trust)
    who = caller(settings, store.create())
    reporter = Silent() if as_json else for_people()

    def seen(digest: Digest) -> dt.datetime | None:
        record = store.record(_SEEN, digest)
        try:
            return dt.datetime.fromisoformat(str(record["issued_at"])) if record else None
        except (KeyError, ValueError):
            return None

    with (
        journal(store, settings.now, who.name, str(path), f"bundle: {why}"),
        store.exclusive("goldsmith import"),
    ):
        bundle = open_bundle(path)
        register = _register(settings, store, who.name, why)
        for wanted in bundle.wanted(settings.registry):
            who.require(Permission.IMPORT, wanted.reference.name)
        with store.scratch("bundle") as work:
            desk = Desk(client_of(settings), keys, settings.now, work, accept_sample, seen, register)
            arrived = take_in(desk, bundle, reporter.note)
    for one in arrived:
        _note(store, settings.now, who.name, str(path), one, bundle.digest, why)
    _tell_arrivals(arrived, bundle.digest, register is not None, as_json)
    if register is None and not as_json:
        complain(
            f"recorded in {record_of(store)}, unsigned: no verdict key is here to sign a ledger entry; "
            "`goldsmith audit` shows it"
        )
    return _DENIED if any(a.refused for a in arrived) else 0


def record_of(store: Store) -> Path:
    """The unsigned record of attempts to import."""
    return store.run / _JOURNAL


def _register(settings: Settings, store: Store, who: str, why: str) -> Register | None:
    """The ledger of this side, if there is a verdict key to sign it with; raises when it cannot be opened."""
    from builder.cli.audit import ledger_folder
    from builder.cli.trusting import trusted
    from builder.signing.keys import VERDICT, open_signer
    from registry.audit.ledger import Ledger
    from registry.bundles.recorded import Register

    if VERDICT not in settings.key_uris and not (store.keys / f"{VERDICT}.key").exists():
        return None
    signer = open_signer(store.keys, VERDICT, settings.key_uris, settings.passphrase)
    return Register(Ledger(ledger_folder(store), trusted(store)), signer, who, why, settings.now)


@contextlib.contextmanager
def journal(store: Store, now: dt.datetime, who: str, source: str, what: str) -> Iterator[None]:
    """One line for each attempt to import, whatever became of it: a refusal is told to nobody else."""
    line: dict[str, Any] = {}
    try:
        yield
        line["outcome"] = "done"
    except GoldsmithError as error:
        line |= {"outcome": "refused", "reason": error.reference, "message": error.message[:500]}
        raise
    except BaseException as error:
        line |= {"outcome": "failed", "reason": type(error).__name__}
        raise
    finally:
        _write(store, {"at": now, "who": who, "as": what, "source": source[:500], **line})


def _note(
    store: Store,
    now: dt.datetime,
    who: str,
    source: str,
    one: Arrival,
    bundle: Digest | None,
    why: str,
) -> None:
    line: dict[str, Any] = {"outcome": _outcome(one), "bundle": bundle, "why": why[:500]}
    if one.refused is not None:
        line |= {"reason": one.refused.reference, "message": one.refused.message[:500]}
    if one.entry is not None:
        line["entry"] = one.entry.sequence
    _write(store, {"at": now, "who": who, "as": one.name, "source": f"{source}@{one.digest}", **line})


def _outcome(one: Arrival) -> str:
    from registry.bundles.recorded import IMPORTED, LEFT_OUT, UNCHANGED

    return LEFT_OUT if one.refused else IMPORTED if one.changed else UNCHANGED


def _write(store: Store, line: dict[str, Any]) -> None:
    from builder.model.digest import Digest, canonical_json
    from builder.signing.predicates import timestamp
    from registry.audit.redaction import redact
    from registry.bundles.recorded import LINE_MAX

    told = {k: redact(v) if k in ("as", "source", "message", "why") else v for k, v in line.items()}
    with contextlib.suppress(OSError), open(record_of(store), "a+b") as out:
        # Unsigned, but each line names the one before: what is changed or taken out later shows.
        out.seek(max(out.seek(0, 2) - LINE_MAX, 0))
        before = Digest.of((out.read().splitlines() or [b""])[-1])
        out.write(canonical_json({**told, "at": timestamp(line["at"]), "previous": before}) + b"\n")


def _reference(text: str, settings: Settings) -> Reference:
    from builder.model.reference import Reference

    try:
        found = Reference.parse(text, default_host=settings.registry)
    except ValueError as error:
        raise UsageError(
            "not a reference", context=str(error), hint="python:3.13, or python@sha256:…"
        ) from None
    if found.host != settings.registry:
        hint = "set GOLDSMITH_REGISTRY to it"
        raise UsageError(f"{found} is not in the registry {settings.registry}", hint=hint)
    if found.tag is None and found.digest is None:
        raise UsageError(f"{text} names neither a tag nor a digest", hint=f"{text}:TAG")
    return found


def _tell_export(done: Exported, as_json: bool) -> None:
    from builder.report import emit, emit_json

    if as_json:
        value = {
            "bundle": str(done.path),
            "digest": done.digest,
            "bytes": done.size,
            "left_out": done.left_out,
        }
        emit_json({**value, "images": [p.as_dict() for p in done.images]})
        return
    emit(f"{done.path}: {len(done.images)} images, {done.size / 1e6:.1f} MB, {done.digest}")
    for image in done.images:
        emit(f"  {image.ref} {image.digest}, approved until {image.expires_at:%Y-%m-%d %H:%M} UTC")
    if done.left_out:
        emit(f"  {done.left_out} blobs are left out: the other side has them from the older bundle")


def _tell_arrivals(arrived: Sequence[Arrival], bundle: Digest | None, signed: bool, as_json: bool) -> None:
    from builder.report import emit, emit_json

    if as_json:
        emit_json(
            {
                "bundle": bundle,
                "signed": signed,
                "images": [
                    {
                        "ref": a.name,
                        "digest": a.digest,
                        "reference": str(a.reference),
                        "tags": list(a.tags),
                        "outcome": _outcome(a),
                        "entry": a.entry.as_dict() if a.entry else None,
                        "refused": a.refused.as_dict() if a.refused else None,
                    }
                    for a in arrived
                ],
            }
        )
        return
    for one in arrived:
        if one.refused is None:
            entry = f"; ledger entry {one.entry.sequence}" if one.entry else ""
            emit(f"{_outcome(one)}: {one.name} is {one.reference}{entry}")
            continue
        emit(f"left out: {one.name} {one.digest}: {one.refused.message} ({one.refused.reference})")
        for line in (*one.refused.context.splitlines(), one.refused.hint):
            emit(f"  {line}")
