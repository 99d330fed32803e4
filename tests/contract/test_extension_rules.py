"""Wherever images are judged, rules of extensions are asked, and who was asked is on record."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest

from builder.checks.rule import Facts
from builder.checks.rule import Rule as Check
from builder.cli.main import run
from builder.errors import PolicyDenied
from builder.extensions import combined
from builder.model.channel import Channel
from builder.model.digest import Digest
from builder.model.evidence import CheckReport, CheckResult, Outcome
from builder.model.extension import ExtensionIdentity
from builder.model.verdict import RuleResult
from builder.oci.client import RegistryClient
from builder.policy.rule import Case, Rule, Seen
from builder.policy.schema import Policy
from builder.signing.predicates import TEST_RESULT_TYPE
from builder.signing.verification import Verification
from builder.signing.verify import verify
from builder.stages.publish import publish
from registry.imports.procedure import Imported
from registry.promotion.callback import change
from registry.promotion.promote import promote
from registry.promotion.rehearse import Rehearsal, rehearse
from tests.support.evidence import World, approval, world
from tests.support.importing import ImportHouse, import_policy
from tests.support.indexes import binary
from tests.support.memory_client import MemoryClient
from tests.support.promotion import policy
from tests.support.registry_simulator import simulator
from tests.support.rescans import Night

BASH = binary("bash", "5.2.37-2")
Needs = Literal["checks", "scan", "sboms", "lint"]


def passes(case: Case) -> Iterable[Seen]:
    """Nothing against any image."""
    return ()


def denies(case: Case) -> Iterable[Seen]:
    """Something against every image."""
    yield {"what": f"{case.image.target.ref} is not ours"}


def breaks(case: Case) -> Iterable[Seen]:
    """No answer."""
    raise KeyError("no answer")


def asking(
    check: Callable[[Case], Iterable[Seen]], base: Policy, needs: Needs | None = None, version: str = "1.2"
) -> Policy:
    """A policy with a team's rule."""
    rule = Rule("team-rule", "Ours", "{what}", "mend it", check, needs)
    who = ExtensionIdentity("rule", "team-rule", "acme-rules", version, Digest.of(version.encode()))
    return replace(base, added=(rule,), extensions=(who,), digest=combined(base.digest, (who,)))


@pytest.fixture
def night(tmp_path: Path) -> Night:
    return Night(tmp_path, MemoryClient(True))


def look(night: Night, here: World) -> Verification:
    where = night.client.reference("candidate/python", digest=here.image.digest)
    return verify(where, night.client, night.house.trust, night.house.now)


@pytest.mark.parametrize(
    ("check", "said"),
    [(denies, "team-rule: python:3.13 is not ours"), (breaks, "team-rule: the rule itself broke: KeyError")],
    ids=["denies", "breaks"],
)
def test_a_promotion_asks_them(night: Night, check: Callable[[Case], Iterable[Seen]], said: str) -> None:
    here = night.image([BASH])
    night.house.policy = asking(check, policy())
    with pytest.raises(PolicyDenied) as raised:
        night.promote(here)
    assert said in raised.value.context and raised.value.hint == "mend it"
    assert night.house.ledger.entries() == ()
    night.house.policy = asking(passes, policy())
    night.promote(here)
    (entry,) = night.house.ledger.entries()
    assert entry.fact.after["extensions"] == f"acme-rules==1.2@{Digest.of(b'1.2')}"
    assert entry.fact.after["policy"].endswith(night.house.policy.digest)


def test_a_rule_about_what_is_not_attested_counts_as_the_verdict_says(night: Night) -> None:
    here = night.image([BASH])
    night.house.policy = asking(breaks, policy(), "lint")
    with pytest.raises(PolicyDenied) as raised:
        night.promote(here)
    assert "the verdict was given without it" in raised.value.context
    rules = (*here.verdict.rules, RuleResult("team-rule", "Ours", (), "mend it"))
    night.client = night.house.client = MemoryClient(True)
    world = replace(
        here, verdict=replace(here.verdict, rules=rules, extensions=night.house.policy.extensions)
    )
    publish(world.signed(), night.client)
    assert night.promote(world).changed
    assert look(night, world).verdict.extensions == night.house.policy.extensions


def test_what_a_rule_announced_counts_once_it_is_in_effect(night: Night) -> None:
    """It passed before its day without being asked; what it is about is not attested."""
    here = night.image([BASH])
    base = asking(breaks, policy(), "lint")
    day = night.house.now.date() + dt.timedelta(days=2)
    night.house.policy = replace(base, data=base.data.model_copy(update={"effective": {"team-rule": day}}))
    night.client = night.house.client = MemoryClient(True)
    rules = (*here.verdict.rules, RuleResult("team-rule", "Ours", (), "mend it"))
    announced = (f"from {day} on, team-rule: no label", f"from {day} on, other: x on, team-rule: y")
    world = replace(here, verdict=replace(here.verdict, rules=rules, announced=announced))
    publish(world.signed(), night.client)
    night.sleep()
    assert night.rescan().renewed == 1
    assert look(night, world).verdict.announced == announced[:1]
    night.sleep()
    with pytest.raises(PolicyDenied) as raised:
        night.promote(world)
    assert raised.value.context == "team-rule: no label"


def test_a_rescan_asks_them_before_it_renews(night: Night) -> None:
    here = night.image([BASH])
    night.rescan()
    assert night.rescan().unchanged
    night.house.policy = asking(denies, policy())
    done = night.rescan()
    assert (done.renewed, [f.what for f in done.failed]) == (0, ["renew"])
    assert "team-rule" in done.failed[0].error.context
    night.house.policy = asking(passes, policy(), version="1.3")
    night.sleep()
    assert night.rescan().renewed == 1
    renewed = look(night, here).verdict
    assert "team-rule" in [r.id for r in renewed.rules]
    assert [e.release for e in renewed.extensions] == [f"acme-rules==1.3@{Digest.of(b'1.3')}"]
    assert night.rescan().unchanged
    night.sleep(0.1)
    night.house.policy = asking(passes, policy(), version="1.4")
    assert night.rescan().renewed == 1  # another version is asked again, though nothing else changed
    assert look(night, here).verdict.extensions[0].version == "1.4"


def test_a_renewed_verdict_names_the_version_of_a_check_that_was_made(night: Night) -> None:
    """A rescan makes no check again: that of the build stands."""
    here = night.image([BASH])
    made, today = (
        ExtensionIdentity("check", "team-check", "acme", v, Digest.of(b"")) for v in ("1.2", "1.3")
    )
    one = CheckResult("team-check", "Ours", Outcome.PASSED)
    proofs = []
    for proof in here.proofs:
        assert isinstance(proof.checks, CheckReport)
        proofs.append(replace(proof, checks=replace(proof.checks, results=(*proof.checks.results, one))))
    night.client = night.house.client = MemoryClient(True)
    verdict = replace(here.verdict, extensions=(made,))
    publish(replace(here, proofs=tuple(proofs), verdict=verdict).signed(), night.client)
    night.house.policy = replace(policy(), extensions=(today,), digest=combined(policy().digest, (today,)))
    night.sleep()
    assert night.rescan().renewed == 1
    assert look(night, here).verdict.extensions == (made,)


@pytest.mark.parametrize("asked", [True, False], ids=["some", "none"])
def test_whoever_verifies_an_image_is_told_who_judged_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], asked: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    who = ExtensionIdentity("rule", "team-rule", "acme-rules", "1.2", Digest.of(b"1.2"))
    here = world(tmp_path)
    now = dt.datetime.now(dt.UTC).replace(microsecond=0)
    verdict = replace(approval(here.image, here.proofs, now), extensions=(who,) if asked else ())
    with simulator() as sim:
        publish(
            replace(here, verdict=verdict, repository=f"{sim.address}/candidate/python").signed(),
            RegistryClient(sim.address),
        )
        assert run(["verify", f"{sim.address}/candidate/python:3.13", "--trust", str(tmp_path / "keys")]) == 0
    said = f"asked:\n  rule team-rule of acme-rules 1.2, {Digest.of(b'1.2')}\n" if asked else "asked: none\n"
    assert f"extensions {said}" in capsys.readouterr().out


def test_a_rehearsal_asks_them(night: Night) -> None:
    here = night.image([BASH])
    (one,) = rehearse(
        [here.image.target],
        Rehearsal(
            registry=night.client,
            verify=lambda reference: verify(reference, night.client, night.house.trust, night.house.now),
            host=night.client.host,
            today=asking(passes, policy()),
            then=asking(denies, policy()),
            now=night.house.now,
        ),
    )
    assert one.breaks and one.then == {"team-rule": ("python:3.13 is not ours",)}


@pytest.fixture
def house(tmp_path: Path) -> Iterator[ImportHouse]:
    with simulator() as sim:
        yield ImportHouse(tmp_path, RegistryClient(sim.address))


def test_an_import_asks_them(house: ImportHouse) -> None:
    house.policy = asking(denies, import_policy())
    with pytest.raises(PolicyDenied) as raised:
        house.take(house.layout())
    assert "upstream:1.0 is not ours" in raised.value.context
    house.policy = asking(passes, import_policy())
    assert house.take(house.layout()).verdict.extensions == house.policy.extensions


def check_of(failures: Callable[[Facts], Iterator[str]], imports: bool = True) -> Check:
    """A team's check, guarded by nothing."""
    return Check(
        id="team-check",
        title="Ours",
        rationale="Because.",
        source="ACME 1",
        looks_at="files",
        failures=failures,
        reads=("etc/passwd",),
        imports=imports,
    )


def looks(facts: Facts) -> Iterator[str]:
    """A check that reads a file and the history, and knows whose image it is."""
    if not (facts.imported and facts.files.contents["etc/passwd"]):
        yield "not what it should see"


def finds(facts: Facts) -> Iterator[str]:
    """A check that nothing passes."""
    yield "/etc/motd is not ours"


def with_check(house: ImportHouse, one: Check) -> None:
    """From now on a check of a team is made, and demanded."""
    before = import_policy()
    who = ExtensionIdentity("check", one.id, "acme-checks", "1.2", Digest.of(b"1.2"))
    house.checks, house.policy = (
        (one,),
        replace(before, extensions=(who,), digest=combined(before.digest, (who,))),
    )


def told(house: ImportHouse, done: Imported) -> Mapping[str, Any]:
    """What is attested of the check."""
    where = house.at("quarantine/upstream", digest=done.published.digest)
    change(house.office(), where, Channel.CANDIDATE, "looked at")
    found = verify(where, house.client, house.trust, house.now)
    reports = [r for m in found.manifests for kind, r in m.reports if kind == TEST_RESULT_TYPE]
    details = [d for d in reports[-1]["details"] if d["id"] == "team-check"]
    return details[0]


def test_an_import_makes_their_checks_too(house: ImportHouse) -> None:
    with_check(house, check_of(looks))
    assert told(house, house.take(house.layout()))["outcome"] == "passed"
    with_check(house, check_of(finds))
    with pytest.raises(PolicyDenied) as raised:
        house.take(house.layout())
    assert "team-check" in raised.value.context and "/etc/motd is not ours" in raised.value.context


def test_a_check_that_is_not_for_others_images_says_so(house: ImportHouse) -> None:
    with_check(house, check_of(finds, imports=False))
    said = told(house, house.take(house.layout()))
    assert (said["outcome"], said["detail"]) == (
        "not-applicable",
        "does not hold for images that others made",
    )


def test_an_imported_image_of_which_a_check_was_not_made_is_not_promoted(house: ImportHouse) -> None:
    where = house.at("quarantine/upstream", digest=house.take(house.layout()).published.digest)
    with_check(house, check_of(looks))
    with pytest.raises(PolicyDenied) as raised:
        promote(house.office(), where, None, "now")
    assert "the check team-check was not asked" in raised.value.context
    assert "import them again" in raised.value.hint
    house.now += dt.timedelta(hours=1)
    house.take(house.layout())
    assert promote(house.office(), where, None, "now").changed
