"""Commands that ask what is where: reindex, affected."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from builder.errors import UsageError

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Iterator

    from builder.cli.identity import Caller
    from builder.settings import Settings
    from builder.store import Store
    from registry.index.queries import Answer
    from registry.index.rebuild import ListingRegistry, Rebuilt
    from registry.index.schema import Place
    from registry.pulls import Pull

_ROWS_MAX = 100  # images that are shown to people; --json has all of them

AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


def register(app: typer.Typer) -> None:
    """Add this module's commands to the application."""
    app.command()(reindex)
    app.command()(affected)


def reindex(
    afresh: Annotated[
        bool, typer.Option("--all", help="Read every image anew, also those that the index knows.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Make the index from the registry alone: every image that a tag names, read and verified.

    Exit code 4 when something could not be verified: it is named and not taken up.
    """
    from builder.settings import Settings
    from builder.store import Store

    settings = Settings.load(needs_catalogue=False)
    done = bring_up_to_date(settings, Store(settings.state).create(), afresh=afresh)
    _tell_rebuilt(done, as_json)
    if done.problems:
        raise typer.Exit(4)


def bring_up_to_date(settings: Settings, store: Store, *, afresh: bool = False) -> Rebuilt:
    """The index of what is in the registry now; raises as the index does, StateBusy when a run goes on."""
    from builder.cli.trusting import trusted
    from registry.index import rebuild

    with store.exclusive("goldsmith reindex"):
        return rebuild.reindex(
            index_place(store),
            settings.registry,
            registry_of(settings),
            trusted(store),
            settings.now,
            afresh=afresh,
            ledger_entries=ledger_length(store),
            journal=recent_pulls(store, settings.now),
        )


def affected(
    what: Annotated[
        str,
        typer.Argument(
            metavar="WHAT", help="CVE-2026-1234, or a package URL: pkg:deb/debian/openssl[@VERSION][?arch=…]"
        ),
    ],
    as_json: AsJson = False,
) -> None:
    """Which images a vulnerability or a package concerns, on which channels, and who pulled them."""
    from builder.cli.identity import caller
    from builder.report import emit, emit_json
    from builder.settings import Settings
    from builder.store import Store
    from registry.index import queries
    from registry.index.schema import facts_of

    if not what:
        raise UsageError("nothing was asked for", hint="CVE-2026-1234, or pkg:deb/debian/openssl")
    settings = Settings.load(needs_catalogue=False)
    store = Store(settings.state)
    place = index_place(store)
    path = place.require()
    most = None if as_json else _ROWS_MAX
    found = _as_allowed(queries.affected(path, what, settings.now, most), caller(settings, store))
    late_by = behind(place, path, store)
    if as_json:
        emit_json({**found.as_dict(), "indexed_at": facts_of(path).get("made_at", ""), "behind": late_by})
        return
    _tell(found)
    if found.unverified:
        emit(f"{found.unverified} images could not be verified and are not among these: goldsmith reindex")
    if late_by:
        emit(f"the index is behind ({late_by}): goldsmith reindex")


def registry_of(settings: Settings) -> ListingRegistry:
    """The registry, for reading all of it: the storage's own folder where it is this state directory's."""
    from builder.cli.wiring import client_of, folder_of

    return folder_of(settings) or client_of(settings, writes=False)


def index_place(store: Store) -> Place:
    """Where the index of a state directory is."""
    from registry.index.schema import Place

    return Place(store.root / "index")


def recent_pulls(store: Store, now: dt.datetime) -> Iterator[Pull]:
    """What was pulled in the days that `affected` tells of; raises ToolError when that cannot be read."""
    import datetime as dt

    from builder.cli.identity import pulls_folder
    from builder.errors import ToolError
    from registry.index.queries import PULLED_DAYS
    from registry.pulls import pulls

    try:
        yield from pulls(pulls_folder(store), now - dt.timedelta(days=PULLED_DAYS))
    except OSError as error:
        raise ToolError("the journal of pulls cannot be read", context=str(error)) from None


def ledger_length(store: Store) -> int:
    """How many entries the ledger says it has; 0 when there is none."""
    from builder.cli.audit import ledger_folder
    from builder.errors import GoldsmithError
    from registry.audit.ledger import parse_head

    try:
        return parse_head((ledger_folder(store) / "head.json").read_bytes())[0].entries
    except (OSError, GoldsmithError):
        return 0


def _as_allowed(found: Answer, who: Caller) -> Answer:
    """Who pulled an image is told to those who may read the audit of it."""
    from dataclasses import replace

    from registry.access.identity import may
    from registry.access.roles import Permission

    def told(name: str) -> bool:
        return may(who.identity, Permission.READ_AUDIT, name)

    return replace(found, images=found.images.telling(told))


def behind(place: Place, path: Path, store: Store) -> str:
    """What has changed since the index was made; empty when nothing is known to have."""
    from registry.index.schema import facts_of

    known = facts_of(path).get("ledger_entries", "0")
    more = ledger_length(store) - (int(known) if known.isdigit() else 0)
    told = [f"{more} decisions since"] if more > 0 else []
    return "; ".join([*told, *filter(None, [place.stale()])])


def _tell_rebuilt(done: Rebuilt, as_json: bool) -> None:
    from builder.report import emit, emit_json, table

    if as_json:
        problems = [
            {
                "repository": p.repository,
                "digest": p.digest,
                "tags": list(p.tags),
                "reason": p.reason,
                "message": p.message,
                "context": p.context,
            }
            for p in done.problems
        ]
        counts = {"images": done.images, "read": done.read, "others": done.others}
        emit_json({**counts, "problems": problems, "file": str(done.path)})
        return
    others = f"; {done.others} tags name no images" if done.others else ""
    emit(f"{done.images} images in the index, {done.read} of them read anew{others}")
    if done.problems:
        rows = [[f"{p.repository}:{p.tags[0]}", p.digest[7:19], p.reason, p.message] for p in done.problems]
        table(
            f"{len(rows)} images could not be verified", ("image", "digest", "reason", "what is wrong"), rows
        )


def _tell(found: Answer) -> None:
    from builder.report import emit, table

    if found.title:
        emit(f"{found.asked.upper()}: {found.title}")
    if not found.images:
        emit(f"no image in the index has {found.asked}")
        return
    rows = []
    for image in found.images:
        hits = [found.hits[n] for n in image.hits]
        rows.append(
            [
                image.ref,
                image.digest[7:19],
                image.channel,
                ", ".join(
                    dict.fromkeys(
                        f"{h.package} {h.version}" + (f" (by {h.scanner})" if h.scanner else "") for h in hits
                    )
                ),
                ", ".join(dict.fromkeys(h.fixed_version or "none" for h in hits if h.vulnerability)),
                ", ".join(image.waivers),
                ", ".join(f"{p.who} ({p.count})" for p in image.pulls[:3])
                + (f" and {len(image.pulls) - 3} more" if len(image.pulls) > 3 else ""),
            ]
        )
    columns = ("image", "digest", "channel", "packages", "fixed in", "waivers", "pulled (30 days)")
    table(f"{found.total} images", columns, rows)
    if found.total > len(rows):
        emit(f"and {found.total - len(rows)} more: --json")
