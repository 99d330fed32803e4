"""The rescan: what today's database means for each image, and what follows from it."""

from __future__ import annotations

import datetime as dt
import json
import shutil
from array import array
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from builder.errors import PolicyDenied, RegistryError, ToolError
from builder.model.channel import Channel
from builder.model.digest import Digest
from builder.model.evidence import Severity
from builder.model.image import BuiltImage
from builder.model.waiver import Waiver, WaiverEntry
from builder.policy.engine import evaluate
from builder.policy.exploited import KnownExploited
from builder.policy.rule import Case
from builder.rebuilds import waiting_rebuilds
from builder.signing.predicates import VEX_TYPE
from builder.signing.refusal import EvidenceRefused
from builder.signing.verification import Verification
from builder.signing.verify import verify
from registry.audit.facts import Action, Fact
from registry.index.queries import affected
from registry.promotion import callback
from registry.promotion.recheck import ATTESTED_RULES
from registry.rescan import pruning, union
from registry.rescan.inventory import Image, Inventory, Platform
from registry.rescan.judging import Bench, Outcome, Scanned, judge
from registry.rescan.run import Rescan
from registry.rescan.union import Matched
from tests.support.evidence import DATABASE, World, evidence
from tests.support.images import NOW, built_image
from tests.support.indexes import binary, finding
from tests.support.memory_client import MemoryClient
from tests.support.promotion import policy
from tests.support.rescans import Night

LIBSSL = binary("libssl3t64", "3.5.1-1", "openssl")
BASH = binary("bash", "5.2.37-2")
FIXABLE = {"openssl": {"CVE-2026-0007": ("3.5.4-1", "HIGH")}}
HOPELESS = {"openssl": {"CVE-2026-0008": ("", "CRITICAL")}}


BOTH = pytest.mark.parametrize("client", [True, False], ids=["referrers", "fallback"], indirect=True)


@pytest.fixture
def client(request: pytest.FixtureRequest) -> MemoryClient:
    return MemoryClient(getattr(request, "param", False))


@pytest.fixture
def night(client: MemoryClient, tmp_path: Path) -> Night:
    return Night(tmp_path, client)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> BuiltImage:
    return built_image(tmp_path_factory.mktemp("image"))


def outcomes(done: Rescan) -> dict[str, Outcome]:
    return {j.image.ref.partition(":")[0]: j.outcome for j in done.judged}


def look(night: Night, here: World, repository: str = "candidate/python") -> Verification:
    where = night.client.reference(repository, digest=here.image.digest)
    return verify(where, night.client, night.house.trust, night.house.now)


@BOTH
def test_a_clean_image_gets_a_verdict_of_today_wherever_it_is(night: Night) -> None:
    here = night.image([LIBSSL, BASH])
    night.promote(here)
    night.sleep()
    done = night.rescan()
    assert outcomes(done) == {"python": Outcome.KEEP}
    assert (done.coverage, done.renewed, done.failed, night.scanner.runs) == (1.0, 1, (), 1)
    for repository in ("candidate/python", "python"):
        found = look(night, here, repository)
        assert found.verdict.issued_at == night.house.now
        assert found.verdict.expires_at == night.house.now + dt.timedelta(days=7)
        assert found.verdict.database == night.database.identity
        assert {m.forms for m in found.manifests} == {("bundles", "tags")}
        ids = {r.id for r in found.verdict.rules}
        assert {"vulnerabilities-fixable", "database-fresh"} <= ids
    night.sleep(6)  # without it the first verdict would have expired
    assert look(night, here, "python").digest == here.image.digest


def test_large_reports_are_read_in_parts(night: Night, monkeypatch: pytest.MonkeyPatch) -> None:
    night.scanner.advisories = {"p3": {"CVE-2026-0007": ("9", "HIGH")}}
    packages = [binary(f"p{n}", "1-1") for n in range(7)]
    night.image(packages)
    monkeypatch.setattr(union, "_AT_ONCE", 4)
    monkeypatch.setattr(union, "_REPORT_BYTES", 1500)
    done = night.rescan()
    assert night.scanner.runs > 4 and done.coverage == 1
    assert [(f.id, f.package) for f in done.judged[0].against] == [("CVE-2026-0007", "p3")]


def test_nothing_changed_is_nothing_to_do(night: Night) -> None:
    night.image([LIBSSL])
    night.image([BASH], name="base")
    night.rescan()
    done = night.rescan()
    assert (done.unchanged, done.images, night.scanner.runs) == (True, 2, 1)
    before = night.client.writes
    assert night.rescan().unchanged
    assert night.client.writes == before


def test_a_new_image_a_new_database_and_an_old_verdict_are_something_to_do(night: Night) -> None:
    night.image([LIBSSL])
    night.rescan()
    night.image([BASH], name="base")
    assert (night.rescan().unchanged, night.scanner.runs) == (False, 2)
    night.sleep()
    assert (night.rescan().renewed, night.scanner.runs) == (2, 3)
    same = night.database
    night.sleep(4)
    Night.database, kept = property(lambda self: same), Night.database  # type: ignore[assignment, method-assign]
    try:
        assert night.rescan().renewed == 2  # the database is the same; half of the time has gone
        assert night.rescan().unchanged
    finally:
        Night.database = kept  # type: ignore[method-assign]


@BOTH
def test_after_many_nights_no_more_is_attached_than_after_the_first(night: Night) -> None:
    here = night.image([LIBSSL, BASH])
    night.promote(here)
    attached = []
    for _ in range(4):
        night.sleep()
        assert night.rescan().failed == ()
        subjects = (here.image.digest, here.image.platforms[0].manifest.digest)
        attached.append([len(night.client.referrers("python", s)) for s in subjects])
    assert attached == attached[:1] * 4
    assert look(night, here, "python").verdict.issued_at == night.house.now


@pytest.mark.parametrize("client", [True], indirect=True)
def test_where_nothing_is_deleted_a_renewal_ends_before_the_image_could_not_be_verified(
    night: Night, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = night.image([LIBSSL])
    night.client.deletes = False
    night.sleep()
    assert night.rescan().failed == ()
    listed = len(night.client.referrers("candidate/python", here.image.digest))
    monkeypatch.setattr(pruning, "REFERRERS_MAX", listed)
    night.sleep()
    (failed,) = night.rescan().failed
    assert (failed.what, failed.error.reference) == ("renew", "referrers-pile-up")
    assert look(night, here).digest == here.image.digest
    night.client.deletes = True
    monkeypatch.undo()
    assert night.rescan().failed == ()
    assert len(night.client.referrers("candidate/python", here.image.digest)) < listed


def test_a_fix_asks_for_a_rebuild_once_and_the_old_verdict_runs_out(night: Night) -> None:
    here = night.image([LIBSSL])
    night.sleep()
    night.scanner.advisories = FIXABLE
    done = night.rescan()
    assert outcomes(done) == {"python": Outcome.REBUILD}
    asked = waiting_rebuilds(night.store)
    assert [(r.ref, r.digest, r.vulnerability, r.package, r.fixed_version, r.severity) for r in asked] == [
        ("python:3.13", here.image.digest, "CVE-2026-0007", "libssl3t64", "3.5.4-1", "HIGH")
    ]
    assert done.asked == asked and done.coverage == 1
    assert look(night, here).verdict == here.verdict  # it goes on being served until then
    assert [i.digest for i in affected(night.place.require(), "CVE-2026-0007", night.house.now).images] == [
        here.image.digest
    ]
    first = asked[0].requested_at
    night.sleep()
    assert night.rescan().asked == ()
    assert waiting_rebuilds(night.store)[0].requested_at == first


def test_a_withdrawn_advisory_takes_the_request_back(night: Night) -> None:
    night.image([LIBSSL])
    night.scanner.advisories = FIXABLE
    night.sleep()
    night.rescan()
    night.scanner.advisories = {}
    night.sleep()
    done = night.rescan()
    assert outcomes(done) == {"python": Outcome.KEEP}
    assert [r.vulnerability for r in done.withdrawn] == ["CVE-2026-0007"]
    assert waiting_rebuilds(night.store) == ()
    assert affected(night.place.require(), "CVE-2026-0007", night.house.now).images == ()


def test_a_rebuilt_image_takes_the_request_back(night: Night) -> None:
    night.image([LIBSSL])
    night.scanner.advisories = FIXABLE
    night.sleep()
    night.rescan()
    night.image([binary("libssl3t64", "3.5.4-1", "openssl-fixed")])
    done = night.rescan()
    assert [r.vulnerability for r in done.withdrawn] == ["CVE-2026-0007"]
    assert outcomes(done) == {"python": Outcome.KEEP}


def test_an_image_that_was_replaced_lapses(night: Night) -> None:
    old = night.image([LIBSSL])
    night.promote(old)
    night.promote(night.image([BASH]))
    night.scanner.advisories = FIXABLE
    night.sleep()
    done = night.rescan()
    assert {j.image.digest: j.outcome for j in done.judged}[old.image.digest] is Outcome.LAPSE
    assert waiting_rebuilds(night.store) == ()


@BOTH
def test_what_has_no_fix_goes_into_quarantine_and_comes_out_of_it(night: Night) -> None:
    here = night.image([LIBSSL])
    night.promote(here)
    night.scanner.advisories = HOPELESS
    night.sleep()
    done = night.rescan()
    assert (outcomes(done), done.failed) == ({"python": Outcome.QUARANTINE}, ())
    for repository in ("candidate/python", "python"):
        with pytest.raises(EvidenceRefused) as refused:
            look(night, here, repository)
        assert refused.value.reference == "quarantined"
        assert "CVE-2026-0008" in refused.value.context
    last = night.house.ledger.entries()[-1].fact
    assert (last.what, last.why.startswith("rescan: CVE-2026-0008")) == ("quarantine", True)
    night.sleep()
    assert outcomes(night.rescan()) == {"python": Outcome.QUARANTINE}
    assert len(night.house.ledger.entries()) == 2
    night.scanner.advisories = {}
    night.sleep()
    done = night.rescan()
    assert (outcomes(done), done.failed) == ({"python": Outcome.RELEASE}, ())
    found = look(night, here)
    assert found.verdict.issued_at == night.house.now
    assert found.channel is not None and found.channel.channel is Channel.CANDIDATE


def test_an_approval_in_between_does_not_keep_an_image_in_quarantine(night: Night) -> None:
    here = night.image([LIBSSL])
    night.promote(here)
    night.scanner.advisories = HOPELESS
    night.sleep()
    night.rescan()
    house = night.house
    given = Fact(
        "eve@host",
        Action.APPROVE,
        here.image.target.ref,
        here.image.digest,
        {},
        {"approval": str(Digest.of(b"it"))},
        "fine",
    )
    house.ledger.append(given, house.keys.verdict, house.now)
    night.scanner.advisories = {}
    night.sleep()
    assert outcomes(night.rescan()) == {"python": Outcome.RELEASE}


def test_by_a_clock_that_was_set_back_nothing_is_let_out_or_renewed(night: Night) -> None:
    here, other = night.image([LIBSSL]), night.image([BASH], name="base")
    night.promote(here)
    night.scanner.advisories = HOPELESS
    night.sleep(2)
    night.rescan()
    before = look(night, other, "candidate/base").verdict
    night.scanner.advisories = {}
    night.sleep(-1)
    done = night.rescan()
    assert {(f.ref, f.what) for f in done.failed} >= {("python:3.13", "release"), ("base:3.13", "renew")}
    night.sleep(1)
    assert look(night, other, "candidate/base").verdict == before
    with pytest.raises(EvidenceRefused) as refused:
        look(night, here, "python")
    assert refused.value.reference == "quarantined"


def test_what_people_put_into_quarantine_stays_there(night: Night) -> None:
    here = night.image([BASH])
    where = night.client.reference("candidate/python", digest=here.image.digest)
    callback.change(night.house.office(), where, Channel.QUARANTINE, "a file that nobody knows")
    night.sleep()
    done = night.rescan()
    assert outcomes(done) == {"python": Outcome.QUARANTINE}
    assert (done.served, done.coverage, len(night.house.ledger.entries())) == (0, 1.0, 1)


def test_many_quarantines_at_once_are_none(night: Night) -> None:
    for name in ("a1", "b1", "c1", "d1"):
        night.image([LIBSSL], name=name)
    night.scanner.advisories = HOPELESS
    night.sleep()
    done = night.rescan()
    assert [f.what for f in done.failed] == ["quarantine"] * 4
    assert night.house.ledger.entries() == ()
    assert not night.rescan().unchanged
    done = night.rescan(quarantine_all=True)
    assert (done.failed, len(night.house.ledger.entries())) == ((), 4)


def test_what_the_policy_allows_is_kept(night: Night) -> None:
    here = night.image([LIBSSL])
    night.scanner.advisories = {"openssl": {"CVE-2026-0009": ("", "HIGH")}}  # no fix, and not critical
    night.sleep()
    assert outcomes(night.rescan()) == {"python": Outcome.KEEP}
    assert [r for m in look(night, here).manifests for _, r in m.reports if "CVE-2026-0009" in str(r)]


def waived(night: Night, ref: str = "python:3.13", **changes: Any) -> None:
    """Somebody waives CVE-2026-0008 in libssl3t64 in an image."""
    text = {
        "vulnerability": "CVE-2026-0008",
        "packages": ["libssl3t64"],
        "justification": "vulnerable_code_not_in_execute_path",
        "statement": "The parser is never called: no command reads a file of a stranger.",
        "owner": "Ann <ann@example.com>",
        "approver": "Bob <bob@example.com>",
        "approved": "2026-02-20",
        "expires": "2026-03-05",
        **changes,
    }
    waiver = Waiver("python", WaiverEntry.model_validate_json(json.dumps(text)), inherited=False)
    night.targets[ref] = replace(night.targets[ref], waivers=(waiver,))


def test_a_waiver_counts_until_its_end_and_is_told(night: Night) -> None:
    here = night.image([LIBSSL])
    waived(night)
    night.scanner.advisories = HOPELESS
    night.sleep()
    assert outcomes(night.rescan()) == {"python": Outcome.KEEP}
    found = look(night, here)
    assert [w.partition("@")[0] for w in found.verdict.waivers] == ["python/CVE-2026-0008"]
    assert found.verdict.expires_at == dt.datetime(2026, 3, 6, tzinfo=dt.UTC)  # not after the waiver
    told = [r for m in found.manifests for kind, r in m.reports if kind == VEX_TYPE]
    assert told and all(r["statements"] for r in told)
    assert (
        affected(night.place.require(), "CVE-2026-0008", night.house.now).images[0].digest
        == here.image.digest
    )
    night.sleep(5)
    assert outcomes(night.rescan()) == {"python": Outcome.QUARANTINE}


def test_a_waiver_lapses_with_a_fix_or_when_it_is_exploited(night: Night) -> None:
    night.image([LIBSSL])
    waived(night)
    night.scanner.advisories = {"openssl": {"CVE-2026-0008": ("3.5.4-1", "LOW")}}
    night.sleep()
    assert outcomes(night.rescan()) == {"python": Outcome.REBUILD}
    assert [r.known_exploited for r in waiting_rebuilds(night.store)] == [False]
    night.scanner.advisories = {"openssl": {"CVE-2026-0008": ("", "LOW")}}
    night.sleep()
    assert outcomes(night.rescan()) == {"python": Outcome.KEEP}
    known = KnownExploited(frozenset({"CVE-2026-0008"}), night.house.now, Digest.of(b"list"))
    night.house.policy = replace(night.house.policy, exploited=known)
    assert outcomes(night.rescan()) == {"python": Outcome.QUARANTINE}


def test_waivers_that_are_gone_are_told_to_be_gone(night: Night) -> None:
    here = night.image([LIBSSL])
    waived(night)
    night.scanner.advisories = HOPELESS
    night.sleep()
    night.rescan()
    night.scanner.advisories = {}
    night.sleep()
    night.rescan()
    assert look(night, here).verdict.waivers == ()
    carriers = [r for m in look(night, here).manifests for kind, r in m.reports if kind == VEX_TYPE]
    assert carriers and not any(r["statements"] for r in carriers)


@pytest.mark.parametrize("fixed", ["", "9-1"])
@pytest.mark.parametrize("severity", list(Severity))
@pytest.mark.parametrize("status", ["affected", "not_affected"])
def test_the_quick_look_at_findings_agrees_with_the_rules(
    image: BuiltImage, fixed: str, severity: Severity, status: str
) -> None:
    found = replace(finding("CVE-2026-1", LIBSSL, fixed, severity), status=status)
    proof = evidence(image.platforms[0])
    proof = replace(proof, scan=replace(proof.scan, findings=(found,)))  # type: ignore[type-var]
    results = evaluate(Case(image, (proof,), policy().data, NOW), ATTESTED_RULES)
    denied = any(not r.passed for r in results if r.id.startswith("vulnerabilities"))
    one = Image("python:3.13", image.digest, Channel.STABLE, (), "", "", "", "", "", frozenset(), True,
                (Platform(proof.digest, "debian 13", "13.1", array("I", [1])),))  # fmt: skip
    scanned = Scanned(proof.scan.scanner, DATABASE, {"debian 13": Matched({1: (found,)}, proof.scan.canary)})  # type: ignore[union-attr]
    judged = judge(Inventory((one,), {}, {}), scanned, Bench(policy(), NOW))
    assert denied == (judged[0].outcome is not Outcome.KEEP)


def test_an_expired_verdict_is_renewed(night: Night) -> None:
    here = night.image([BASH])
    night.sleep(30)
    with pytest.raises(EvidenceRefused):
        look(night, here)
    assert night.rescan().failed == ()
    assert look(night, here).verdict.issued_at == night.house.now


def test_an_image_that_left_the_catalogue_is_told(night: Night) -> None:
    here = night.image([BASH])
    night.image([LIBSSL], name="base")
    night.sleep()
    night.targets = Missing({"base:3.13": night.targets["base:3.13"]})
    done = night.rescan()
    assert [(f.ref, f.what) for f in done.failed] == [("python:3.13", "renew")]
    assert (done.renewed, look(night, here).verdict) == (1, here.verdict)
    assert not night.rescan().unchanged


class Missing(dict[str, Any]):
    """A catalogue that says what it has not."""

    def __missing__(self, ref: str) -> Any:
        raise PolicyDenied(f"no image {ref}")


# ------------------------------------------------------------------ what was not looked at


def test_an_sbom_without_sources_was_not_scanned(night: Night) -> None:
    here = night.image([BASH])
    night.house.candidate()  # its SBOM has names and versions only
    night.image([BASH], name="base")
    night.sleep()
    done = night.rescan()
    assert sorted(outcomes(done).values()) == [Outcome.KEEP, Outcome.UNSCANNED]
    assert 0 < done.coverage < 1 and not done.complete
    assert here.image.digest not in {j.image.digest for j in done.judged if j.outcome is Outcome.KEEP}


def test_an_image_that_cannot_be_verified_was_not_scanned(night: Night) -> None:
    night.image([BASH])
    night.image([BASH], name="base")
    inner = night.client.inner
    inner.blobs = {k: d for k, d in inner.blobs.items() if k[0] != "candidate/python"}
    night.sleep()
    done = night.rescan()
    assert (outcomes(done), len(done.unverified)) == ({"base": Outcome.KEEP}, 1)
    assert done.coverage == 0.5


def test_the_request_of_an_image_that_cannot_be_verified_tonight_waits_on(night: Night) -> None:
    """What is not known to be mended is not taken back, nor does its clock start anew."""
    night.image([LIBSSL])
    night.scanner.advisories = FIXABLE
    night.sleep()
    night.rescan()
    first = waiting_rebuilds(night.store)
    inner, blobs = night.client.inner, dict(night.client.inner.blobs)
    inner.blobs = {k: d for k, d in blobs.items() if k[0] != "candidate/python"}
    shutil.rmtree(night.place.folder)
    night.sleep()
    done = night.rescan()
    assert (len(done.unverified), done.withdrawn) == (1, ())
    inner.blobs = blobs
    night.sleep()
    assert (night.rescan().asked, waiting_rebuilds(night.store)) == ((), first)


def test_a_rule_that_begins_today_is_something_to_do(night: Night) -> None:
    night.scanner.advisories = FIXABLE
    night.image([LIBSSL])
    tomorrow = (night.house.now + dt.timedelta(days=1)).date()
    night.house.policy = policy(effective={"vulnerabilities-fixable": tomorrow})
    assert outcomes(night.rescan()) == {"python": Outcome.KEEP}
    assert night.rescan().unchanged
    same = night.database
    night.sleep()
    Night.database, kept = property(lambda self: same), Night.database  # type: ignore[assignment, method-assign]
    try:
        assert outcomes(night.rescan()) == {"python": Outcome.REBUILD}
    finally:
        Night.database = kept  # type: ignore[method-assign]


Change = Callable[[dict[str, Any]], Any]


def _without(name: str) -> Change:
    def change(report: dict[str, Any]) -> dict[str, Any]:
        result = report["Results"][0]
        result["Packages"] = [p for p in result["Packages"] if p["Name"] != name]
        result["Vulnerabilities"] = [v for v in result["Vulnerabilities"] if v["PkgName"] != name]
        return report

    return change


@pytest.mark.parametrize(
    "change",
    [
        lambda report: "",
        lambda report: "{",
        lambda report: {**report, "Results": []},
        lambda report: {**report, "Metadata": {}},
        lambda report: {**report, "Metadata": {"OS": {"Family": "debian", "Name": "12.1"}}},
        lambda report: {**report, "Metadata": {"OS": {"Family": "debian", "Name": "13.1", "EOSL": True}}},
        lambda report: {**report, "ArtifactType": "container_image"},
        lambda report: {**report, "Trivy": {"Version": "0.69.4"}},
        lambda report: {**report, "Results": report["Results"] * 2},
        _without("bash"),
        _without("openssl"),
    ],
    ids=["empty", "cut", "nothing", "no-system", "other-system", "end-of-life", "other-kind", "other-version",
         "twice", "package-missing", "canary-missing"],
)  # fmt: skip
def test_a_scanner_that_did_not_look_changes_nothing(night: Night, change: Change) -> None:
    here = night.image([BASH])
    night.sleep()
    night.scanner.change = change
    before = night.client.writes
    with pytest.raises(ToolError):
        night.rescan()
    assert night.client.writes == before
    assert look(night, here).verdict == here.verdict


def test_a_release_whose_scan_cannot_be_trusted_leaves_the_others_alone(night: Night) -> None:
    good, old = night.image([BASH]), night.image([LIBSSL], name="base", point="12.11")
    night.sleep()

    def past_its_end(report: Any) -> Any:
        if report["Metadata"]["OS"]["Name"] == "12.11":
            report["Metadata"]["OS"]["EOSL"] = True
        return report

    night.scanner.change = past_its_end
    done = night.rescan()
    assert outcomes(done) == {"python": Outcome.KEEP, "base": Outcome.UNSCANNED}
    (reason,) = {j.reason for j in done.judged if j.outcome is Outcome.UNSCANNED}
    assert "debian 12" in reason and "past its end of life" in reason
    assert (done.coverage, done.complete, done.renewed) == (0.5, False, 1)
    assert look(night, good).verdict.issued_at == night.house.now
    assert look(night, old, "candidate/base").verdict == old.verdict
    assert not night.rescan().unchanged, "what was not scanned is tried again"


def test_the_sample_database_counts_only_where_the_policy_says_so(night: Night) -> None:
    night.image([BASH])
    real = night.database
    sample = replace(real, identity=replace(real.identity, sample=True))
    Night.database, kept = property(lambda self: sample), Night.database  # type: ignore[assignment, method-assign]
    try:
        with pytest.raises(PolicyDenied) as refused:
            night.rescan()
    finally:
        Night.database = kept  # type: ignore[method-assign]
    assert refused.value.reference == "sample-database"


# ------------------------------------------------------------------ cut anywhere


class Killed(BaseException):
    """The end of a process."""


def test_a_renewal_that_is_cut_anywhere_is_completed_by_the_next(night: Night) -> None:
    here = night.image([LIBSSL, BASH])
    cuts, finished = 0, False
    while not finished:
        night.sleep(0.01)
        night.scanner.advisories = {"other": {f"CVE-{cuts}": ("1", "LOW")}}
        left = [cuts]

        def cut(what: str, left: list[int] = left) -> None:
            left[0] -= what.startswith("manifest")
            if left[0] < 0:
                raise Killed

        night.client.before_write = cut
        try:
            night.rescan()
            finished = True
        except Killed:
            cuts += 1
        night.client.before_write = lambda what: None
        done = night.rescan()
        assert done.failed == (), [f.error.message for f in done.failed]
        assert look(night, here).verdict.issued_at == night.house.now
    assert cuts >= 6


def test_a_write_that_fails_is_told_and_changes_no_other(night: Night) -> None:
    night.image([LIBSSL])
    night.image([BASH], name="base")
    night.sleep()

    def refuse(what: str) -> None:
        if what.endswith("candidate/python"):
            raise RegistryError("no room")

    night.client.before_write = refuse
    done = night.rescan()
    assert [(f.ref, f.what, f.error.message) for f in done.failed] == [("python:3.13", "renew", "no room")]
    assert done.renewed == 1
    night.client.before_write = lambda what: None
    assert night.rescan().renewed == 1


def test_without_a_registry_there_is_no_rescan(night: Night) -> None:
    night.image([BASH])
    night.client.inner.down = True
    with pytest.raises(RegistryError):
        night.rescan()
    assert night.scanner.runs == 0
