"""What the steps of a night do; `nightly` takes them in their order."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from builder.errors import GoldsmithError, PolicyDenied

if TYPE_CHECKING:
    from collections.abc import Callable

    from builder.cli.releasing import ReleaseTools
    from builder.cli.wiring import Workshop
    from builder.cluster import Certificates
    from builder.model.catalogue import Catalogue
    from builder.model.outcome import ImageEnd
    from builder.model.plan import PlannedImage
    from builder.nightly import Blocked, Promoted
    from builder.pipeline.guard import Limits
    from builder.report import Reporter
    from builder.settings import Settings
    from builder.store import Store
    from registry.access.roles import Permission
    from registry.audit.ledger import Entry
    from registry.notify.events import Event
    from registry.promotion.office import Office
    from registry.promotion.replaced import Replaced

WHY = "nightly: what the policy lets through by itself"
WHY_REPLACED = "nightly: a newer image has taken its place"
_NOTES = "replacing.json"
_TOLD = "nightly"  # until when rebuilt images were told of


@dataclass
class Doing:
    """What the steps of a night do, and what they found for those after them."""

    settings: Settings
    engines: Sequence[str]
    policy: str
    jobs: int
    limits: Limits
    reporter: Reporter
    scheduler: str | None = None
    certificates: Certificates | None = None
    planned: tuple[PlannedImage, ...] = ()
    ends: tuple[ImageEnd, ...] = ()
    promoted: list[Promoted] = field(default_factory=list)
    replaced: tuple[Replaced, ...] = ()

    def tools(self) -> ReleaseTools:
        """The tools over the catalogue as it is now: a step before may have written locks."""
        from builder.cli.releasing import ReleaseTools

        return ReleaseTools(self.workshop(), self.policy, self.settings.trivy_db)

    def workshop(self) -> Workshop:
        """The workshop over the catalogue as it is now."""
        from dataclasses import replace

        from builder.cli.wiring import Workshop

        return replace(Workshop.open(), settings=self.settings)

    def sync(self) -> str:
        """Mirror the vulnerability database."""
        from builder.cli.databases import mirror

        tools = self.tools()
        with tools.workshop.store.exclusive("goldsmith nightly"):
            pin, changed = mirror(tools, self.settings.trivy_db)
        return f"{'new' if changed else 'unchanged'}, updated {pin.updated_at}"

    def lock(self) -> str:
        """Resolve the packages in today's archive."""
        from builder.cli.locking import relock

        workshop = self.workshop()
        with workshop.store.exclusive("goldsmith nightly"):
            _, written = relock(workshop.catalogue, self.settings, workshop.store, [], check=False)
        return f"written: {', '.join(written)}" if written else "unchanged"

    def plan(self) -> str:
        """Say what is due, and what is held back."""
        from builder.cli.planning import make_plan

        plan = make_plan(self.tools(), self.engines, self.limits)
        self.planned = plan.images
        return ", ".join(f"{count} {action.value}" for action, count in plan.counts.items() if count)

    def run(self) -> str:
        """Take what is not held to the registry."""
        from collections import Counter

        from builder.cli.clustering import elsewhere
        from builder.cli.identity import may_publish
        from builder.cli.releasing import note_publication, runner

        tools = self.tools()
        may_publish(tools.workshop, [])
        held = {i.ref: i.held for i in self.planned if i.held}
        jobs, hands = self.jobs, None
        with contextlib.ExitStack() as stack:
            if self.scheduler is not None:
                hands, width = stack.enter_context(
                    elsewhere(tools, self.engines, self.scheduler, self.certificates)
                )
                jobs = max(jobs, width)
            stack.enter_context(tools.workshop.store.exclusive("goldsmith nightly"))
            self.ends = runner(tools, self.engines, self.reporter, jobs, hands).run_all([], held)
        if any(e.outcome is not None and e.outcome.outcome != "unchanged" for e in self.ends):
            note_publication(tools.workshop.store)
        self._keep_reasons(tools.workshop.store)
        counts = Counter(end.state.value for end in self.ends)
        return ", ".join(f"{count} {state}" for state, count in sorted(counts.items()))

    def _keep_reasons(self, store: Store) -> None:
        """Keep why the images of this night were built: the plan knows what a rescan had asked for."""
        from builder.model.digest import Digest
        from builder.model.plan import Action
        from builder.pipeline.history import keep_reasons

        why = {i.ref: i.reasons for i in self.planned if i.action is Action.BUILD and i.reasons}
        for end in self.ends:
            if end.outcome is not None and end.outcome.digest and end.ref in why:
                keep_reasons(store, Digest(end.outcome.digest), why[end.ref])

    def rescan(self) -> str:
        """Compare what is served with today's vulnerabilities."""
        from builder.cli.rescanning import perform

        done = perform(policy=self.policy)
        if not done.complete:
            raise PolicyDenied(
                f"the rescan is not complete: coverage {done.coverage:.3f}, {len(done.failed)} failed",
                hint="goldsmith rescan says which, and why",
                reference="rescan-incomplete",
            )
        if done.unchanged:
            return "unchanged"
        return f"{done.scanned} of {done.served} scanned, {done.renewed} renewed, {len(done.asked)} asked for"

    def promote(self) -> str:
        """Promote what was approved and is not in place, if the policy lets it through by itself."""
        from builder.cli.office import open_office

        with open_office(self.policy) as (workshop, office, who):
            history = office.ledger.entries()
            for end in self.ends:
                if end.outcome is None or not end.outcome.approved:
                    continue
                done = _promote(end, office, workshop.catalogue, who.require, history)
                self.promoted += [done] if done is not None else []
        moved = sum(p.state == "promoted" for p in self.promoted)
        refused = sum(p.error is not None for p in self.promoted)
        return f"{moved} promoted, {refused} refused" if self.promoted else "unchanged"

    def deprecate(self) -> str:
        """Deprecate what was promoted before and has been replaced, naming what to use instead."""
        from builder.cli.office import open_office
        from registry.access.roles import Permission
        from registry.promotion.replacing import deprecate_replaced

        with open_office(self.policy) as (workshop, office, who):
            notes = workshop.store.root / "nightly" / _NOTES

            def allowed(one: Replaced) -> None:
                who.require(Permission.DEPRECATE, one.ref.partition(":")[0])

            done = deprecate_replaced(office, notes, WHY_REPLACED, allowed)
        self.replaced = done.deprecated
        if done.failed:
            raise done.failed[0][1]
        return f"{len(self.replaced)} deprecated" if self.replaced else "unchanged"

    def ready_to_tell(self) -> None:
        """Where somebody wants to be told and never was: tell what is decided from now on."""
        from builder.cli.audit import ledger_folder
        from builder.cli.notify import outbox_of, rules_of
        from builder.cli.trusting import trusted
        from registry.audit.ledger import Ledger

        # What is wrong with it, the step that tells says.
        with contextlib.suppress(GoldsmithError):
            workshop = self.workshop()
            if rules_of(workshop) is not None:
                ledger = Ledger(ledger_folder(workshop.store), trusted(workshop.store))
                outbox_of(workshop).begin(ledger.entries())

    def notify(self, blocked: Sequence[Blocked], failed: frozenset[str]) -> str:
        """Tell people what is new; `failed` are the obstacles that are errors."""
        from builder.cli.notify import dispatch, outbox_of, refuse_given_up, rules_of

        workshop = self.workshop()
        rules = rules_of(workshop)
        if rules is None:
            return "nobody wants to be told: there is no notify.yaml"
        outbox = outbox_of(workshop)
        news = [*self._rebuilt(workshop.store, outbox.marked(_TOLD)), *self._waivers(workshop)]
        news += _obstacles(blocked, failed, workshop.store, self.settings)
        made, done = dispatch(workshop, rules, news)
        outbox.mark(_TOLD, int(self.settings.now.timestamp()))
        refuse_given_up(workshop, done)
        if not made and not done.sent and not done.failed:
            return "unchanged"
        return f"{made} new, {done.sent} sent, {done.failed} to be tried again"

    def _rebuilt(self, store: Store, told: int | None) -> list[Event]:
        """What was built since the last night that told of it, this night included."""
        from builder.pipeline.history import history_of
        from registry.notify.events import of_rebuild

        found = []
        reasons = {i.ref: "; ".join(map(str, i.reasons)) for i in self.planned}
        for end in self.ends:
            if end.outcome is None or not end.outcome.approved:
                continue
            built = history_of(store, end.ref).built_at
            anew = told is not None and built is not None and built.timestamp() > told
            if anew or end.outcome.outcome != "unchanged":
                found.append(of_rebuild(end.ref, end.outcome.digest, reasons.get(end.ref, "")))
        return found

    def _waivers(self, workshop: Workshop) -> list[Event]:
        from builder.model.waiver import Waiver
        from builder.stages.judge import imported_waivers
        from registry.notify.events import of_waiver

        accepted = {**imported_waivers(self.settings.catalogue), **workshop.catalogue.waivers}
        listed = (Waiver(n, e, inherited=False) for n, d in accepted.items() for e in d.waivers)
        return [found for one in listed if (found := of_waiver(one, self.settings.now)) is not None]


def _promote(
    end: ImageEnd,
    office: Office,
    catalogue: Catalogue,
    require: Callable[[Permission, str], None],
    history: Sequence[Entry],
) -> Promoted | None:
    """Promote one image; None when it is in place."""
    from builder.model.digest import Digest
    from builder.nightly import Promoted
    from registry.access.roles import Permission
    from registry.promotion import promote as promotion
    from registry.promotion.replaced import rolled_back

    if end.outcome is None:
        return None
    digest, target = Digest(end.outcome.digest), catalogue.find(end.ref)
    name = target.definition.name
    try:
        there = office.client.head_manifest(office.client.reference(name, target.tag))
        if there is not None and there.digest == digest and "publish" not in end.outcome.stages:
            return None
        if taken := rolled_back(history, end.ref, digest):
            raise PolicyDenied(
                f"{end.ref} was rolled back by {taken.fact.who}",
                context=f"from {digest} at {taken.at:%Y-%m-%d %H:%M} UTC: {taken.fact.why or 'no reason'}",
                hint=f"mend its definition, or: goldsmith promote {name}@{digest}",
                reference="rolled-back",
            )
        require(Permission.PROMOTE, name)
        where = office.client.reference(f"candidate/{name}", digest=digest)
        done = promotion.promote(office, where, target, WHY)
        return Promoted(end.ref, "promoted" if done.changed else "in place", str(done.reference))
    except GoldsmithError as error:
        return Promoted(end.ref, "refused", error.message, error)


def _obstacles(
    blocked: Sequence[Blocked], failed: frozenset[str], store: Store, settings: Settings
) -> list[Event]:
    """What is blocked, and what is late by now."""
    import datetime as dt

    from builder.cli.releasing import find_policy_of
    from builder.cli.watchdog import HOURS
    from builder.rebuilds import waiting_rebuilds
    from builder.watchdog import late
    from registry.notify.events import of_lateness, of_obstacle

    found = [of_obstacle(b.what, b.by, b.since, b.hint, failed=b.what in failed) for b in blocked]
    night = {
        "began": settings.now.isoformat(),
        "blocked": [
            {"what": b.what, "by": b.by, "since": b.since.isoformat(), "hint": b.hint} for b in blocked
        ],
    }
    deadlines = find_policy_of(settings, settings.policy).data.deadlines
    overdue = late(night, waiting_rebuilds(store), settings.now, dt.timedelta(hours=HOURS), deadlines)
    return found + [of_lateness(one.what, one.by, one.blocked_by, one.hint) for one in overdue]
