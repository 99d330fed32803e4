"""What today's findings mean for an image: pure. The rules of the policy decide, as at its first scan.

keep        no rule is against it: its verdict is renewed
rebuild     what is against it has been fixed: a build with newer packages mends it. Until then its
            verdict stays as it is, and runs out
lapse       the same, of an image that a newer one of its stream has replaced: nothing is rebuilt
quarantine  what is against it has no fix: it is not handed out any more
release     it is in quarantine because of an earlier rescan, and nothing is against it any more
unscanned   it could not be looked at: its verdict stays as it is, and runs out
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import partial

from builder.model.channel import Channel
from builder.model.evidence import (
    NOT_AFFECTED,
    DatabaseIdentity,
    Finding,
    ScannerIdentity,
    Severity,
)
from builder.model.rebuild import RebuildRequest
from builder.model.waiver import Waiver
from builder.policy.rules import known_exploited, vulnerabilities_fixable, vulnerabilities_unfixed
from builder.policy.schema import Policy
from builder.policy.waivers import Terms, decide
from registry.rescan.counting import Counter, Ranked, report_order
from registry.rescan.inventory import Image, Inventory
from registry.rescan.union import Matched

BY_RESCAN = "rescan: "  # how the reason of a quarantine begins that a rescan decided


class Outcome(StrEnum):
    """What becomes of an image."""

    KEEP = "keep"
    REBUILD = "rebuild"
    LAPSE = "lapse"
    QUARANTINE = "quarantine"
    RELEASE = "release"
    UNSCANNED = "unscanned"


@dataclass(frozen=True, slots=True)
class Judged:
    """An image with its outcome and the reason; `against` are the findings that the policy does not allow."""

    image: Image
    outcome: Outcome
    reason: str = ""
    against: tuple[Finding, ...] = ()


@dataclass(frozen=True, slots=True)
class Scanned:
    """One rescan: what was found in each package, by which scanner, in which database."""

    scanner: ScannerIdentity
    database: DatabaseIdentity
    releases: Mapping[str, Matched]

    def findings(self, release: str, packages: tuple[int, ...]) -> tuple[Finding, ...]:
        """What was found in these packages, in the order of a scan report."""
        known = self.releases[release].findings
        return tuple(sorted((f for n in packages for f in known[n]), key=report_order))


@dataclass(frozen=True)
class Bench:
    """By what is judged: the policies of today, the waivers of each image, and what a rescan did before.

    An image is judged by the policy of `others` that has the name of the one before (images that others
    made have their own), else by `policy`. `by_rescan` are the digests that a rescan has put into quarantine.
    """

    policy: Policy
    now: dt.datetime
    waivers: Callable[[str], tuple[Waiver, ...]] = lambda ref: ()
    by_rescan: frozenset[str] = frozenset()
    others: tuple[Policy, ...] = ()

    @property
    def exploited(self) -> frozenset[str]:
        """What is known to be exploited."""
        return self.policy.exploited.ids if self.policy.exploited else frozenset()

    def policy_of(self, image: Image) -> Policy:
        """The policy that judges an image."""
        return next((p for p in self.others if p.name == image.policy), self.policy)

    def waivers_of(self, image: Image) -> tuple[Waiver, ...]:
        """The waivers that may count: a parent's only where the verdict used it.

        Which packages came with the parent was known when that was given.
        """
        return tuple(w for w in self.waivers(image.ref) if not w.inherited or w.id in image.waivers)

    def limits(self, policy: Policy) -> tuple[tuple[Callable[[Finding], bool], int | None], ...]:
        """How many findings of which kind a policy allows today, as its rules count them."""
        data, today = policy.data, self.now.astimezone(dt.UTC).date()
        groups: list[tuple[str, Callable[[Finding], bool], int | None]] = [
            (known_exploited.RULE.id, lambda f: f.id in self.exploited, data.known_exploited.allowed)
        ]
        for severity in Severity:
            for rule, fixable, table in (
                (vulnerabilities_fixable.RULE.id, True, data.vulnerabilities.fixable),
                (vulnerabilities_unfixed.RULE.id, False, data.vulnerabilities.unfixed),
            ):
                kind = partial(_is, severity, fixable)
                groups.append((rule, kind, table.limit(severity)))
        started = (g for g in groups if today >= data.effective.get(g[0], today))
        return tuple((kind, limit) for _, kind, limit in started)


def _is(severity: Severity, fixable: bool, finding: Finding) -> bool:
    return finding.severity is severity and finding.fixable is fixable


def judge(inventory: Inventory, scanned: Scanned, bench: Bench) -> tuple[Judged, ...]:
    """The outcome of each image."""
    ranked = Ranked.of(scanned.releases)
    counters: dict[tuple[object, ...], Counter] = {}
    known: dict[tuple[object, ...], tuple[int, ...]] = {}
    out = []
    for image in inventory.images:
        if reason := inventory.unfit.get(image.digest, ""):
            out.append(Judged(image, Outcome.UNSCANNED, reason))
            continue
        against: dict[int, None] = {}
        waivers, policy = bench.waivers_of(image), bench.policy_of(image)
        terms = (tuple(w.id for w in waivers), policy.name)
        if terms not in counters:
            counters[terms] = _counter(ranked, waivers, policy, bench)
        for platform in image.platforms:
            key = (*terms, platform.release, platform.packages.tobytes())
            if key not in known:
                known[key] = counters[terms].over(platform.release, platform.packages)
            against |= dict.fromkeys(known[key])
        out.append(_outcome(image, tuple(ranked.findings[n] for n in against), bench.by_rescan))
    return tuple(out)


def requests(judged: tuple[Judged, ...], bench: Bench) -> tuple[RebuildRequest, ...]:
    """What is to be rebuilt, one request for each finding that a newer package mends."""
    exploited = bench.exploited
    return tuple(
        RebuildRequest(
            ref=one.image.ref,
            digest=one.image.digest,
            vulnerability=f.id,
            package=f.package,
            fixed_version=f.fixed_version,
            severity=f.severity,
            requested_at=bench.now,
            known_exploited=f.id in exploited,
        )
        for one in judged
        if one.image.current and one.outcome in (Outcome.REBUILD, Outcome.QUARANTINE)
        for f in one.against
        if f.fixable
    )


def _outcome(image: Image, against: tuple[Finding, ...], by_rescan: frozenset[str]) -> Judged:
    in_quarantine = image.channel is Channel.QUARANTINE
    if not against:
        if not in_quarantine:
            return Judged(image, Outcome.KEEP)
        if image.digest in by_rescan:
            return Judged(image, Outcome.RELEASE, "what was found in it is not a flaw of it any more")
        return Judged(image, Outcome.QUARANTINE, "somebody put it there")
    unfixed = [f for f in against if not f.fixable]
    reason = _told(unfixed or against)
    if in_quarantine or unfixed:
        return Judged(image, Outcome.QUARANTINE, reason, against)
    return Judged(image, Outcome.REBUILD if image.current else Outcome.LAPSE, reason, against)


def _counter(ranked: Ranked, waivers: tuple[Waiver, ...], policy: Policy, bench: Bench) -> Counter:
    """Counts what is against an image with these waivers."""
    terms = Terms((), bench.exploited, policy.data.waivers.days_max, bench.now)

    def counts(finding: Finding) -> bool:
        return finding.status != NOT_AFFECTED and decide(finding, waivers, terms).waiver is None

    return Counter(ranked, bench.limits(policy), counts)


def _told(findings: list[Finding] | tuple[Finding, ...]) -> str:
    first = findings[0]
    more = f" and {len(findings) - 1} more" if len(findings) > 1 else ""
    fix = f"fixed in {first.fixed_version}" if first.fixable else "no fix"
    return f"{first.id} ({first.severity}, {fix}) in {first.package} {first.installed_version}{more}"
