"""Findings counted by package are those that a report of each image would count."""

from __future__ import annotations

import random

import pytest

from builder.model.evidence import CanaryResult, Finding, Severity
from registry.rescan.counting import Counter, Limit, Ranked, report_order
from registry.rescan.union import Matched

EXPLOITED = "CVE-2025-1"
LIMITS: list[Limit] = [
    (lambda f: f.id == EXPLOITED, 0),
    (lambda f: f.severity is Severity.HIGH and f.fixable, 2),
    (lambda f: f.severity is Severity.HIGH, None),
    (lambda f: f.severity is Severity.LOW, 4),
]


def finding(chance: random.Random) -> Finding:
    number = chance.randrange(12)
    return Finding(
        id=f"CVE-2025-{number}",
        package=chance.choice(["openssl", "libc6", "zlib1g"]),
        installed_version="1",
        fixed_version=chance.choice(["", "2"]),
        severity=chance.choice([Severity.HIGH, Severity.LOW]),
        status=chance.choice(["affected", "not_affected"]),
        title="",
    )


def counts(found: Finding) -> bool:
    return found.status != "not_affected"


def one_report(findings: list[Finding]) -> list[Finding]:
    """The same, over the report of one image."""
    report = sorted(findings, key=report_order)
    over: dict[Finding, None] = {}
    for kind, limit in LIMITS:
        group = [f for f in report if counts(f) and kind(f)]
        if limit is not None and len(group) > limit:
            over |= dict.fromkeys(group)
    return list(over)


@pytest.mark.parametrize("seed", range(20))
def test_counting_by_package_is_counting_by_report(seed: int) -> None:
    chance = random.Random(seed)
    # Packages 1 and 2 have equal findings, as those of two architectures have.
    some = tuple(finding(chance) for _ in range(3))
    of_package = {1: some, 2: some} | {
        n: tuple(finding(chance) for _ in range(chance.randrange(4))) for n in range(3, 12)
    }
    ranked = Ranked.of({"debian 13": Matched(of_package, CanaryResult("", "", ()))})
    counter = Counter(ranked, LIMITS, counts)
    for _ in range(30):
        packages = sorted(chance.sample(sorted(of_package), chance.randrange(1, 9)))
        found = [ranked.findings[n] for n in counter.over("debian 13", packages)]
        wanted = one_report([f for n in packages for f in of_package[n]])
        assert sorted(map(repr, found)) == sorted(map(repr, wanted))
        assert [report_order(f) for f in found] == [report_order(f) for f in wanted]


def test_a_package_that_was_not_scanned_is_not_one_without_findings() -> None:
    counter = Counter(Ranked.of({"debian 13": Matched({1: ()}, CanaryResult("", "", ()))}), LIMITS, counts)
    assert counter.over("debian 13", [1]) == ()
    with pytest.raises(KeyError):
        counter.over("debian 13", [1, 2])
