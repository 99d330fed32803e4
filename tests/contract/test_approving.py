"""Approvals by a second person: what needs them, whose count, and what enemies and crashes make of them."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from builder.errors import PolicyDenied, RegistryError, ToolError, UsageError
from builder.model.digest import Digest
from builder.model.sources import Sources, Tree
from builder.oci.client import RegistryClient
from builder.oci.transport import Limits
from builder.policy.schema import ApprovalLimits
from builder.signing.attested import carriers
from builder.signing.keys import APPROVER, RoleSigner, load_public
from builder.signing.predicates import APPROVAL_TYPE
from builder.signing.trust import Trust
from builder.signing.verify import verify
from registry.approvals.needs import Approval, Approvers, Made
from registry.approvals.procedure import Approved, approve
from registry.approvals.records import put_approval
from registry.audit.ledger import Action, Fact, Ledger
from registry.promotion.closure import Closure
from registry.promotion.office import Office
from registry.promotion.promote import promote, rollback
from tests.support import registry_simulator as reg
from tests.support.evidence import SOURCES, World, new_keys
from tests.support.images import NOW
from tests.support.promotion import CANDIDATE, REPO, House, Shelf, approver, policy
from tests.support.registry_simulator import simulator

LIMITS = Limits(connect_seconds=1, read_seconds=1, total_seconds=5, attempts=2)
MINUTE = dt.timedelta(minutes=1)
ASKS = {"definition": 1, "template": 1, "lock": 0, "first": 1, "import": 1}
OTHER = replace(SOURCES, definition=Digest.of(b"other words"))
PEOPLE = ("user:ann", "user:bob", "user:eve")
EVERYBODY = Approvers(
    may=lambda who, image: who.casefold() in PEOPLE and image == REPO, able=lambda image: PEOPLE, alone=False
)


def asking(**changes: int) -> Any:
    return policy(approvals=ApprovalLimits.model_validate({**ASKS, **changes}))


@pytest.fixture(scope="module", params=[True, False], ids=["referrers-api", "fallback-tag"])
def both(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shelf]:
    with simulator() as sim:
        sim.referrers_api = request.param
        yield Shelf(tmp_path_factory.mktemp("shelf"), sim)


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shelf]:
    with simulator() as sim:
        yield Shelf(tmp_path_factory.mktemp("shelf"), sim)


class Guild(House):
    """A house that asks for approvals."""

    def by(self, who: str, **changes: Any) -> Office:
        return self.office(who=who, approvers=EVERYBODY, **changes)

    @property
    def signer(self) -> RoleSigner:
        return approver((self.shelf or self).folder / "keys")

    def approve(self, here: World, who: str = "user:bob", why: str = "read it", **changes: Any) -> Approved:
        self.now += MINUTE
        where = self.at(CANDIDATE, digest=here.image.digest)
        return approve(self.by(who, **changes), self.signer, where, why)

    def refused(self, here: World, **changes: Any) -> PolicyDenied:
        before = self.ledger.entries()
        with pytest.raises(PolicyDenied) as raised:
            self.promote(here, **changes)
        assert self.ledger.entries() == before
        return raised.value

    def promote(self, here: World, **changes: Any) -> Any:
        return super().promote(here, **{"approvers": EVERYBODY, **changes})


def guild(shelf: Shelf, folder: Path) -> Guild:
    shelf.sim.restore()
    client = RegistryClient(shelf.sim.address, limits=LIMITS, sleep=lambda _: None)
    return Guild(folder, client, shelf, policy=asking())


@pytest.fixture
def house(shelf: Shelf, tmp_path: Path) -> Guild:
    return guild(shelf, tmp_path)


# ------------------------------------------------------------------ what needs whom


def test_a_new_image_waits_for_somebody_who_did_not_write_it(both: Shelf, tmp_path: Path) -> None:
    house = guild(both, tmp_path)
    here = house.candidate()
    both.sim.requests.clear()
    error = house.refused(here)
    assert error.reference == "approval-missing"
    assert both.sim.count("PUT|POST") == 0
    assert "new: definition, first, lock, template" in error.context
    assert "written by Ann Writer <ann@example.org>" in error.context
    assert error.hint == (
        f"ask user:bob, user:eve: goldsmith approve python:3.13@{here.image.digest} --why TEXT"
    )
    done = house.approve(here)
    assert (done.changed, done.standing.missing) == (True, 0)
    house.promote(here)
    entries = house.ledger.entries()
    assert [(e.fact.what, e.fact.who) for e in entries] == [
        (Action.APPROVE, "user:bob"),
        (Action.PROMOTE, "ann@host"),
    ]
    assert entries[1].fact.after["definition"] == SOURCES.definition
    # It went along with the image, and those who verify do not mind.
    home = house.at(REPO, digest=here.image.digest)
    assert list(carriers(house.client, home, APPROVAL_TYPE)) == [entries[0].fact.after["approval"]]
    assert verify(home, house.client, house.trust, house.now).digest == here.image.digest


def test_the_next_lock_of_the_same_definition_needs_nobody(house: Guild) -> None:
    first = house.candidate("one")
    house.approve(first)
    bumped = house.candidate("two", replace(SOURCES, lock=Digest.of(b"tonight")))
    house.promote(bumped)  # approved before it was ever stable: nobody approves twice
    house.promote(house.candidate("three", replace(SOURCES, lock=Digest.of(b"tomorrow"))))
    house.policy = asking(lock=1)
    last = house.candidate("four", replace(SOURCES, lock=Digest.of(b"next week")))
    assert "new: lock" in house.refused(last).context
    house.approve(last)
    house.promote(last)


@pytest.mark.parametrize("part", ["definition", "template"])
def test_each_change_of_definition_or_template_needs_somebody(house: Guild, part: str) -> None:
    house.policy = policy()
    house.promoted(house.candidate("one"))
    house.policy = asking()
    changed = house.candidate("two", replace(SOURCES, **{part: Digest.of(b"new")}))
    assert f"new: {part};" in house.refused(changed).context
    house.approve(changed)
    house.promote(changed)


def test_two_people_are_two_people(house: Guild) -> None:
    house.policy = asking(definition=2)
    here = house.candidate()
    house.approve(here)
    house.approve(here, "user:Bob")
    error = house.refused(here)
    assert "needs an approval" in error.message
    assert "approved by user:bob" in error.context
    house.approve(here, "user:eve")
    assert "approved by" not in house.promote(here).ref
    assert len(house.ledger.entries()) == 4


def test_going_back_needs_nobody(house: Guild) -> None:
    house.policy = policy()
    one, two = house.candidate("one"), house.candidate("two", OTHER)
    house.promote(one)
    house.promote(two)
    house.policy = asking(definition=5)
    assert house.refused(one).reference == "approval-missing"
    done = rollback(house.office(), "python:3.13", one.image.target, "two is bad")
    assert done.reference.digest == one.image.digest
    # Forward again is a change that was not approved by anybody.
    assert "new: definition;" in house.refused(two).context


def test_promoting_what_is_stable_needs_nobody(house: Guild) -> None:
    here = house.candidate()
    house.approve(here)
    house.promote(here)
    assert not house.promote(here, approvers=Approvers()).changed


# ------------------------------------------------------------------ who may not


@pytest.mark.parametrize("who", ["user:ann", "user:Ann.Writer", "oidc:corp:ANN@example.org"])
def test_nobody_approves_what_they_wrote(shelf: Shelf, house: Guild, who: str) -> None:
    here = house.candidate()
    shelf.sim.requests.clear()
    with pytest.raises(PolicyDenied) as raised:
        house.approve(here, who)
    assert raised.value.reference == "own-change"
    assert "user:bob" in raised.value.hint
    assert (shelf.sim.count("PUT|POST"), house.ledger.entries()) == (0, ())


@pytest.mark.parametrize(
    ("made", "who", "reference"),
    [
        (replace(SOURCES, origin=replace(SOURCES.origin, tree=Tree.DIRTY, publisher="bob@host")), "user:bob", "own-change"),
        (replace(SOURCES, origin=replace(SOURCES.origin, tree=Tree.UNKNOWN)), "user:bob", "writers-unknown"),
        (replace(SOURCES, origin=replace(SOURCES.origin, since=(("python:3.13", "9" * 40),))), "user:bob", "writers-unknown"),
        (None, "user:bob", "writers-unknown"),
        (SOURCES, "token:bob", "not-a-person"),
        (SOURCES, "oidc:corp:8f3a77", "approver-unknown"),
    ],
    ids=["not committed", "cut history", "since nowhere", "nothing attested", "a token", "a number"],
)  # fmt: skip
def test_what_cannot_be_told_is_not_approved(
    house: Guild, made: Sources | None, who: str, reference: str
) -> None:
    here = house.candidate(made=made)
    with pytest.raises(PolicyDenied) as raised:
        house.approve(here, who)
    assert raised.value.reference == reference
    expected = "sources-unknown" if made is None else "approval-missing"
    assert house.refused(here).reference == expected
    assert house.ledger.entries() == ()


def test_one_persons_machine_is_told_what_to_do(house: Guild) -> None:
    here = house.candidate()
    hint = house.refused(here, approvers=Approvers()).hint
    assert "access.yaml" in hint and "`approvals` to 0" in hint
    house.policy = policy()
    house.promote(here, approvers=Approvers())


def test_who_has_lost_the_right_no_longer_counts(house: Guild) -> None:
    here = house.candidate()
    house.approve(here)
    gone = replace(EVERYBODY, may=lambda who, image: who == "user:eve")
    assert "user:bob may not approve" in house.refused(here, approvers=gone).context
    house.promote(here)


def test_a_reason_is_needed_and_keeps_no_secret(house: Guild) -> None:
    here = house.candidate()
    with pytest.raises(UsageError):
        house.approve(here, why=" ")
    house.approve(here, why="its password=hunter2 is gone")
    assert b"hunter2" not in house.ledger.path.read_bytes()


def test_by_a_clock_that_was_set_back_nothing_is_approved(house: Guild) -> None:
    """A key that was revoked meanwhile would hold again."""
    house.policy = policy()
    house.promoted(house.candidate("one"))
    house.now -= 60 * MINUTE
    two = house.candidate("two", OTHER)
    with pytest.raises(PolicyDenied) as raised:
        house.approve(two)
    assert raised.value.reference == "clock-behind"
    assert len(house.ledger.entries()) == 1


# ------------------------------------------------------------------ crashes


def test_approving_again_changes_nothing(shelf: Shelf, house: Guild) -> None:
    here = house.candidate()
    house.approve(here)
    shelf.sim.requests.clear()
    assert not house.approve(here).changed
    assert (shelf.sim.count("PUT|POST"), len(house.ledger.entries())) == (0, 1)


def test_cut_anywhere_an_approval_counts_for_nothing(
    both: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = guild(both, tmp_path)
    here = house.candidate()
    both.sim.requests.clear()
    house_ledger = Ledger.append

    def full(*_: object) -> None:
        raise ToolError("the disk is full")

    monkeypatch.setattr(Ledger, "append", full)
    with pytest.raises(ToolError):
        house.approve(here)
    writes = both.sim.count("PUT|POST")
    assert writes >= 2
    assert house.refused(here).reference == "approval-missing"
    monkeypatch.setattr(Ledger, "append", house_ledger)
    for n in range(writes):
        both.sim.fault("PUT|POST", ".*", lambda h: h.serve(), times=n)
        both.sim.faults.append(reg.Fault("PUT|POST", ".*", reg.status(400)))
        with pytest.raises(RegistryError):
            house.approve(here)
        both.sim.faults.clear()
        assert house.refused(here).reference == "approval-missing"
    assert house.ledger.entries() == ()
    house.approve(here)
    house.promote(here)


# ------------------------------------------------------------------ enemies


class Forger:
    """Who can write the registry and the ledger, and wants an approval to count that nobody gave."""

    def __init__(self, house: Guild) -> None:
        self.house = house
        self.target = house.candidate("target")
        made = Made(SOURCES.definition, SOURCES.template, SOURCES.lock)
        self.approval = Approval(
            self.target.image.digest, "python:3.13", made, "user:bob", house.now, "x", "p"
        )

    def put(self, approval: Approval, signer: RoleSigner, on: World | None = None) -> Digest:
        digest = (on or self.target).image.digest
        closure = Closure.read(self.house.client, CANDIDATE, digest)
        return put_approval(self.house.client, CANDIDATE, approval, closure.descriptor(digest), signer)

    def tell(self, carrier: Digest, digest: Digest | None = None, who: str = "user:bob") -> None:
        house, made = self.house, self.approval.made
        parts = {p: str(getattr(made, p)) for p in ("definition", "template", "lock")}
        after = {**parts, "approval": str(carrier)}
        image = digest or self.target.image.digest
        fact = Fact(who, Action.APPROVE, "python:3.13", image, {}, after, "x")
        house.ledger.append(fact, house.keys.verdict, house.now)

    def fails(self, reason: str, **changes: Any) -> None:
        error = self.house.refused(self.target, **changes)
        assert error.reference == "approval-missing"
        assert f"does not count: user:bob (entry 1): {reason}" in error.context


@pytest.fixture
def forger(house: Guild) -> Forger:
    return Forger(house)


def test_a_forged_approval_would_count_if_it_were_signed_and_told(forger: Forger) -> None:
    forger.tell(forger.put(forger.approval, forger.house.signer))
    forger.house.promote(forger.target)


@pytest.mark.parametrize("role", ["builder", "verdict"])
def test_another_roles_key_approves_nothing(forger: Forger, role: str) -> None:
    forger.tell(forger.put(forger.approval, getattr(forger.house.keys, role)))
    forger.fails("an attestation is not by a trusted key")


def test_a_key_that_is_no_longer_trusted_approves_nothing(forger: Forger, tmp_path: Path) -> None:
    house = forger.house
    house.approve(forger.target)
    new_keys(tmp_path / "others")
    other = load_public(tmp_path / "others", APPROVER)
    trust = Trust.of(*(k.key for k in house.trust.keys if k.role != APPROVER), other)
    forger.fails("an attestation is not by a trusted key", trust=trust)


@pytest.mark.parametrize("said", [0, 365 * 24 * 60])
def test_a_revoked_key_approves_nothing_whatever_it_says_of_the_time(forger: Forger, said: int) -> None:
    """What counts is when the ledger says that it was used."""
    house = forger.house
    carrier = forger.put(replace(forger.approval, at=NOW - said * MINUTE), house.signer)
    house.now += 7 * MINUTE
    forger.tell(carrier)

    def revoked(at: dt.datetime) -> Trust:
        ended = [replace(k, revoked_at=at) if k.role == APPROVER else k for k in house.trust.keys]
        return Trust(tuple(ended))

    forger.fails("an attestation is not by a trusted key", trust=revoked(NOW + MINUTE))
    with pytest.raises(UsageError):
        house.approve(forger.target, "user:eve", trust=revoked(NOW + MINUTE))
    # What it signed before the moment from which it is not trusted stays.
    house.promote(forger.target, trust=revoked(NOW + 8 * MINUTE))


def test_an_approval_of_another_image_is_none_of_this_one(forger: Forger) -> None:
    house = forger.house
    other = house.candidate("other", OTHER)
    given = house.approve(other).entry
    forger.tell(Digest(given.fact.after["approval"]))
    error = house.refused(forger.target)
    assert "(entry 2): a referrer belongs to another manifest" in error.context


def test_an_approval_that_says_something_else_than_the_ledger_is_none(forger: Forger) -> None:
    forger.tell(forger.put(replace(forger.approval, ref="base:13"), forger.house.signer))
    forger.fails("an approval says something else than the ledger")


def test_an_approval_under_another_name_is_none(forger: Forger) -> None:
    forger.tell(forger.put(replace(forger.approval, who="user:eve"), forger.house.signer))
    forger.fails("an approval says something else than the ledger")


def test_an_approval_from_the_future_is_none(forger: Forger) -> None:
    late = replace(forger.approval, at=forger.house.now + MINUTE)
    forger.tell(forger.put(late, forger.house.signer))
    forger.fails("an approval is younger than its entry")


def test_an_oversized_approval_is_not_read(forger: Forger) -> None:
    forger.tell(forger.put(replace(forger.approval, why="x" * 70_000), forger.house.signer))
    forger.fails("an attestation is larger than 65536 bytes")


def test_an_approval_that_is_gone_is_none(forger: Forger) -> None:
    forger.tell(Digest.of(b"nowhere"))
    forger.fails("the signed approval is not in the registry")


def test_a_signed_approval_that_the_ledger_does_not_know_is_none(forger: Forger) -> None:
    forger.put(forger.approval, forger.house.signer)
    assert forger.house.refused(forger.target).reference == "approval-missing"


def test_one_bad_approval_does_not_spoil_a_good_one(forger: Forger) -> None:
    forger.tell(Digest.of(b"nowhere"))
    forger.house.approve(forger.target, "user:eve")
    where = forger.house.at(CANDIDATE, digest=forger.target.image.digest)
    promote(forger.house.by("user:ann"), where, forger.target.image.target, "it passed")
