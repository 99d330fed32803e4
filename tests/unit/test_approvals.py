"""Which changes need how many approvals, and whose count."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from typing import Any

import pytest

from builder.model.digest import Digest
from builder.model.sources import Origin, Sources, Tree
from builder.policy.schema import ApprovalLimits
from registry.approvals.needs import (
    Approval,
    Approvers,
    Change,
    Count,
    Made,
    Writers,
    changes,
    count,
    imported,
    made_of,
    needed,
    writers,
)
from registry.approvals.people import same_person
from tests.support.evidence import COMMIT, SOURCES
from tests.support.images import NOW

A, B, C = (Digest.of(x) for x in (b"a", b"b", b"c"))
MADE = Made(A, A, A)
REF = "python:3.13"
LIMITS = ApprovalLimits.model_validate({"definition": 2, "template": 1, "lock": 0, "first": 3, "import": 4})
ANN = Writers(("Ann Writer <ann@example.org>",))


ALL = Approvers(may=lambda who, image: image == "python")


def approval(who: str, made: Made = MADE, ref: str = REF, minutes: int = 0) -> Approval:
    return Approval(C, ref, made, who, NOW + dt.timedelta(minutes=minutes), "good", "baseline")


def counted(*approvals: Approval, by: Writers = ANN, **options: Any) -> Count:
    exactly = options.pop("exactly", False)
    return count(approvals, REF, MADE, by, exactly=exactly, approvers=replace(ALL, **options))


# ------------------------------------------------------------------ changes


@pytest.mark.parametrize(
    ("previous", "expected"),
    [
        (MADE, set()),
        (replace(MADE, definition=B), {Change.DEFINITION}),
        (replace(MADE, template=B), {Change.TEMPLATE}),
        (replace(MADE, lock=B), {Change.LOCK}),
        (Made(B, B, A), {Change.DEFINITION, Change.TEMPLATE}),
        (None, {Change.FIRST, Change.DEFINITION, Change.TEMPLATE, Change.LOCK}),
    ],
)
def test_changes_are_told_apart(previous: Made | None, expected: set[Change]) -> None:
    assert changes(previous, MADE) == expected


@pytest.mark.parametrize(
    ("found", "number"),
    [
        (set(), 0),
        ({Change.LOCK}, 0),
        ({Change.TEMPLATE, Change.LOCK}, 1),
        ({Change.DEFINITION, Change.TEMPLATE}, 2),
        ({Change.FIRST, Change.DEFINITION}, 3),
        ({Change.IMPORT}, 4),
    ],
)
def test_the_largest_number_that_the_policy_asks_for_holds(found: set[Change], number: int) -> None:
    assert needed(LIMITS, found) == number


def test_an_image_that_was_attested_twice_is_made_of_both() -> None:
    assert made_of([]) is None
    one = made_of([SOURCES, replace(SOURCES, origin=Origin(Tree.DIRTY, "bob@host"))])
    assert one == Made(SOURCES.definition, SOURCES.template, SOURCES.lock)
    both = made_of([SOURCES, replace(SOURCES, definition=B)])
    assert both is not None and one is not None
    assert changes(one, both) == {Change.DEFINITION}


# ------------------------------------------------------------------ who wrote it


def origin(**changed: Any) -> Sources:
    return replace(SOURCES, origin=replace(SOURCES.origin, **changed))


@pytest.mark.parametrize("tree", [Tree.DIRTY, Tree.NONE])
def test_what_git_does_not_vouch_for_was_written_by_who_published_it(tree: Tree) -> None:
    assert writers([SOURCES], {Change.DEFINITION}, {}).people == ("Ann Writer <ann@example.org>",)
    found = writers([origin(tree=tree)], {Change.DEFINITION}, {})
    assert found == Writers(("Ann Writer <ann@example.org>", "ann@host"))


def test_who_moved_the_lock_wrote_nothing_but_the_lock() -> None:
    robot = "Robot <ci@example.org>"
    assert robot not in writers([SOURCES], {Change.DEFINITION}, {}).people
    assert writers([SOURCES], {Change.LOCK}, {}).people == (robot,)


def test_all_that_is_attested_of_an_image_counts() -> None:
    other = origin(writers=("Bob <bob@example.org>",))
    assert len(writers([SOURCES, other], {Change.TEMPLATE}, {}).people) == 2


@pytest.mark.parametrize(
    ("attested", "reason"),
    [
        ([], "does not say"),
        ([origin(tree=Tree.UNKNOWN)], "could not tell"),
        ([SOURCES, origin(tree=Tree.UNKNOWN)], "could not tell"),
        ([origin(since=((REF, "2" * 40),))], "never was stable"),
        ([origin(since=(("base:13", COMMIT),))], "never was stable"),
    ],
)
def test_writers_that_cannot_be_told_are_unknown(attested: list[Sources], reason: str) -> None:
    found = writers(attested, {Change.DEFINITION}, {REF: {COMMIT}})
    assert reason in found.unknown
    assert counted(approval("user:bob"), by=found).approvers == ()


def test_writers_are_looked_for_since_a_stable_image() -> None:
    assert not writers([origin(since=((REF, COMMIT),))], {Change.DEFINITION}, {REF: {COMMIT}}).unknown


# ------------------------------------------------------------------ whose approvals count


def test_an_approval_by_somebody_else_counts() -> None:
    assert counted(approval("user:bob")) == Count(("user:bob",), ())


@pytest.mark.parametrize(
    "who",
    [
        "user:ann",
        "user:Ann",
        "user:ANN",
        "user:ann.writer",
        "user:annwriter",
        "oidc:corp:ann@example.org",
        "oidc:corp:Ann@Example.ORG",
        "oidc:corp:ann@elsewhere.example",
        "ann@otherhost",
        "user:\uff41\uff4e\uff4e",  # full-width letters
        "user:",
        "",
    ],
)
def test_the_writer_does_not_count_however_they_are_written(who: str) -> None:
    found = counted(approval(who))
    assert found.approvers == ()
    assert "wrote it" in found.left_out[0]


def test_addresses_can_be_said_to_be_somebodys() -> None:
    by = Writers(("A. W. <writes@home.example>",))
    assert counted(approval("user:ann"), by=by).approvers == ("user:ann",)
    emails = {"Writes@Home.Example": "user:ann"}
    assert counted(approval("user:Ann"), by=by, emails=emails).approvers == ()
    assert counted(approval("user:bob"), by=by, emails=emails).approvers == ("user:bob",)


@pytest.mark.parametrize(
    "writer", ["<>", "— <>", "123+ann@users.example.com", "x <77+ann@users.example.com>"]
)
def test_a_writer_without_a_name_may_be_anybody(writer: str) -> None:
    assert counted(approval("user:ann"), by=Writers((writer,))).approvers == ()


def test_two_approvals_by_one_person_are_one() -> None:
    same = [approval("user:bob"), approval("user:Bob", minutes=1), approval("oidc:corp:bob@example.org")]
    assert len(counted(*same).approvers) == 1
    assert counted(*same, approval("user:eve")).approvers == ("oidc:corp:bob@example.org", "user:eve")


@pytest.mark.parametrize(
    "one",
    [
        approval("user:bob", ref="python:3.12"),
        approval("user:bob", ref="base:13"),
        approval("user:bob", replace(MADE, definition=B)),
        approval("user:bob", replace(MADE, template=B)),
    ],
)
def test_an_approval_of_something_else_does_not_count(one: Approval) -> None:
    assert counted(one) == Count((), ())


def test_an_approval_holds_for_the_next_lock_of_the_same_definition() -> None:
    newer = approval("user:bob", replace(MADE, lock=B))
    assert counted(newer).approvers == ("user:bob",)
    assert counted(newer, exactly=True).approvers == ()
    assert counted(approval("user:bob"), exactly=True).approvers == ("user:bob",)


def test_a_subject_that_is_a_number_needs_its_addresses() -> None:
    """It could be the writer's own."""
    one = approval("oidc:corp:8f3a77")
    assert "does not say which" in counted(one).left_out[0]
    assert counted(one, emails={"bob@example.org": "oidc:corp:8f3a77"}).approvers == ("oidc:corp:8f3a77",)
    assert counted(one, emails={"ann@example.org": "oidc:corp:8f3a77"}).approvers == ()


@pytest.mark.parametrize("who", ["token:bob", "anonymous", "bob", "user:"])
def test_only_people_approve(who: str) -> None:
    assert counted(approval(who)).approvers == ()


def test_who_may_no_longer_approve_does_not_count() -> None:
    found = counted(approval("user:bob"), may=lambda who, image: who != "user:bob")
    assert found == Count((), ("user:bob may not approve python:3.13",))


def test_an_image_from_elsewhere_is_approved_by_its_digest_alone() -> None:
    one = approval("user:bob", imported(A))
    assert count([one], REF, imported(A), ANN, approvers=ALL).approvers == ("user:bob",)
    assert count([one], REF, imported(B), ANN, approvers=ALL).approvers == ()


def test_people_who_have_nothing_in_common_are_two() -> None:
    assert not same_person("user:bob", "Ann Writer <ann@example.org>", {})
    assert not same_person("user:bob", "Bobby <bobby@example.org>", {})
    assert same_person("user:bob", "Somebody <bob@example.org>", {})
