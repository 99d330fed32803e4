"""The rescan: an index of today, one scan for each release, an outcome for each image, and what follows.

The procedure; the numbers stand in the code:

 1. The index is brought up to date from the registry. What cannot be verified was not scanned.
 2. When database, scanner, policy and images are those of the last complete rescan, and every verdict
    has more than half of its time left, there is nothing to do.
 3. All packages of a release are compared with the database at once (`union`).
 4. The policy's limits decide about each image (`judging`).
 5. What follows is carried out: rebuild requests are written down or taken back, verdicts renewed,
    images put into quarantine or let out of it, each decision in the ledger. One that fails is told
    and stops no other. More quarantines at once than the limit are none: somebody has to look first.
    Before a renewal the scanners of extensions are asked, where the policy demands them (`asking`);
    what they want rebuilt is written down then.
 6. The index learns what was found. When all images were scanned and everything that follows was
    done, it also remembers that (2).

Coverage is the share of served images that were scanned, by all scanners that had to be asked. It must be 1.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

from builder.errors import GoldsmithError, PolicyDenied, ToolError
from builder.model.channel import Channel
from builder.model.digest import Digest
from builder.model.evidence import Evidence, NotDone
from builder.model.image import Target
from builder.model.rebuild import RebuildRequest
from builder.model.scanner import Scanner
from builder.model.waiver import Waiver
from builder.policy.rule import Case
from builder.policy.schema import Policy
from builder.signing.verification import Verification
from builder.store import Store
from builder.tools.trivy import Trivy
from builder.tools.trivy_db import Database
from registry.audit.ledger import Action
from registry.index import schema
from registry.index.rebuild import ListingRegistry, reindex
from registry.index.writing import Problem
from registry.promotion import callback
from registry.promotion.closure import Closure
from registry.promotion.office import Office
from registry.promotion.recheck import attested_case
from registry.pulls import Pull
from registry.rescan.asking import Answered, Further, ask_again, demanded, requests_for
from registry.rescan.inventory import Image, Inventory, read_inventory
from registry.rescan.judging import BY_RESCAN, Bench, Judged, Outcome, Scanned, judge
from registry.rescan.learning import REMEMBERED, learn
from registry.rescan.renewing import renew, verdict_of_today, verified
from registry.rescan.settling import settle_answers, settle_requests
from registry.rescan.union import match

_SCAN = "scan"  # what failed, where a scanner gave no answer
_THREADS = 4
_QUARANTINE_SHARE, _QUARANTINE_FEW = 0.2, 3  # of the served images; so many are always allowed
_TIME = "%Y-%m-%dT%H:%M:%SZ"


@dataclass(frozen=True)
class Desk:
    """What a rescan works with, beside the office that decides."""

    store: Store
    place: schema.Place
    registry: ListingRegistry
    database: Database
    trivy: Trivy
    target: Callable[[str], Target]  # in the catalogue; raises UsageError
    ledger_entries: Callable[[], int]
    policies: tuple[Policy, ...] = ()  # of images that others made
    journal: Callable[[], Iterable[Pull]] = tuple  # what was pulled lately
    scanners: tuple[Scanner, ...] = ()  # of extensions


@dataclass(frozen=True, slots=True)
class Failed:
    """What should have followed from an image's outcome, and why it did not."""

    ref: str
    digest: Digest
    what: str
    error: GoldsmithError


@dataclass(frozen=True)
class Rescan:
    """What a rescan found and did; `unchanged` when there was nothing to do."""

    unchanged: bool
    images: int
    judged: tuple[Judged, ...]
    unverified: tuple[Problem, ...]
    packages: int = 0
    renewed: int = 0
    asked: tuple[RebuildRequest, ...] = ()
    withdrawn: tuple[RebuildRequest, ...] = ()
    failed: tuple[Failed, ...] = field(default=())

    @property
    def served(self) -> int:
        """How many images are served, as far as that is known: what is attached but bad may be."""
        unsure = {
            p.digest or (p.repository, p.tags) for p in self.unverified if p.reason != "attestation-missing"
        }
        return sum(j.image.served for j in self.judged) + len(unsure)

    @property
    def scanned(self) -> int:
        """How many of them were scanned."""
        missed = {f.digest for f in self.failed if f.what == _SCAN}
        return sum(
            j.image.served and j.outcome is not Outcome.UNSCANNED and j.image.digest not in missed
            for j in self.judged
        )

    @property
    def coverage(self) -> float:
        """Scanned ÷ served; 1 when nothing is served."""
        return self.scanned / self.served if self.served else 1.0

    @property
    def complete(self) -> bool:
        """Whether everything was scanned, and all that follows was done."""
        return self.coverage == 1 and not self.failed


def rescan(office: Office, desk: Desk, *, quarantine_all: bool = False) -> Rescan:
    """Carry out the procedure above; `quarantine_all` lifts the limit of step 5.

    Raises ToolError when scanner or database cannot be trusted, RegistryError when the registry is
    away, PolicyDenied when the policy does not accept the database; then nothing was changed.
    """
    _check_database(office, desk.database)
    # 1. today's index
    rebuilt = reindex(
        desk.place,
        office.client.host,
        desk.registry,
        office.trust,
        office.now,
        ledger_entries=desk.ledger_entries(),
        journal=desk.journal(),
    )
    inventory = read_inventory(rebuilt.path)
    # 2. is there anything to do
    bench = _bench(office, desk)
    key = _key(office, desk, inventory)
    remembered = schema.facts_of(rebuilt.path).get(REMEMBERED) == key and not rebuilt.problems
    if remembered and not any(_is_due(i, office, desk.database) for i in inventory.images):
        return Rescan(True, len(inventory.images), (), ())
    # 3. one scan for each release
    scanned, inventory = scan(inventory, desk)
    # 4. outcomes
    judged = judge(inventory, scanned, bench)
    # 5. what follows
    settled = settle_requests(desk.store, judged, rebuilt.problems, bench)
    answers: dict[Digest, Answered] = {}
    renewed, failed = _carry_out(office, desk, scanned, judged, bench, quarantine_all, answers)
    of_answers = settle_answers(desk.store, answers)
    done = Rescan(
        False,
        len(judged),
        judged,
        rebuilt.problems,
        len(inventory.packages),
        renewed,
        (*settled[0], *of_answers[0]),
        (*settled[1], *of_answers[1]),
        tuple(failed),
    )
    # 6. the index learns
    learn(rebuilt.path, inventory, scanned, answers, key if done.complete else "")
    if renewed or failed:
        desk.place.mark_stale("verdicts were renewed")
    return done


def scan(inventory: Inventory, desk: Desk) -> tuple[Scanned, Inventory]:
    """3. Compare the packages of each release with the database.

    Where the scan of one release of several failed (it is past its end of life, say, or its canary was
    not found), its images become unfit in the inventory. Raises ToolError when none can be trusted.
    """
    releases, refused = {}, {}
    for release in inventory.releases:
        point, packages = inventory.of_release(release)
        try:
            with desk.store.scratch("rescan") as work:
                releases[release] = match(
                    release, point, packages, database=desk.database, trivy=desk.trivy, work=work
                )
        except ToolError as error:
            if error.reference.startswith("database-"):
                raise  # somebody touched it: nothing that was read counts
            refused[release] = error
    if refused and not releases:
        raise next(iter(refused.values()))
    told = {release: f"{release}: {error.message}" for release, error in refused.items()}
    return Scanned(desk.trivy.identity, desk.database.identity, releases), inventory.without(told)


def _check_database(office: Office, database: Database) -> None:
    policy = office.policy
    if database.identity.sample and not office.accept_sample:
        raise PolicyDenied(
            f"the policy {policy.name} does not accept the sample vulnerability database",
            context=database.identity.source,
            hint="name a real one in GOLDSMITH_TRIVY_DB",
            reference="sample-database",
        )
    if policy.data.known_exploited.list == "required" and policy.exploited is None:
        raise PolicyDenied(
            f"the policy {policy.name} requires a list of known exploited vulnerabilities",
            hint="put it beside the policies as known-exploited.json",
            reference="no-known-exploited",
        )


def _key(office: Office, desk: Desk, inventory: Inventory) -> str:
    """2. Everything that the outcomes follow from."""
    images = sorted(f"{i.digest} {i.channel} {i.current}" for i in inventory.images)
    scanner, database = desk.trivy.identity.binary, desk.database.identity.digest
    exploited = office.policy.exploited.digest if office.policy.exploited else ""
    waivers = sorted({w.id for i in inventory.images for w in _waivers(desk, i.ref)})
    today = office.now.astimezone(dt.UTC).date()
    policies = sorted(
        f"{p.digest} {' '.join(sorted(rule for rule, day in p.data.effective.items() if day <= today))}"
        for p in (office.policy, *desk.policies)
    )
    return Digest.of_json([database, scanner, policies, exploited, waivers, images])


def _is_due(image: Image, office: Office, database: Database) -> bool:
    """Whether a verdict that today's database gave has less than half of its time left."""
    times = (image.issued_at, image.expires_at)
    issued, expires = (dt.datetime.strptime(t, _TIME).replace(tzinfo=dt.UTC) for t in times)
    late = (expires - office.now) * 2 < expires - issued
    return image.served and late and image.database == database.identity.digest


def _bench(office: Office, desk: Desk) -> Bench:
    return Bench(
        office.policy, office.now, lambda ref: _waivers(desk, ref), _by_rescan(office), desk.policies
    )


def _waivers(desk: Desk, ref: str) -> tuple[Waiver, ...]:
    try:
        return desk.target(ref).waivers
    except GoldsmithError:  # what is no longer in the catalogue has none
        return ()


def _by_rescan(office: Office) -> frozenset[str]:
    """The images that a rescan was the last one to decide on, and put into quarantine."""
    # An approval, say, moves nothing.
    last = {e.fact.digest: e.fact for e in office.ledger.entries() if "channel" in e.fact.after}
    return frozenset(
        d for d, f in last.items() if f.what is Action.QUARANTINE and f.why.startswith(BY_RESCAN)
    )


def _carry_out(
    office: Office,
    desk: Desk,
    scanned: Scanned,
    judged: tuple[Judged, ...],
    bench: Bench,
    quarantine_all: bool,
    answers: dict[Digest, Answered],
) -> tuple[int, list[Failed]]:
    failed: list[Failed] = []

    def tried(one: Judged, what: str, action: Callable[[], object]) -> bool:
        try:
            action()
        except GoldsmithError as error:
            failed.append(Failed(one.image.ref, one.image.digest, what, error))
            return False
        return True

    stopped = [j for j in judged if j.outcome is Outcome.QUARANTINE and j.image.served]
    served = sum(j.image.served for j in judged)
    if len(stopped) > max(_QUARANTINE_FEW, served * _QUARANTINE_SHARE) and not quarantine_all:
        error = _too_many(len(stopped), served)
        failed += [Failed(j.image.ref, j.image.digest, "quarantine", error) for j in stopped]
        stopped = []
    for one in stopped:
        tried(one, "quarantine", lambda j=one: _move(office, j, Channel.QUARANTINE))  # type: ignore[misc]
    for one in judged:
        if one.outcome is Outcome.RELEASE:
            tried(one, "release", lambda j=one: _move(office, j, Channel.CANDIDATE))  # type: ignore[misc]
    due = [
        j
        for j in judged
        if j.outcome in (Outcome.KEEP, Outcome.RELEASE)
        and (
            j.image.database != scanned.database.digest
            or j.image.policy_digest != bench.policy_of(j.image).digest
            or _is_due(j.image, office, desk.database)
        )
    ]

    def renewal(one: Judged) -> bool:
        by, image = replace(office, policy=bench.policy_of(one.image)), one.image

        def ask() -> None:
            answers[image.digest] = _ask(by, desk, image, scanned, bench)

        if demanded(by.policy) and not tried(one, _SCAN, ask):
            return False
        further = answers[image.digest].further if image.digest in answers else {}
        return tried(one, "renew", lambda: _renew(by, desk, image, scanned, further))

    with ThreadPoolExecutor(_THREADS, thread_name_prefix="rescan") as pool:
        return sum(pool.map(renewal, due)), failed


def _move(office: Office, one: Judged, channel: Channel) -> None:
    where = office.client.reference(one.image.repositories[0], digest=one.image.digest)
    callback.change(office, where, channel, BY_RESCAN + one.reason)


def _ask(office: Office, desk: Desk, image: Image, scanned: Scanned, bench: Bench) -> Answered:
    """What scanners of extensions find today: once for an image, wherever it lies."""
    closure, found, case = _read(office, desk, image, image.repositories[0])
    with desk.store.scratch("rescan") as work:
        further = ask_again(office, closure, found, case, desk.scanners, work)
    today = replace(case, evidence=tuple(_today(e, image, scanned, further) for e in case.evidence))
    platforms = {e.digest: str(e.platform) for e in case.evidence}
    return Answered(further, platforms, requests_for(today, image, bench))


def _renew(office: Office, desk: Desk, image: Image, scanned: Scanned, further: Further) -> None:
    for repository in image.repositories:
        closure, found, case = _read(office, desk, image, repository)
        case = replace(case, evidence=tuple(_today(e, image, scanned, further) for e in case.evidence))
        renew(office, closure, case, verdict_of_today(office, found, case))


def _read(office: Office, desk: Desk, image: Image, repository: str) -> tuple[Closure, Verification, Case]:
    # Of an image that others made, its provenance says what the catalogue would.
    target = None if office.policy.data.imports else desk.target(image.ref)
    closure = Closure.read(office.client, repository, image.digest)
    found = verified(office, closure)
    return closure, found, attested_case(found, target, office.policy, office.now)


def _today(evidence: Evidence, image: Image, scanned: Scanned, further: Further) -> Evidence:
    """A platform's evidence with today's findings; secrets and licences do not change with the database."""
    platform = next(p for p in image.platforms if p.digest == evidence.digest)
    if isinstance(evidence.scan, NotDone):
        return evidence
    scan = replace(
        evidence.scan,
        scanner=scanned.scanner,
        database=scanned.database,
        findings=scanned.findings(platform.release, tuple(platform.packages)),
        canary=scanned.releases[platform.release].canary,
        further=further.get(evidence.digest, evidence.scan.further),
    )
    return replace(evidence, scan=scan)


def _too_many(count: int, served: int) -> PolicyDenied:
    return PolicyDenied(
        f"{count} of {served} served images would go into quarantine at once",
        hint="see `goldsmith rescan --json`; if that is right: goldsmith rescan --quarantine-all",
        reference="too-many-quarantines",
    )
