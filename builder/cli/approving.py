"""Commands of those who look at what others wrote: approve, approvals."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from builder.cli.office import candidate, open_office
from builder.errors import GoldsmithError, RegistryError, UsageError

if TYPE_CHECKING:
    from builder.cli.wiring import Workshop
    from builder.model.reference import Reference
    from builder.signing.verification import Verification
    from registry.approvals.procedure import Matter, Standing
    from registry.audit.ledger import Entry
    from registry.promotion.office import Office

# Immutable tags, and what cosign attaches.
_NO_STREAM = re.compile(r".+-[0-9a-f]{12}|sha256-[0-9a-f]{64}(\..+)?")
_SHOWN_LINES = 400  # of a text difference on a terminal; --json has all of it

AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


@dataclass(frozen=True, slots=True)
class News:
    """What is new in an image: the text difference, or why there is none; (package, before, after)."""

    text: str
    note: str
    packages: tuple[tuple[str, str, str], ...]


def register(app: typer.Typer) -> None:
    """Add this module's commands to the application."""
    app.command()(approve)
    app.command()(approvals)


def approve(
    ref: Annotated[str, typer.Argument(metavar="REF", help="python:3.13, python@sha256:…, or both")],
    why: Annotated[
        str,
        typer.Option("--why", metavar="TEXT", help="What was looked at. Without it, nothing is approved."),
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Show what is new in a candidate since the image that is stable and, with --why, approve it."""
    from builder.report import emit, emit_json
    from builder.signing.keys import APPROVER, open_signer
    from registry.access.roles import Permission
    from registry.approvals import procedure as approving

    with open_office() as (workshop, ours, who):
        where, office = candidate(ref, workshop, ours)
        who.require(Permission.APPROVE, where.name)
        subject, found, _ = approving.look_at(office, where)
        history = office.ledger.entries()
        matter = approving.matter_of(office, subject, found, history)
        news = _news(workshop, office, matter, found, approving.last_stable(subject.ref, history))
        if not as_json:
            emit(_shown(news))
        done = None
        if why:
            settings = workshop.settings
            signer = open_signer(workshop.store.keys, APPROVER, settings.key_uris, settings.passphrase)
            office.trust.require(signer.public, office.now)
            done = approving.approve(office, signer, where.with_digest(subject.digest), why)
        now = done.standing if done else approving.standing(office, matter, history)
        if as_json:
            said = {"definition": {"difference": news.text, "note": news.note}, "packages": _packages(news)}
            decided = {
                "entry": done.entry.as_dict() if done else None,
                "changed": bool(done and done.changed),
            }
            emit_json({**_standing(now), **said, "approved": done is not None, **decided})
            return
        emit("\n".join(approving.blocked_by(now)))
        if done:
            emit(f"{'' if done.changed else 'unchanged: '}approved; ledger entry {done.entry.sequence}")
        waits = f"waits for {now.missing} more" if now.missing else "has the approvals that it needs"
        emit(f"{subject.ref} {waits} ({now.needed} by the policy {office.policy.name})")


def approvals(
    ref: Annotated[
        str, typer.Argument(metavar="[REF]", help="python:3.13 or python. Default: everything.")
    ] = "",
    as_json: AsJson = False,
) -> None:
    """List what waits for approval: which promotion, for what, since when, and who has approved."""
    from builder.report import emit, emit_json, table
    from registry.access.identity import may
    from registry.access.roles import Permission

    with open_office() as (workshop, office, who):
        refs = [t.ref for t in workshop.catalogue.targets()] + _imports(office)
        if ref:
            refs = [r for r in refs if ref in (r, r.partition(":")[0])]
            if not refs:
                workshop.catalogue.find(ref)  # says what was meant
        seen = [r for r in refs if may(who.identity, Permission.SEE, r.partition(":")[0])]
        history = office.ledger.entries()
        waiting = [w for r in seen if (w := _waiting(r, *candidate(r, workshop, office), history))]
    if as_json:
        emit_json(waiting)
        return
    columns = ("image", "digest", "judged (UTC)", "new", "written by", "approved by", "missing")
    rows = [
        [
            w["ref"],
            w["digest"][7:19],
            w["since"],
            w["error"] or ", ".join(w["new"]),
            ", ".join(w["written_by"]),
            ", ".join(w["approved_by"]),
            str(w["missing"]),
        ]
        for w in waiting
    ]
    table("Waiting for approval", columns, rows) if rows else emit("nothing waits for approval")


def _imports(office: Office) -> list[str]:
    """The streams of imported images, NAME:TAG."""
    from registry.promotion.office import QUARANTINES, home_of

    held = [r for r in office.client.repositories() if r.startswith(f"{QUARANTINES}/")]
    return [
        f"{home_of(repo)}:{tag}"
        for repo in held
        for tag in office.client.tags(repo)
        if not _NO_STREAM.fullmatch(tag)
    ]


def _waiting(ref: str, where: Reference, office: Office, history: tuple[Entry, ...]) -> dict[str, Any] | None:
    """What a candidate waits for; None when there is none, or it waits for nothing."""
    from builder.signing.predicates import timestamp
    from registry.approvals import procedure as approving

    head = office.client.head_manifest(where)
    if head is None:
        return None
    try:
        subject, found, _ = approving.look_at(office, where)
        now = approving.standing(office, approving.matter_of(office, subject, found, history), history)
    except RegistryError:
        raise
    except GoldsmithError as error:  # it cannot be promoted anyway; the list says why
        empty: dict[str, Any] = {k: [] for k in ("new", "written_by", "approved_by", "left_out")}
        lost = {"ref": ref, "digest": str(head.digest), "needed": 0, "missing": 0}
        return {**lost, **empty, "writers_unknown": "", "since": "", "error": error.message}
    if not now.missing:
        return None
    return {**_standing(now), "since": timestamp(found.verdict.issued_at), "error": ""}


def _standing(now: Standing) -> dict[str, Any]:
    matter = now.matter
    return {
        "ref": matter.subject.ref,
        "digest": str(matter.subject.digest),
        "needed": now.needed,
        "missing": now.missing,
        "new": sorted(matter.changes),
        "written_by": list(matter.writers.people),
        "writers_unknown": matter.writers.unknown,
        "approved_by": list(now.count.approvers),
        "left_out": list(now.count.left_out),
    }


def _news(
    workshop: Workshop, office: Office, matter: Matter, found: Verification, before: Entry | None
) -> News:
    from builder.signing.attested import provenances
    from builder.signing.keys import BUILDER

    repo, tag = matter.subject.repo, matter.subject.tag
    now = {p for m in found.manifests for one in m.provenances for p in one.packages}
    believes = office.trust.unrevoked(BUILDER)
    stable = provenances(office.client, office.client.reference(repo, tag), believes) if before else ()
    then = {p for one in stable for p in one.packages}
    text, note = _difference(workshop, matter, before)
    return News(text, note, _moved(then, now))


def _difference(workshop: Workshop, matter: Matter, before: Entry | None) -> tuple[str, str]:
    """The text that is new, when this folder holds exactly what the candidate is made of; or why not."""
    from builder.cli.releasing import ReleaseTools
    from builder.tools.git import Git

    ref, made = matter.subject.ref, matter.made
    try:
        target = workshop.catalogue.find(ref)
    except UsageError:
        return "", f"{ref} is not in this catalogue"
    historian = ReleaseTools(workshop, workshop.settings.policy, None).historian
    if made is None or historian.written(target) != (made.definition, made.template):
        commits = ", ".join(c[:12] for c in matter.commits) or "an unknown commit"
        return (
            "",
            f"this folder holds another definition or template than the candidate, which is of {commits}",
        )
    if before is None:
        places = ", ".join(historian.paths(target))
        return "", f"{ref} never was stable: all of {places} is new, and this folder holds exactly that"
    git = Git(workshop.catalogue.root, workshop.settings.child_environment)
    for commit in before.fact.after.get("commits", "").split():
        if git.has(commit):
            return git.difference(commit, historian.written_paths(target)), f"since {commit[:12]}"
    return (
        "",
        "git does not know the stable image's commit; this folder holds what the candidate is of",
    )


def _moved(then: set[tuple[str, str]], now: set[tuple[str, str]]) -> tuple[tuple[str, str, str], ...]:
    def versions(packages: set[tuple[str, str]]) -> dict[str, str]:
        found: dict[str, set[str]] = {}
        for _, package in packages:
            name, _, version = package.partition("=")
            found.setdefault(name, set()).add(version)
        return {name: ", ".join(sorted(all_)) for name, all_ in found.items()}

    old, new = versions(then), versions(now)
    names = sorted({*old, *new})
    return tuple((n, old.get(n, ""), new.get(n, "")) for n in names if old.get(n) != new.get(n))


def _packages(news: News) -> list[dict[str, str]]:
    return [{"name": name, "from": old, "to": new} for name, old, new in news.packages]


def _shown(news: News) -> str:
    lines = news.text.splitlines()
    shown = lines[:_SHOWN_LINES]
    if len(lines) > len(shown):
        shown.append(f"… and {len(lines) - len(shown)} lines more; --json has all of them")
    shown.append(f"definition and template: {news.note}" if lines or news.note else "")
    shown += [f"{name} {old or 'new'} → {new or 'gone'}" for name, old, new in news.packages]
    return "\n".join(line for line in shown if line)
