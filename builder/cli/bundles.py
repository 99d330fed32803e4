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
    from builder.model.reference import Reference
    from builder.settings import Settings
    from builder.store import Store
    from registry.bundles.arrival import Arrival
    from registry.bundles.export import Exported

_DENIED = 4
_JOURNAL = "imports.jsonl"
_SEEN = "seen"
_LINE_MAX = 16 << 10  # bytes


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
    from builder.model.digest import Digest
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
        for wanted in bundle.wanted(settings.registry):
            who.require(Permission.IMPORT, wanted.reference.name)
        with store.scratch("bundle") as work:
            desk = Desk(client_of(settings), keys, settings.now, work, accept_sample, seen)
            arrived = take_in(desk, bundle, reporter.note)
    for one in arrived:
        _note(store, settings.now, who.name, str(path), one)
    _tell_arrivals(arrived, as_json)
    if not as_json:
        complain(
            f"recorded in {store.run / _JOURNAL}, unsigned: what comes in a bundle has no ledger entry here"
        )
    return _DENIED if any(a.refused for a in arrived) else 0


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


def _note(store: Store, now: dt.datetime, who: str, source: str, one: Arrival) -> None:
    outcome: dict[str, Any] = {"outcome": "imported" if one.changed else "unchanged"}
    if one.refused is not None:
        outcome = {"outcome": "left out", "reason": one.refused.reference, "message": one.refused.message}
    _write(store, {"at": now, "who": who, "as": one.name, "source": f"{source}@{one.digest}", **outcome})


def _write(store: Store, line: dict[str, Any]) -> None:
    from builder.model.digest import Digest, canonical_json
    from builder.signing.predicates import timestamp
    from registry.audit.redaction import redact

    told = {k: redact(v) if k in ("as", "source", "message") else v for k, v in line.items()}
    with contextlib.suppress(OSError), open(store.run / _JOURNAL, "a+b") as out:
        # Unsigned, but each line names the one before: what is changed or taken out later shows.
        out.seek(max(out.seek(0, 2) - _LINE_MAX, 0))
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


def _tell_arrivals(arrived: Sequence[Arrival], as_json: bool) -> None:
    from builder.report import emit, emit_json

    if as_json:
        emit_json(
            {
                "images": [
                    {
                        "ref": a.name,
                        "digest": a.digest,
                        "reference": str(a.reference),
                        "tags": list(a.tags),
                        "outcome": "left out" if a.refused else "imported" if a.changed else "unchanged",
                        "refused": a.refused.as_dict() if a.refused else None,
                    }
                    for a in arrived
                ]
            }
        )
        return
    for one in arrived:
        if one.refused is None:
            emit(f"{'imported' if one.changed else 'unchanged'}: {one.name} is {one.reference}")
            continue
        emit(f"left out: {one.name} {one.digest}: {one.refused.message} ({one.refused.reference})")
        for line in (*one.refused.context.splitlines(), one.refused.hint):
            emit(f"  {line}")
