"""What is said of an image that a file names, and what to write instead."""

from __future__ import annotations

import datetime as dt

import pytest

from registry.devcheck.changes import between
from registry.devcheck.known import Known
from registry.devcheck.mention import Mention, Span
from registry.devcheck.rules import Opinion, judge
from tests.support.known import MIRROR, TODAY, digest, image, known, pinned


def judged(text: str, catalogue: Known | None = None, problem: str = "") -> tuple[Opinion, ...]:
    mention = Mention(text, Span(0, 1), "FROM", 0, Span(0, 1), "", problem)
    return judge(mention, catalogue or known(), TODAY)


OURS = f"{MIRROR}/candidate/python"


@pytest.mark.parametrize(
    "text",
    [
        pinned("python:3.13"),
        f"{OURS}@{digest('3.13.5')}",
        f"{OURS}:3.13.5-{digest('3.13.5')[7:19]}@{digest('3.13.5')}",
        f"{OURS}:3.13@{digest('3.13.5/amd64')}",
    ],
)
def test_the_approved_digest_is_clean(text: str) -> None:
    assert judged(text) == ()


@pytest.mark.parametrize(
    ("text", "rule", "instead", "fix"),
    [
        ("python:3.13", "foreign-image", pinned("python:3.13"), True),
        ("docker.io/library/python:3.13", "foreign-image", pinned("python:3.13"), True),
        ("somebody/python:3.13", "foreign-image", pinned("python:3.13"), False),
        ("quay.io/x/python:3.13", "foreign-image", pinned("python:3.13"), False),
        (f"python:3.13@{digest('x')}", "foreign-image", pinned("python:3.13"), False),
        ("python:3.13.2-slim-bookworm", "foreign-image", pinned("python:3.13"), False),
        ("python:3.133", "foreign-image", "", False),
        ("python", "foreign-image", "", False),
        ("nginx:1", "foreign-image", "", False),
        ("mirror.example:5001/candidate/python:3.13", "foreign-image", pinned("python:3.13"), False),
        (f"{OURS}:3.13", "unpinned-tag", pinned("python:3.13"), True),
        (f"{OURS}:3.13@{digest('3.13.4')}", "digest-behind", pinned("python:3.13"), True),
        (f"{OURS}@{digest('3.13.4')}", "digest-behind", f"{OURS}@{digest('3.13.5')}", True),
        (f"{OURS}:3.12@{digest('3.13.5')}", "tag-and-digest-differ", pinned("python:3.12"), False),
        (f"{OURS}:3.13@{digest('never')}", "not-approved", pinned("python:3.13"), True),
        (f"{OURS}@{digest('never')}", "not-approved", "", False),
        (f"{OURS}:3.9", "not-approved", "", False),
        (f"{OURS}", "not-approved", "", False),
        (f"{MIRROR}/candidate/other:1", "not-approved", "", False),
        ("UPPER:1", "malformed-reference", "", False),
        ("a:1@sha256:12", "malformed-reference", "", False),
        ("a:1@sha512:" + "a" * 128, "malformed-reference", "", False),
        ("", "malformed-reference", "", False),
        ("../../x", "malformed-reference", "", False),
        ("x" * 5000, "malformed-reference", "", False),
    ],
)
def test_findings(text: str, rule: str, instead: str, fix: bool) -> None:
    (found,) = judged(text)
    assert (found.rule, found.instead, found.fix) == (rule, instead, fix)
    assert found.message
    assert len(found.message) < 1000


def test_an_immutable_tag_moves_to_the_new_one() -> None:
    old, new = (f"{OURS}:{n}-{digest(n)[7:19]}@{digest(n)}" for n in ("3.13.4", "3.13.5"))
    (found,) = judged(old)
    assert (found.rule, found.instead) == ("digest-behind", new)


def test_what_lies_between_is_told() -> None:
    (found,) = judged(f"{OURS}:3.13@{digest('3.13.4')}")
    assert found.changes
    assert found.changes.moved == (("openssl", "3.0.1", "3.0.2"),)
    assert [v.id for v in found.changes.gone] == ["CVE-2026-7"]
    assert "1 package moved: openssl 3.0.1 → 3.0.2; 1 vulnerability less: CVE-2026-7" in found.message
    one = image("python:3.13").current
    assert between(one, one).sentence() == "no package moved"


@pytest.mark.parametrize(
    ("fields", "rule", "more"),
    [
        ({"channel": "withdrawn", "reason": "CVE-2026-9"}, "withdrawn-image", []),
        ({"channel": "quarantine"}, "withdrawn-image", []),
        ({"refused": "the verdict has expired"}, "not-approved", []),
        ({"channel": "deprecated"}, "deprecated-image", ["unpinned-tag"]),
        ({"end_of_life": dt.date(2026, 2, 28)}, "out-of-life-image", ["unpinned-tag"]),
        ({"end_of_life": TODAY}, "unpinned-tag", []),
    ],
)
def test_the_state_of_a_line(fields: dict[str, object], rule: str, more: list[str]) -> None:
    old = image("python:3.12", replacement="python:3.13", **fields)
    found = judged(f"{OURS}:3.12", known(old, image("python:3.13")))
    assert [o.rule for o in found] == [rule, *more]
    if rule != "unpinned-tag":
        assert found[0].instead == pinned("python:3.13")
        assert not found[0].fix  # another image: that is for people
    assert "CVE-2026-9" in found[0].message or not fields.get("reason")


def test_a_withdrawn_digest_of_a_good_line_moves_on() -> None:
    line = image("python:3.13")
    old = line.previous[0].model_copy(update={"withdrawn": "CVE-2026-9"})
    (found,) = judged(f"{OURS}@{old.digest}", known(line.model_copy(update={"previous": (old,)})))
    assert (found.rule, found.instead, found.fix) == ("withdrawn-image", f"{OURS}@{digest('3.13.5')}", True)
    assert "CVE-2026-9" in found.message


def test_what_is_refused_is_nowhere_proposed() -> None:
    catalogue = known(image("python:3.13", refused="expired"), image("python:3.12", channel="withdrawn"))
    (found,) = judged("python:3.13", catalogue)
    assert found.instead == ""
    assert "the mirror has no image" in found.message
    (found,) = judged(f"{OURS}:3.13@{digest('never')}", catalogue)
    assert (found.instead, found.fix) == ("", False)


def test_what_cannot_be_known_is_a_finding() -> None:
    (found,) = judged("a:$V", problem="the variable V has no value in this file")
    assert found.rule == "unresolved-image"
