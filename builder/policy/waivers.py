"""Which findings are waived, by which waiver, and why a waiver no longer counts. Pure.

A waiver counts for the vulnerability and packages that it names, from the day of its approval to
its last day (UTC), for as long as the policy allows. It lapses when a fix is published and when
the vulnerability becomes known to be exploited. A parent's waiver counts for packages that came
with the parent, and for no package that the image adds itself.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Container, Iterable
from dataclasses import dataclass

from builder.model.evidence import Finding
from builder.model.waiver import Waiver


@dataclass(frozen=True, slots=True)
class Decision:
    """What the waivers say of one finding: the one that counts, or why none of them does."""

    waiver: Waiver | None = None
    lapsed: str = ""


@dataclass(frozen=True, slots=True)
class Terms:
    """What decides whether a waiver counts; `added` are the packages that are not the parent's."""

    added: Container[str]
    exploited: Container[str]
    days_max: int
    now: dt.datetime


def decide(finding: Finding, waivers: Iterable[Waiver], terms: Terms) -> Decision:
    """The first waiver that counts for a finding, else every reason why one does not."""
    flaws = []
    for waiver in waivers:
        entry = waiver.entry
        if entry.vulnerability != finding.id or finding.package not in entry.packages:
            continue
        flaw = _flaw(finding, waiver, terms)
        if not flaw:
            return Decision(waiver)
        flaws.append(f"the waiver {waiver.id} {flaw}")
    return Decision(lapsed="; ".join(flaws))


def _flaw(finding: Finding, waiver: Waiver, terms: Terms) -> str:
    entry = waiver.entry
    if waiver.inherited and finding.package in terms.added:
        return "is the parent's, and this package is not"
    if finding.fixable:
        return "has lapsed: a fix is published"
    if finding.id in terms.exploited:
        return "has lapsed: this is known to be exploited"
    if terms.now < waiver.starts_at:
        return f"counts from {entry.approved} on"
    if terms.now >= waiver.ends_at:
        return f"expired on {entry.expires}"
    if (entry.expires - entry.approved).days > terms.days_max:
        return f"is for more than {terms.days_max} days"
    return ""
