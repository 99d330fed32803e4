"""The approved set: look-ups, expiry, shared content, warnings, pages; and names, ranges, time."""

from __future__ import annotations

import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.model.digest import Digest
from registry.gate.approved import ApprovedSet, Entry, Refusal, RepositoryState, compile_view
from registry.gate.blobs import Unsatisfiable, read_range
from registry.gate.clock import SteadyClock
from registry.gate.decision import Approved, Denied, Held, Reason
from registry.gate.denials import error_body, sentence, warning
from registry.gate.names import Refused, read_artifact_type, read_page, read_path
from registry.gate.repositories import Names

NOW = dt.datetime(2026, 3, 1, tzinfo=dt.UTC)
DAY = dt.timedelta(days=1)
SHARED, OWN = Digest.of(b"shared layer"), Digest.of(b"own layer")


def approved(text: bytes, days: int, *blobs: Digest, issued: dt.datetime = NOW) -> Approved:
    """An approval of an index with these bytes, for some days."""
    digest = Digest.of(text)
    held = Held(digest, "application/vnd.oci.image.index.v1+json", text, dict.fromkeys(blobs, 7))
    return Approved(
        "candidate/app", digest, "app:1", issued, NOW + days * DAY, None, (held,), {}, {}, (b"", b"")
    )


def served(state: RepositoryState) -> ApprovedSet:
    out = ApprovedSet()
    out.replace({"app": compile_view("app", "candidate/app", state)})
    return out


def test_a_blob_lives_as_long_as_the_last_image_that_holds_it() -> None:
    short, long = approved(b"short", 1, SHARED, OWN), approved(b"long", 9, SHARED)
    found = served(RepositoryState({"1": long.index, "0": short.index}, {x.index: x for x in (long, short)}))
    later = (NOW + 2 * DAY).timestamp()
    assert found.blob("app", SHARED, later) == ("candidate/app", 7)
    refusal = found.blob("app", OWN, later)
    assert isinstance(refusal, Refusal) and refusal.denied.reason is Reason.EXPIRED
    assert found.blob("app", Digest.of(b"?"), later) is None
    assert found.blob("other", SHARED, later) is None


def test_the_replacement_is_of_the_same_tag_or_the_newest_and_still_valid() -> None:
    old, new = approved(b"old", 9), approved(b"new", 2, issued=NOW + DAY)
    state = RepositoryState({"3.12": old.index, "3.13": new.index}, {x.index: x for x in (old, new)})
    view = compile_view("app", "candidate/app", state)
    now = (NOW + DAY).timestamp()
    assert view.replacement("3.12", now) == f"app:3.12@{old.index}"
    assert view.replacement(None, now) == f"app:3.13@{new.index}"
    assert view.replacement(None, (NOW + 3 * DAY).timestamp()) == f"app:3.12@{old.index}"
    assert view.replacement(None, (NOW + 10 * DAY).timestamp()) is None


def test_the_end_of_life_warns_ninety_days_before() -> None:
    import dataclasses

    one = dataclasses.replace(approved(b"x", 9), end_of_life=dt.date(2026, 6, 1))
    found = served(RepositoryState({"1": one.index}, {one.index: one}))
    entry = found.manifest("app", "1", False, NOW.timestamp())
    assert isinstance(entry, Entry)
    assert entry.warn_from == dt.datetime(2026, 3, 3, tzinfo=dt.UTC).timestamp()
    assert warning('say "hi"\r\nX: y\x1b') == b"299 - \"say 'hi' X: y\""


def test_a_denial_never_takes_what_another_image_was_approved_with() -> None:
    good = approved(b"good", 9)
    denied = Denied(Reason.POLICY, "no", NOW, digests=frozenset({good.index}))
    found = served(RepositoryState({"1": good.index}, {good.index: good, Digest.of(b"bad"): denied}))
    assert isinstance(found.manifest("app", good.index, True, NOW.timestamp()), Entry)
    assert isinstance(found.manifest("app", Digest.of(b"bad"), True, NOW.timestamp()), Refusal)


def test_a_refusal_is_one_line_of_plain_text() -> None:
    refusal = Refusal(Denied(Reason.POLICY, "a\nb\x1b[31m" + "c" * 999, NOW), "sha256:x", None)
    text = sentence("app", "1", refusal, "http://here")
    assert text.isprintable() and text.isascii() and len(text) < 500
    assert "there is no approved replacement" in text and "since 2026-03-01T00:00:00Z" in text
    assert b"\\u001b" not in error_body("DENIED", "x\x1b[0m")


@given(st.binary(max_size=300))
def test_no_path_does_anything_but_match_or_be_refused(raw: bytes) -> None:
    try:
        wanted = read_path(b"/v2/" + raw)
    except Refused as refused:
        assert refused.status in (400, 404, 414)
        return
    assert "%" not in wanted.name + wanted.reference and ".." not in wanted.name


@given(st.binary(max_size=200))
def test_no_query_does_anything_but_match_or_be_refused(raw: bytes) -> None:
    for read in (read_page, read_artifact_type):
        try:
            read(raw)
        except Refused as refused:
            assert refused.status in (400, 414)


@pytest.mark.parametrize(
    ("header", "part"),
    [
        (None, None),
        ("bytes=0-0", (0, 0)),
        ("bytes=5-", (5, 9)),
        ("bytes=-3", (7, 9)),
        ("bytes=-30", (0, 9)),
        ("bytes=2-99", (2, 9)),
        ("bytes=3-2", None),
        ("bytes=-", None),
        ("bytes=1-2,3-4", None),
        ("lines=1-2", None),
        ("bytes=99999999999999999999-", None),
    ],
)
def test_ranges(header: str | None, part: tuple[int, int] | None) -> None:
    assert read_range(header, 10) == part


@pytest.mark.parametrize("header", ["bytes=10-", "bytes=10-12", "bytes=-0"])
def test_ranges_that_are_not_there(header: str) -> None:
    with pytest.raises(Unsatisfiable):
        read_range(header, 10)


def test_the_clock_goes_on_but_never_back() -> None:
    wall, passed = [1000.0], [0.0]
    clock = SteadyClock(lambda: wall[0], lambda: passed[0])
    wall[0], passed[0] = 1010.0, 10.0
    assert clock.now() == 1010
    wall[0], passed[0] = 10.0, 20.0  # set back
    assert clock.now() == 1020
    wall[0], passed[0] = 5000.0, 30.0  # set forward
    assert clock.now() == 5000
    wall[0], passed[0] = 1030.0, 40.0
    assert clock.now() == 5010


def test_which_repositories_are_served() -> None:
    keep, strip, promoted = Names(), Names(strip=True), Names("")
    assert (keep.public("candidate/a"), keep.public("a"), keep.storage("a")) == ("candidate/a", None, None)
    assert (strip.public("candidate/a"), strip.storage("a"), strip.public("b")) == ("a", "candidate/a", None)
    assert (promoted.public("a"), promoted.public("candidate/a")) == ("a", None)
    assert promoted.storage("candidate/a") is None and promoted.storage("a") == "a"
