"""Commands about signing keys: keys list, rotate, revoke, renew, export, witness."""

from __future__ import annotations

import contextlib
import datetime as dt
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from builder.cli.evidence import TrustFolder
from builder.cli.witnessing import witness

if TYPE_CHECKING:
    from builder.signing.trustfile import TrustedKey
    from registry.keykeeping import Changed, Keeper

_OVERLAP_HOURS = 24
_OVERLAP_HOURS_MAX = 24 * 365
_DAYS_MAX = 3653

Public = Annotated[
    Path | None,
    typer.Option(
        "--public", metavar="FILE", help="The new public key (PEM), where a KMS or HSM keeps the private one."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


def register(app: typer.Typer) -> None:
    """Add this module's commands to the application."""
    group = typer.Typer(help="Signing keys: their roles and periods.", no_args_is_help=True)
    group.command("list")(list_keys)
    group.command("rotate")(rotate)
    group.command("revoke")(revoke)
    group.command("renew")(renew)
    group.command("export")(export)
    group.command("witness")(witness)
    app.add_typer(group, name="keys")


def list_keys(trust: TrustFolder = None, as_json: AsJson = False) -> None:
    """Show the keys that are believed, their roles and periods, and a change that was cut."""
    from builder.cli.trusting import StoreMemory
    from builder.report import emit, emit_json, table
    from builder.settings import Settings
    from builder.store import Store
    from registry.keykeeping import Keeper

    settings = Settings.load(needs_catalogue=trust is None)
    store = Store(settings.state)
    keeper = Keeper(trust or store.keys, store.root, {}, None, "", lambda: settings.now, StoreMemory(store))
    content, pending = keeper.content(), keeper.pending()
    if as_json:
        keys = [_as_dict(k, settings.now) for k in content.keys]
        emit_json(
            {
                "version": content.version,
                "expires": _iso(content.expires),
                "keys": keys,
                "pending": pending.what if pending else None,
            }
        )
        return
    rows = [
        [k.id[:16], k.role, _day(k.not_before, "always"), _day(k.not_after, "open"), _state(k, settings.now)]
        for k in content.keys
    ]
    title = (
        f"Trust file, version {content.version}" if content.version else "Keys (there is no trust file yet)"
    )
    table(title, ("key", "role", "from", "until", "state"), rows)
    if content.version:
        emit(_end(content.expires, settings.now))
    if pending is not None:
        emit(
            f"a change of the {pending.role} key was cut: `goldsmith keys rotate {pending.role}` completes it"
        )


def rotate(
    role: Annotated[str, typer.Argument(help="builder, verdict, approver, or witness: a further one.")],
    why: Annotated[str, typer.Option("--why", metavar="TEXT", help="The reason, for the ledger.")] = "",
    overlap_hours: Annotated[
        int,
        typer.Option(
            min=0, max=_OVERLAP_HOURS_MAX, help="For how long the old key may still sign elsewhere."
        ),
    ] = _OVERLAP_HOURS,
    public: Public = None,
    as_json: AsJson = False,
) -> None:
    """Give a role a new key. What the old one signed stays valid. Completes a change that was cut."""
    with _keeper("rotate") as keeper:
        done = keeper.rotate(role, dt.timedelta(hours=overlap_hours), why, _pem(public))
    _tell(done, as_json)


def revoke(
    key: Annotated[str, typer.Argument(metavar="KEYID", help="The key's id, or its beginning.")],
    why: Annotated[
        str, typer.Option("--why", metavar="TEXT", help="The reason: those who are denied see it.")
    ],
    at: Annotated[
        str,
        typer.Option(
            "--at", metavar="TIME", help="From which moment on it was not ours alone (UTC). Default: now."
        ),
    ] = "",
    public: Public = None,
    as_json: AsJson = False,
) -> None:
    """Deny everything that a key signed from a moment on. A current key gets a successor at once."""
    from builder.cli.moments import moment

    first = moment(at)
    with _keeper("revoke") as keeper:
        done = keeper.revoke(key, first and first.replace(microsecond=0), why, _pem(public))
    _tell(done, as_json)


def renew(
    days: Annotated[int, typer.Option(min=1, max=_DAYS_MAX, help="For how long the trust file holds.")] = 365,
    why: Annotated[str, typer.Option("--why", metavar="TEXT", help="The reason, for the ledger.")] = "",
    as_json: AsJson = False,
) -> None:
    """Give the trust file a new end: who is kept from newer ones believes an old one no longer."""
    from builder.report import emit, emit_json

    with _keeper("renew") as keeper:
        content, entry = keeper.renew(days, why)
    if as_json:
        told = {"version": content.version, "expires": _iso(content.expires), "entry": entry.as_dict()}
        return emit_json(told)
    emit(
        f"trust file version {content.version} holds until {_day(content.expires, '')}, "
        f"ledger entry {entry.sequence}\n"
        "`goldsmith keys export --to DIR` writes it for those who verify; gates here have it already"
    )


def export(
    to: Annotated[Path, typer.Option("--to", metavar="DIR", help="The folder to write.")],
    as_json: AsJson = False,
) -> None:
    """Write what verifiers need: root.pub and trust.json, and the public keys as cosign reads them."""
    from builder.report import emit, emit_json
    from builder.signing.keys import ROOT, load_public
    from builder.signing.trust import FILE, Trust
    from builder.signing.trustfile import read
    from builder.store import write_atomically

    with _keeper("export") as keeper:
        content = keeper.sign()
        root, data = load_public(keeper.folder, ROOT), read(keeper.folder / FILE)
    files = {f"{k.role}-{k.id[:12]}.pub": k.key.pem for k in content.keys}
    trust = Trust(content.keys, content.version)
    for role in sorted({k.role for k in content.keys if k.revoked_at is None}):
        files[f"{role}.pub"] = trust.current(role).pem
    # The trust file last: what names it is there by then.
    files |= {f"{ROOT}.pub": root.pem, FILE: data}
    for name, text in files.items():
        write_atomically(to / name, text)
    if as_json:
        emit_json({"folder": str(to), "version": content.version, "root": root.id, "files": sorted(files)})
        return
    emit(
        f"{to}: trust file version {content.version}, {len(content.keys)} keys\n"
        f"root key {root.id}\n"
        "Bring the folder by a way that the registry's operator cannot change; give it with --trust."
    )


@contextlib.contextmanager
def _keeper(what: str) -> Iterator[Keeper]:
    """Who keeps the keys of the state directory, which nobody else works with meanwhile."""
    from builder.cli.audit import ledger_folder
    from builder.cli.identity import caller
    from builder.cli.trusting import StoreMemory
    from builder.settings import Settings, wall_clock
    from builder.store import Store
    from registry.access.roles import EVERYTHING, Permission
    from registry.keykeeping import Keeper
    from registry.promotion.office import deciding

    settings = Settings.load()
    store = Store(settings.state)
    who = caller(settings, store)
    who.require(Permission.EXPORT if what == "export" else Permission.MANAGE_KEYS, EVERYTHING)
    folder = ledger_folder(store)
    with store.exclusive(f"goldsmith keys {what}"), deciding(folder):
        # Not the time at which the command began: others may have signed while it waited.
        yield Keeper(
            store.keys,
            folder,
            settings.key_uris,
            settings.passphrase,
            who.name,
            lambda: dt.datetime.fromtimestamp(wall_clock(), dt.UTC),
            StoreMemory(store),
        )


def _pem(path: Path | None) -> bytes | None:
    from builder.signing.keyfiles import read

    return None if path is None else read(path)


def _tell(done: Changed, as_json: bool) -> None:
    from builder.report import emit, emit_json
    from registry.audit.facts import Action

    plan = done.plan
    if as_json:
        emit_json(
            {
                "action": plan.what,
                "role": plan.role,
                "old": plan.old or None,
                "new": plan.new or None,
                "ends": _iso(plan.ends),
                "version": done.version,
                "entry": done.entry.as_dict(),
            }
        )
        return
    if plan.what is Action.ROTATE_KEY:
        lines = [f"{plan.role}: the new key is {plan.new[:16]}"]
        lines += (
            [f"{plan.old[:16]} holds until {_iso(plan.ends)}; what it signed stays valid"] if plan.old else []
        )
    else:
        lines = [
            f"{plan.role}: {plan.old[:16]} is revoked, what it signed from {_iso(plan.ends)} on is denied"
        ]
        lines += [f"the new key is {plan.new[:16]}"] if plan.new else []
    lines.append(f"trust file version {done.version}, ledger entry {done.entry.sequence}")
    lines.append(
        "`goldsmith keys export --to DIR` writes it for those who verify; gates here have it already"
    )
    emit("\n".join(lines))


def _as_dict(key: TrustedKey, now: dt.datetime) -> dict[str, Any]:
    return {
        "id": key.id,
        "role": key.role,
        "not_before": _iso(key.not_before),
        "not_after": _iso(key.not_after),
        "revoked_at": _iso(key.revoked_at),
        "why": key.why,
        "state": _state(key, now),
    }


def _state(key: TrustedKey, now: dt.datetime) -> str:
    if key.revoked_at is not None:
        return f"revoked from {_day(key.revoked_at, '')} on"
    if key.not_after is not None:
        return "retired" if key.not_after < now else "ending"
    return "valid"


def _end(expires: dt.datetime | None, now: dt.datetime) -> str:
    """What is to be said of the end of the trust file."""
    if expires is None:
        return "it has no end: `goldsmith keys renew` gives it one, so that nobody is kept from newer ones"
    from builder.cli.trusting import WARNING_DAYS

    left = expires - now
    if left < dt.timedelta(0):
        return f"EXPIRED on {_day(expires, '')}: nothing is verified with it; `goldsmith keys renew`"
    if left < dt.timedelta(days=WARNING_DAYS):
        return f"WARNING: it expires in {left.days} days, on {_day(expires, '')}; `goldsmith keys renew`"
    return f"it holds until {_day(expires, '')}"


def _day(at: dt.datetime | None, otherwise: str) -> str:
    return otherwise if at is None else f"{at:%Y-%m-%d %H:%M:%SZ}"


def _iso(at: dt.datetime | None) -> str | None:
    return None if at is None else f"{at:%Y-%m-%dT%H:%M:%SZ}"
