"""Imports: quarantine first, judged by their own policy, and completed whenever they were cut."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from builder.errors import GoldsmithError, PolicyDenied, RegistryError, UsageError
from builder.model.channel import Channel
from builder.model.digest import Digest
from builder.model.evidence import CanaryResult, Finding, PackageLicences, Sboms, ScanReport, Secret, Severity
from builder.model.image import PlatformImage, Target
from builder.oci.client import RegistryClient
from builder.policy.schema import ApprovalLimits
from builder.signing.inputs import read_inputs
from builder.signing.keys import APPROVER, BUILDER, open_signer
from builder.signing.refusal import EvidenceRefused
from builder.signing.verify import verify
from builder.stages.judge import imported_waivers, judge
from registry.approvals.needs import Approvers
from registry.approvals.procedure import approve
from registry.audit.ledger import Action
from registry.promotion.callback import change
from registry.promotion.channels import IllegalMove
from registry.promotion.promote import promote
from registry.promotion.recheck import origin_of
from registry.upstream.source import LayoutSource
from tests.support.evidence import PASSPHRASE, world
from tests.support.foreign import Foreign, attestation, index_of, spoil, write_layout
from tests.support.images import layer_tar
from tests.support.importing import WISH, ImportHouse, good_scan, import_policy
from tests.support.registry_simulator import Simulator, simulator

QUARANTINE = "quarantine/upstream"
NOBODY_ASKED = {"definition": 0, "template": 0, "lock": 0, "first": 0, "import": 0}


# What our own storage knows is enough, except where referrers are what a test is about.
both_forms = pytest.mark.parametrize("sim", [True, False], ids=["referrers", "no-referrers"], indirect=True)


@pytest.fixture
def sim(request: pytest.FixtureRequest) -> Iterator[Simulator]:
    with simulator() as sim:
        sim.referrers_api = getattr(request, "param", False)
        yield sim


@pytest.fixture
def house(sim: Simulator, tmp_path: Path) -> ImportHouse:
    return ImportHouse(tmp_path, RegistryClient(sim.address))


def refused(house: ImportHouse, repo: str, digest: Digest) -> str:
    """Why a consumer refuses the image."""
    with pytest.raises((EvidenceRefused, RegistryError)) as raised:
        verify(house.at(repo, digest=digest), house.client, house.trust, house.now)
    return raised.value.reference


def released(house: ImportHouse, digest: Digest) -> None:
    """Out of quarantine, as an approval leads to."""
    change(house.office(), house.at(QUARANTINE, digest=digest), Channel.CANDIDATE, "looked at")


# ------------------------------------------------------------------ the life of an import


@both_forms
def test_an_import_is_in_quarantine_with_its_provenance(sim: Simulator, house: ImportHouse) -> None:
    one = Foreign()
    source = house.layout(one)
    done = house.take(source)
    digest = done.published.digest
    assert refused(house, QUARANTINE, digest) == "quarantined"
    assert refused(house, "upstream", digest) == "not-found"
    assert sim.tags[QUARANTINE]["1.0"] == sim.tags[QUARANTINE][f"1.0-{source.root.digest.short}"] == digest
    (entry,) = house.ledger.entries()
    assert (entry.fact.what, entry.fact.who, entry.fact.why) == (Action.IMPORT, "ann@host", "team A needs it")
    assert entry.fact.after["source"] == f"oci-layout@{source.root.digest}"
    released(house, digest)
    found = verify(house.at(QUARANTINE, "1.0"), house.client, house.trust, house.now)
    origin = origin_of(found)
    assert origin is not None
    assert (origin.by, origin.at, origin.digest) == ("ann@host", house.now, Digest.of(one.manifest_bytes()))
    assert found.verdict.policy == "import"
    assert found.manifests[1].digest == Digest.of(one.manifest_bytes())
    with pytest.raises(EvidenceRefused) as raised:
        read_inputs(house.client, house.at(QUARANTINE, digest=digest), house.trust.unrevoked(BUILDER))
    assert raised.value.reference == "no-kit" and "others" in raised.value.context
    assert "goldsmith run" not in raised.value.hint


@both_forms
def test_it_is_promoted_and_withdrawn_like_any_image(sim: Simulator, house: ImportHouse) -> None:
    both = Foreign(docker=True), Foreign(architecture="arm64", docker=True)
    digest = house.take(house.layout(*both)).published.digest
    where = house.at(QUARANTINE, digest=digest)
    done = promote(house.office(), where, None, "now")
    assert done.ref == "upstream:1.0"
    found = verify(house.at("upstream", "1.0"), house.client, house.trust, house.now)
    assert found.channel and found.channel.channel is Channel.STABLE
    assert {m.digest for m in found.manifests[1:]} == {Digest.of(b.manifest_bytes()) for b in both}
    change(house.office(), house.at("upstream", "1.0"), Channel.WITHDRAWN, "a hole")
    assert refused(house, "upstream", digest) == refused(house, QUARANTINE, digest) == "withdrawn"
    with pytest.raises(PolicyDenied) as back:
        house.take(house.layout(*both))
    assert back.value.reference == "called-back"
    assert [e.fact.what for e in house.ledger.entries()] == ["import", "release", "promote", "revoke"]


@both_forms
def test_importing_again_changes_nothing_and_a_later_one_brings_a_new_verdict(
    sim: Simulator, house: ImportHouse
) -> None:
    first = house.take(house.layout())
    sim.requests.clear()
    assert house.take(house.layout()).entry == first.entry
    assert sim.count("PUT", "/manifests/") == 0
    digest = first.published.digest
    released(house, digest)
    where = house.at(QUARANTINE, digest=digest)
    promote(house.office(), where, None, "now")
    house.now += dt.timedelta(days=9)
    house.policy = import_policy(
        database=house.policy.data.database.model_copy(update={"age_days_max": 30.0})
    )
    assert refused(house, "upstream", digest) == "verdict-expired"
    assert house.take(house.layout()).channel is Channel.STABLE
    promote(house.office(), where, None, "a new verdict")
    assert verify(house.at("upstream", "1.0"), house.client, house.trust, house.now).digest == digest
    assert len(house.ledger.entries()) == 4


def test_attestations_of_buildkit_are_left_out(house: ImportHouse) -> None:
    one = Foreign()
    manifest, entry = attestation()
    folder = write_layout(house.folder / "kit", one, index=index_of(one, extra=[entry]))
    assert house.take(LayoutSource(folder)).left_out == (Digest.of(manifest),)


@both_forms
def test_somebody_else_has_to_approve_it_before_it_leaves_quarantine(
    sim: Simulator, house: ImportHouse
) -> None:
    people = ("user:ann", "user:bob")
    able = Approvers(may=lambda who, image: who in people, able=lambda image: people, alone=False)
    house.policy = import_policy(approvals=ApprovalLimits.model_validate({**NOBODY_ASKED, "import": 1}))
    signer = open_signer(house.folder / "keys", APPROVER, {}, PASSPHRASE)
    digest = house.take(house.layout()).published.digest  # by ann@host
    where = house.at(QUARANTINE, digest=digest)
    office = house.office(approvers=able)
    with pytest.raises(PolicyDenied) as denied:
        promote(office, where, None, "now")
    assert denied.value.reference == "approval-missing"
    assert refused(house, QUARANTINE, digest) == "quarantined"
    with pytest.raises(PolicyDenied) as own:
        approve(replace(office, who="user:ann"), signer, where, "mine")
    assert own.value.reference == "own-change"
    approve(replace(office, who="user:bob"), signer, where, "read its Dockerfile")
    assert refused(house, QUARANTINE, digest) == "quarantined"
    promote(office, where, None, "now")
    assert verify(house.at("upstream", "1.0"), house.client, house.trust, house.now).digest == digest
    assert [e.fact.what for e in house.ledger.entries()] == ["import", "approve", "release", "promote"]


def test_what_was_put_into_quarantine_later_is_not_promoted_out_of_it(house: ImportHouse) -> None:
    digest = house.take(house.layout()).published.digest
    where = house.at(QUARANTINE, digest=digest)
    released(house, digest)
    change(house.office(), where, Channel.QUARANTINE, "a file that nobody knows")
    with pytest.raises(IllegalMove):
        promote(house.office(), where, None, "now")
    with pytest.raises(PolicyDenied):
        house.take(house.layout())


# ------------------------------------------------------------------ what is refused


def seen(**changes: Any) -> Callable[[Target, PlatformImage, Path], tuple[ScanReport, Sboms]]:
    def scan(target: Target, image: PlatformImage, work: Path) -> tuple[ScanReport, Sboms]:
        report, sboms = good_scan(target, image, work)
        return replace(report, **changes), sboms

    return scan


CRITICAL = Finding("CVE-2026-1", "bash", "5", "", Severity.CRITICAL, "affected", "bad")
DENIED: dict[str, tuple[dict[str, Any], Foreign, str]] = {
    "critical": ({"findings": (CRITICAL,)}, Foreign(), "vulnerabilities-unfixed"),
    "secret": ({"secrets": (Secret("key", "/k", Severity.HIGH),)}, Foreign(), "secrets"),
    "licence": ({"licences": (PackageLicences("x", ("SSPL-1.0",)),)}, Foreign(), "licences"),
    "fewer packages seen": ({"packages": ("bash=5.2.37-2+b5",)}, Foreign(), "scanner-identity"),
    "no canary found": ({"canary": CanaryResult("openssl", "1", ())}, Foreign(), "scanner-identity"),
    "no canary known": ({"canary": CanaryResult("", "", ())}, Foreign(), "scanner-comparable"),
    "no package database": ({}, Foreign(layers=[layer_tar({"a": b"x"})]), "scanner-comparable"),
    "an old database of rpm": (
        {},
        Foreign(layers=[layer_tar({"var/lib/rpm/Packages": b"BDB"})]),
        "linux/amd64: its package database is rpm's in another form",
    ),
    "unknown user": ({}, Foreign(config={"config": {"User": "nobody-knows"}}), "user-known"),
    "user overflow": ({}, Foreign(config={"config": {"User": "4294967296"}}), "user-known"),
    "negative user": ({}, Foreign(config={"config": {"User": "-1"}}), "user-known"),
    "label of commands": ({}, Foreign(config={"config": {"Labels": {"RUN": "rm"}}}), "sound-configuration"),
    "environment of 1 MB": (
        {},
        Foreign(config={"config": {"Env": ["A=" + "x" * (1 << 20)]}}),
        "sound-configuration",
    ),
    "entrypoint is a text": (
        {},
        Foreign(config={"config": {"Entrypoint": "sh -c x"}}),
        "sound-configuration",
    ),
    "control characters": (
        {},
        Foreign(config={"config": {"Labels": {"a": "\x1b[31m"}}}),
        "sound-configuration",
    ),
    "commands in others' builds": (
        {},
        Foreign(config={"config": {"OnBuild": ["RUN x"]}}),
        "sound-configuration",
    ),
}


@pytest.mark.parametrize("name", DENIED)
def test_what_the_policy_denies_leaves_nothing_behind(tmp_path: Path, name: str) -> None:
    changes, foreign, rule = DENIED[name]
    with simulator() as sim:
        house = ImportHouse(tmp_path, RegistryClient(sim.address))
        with pytest.raises(PolicyDenied) as denied:
            house.take(house.layout(foreign), seen(**changes))
        assert rule in denied.value.context + str(denied.value.hint)
        assert not sim.tags
        assert not sim.manifests
        assert house.ledger.entries() == ()
        assert not list((tmp_path / "work").iterdir())


WISHES: dict[str, dict[str, Any]] = {
    "an image of the catalogue": {"name": "python"},
    "no name": {"name": "../x"},
    "a folder in the name": {"name": "a/b"},
    "upper case": {"name": "Alpine"},
    "no stream": {"tag": "latest!"},
    "no reason": {"why": " "},
    "end of life is past": {"end_of_life": WISH.end_of_life.replace(year=2020)},
    "owner with control characters": {"owner": "a\x1b"},
}


@pytest.mark.parametrize("name", WISHES)
def test_a_name_that_cannot_be_is_refused_before_anything_is_fetched(tmp_path: Path, name: str) -> None:
    with simulator() as sim:
        house = ImportHouse(tmp_path, RegistryClient(sim.address))
        source = house.layout()
        with pytest.raises(UsageError) as raised:
            house.take(source, **WISHES[name])
        assert raised.value.hint
        assert sim.requests == []


def test_the_same_image_under_another_name_is_refused(house: ImportHouse) -> None:
    house.take(house.layout())
    with pytest.raises(PolicyDenied) as refusal:
        house.take(house.layout(), name="other")
    assert refusal.value.reference == "imported-already"


def test_a_damaged_source_leaves_nothing(sim: Simulator, house: ImportHouse) -> None:
    one = Foreign()
    source = house.layout(one)
    spoil(house.folder / "theirs", Digest.of(one.blobs()[1]))
    with pytest.raises(GoldsmithError):
        house.take(source)
    assert not sim.manifests
    assert house.ledger.entries() == ()


def test_our_own_images_are_not_judged_by_the_policy_for_imports(house: ImportHouse) -> None:
    here = world(house.folder / "own")
    verdict = judge(here.image, here.proofs, house.policy, house.now)
    assert "evidence-complete" in {r.id for r in verdict.failed}


# ------------------------------------------------------------------ waivers of imports


def test_a_finding_in_an_import_can_be_waived_and_the_promotion_heeds_it(
    house: ImportHouse, tmp_path: Path
) -> None:
    flaw = Finding("CVE-2026-4711", "hello", "2.10-5", "", Severity.CRITICAL, "affected", "a flaw")

    def scan(target: Target, image: PlatformImage, work: Path) -> tuple[ScanReport, Sboms]:
        report, sboms = good_scan(target, image, work)
        return replace(report, findings=(flaw,)), sboms

    with pytest.raises(PolicyDenied):
        house.take(house.layout(), scan=scan)
    folder = tmp_path / "catalogue" / "imports" / "upstream"
    folder.mkdir(parents=True)
    (folder / "waivers.yaml").write_text(
        "schema: 1\nwaivers:\n"
        "  - {vulnerability: CVE-2026-4711, packages: [hello], owner: ann, approver: bob,\n"
        "     justification: vulnerable_code_not_present, statement: The distribution left that part out.,\n"
        f"     approved: {house.now.date()}, expires: {house.now.date() + dt.timedelta(days=5)}}}\n"
    )
    house.policy = replace(house.policy, accepted=imported_waivers(tmp_path / "catalogue"))
    done = house.take(house.layout(), scan=scan)
    assert [w.partition("@")[0] for w in done.verdict.waivers] == ["upstream/CVE-2026-4711"]
    where = house.at(QUARANTINE, digest=done.published.digest)
    without = house.office(policy=replace(house.policy, accepted={}))
    with pytest.raises(PolicyDenied, match="today"):
        promote(without, where, None, "now")
    assert promote(house.office(), where, None, "now").ref == "upstream:1.0"
