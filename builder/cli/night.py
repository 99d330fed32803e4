"""What the steps of a night do; `nightly` takes them in their order."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from builder.errors import GoldsmithError, PolicyDenied

if TYPE_CHECKING:
    from builder.cli.releasing import ReleaseTools
    from builder.cli.wiring import Workshop
    from builder.cluster import Certificates
    from builder.model.outcome import ImageEnd
    from builder.model.plan import PlannedImage
    from builder.nightly import Blocked, Promoted
    from builder.pipeline.guard import Limits
    from builder.report import Reporter
    from builder.settings import Settings
    from builder.store import Store
    from registry.clock.remediation import Remediation
    from registry.promotion.replaced import Replaced

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
    rescanned: frozenset[str] = frozenset()
    ends: tuple[ImageEnd, ...] = ()
    promoted: list[Promoted] = field(default_factory=list)
    replaced: tuple[Replaced, ...] = ()
    overdue: tuple[Remediation, ...] = ()

    def tools(self) -> ReleaseTools:
        """The tools over the catalogue as it is now: a step before may have written locks."""
        from builder.cli.releasing import ReleaseTools

        return ReleaseTools(self.workshop(), self.policy, self.settings.trivy_db)

    def workshop(self) -> Workshop:
        """The workshop over the catalogue as it is now."""
        from dataclasses import replace

        from builder.cli.wiring import Workshop

        return replace(Workshop.open(), settings=self.settings)

    def _workshop_to_tell(self) -> Workshop:
        """The same, without images where the catalogue is broken: somebody has to hear of that."""
        from builder.cli.wiring import Workshop
        from builder.errors import DefinitionError
        from builder.model.catalogue import Catalogue
        from builder.store import Store

        try:
            return self.workshop()
        except DefinitionError:
            empty = Catalogue(self.settings.catalogue, {}, {})
            return Workshop(self.settings, empty, Store(self.settings.state))

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
        from dataclasses import replace

        from builder.cli.planning import make_plan
        from builder.model.plan import Action, Cause, Plan
        from builder.pipeline.run import approval_of

        tools = self.tools()
        plan = make_plan(tools, self.engines, self.limits)
        self.rescanned = frozenset(
            i.ref
            for i in plan.images
            if i.action is Action.RELEASE
            and {r.cause for r in i.reasons} <= {Cause.DATABASE, Cause.VERDICT}
            and approval_of(tools.workshop.store, i.ref) is not None
        )
        # The rescan renews their verdicts, all with one scan.
        plan = Plan(
            tuple(replace(i, action=Action.NOTHING) if i.ref in self.rescanned else i for i in plan.images)
        )
        self.planned = plan.images
        return ", ".join(f"{count} {action.value}" for action, count in plan.counts.items() if count)

    def expected(self) -> float | None:
        """How many seconds the run will probably take, by the plan and by what images took before."""
        from builder.model.plan import Action
        from builder.pipeline.progress import Progress
        from builder.pipeline.timing import Took, took_before
        from builder.report import Silent

        if not self.planned:
            return None
        workshop = self.workshop()
        targets = {t.ref: workshop.catalogue.parent(t) for t in workshop.catalogue.targets()}
        expected: dict[str, Took | None] = {}
        for image in self.planned:
            took = took_before(workshop.store, image.ref)
            if image.action is Action.RELEASE and took is not None:
                took = Took(0.0, took.release)
            due = image.action in (Action.BUILD, Action.RELEASE)
            expected[image.ref] = took if due else Took()
        parents = {ref: parent.ref if parent else None for ref, parent in targets.items() if ref in expected}
        return Progress(parents, expected, self.jobs, Silent()).left() if parents else None

    def run(self) -> str:
        """Take what is not held to the registry."""
        from collections import Counter

        from builder.cli.clustering import elsewhere
        from builder.cli.identity import may_publish
        from builder.cli.running import note_publication, runner

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
            self.ends = runner(tools, self.engines, self.reporter, jobs, hands, self.rescanned).run_all(
                [], held
            )
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
        from builder.cli.night_promotion import promote_one
        from builder.cli.office import open_office

        with open_office(self.policy) as (workshop, office, who):
            history = office.ledger.entries()
            for end in self.ends:
                if end.outcome is None or not end.outcome.approved:
                    continue
                done = promote_one(end, office, workshop.catalogue, who.require, history)
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

    def clock(self) -> str:
        """Write down how long fixes took, by an index of what was promoted tonight."""
        from collections import Counter

        from builder.cli.clock import perform
        from builder.cli.knowledge import bring_up_to_date
        from registry.clock.remediation import State

        workshop = self.workshop()
        if self.replaced or any(p.state == "promoted" for p in self.promoted):
            bring_up_to_date(self.settings, workshop.store)
        found = perform(workshop, policy=self.policy)
        self.overdue = found.late
        states = Counter(one.state for one in found.remediations)
        mended = sum(one.promoted == self.settings.now for one in found.remediations)
        return f"{mended} mended tonight, {states[State.RUNNING]} run, {len(found.late)} late"

    def ready_to_tell(self) -> None:
        """Where somebody wants to be told and never was: tell what is decided from now on."""
        from builder.cli.audit import ledger_folder
        from builder.cli.notify import outbox_of, rules_of
        from builder.cli.trusting import trusted
        from registry.audit.ledger import Ledger

        # What is wrong with it, the step that tells says.
        with contextlib.suppress(GoldsmithError):
            workshop = self._workshop_to_tell()
            if rules_of(workshop) is not None:
                ledger = Ledger(ledger_folder(workshop.store), trusted(workshop.store))
                outbox_of(workshop).begin(ledger.entries())

    def notify(self, blocked: Sequence[Blocked], failed: frozenset[str]) -> str:
        """Tell people what is new; `failed` are the obstacles that are errors."""
        from builder.cli.night_news import ending_waivers, lateness_of, obstacles_of, rebuilt
        from builder.cli.notify import dispatch, outbox_of, refuse_given_up, rules_of

        workshop = self._workshop_to_tell()
        rules = rules_of(workshop)
        if rules is None:
            return "nobody wants to be told: there is no notify.yaml"
        outbox = outbox_of(workshop)
        reasons = {i.ref: "; ".join(map(str, i.reasons)) for i in self.planned}
        news = [
            *rebuilt(self.ends, reasons, workshop.store, outbox.marked(_TOLD)),
            *ending_waivers(workshop),
            *obstacles_of(blocked, failed),
            *lateness_of(blocked, self.overdue, workshop),
        ]
        made, done = dispatch(workshop, rules, news)
        outbox.mark(_TOLD, int(self.settings.now.timestamp()))
        refuse_given_up(workshop, done)
        if not made and not done.sent and not done.failed:
            return "unchanged"
        return f"{made} new, {done.sent} sent, {done.failed} to be tried again"
