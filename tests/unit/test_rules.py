"""Each rule: one image that it lets pass, and those that it refuses."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from builder.checks import hardening, probe
from builder.model.digest import Digest
from builder.model.evidence import (
    CanaryResult,
    CheckReport,
    CheckResult,
    Evidence,
    Finding,
    LintFinding,
    LintReport,
    NotDone,
    Outcome,
    PackageLicence,
    PackageLicences,
    Sboms,
    ScannerIdentity,
    ScanReport,
    Secret,
    Severity,
)
from builder.model.image import BuiltImage
from builder.model.licence import NOASSERTION
from builder.policy.engine import evaluate
from builder.policy.rule import Case, Rule
from builder.policy.rules import RULES
from builder.policy.schema import Policy
from builder.signing.verdicts import decode, encode
from builder.stages.judge import find_policy, judge
from tests.support.evidence import DATABASE, evidence
from tests.support.images import NOW, built_image

POLICIES = Path(__file__).parents[2] / "registry" / "policies"
BASELINE = find_policy("baseline", [POLICIES])
DEMO = find_policy("demo", [POLICIES])
SAMPLE = replace(DATABASE, sample=True)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> BuiltImage:
    return built_image(tmp_path_factory.mktemp("image"))


@pytest.fixture
def proof(image: BuiltImage) -> Evidence:
    """Evidence that the baseline has nothing against."""
    good = evidence(image.platforms[0])
    ids = BASELINE.data.checks.required + BASELINE.data.checks.required_runtime
    assert isinstance(good.checks, CheckReport)
    checks = replace(good.checks, results=tuple(CheckResult(i, i, Outcome.PASSED) for i in ids))
    return replace(good, checks=checks)


Change = Callable[[Evidence], Evidence]


def scanned(**changes: Any) -> Change:
    def change(proof: Evidence) -> Evidence:
        assert isinstance(proof.scan, ScanReport)
        return replace(proof, scan=replace(proof.scan, **changes))

    return change


def checked(*results: CheckResult, keep: bool = True) -> Change:
    def change(proof: Evidence) -> Evidence:
        assert isinstance(proof.checks, CheckReport)
        old = {r.id: r for r in proof.checks.results} if keep else {}
        return replace(
            proof, checks=replace(proof.checks, results=tuple((old | {r.id: r for r in results}).values()))
        )

    return change


def part(**changes: Any) -> Change:
    return lambda proof: replace(proof, **changes)


def finding(severity: Severity, fixed: str = "", status: str = "affected") -> Finding:
    return Finding("CVE-2026-7", "hello", "2.10-5", fixed, severity, status, "a flaw")


def linted(level: str) -> Change:
    return part(lint=LintReport("hadolint", "2.15.1", (LintFinding("DL3000", 7, "a remark", level),)))


def failures(
    image: BuiltImage, proofs: tuple[Evidence, ...], policy: Policy = BASELINE, now: dt.datetime = NOW
) -> dict[str, tuple[str, ...]]:
    """The failures by rule, of the rules that refuse."""
    return {r.id: r.failures for r in judge(image, proofs, policy, now).failed}


def test_good_evidence_is_approved(image: BuiltImage, proof: Evidence) -> None:
    verdict = judge(image, (proof,), BASELINE, NOW)
    assert verdict.approved, verdict.failed
    assert [r.id for r in verdict.rules] == [r.id for r in RULES]
    assert verdict.expires_at - verdict.issued_at == dt.timedelta(days=7)
    assert verdict.policy_digest == BASELINE.digest
    assert isinstance(proof.sboms, Sboms)
    assert verdict.sboms == {str(proof.digest): str(Digest.of(proof.sboms.cyclonedx))}
    assert verdict.database == DATABASE


OTHER = Digest.of(b"another image")


def licensed(expression: str) -> Change:
    return scanned(expressions=(PackageLicence("hello", expression, "declared", OTHER),))


DENIED = [
    ("evidence-complete", part(digest=OTHER), "the evidence is of sha256"),
    ("evidence-complete", scanned(digest=OTHER), "a ScanReport is of sha256"),
    ("evidence-complete", part(checks=NotDone("check", "no rights for Docker")), "no rights for Docker"),
    ("evidence-complete", part(scan=NotDone("scan", "no database")), "no database"),
    ("evidence-complete", part(lint=NotDone("lint", "no hadolint")), "no hadolint"),
    ("evidence-complete", part(sboms=NotDone("sboms", "none")), "none"),
    ("checks-passed", checked(keep=False), "none was run"),
    (
        "checks-passed",
        checked(CheckResult("tz", "zones", Outcome.FAILED, "no UTC")),
        "zones: failed (no UTC)",
    ),
    ("checks-passed", checked(CheckResult("tz", "zones", Outcome.NOT_RUN)), "zones: not-run"),
    ("hardening", checked(CheckResult("tz", "zones", Outcome.PASSED), keep=False), "not-root was not run"),
    ("hardening", checked(CheckResult("no-shell", "no shell", Outcome.FAILED)), "no-shell failed"),
    ("scanner-identity", scanned(packages=()), "0 packages seen, 1 locked: hello=2.10-5"),
    ("scanner-identity", scanned(packages=("hello=2.10-5", "x=1")), "2 packages seen, 1 locked: x=1"),
    ("scanner-identity", scanned(scanner=ScannerIdentity("trivy", "0.69.4", OTHER)), "trivy 0.69.4, not"),
    ("scanner-identity", scanned(canary=CanaryResult("openssl", "1", ())), "not found to be vulnerable"),
    ("database-fresh", scanned(database=replace(DATABASE, updated_at="2026-02-24T11:59:59Z")), "5.0 days"),
    ("database-fresh", scanned(database=replace(DATABASE, updated_at="2026-03-02T00:00:00Z")), "future"),
    ("database-not-sample", scanned(database=SAMPLE), "sample database"),
    ("vulnerabilities-fixable", scanned(findings=(finding(Severity.LOW, "2.11"),)), "1 LOW with a fix, 0"),
    ("vulnerabilities-fixable", scanned(findings=(finding(Severity.UNKNOWN, "2"),)), "(fixed in 2)"),
    ("vulnerabilities-unfixed", scanned(findings=(finding(Severity.CRITICAL),)), "1 CRITICAL without a fix"),
    ("secrets", scanned(secrets=(Secret("aws", "/k", Severity.HIGH),)), "1 found, 0 allowed: aws in /k"),
    ("licences", scanned(licences=(PackageLicences("x", ("sspl-1.0",)),)), "x has the denied licence sspl"),
    ("licences", licensed("SSPL-1.0"), "hello has the licence SSPL-1.0 (unknown), which is denied"),
    ("licences", licensed("MIT AND SSPL-1.0"), "hello has the licence SSPL-1.0"),
    ("licences", licensed("MIT AND"), "hello has a malformed expression"),
    ("dockerfile-lint", linted("warning"), "line 7: DL3000 a remark"),
    ("dockerfile-lint", linted("error"), "line 7"),
    ("dockerfile-lint", linted("dreadful"), "line 7"),
]


@pytest.mark.parametrize(("rule", "change", "reason"), DENIED)
def test_denies(image: BuiltImage, proof: Evidence, rule: str, change: Change, reason: str) -> None:
    found = failures(image, (change(proof),))
    assert any(reason in failure for failure in found.get(rule, ())), found


PASSED = [
    ("checks-passed", checked(CheckResult("tz", "time zones", Outcome.PASSED))),
    ("database-fresh", scanned(database=replace(DATABASE, updated_at="2026-02-24T12:00:00Z"))),
    ("vulnerabilities-unfixed", scanned(findings=(finding(Severity.HIGH),))),
    ("vulnerabilities-fixable", scanned(findings=(finding(Severity.HIGH, "3", "not_affected"),))),
    ("licences", scanned(licences=(PackageLicences("x", ("GPL-3.0-only",)),))),
    ("licences", licensed("MIT OR SSPL-1.0")),
    ("licences", licensed("LicenseRef-Odd")),
    ("licences", licensed(NOASSERTION)),
    ("checks-passed", checked(CheckResult("no-shell", "no shell", Outcome.NOT_APPLICABLE))),
    ("dockerfile-lint", linted("info")),
]


@pytest.mark.parametrize(("rule", "change"), PASSED)
def test_lets_pass(image: BuiltImage, proof: Evidence, rule: str, change: Change) -> None:
    assert rule not in failures(image, (change(proof),))


ALLOWED = ("permissive", "GPL-2.0-or-later", "GPL-3.0-or-later with gcc-exception-3.1")


@pytest.mark.parametrize(
    ("limits", "expression", "reason"),
    [
        ({"allowed": ALLOWED}, "MIT AND GPL-2.0-or-later", ""),
        ({"allowed": ALLOWED}, "GPL-3.0-only OR ISC", ""),
        ({"allowed": ALLOWED}, "GPL-3.0-or-later WITH GCC-exception-3.1", ""),
        (
            {"allowed": ALLOWED},
            "GPL-3.0-or-later",
            "GPL-3.0-or-later (strong-copyleft), which is not allowed",
        ),
        ({"allowed": ALLOWED}, "LicenseRef-Odd AND MIT", "LicenseRef-Odd (unknown), which is not allowed"),
        ({"allowed": ALLOWED}, None, "a licence that was not read"),
        ({"allowed": ALLOWED, "denied": ("ISC",)}, "ISC", "ISC (permissive), which is denied"),
        (
            {"denied": ("strong-copyleft",)},
            "GPL-2.0-only AND MIT",
            "GPL-2.0-only (strong-copyleft), which is denied",
        ),
        ({"unknown": "refuse"}, NOASSERTION, "tells no licence"),
        ({"unknown": "refuse"}, "LicenseRef-Odd", "LicenseRef-Odd (unknown)"),
        ({"unknown": "refuse"}, None, "a licence that was not read"),
        ({"unknown": "refuse"}, "LicenseRef-public-domain AND Zlib", ""),
        ({"unknown": "refuse", "allowed": ("MIT", "LicenseRef-Odd")}, "LicenseRef-Odd", ""),
    ],
)
def test_licences_are_held_to_the_policy(
    image: BuiltImage, proof: Evidence, limits: dict[str, Any], expression: str | None, reason: str
) -> None:
    data = BASELINE.data.model_copy(update={"licences": BASELINE.data.licences.model_copy(update=limits)})
    changed = scanned(expressions=())(proof) if expression is None else licensed(expression)(proof)
    found = failures(image, (changed,), replace(BASELINE, data=data)).get("licences", ())
    assert reason in found[0] if reason else not found


def test_thresholds_are_counts(image: BuiltImage, proof: Evidence) -> None:
    two = tuple(replace(finding(Severity.HIGH), id=f"CVE-2026-{n}") for n in (1, 2))
    limits = BASELINE.data.vulnerabilities
    for allowed, denied in ((2, False), (1, True), (0, True)):
        unfixed = limits.unfixed.model_copy(update={"high": allowed})
        data = BASELINE.data.model_copy(
            update={"vulnerabilities": limits.model_copy(update={"unfixed": unfixed})}
        )
        found = failures(image, (scanned(findings=two)(proof),), replace(BASELINE, data=data))
        assert ("vulnerabilities-unfixed" in found) is denied


@pytest.mark.parametrize(
    ("now", "denied"),
    [
        (dt.datetime(2029, 10, 31, 23, tzinfo=dt.UTC), False),
        (dt.datetime(2029, 11, 1, 0, tzinfo=dt.UTC), True),
    ],
)
def test_a_stream_is_supported_through_its_last_day(
    image: BuiltImage, proof: Evidence, now: dt.datetime, denied: bool
) -> None:
    assert ("stream-supported" in failures(image, (proof,), now=now)) is denied


def test_the_demo_policy_accepts_the_sample_and_its_age(image: BuiltImage, proof: Evidence) -> None:
    old = replace(SAMPLE, updated_at="2025-01-01T00:00:00Z")
    assert failures(image, (scanned(database=old)(proof),), DEMO) == {}
    assert set(failures(image, (scanned(database=old)(proof),))) == {"database-fresh", "database-not-sample"}


def test_the_demo_policy_is_the_baseline_but_for_database_and_approvals() -> None:
    differing = {
        key
        for key in BASELINE.data.model_dump()
        if BASELINE.data.model_dump()[key] != DEMO.data.model_dump()[key]
    }
    assert differing == {"name", "title", "database", "approvals"}
    assert set(DEMO.data.approvals.model_dump().values()) == {0}


def test_without_any_evidence_no_rule_that_needs_some_passes(image: BuiltImage) -> None:
    found = failures(image, ())
    assert set(found) == {r.id for r in RULES} - {"stream-supported"}


def test_evidence_of_each_platform_is_asked_for_once(image: BuiltImage, proof: Evidence) -> None:
    assert "2 sets of evidence instead of one" in failures(image, (proof, proof))["evidence-complete"][0]


def test_platforms_with_different_databases_are_refused(image: BuiltImage, proof: Evidence) -> None:
    other = scanned(database=replace(DATABASE, digest=OTHER))(proof)
    assert "2 different databases were used" in failures(image, (proof, other))["database-fresh"]


def test_a_rule_that_breaks_denies(image: BuiltImage, proof: Evidence) -> None:
    def broken(case: Case) -> Any:
        raise KeyError("surprise")

    rule = Rule("broken", "Broken", "{x}", "mend it", broken)
    (result,) = evaluate(Case(image, (proof,), BASELINE.data, NOW), [rule])
    assert result.failures == ("the rule itself broke: KeyError: 'surprise'",)


def test_a_rule_with_endless_failures_stays_readable(image: BuiltImage, proof: Evidence) -> None:
    rule = Rule("much", "Much", "{x}", "less", lambda case: ({"x": "y" * 10_000} for _ in range(5000)))
    (result,) = evaluate(Case(image, (proof,), BASELINE.data, NOW), [rule])
    assert len(result.failures) == 101
    assert max(map(len, result.failures)) == 500


def test_every_rule_says_what_to_do() -> None:
    assert len({r.id for r in RULES}) == len(RULES)
    assert all(r.title and r.failure and r.solution for r in RULES)


def test_the_baseline_asks_for_every_check_that_there_is() -> None:
    everywhere = {r.id for r in hardening.RULES if r.variants == ("runtime", "dev")}
    checks = BASELINE.data.checks
    assert set(checks.required) == everywhere | {r.id for r in probe.RULES}
    assert set(checks.required_runtime) == {r.id for r in hardening.RULES if r.variants == ("runtime",)}


TOMORROW = NOW.date() + dt.timedelta(days=1)


@pytest.mark.parametrize(
    ("now", "refused"),
    [
        (NOW, False),
        (dt.datetime.combine(TOMORROW, dt.time(), dt.UTC) - dt.timedelta(seconds=1), False),
        (dt.datetime.combine(TOMORROW, dt.time(), dt.UTC), True),
        # The same moment on a clock elsewhere.
        (
            dt.datetime.combine(TOMORROW, dt.time(), dt.UTC).astimezone(dt.timezone(dt.timedelta(hours=-9))),
            True,
        ),
    ],
)
def test_a_rule_refuses_from_its_day_on_and_is_announced_before(
    image: BuiltImage, proof: Evidence, now: dt.datetime, refused: bool
) -> None:
    later = BASELINE.data.model_copy(update={"effective": {"secrets": TOMORROW}})
    bad = scanned(secrets=(Secret("key", "/etc/key", Severity.HIGH),))(proof)
    verdict = judge(image, (bad,), replace(BASELINE, data=later), now)
    assert ("secrets" in [r.id for r in verdict.failed]) is refused
    assert any(t.startswith(f"from {TOMORROW} on, secrets") for t in verdict.announced) is not refused
    assert decode(json.loads(encode(verdict))) == verdict
