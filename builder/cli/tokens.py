"""Commands for tokens: create, list, revoke."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from builder.errors import PolicyDenied, UsageError

if TYPE_CHECKING:
    from builder.cli.identity import Caller
    from builder.settings import Settings
    from builder.store import Store
    from registry.access.tokens import Token, TokenStore
    from registry.audit.ledger import Action, Entry

_DAYS = 90
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


def register(app: typer.Typer) -> None:
    """Add this module's commands to the application."""
    group = typer.Typer(help="Tokens: what `docker login` takes as the password.", no_args_is_help=True)
    group.command("create")(create)
    group.command("list")(list_)
    group.command("revoke")(revoke)
    app.add_typer(group, name="token")


def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Who or what shows it: ci-python.")],
    role: Annotated[list[str], typer.Option("--role", metavar="ROLE", help="developer, robot, …")],
    images: Annotated[
        list[str] | None,
        typer.Option("--images", metavar="PATTERN", help="For these images: 'python*'. Default: all."),
    ] = None,
    days: Annotated[int, typer.Option("--days", help="How long it is valid; at most 366.")] = _DAYS,
    why: Annotated[str, typer.Option("--why", metavar="TEXT", help="The reason, for the ledger.")] = "",
    as_json: AsJson = False,
) -> None:
    """Make a token, and show it once. It allows no more than you may do yourself."""
    from builder.report import emit, emit_json
    from registry.access.identity import missing
    from registry.access.roles import EVERYTHING, Permission
    from registry.audit.ledger import Action

    settings, state, tokens, who = _desk()
    patterns = tuple(dict.fromkeys(images or [EVERYTHING]))
    roles = tuple(dict.fromkeys(role))
    _refuse_unknown(who, roles, patterns)
    for pattern in patterns:
        who.require(Permission.MANAGE_TOKENS, pattern)
    token, shown = tokens.draft(name, roles, patterns, days=days, by=who.name, now=settings.now)
    lacking = missing(who.identity, token.identity(who.access.roles).grants)
    if lacking:
        raise PolicyDenied(
            f"{who.name} cannot hand on what {who.name} may not do",
            context=", ".join(f"{permission} {image}" for permission, image in lacking),
            hint="give the token fewer roles or images, or let somebody make it who may all of this",
            reference="not-permitted",
        )
    # The entry first: a token that nobody has seen is better than one that nobody knows of.
    entry = _record(settings, state, who, token, Action.CREATE_TOKEN, why)
    tokens.add(token)
    if as_json:
        emit_json({**token.as_dict(), "token": shown, "entry": entry.as_dict()})
        return
    emit(
        f"{shown}\n\n"
        f"This is shown once. It is {' and '.join(roles)} for {', '.join(patterns)}, "
        f"until {token.expires_at:%Y-%m-%d %H:%MZ}; ledger entry {entry.sequence}.\n"
        f"  docker login -u {name} --password-stdin HOST     it is the password\n"
        f"  goldsmith token revoke {token.id}                ends it within a second"
    )


def list_(as_json: AsJson = False) -> None:
    """Show the tokens that you may manage: for what, until when, by whom. Never their secrets."""
    from builder.report import emit, emit_json, table
    from registry.access.identity import may
    from registry.access.roles import Permission

    settings, _, tokens, who = _desk()
    found = [
        t
        for t in tokens.read().tokens.values()
        if all(may(who.identity, Permission.MANAGE_TOKENS, i) for i in t.images)
    ]
    if as_json:
        emit_json([{**t.as_dict(), "state": t.state(settings.now)} for t in found])
        return
    rows = [
        [
            t.id,
            t.name,
            ", ".join(t.roles),
            ", ".join(t.images),
            t.state(settings.now),
            f"{t.expires_at:%Y-%m-%d}",
            t.created_by,
        ]
        for t in found
    ]
    columns = ("id", "name", "roles", "images", "state", "ends", "made by")
    table("Tokens", columns, rows) if rows else emit("no tokens")


def revoke(
    number: Annotated[str, typer.Argument(metavar="ID", help="The token's id: `goldsmith token list`.")],
    why: Annotated[str, typer.Option("--why", metavar="TEXT", help="The reason, for the ledger.")] = "",
    as_json: AsJson = False,
) -> None:
    """End a token; running gates refuse it within a second."""
    from builder.report import emit, emit_json
    from registry.access.roles import Permission
    from registry.audit.ledger import Action

    settings, state, tokens, who = _desk()
    number = _id_of(number)
    known = tokens.read().tokens.get(number)
    for pattern in known.images if known else ():
        who.require(Permission.MANAGE_TOKENS, pattern)
    # The end first: it must not wait for its entry. A run that was cut between is completed here.
    token, is_new = tokens.revoke(number, settings.now)
    entry = None if is_new else _told(state, token)
    if entry is None:
        entry, is_new = _record(settings, state, who, token, Action.REVOKE_TOKEN, why), True
    if as_json:
        emit_json({**token.as_dict(), "changed": is_new, "entry": entry.as_dict()})
        return
    emit(f"{'revoked' if is_new else 'unchanged: revoked'}: {token.name} ({token.id})")


def _desk() -> tuple[Settings, Store, TokenStore, Caller]:
    from builder.cli.identity import caller, token_store
    from builder.settings import Settings
    from builder.store import Store

    settings = Settings.load()
    store = Store(settings.state).create()
    return settings, store, token_store(store), caller(settings, store)


def _refuse_unknown(who: Caller, roles: tuple[str, ...], patterns: tuple[str, ...]) -> None:
    import difflib

    from registry.access.roles import pattern_problem

    for name in roles:
        if name not in who.access.roles:
            near = difflib.get_close_matches(name, who.access.roles, 1, 0.5)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(who.access.roles)}"
            raise UsageError(f"there is no role {name[:50]!r}", hint=hint)
    for pattern in patterns:
        problem = pattern_problem(pattern)
        if problem:
            raise UsageError(f"no images: {pattern[:100]!r}", context=problem, hint="such as 'python*'")


def _id_of(text: str) -> str:
    """An id, also when somebody gives the whole token: then nothing but the id goes any further."""
    return text.removeprefix("gs_").partition("_")[0]


def _record(settings: Settings, store: Store, who: Caller, token: Token, action: Action, why: str) -> Entry:
    from builder.cli.audit import ledger_folder
    from builder.cli.trusting import trusted
    from builder.signing.keys import load_keys
    from registry.access.facts import token_fact
    from registry.audit.ledger import Ledger

    signer = load_keys(store.keys, settings.key_uris, settings.passphrase).verdict
    book = Ledger(ledger_folder(store), trusted(store))
    return book.append(token_fact(token, action, who.name, why), signer, settings.now)


def _told(store: Store, token: Token) -> Entry | None:
    """The ledger's entry of a token's end, when there is one."""
    from builder.cli.audit import ledger_folder
    from builder.cli.trusting import trusted
    from registry.audit.ledger import Action, Ledger

    entries = Ledger(ledger_folder(store), trusted(store)).entries()
    ends = (e for e in entries if e.fact.what is Action.REVOKE_TOKEN and e.fact.digest == token.digest)
    return next(ends, None)
