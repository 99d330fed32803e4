"""Channels: every move is legal or refused in words; records are read back strictly."""

from __future__ import annotations

import datetime as dt
import itertools
import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.model.channel import Channel, ChannelRecord
from builder.model.digest import Digest
from builder.signing.channels import decode, encode, newest
from builder.signing.refusal import EvidenceRefused
from registry.promotion.channels import MOVES, SERVED, IllegalMove, move

CHANNELS = st.sampled_from(Channel)
RECORD = ChannelRecord(
    Digest.of(b"image"),
    "python:3.13",
    "3.13.5-abcdef012345",
    Channel.STABLE,
    7,
    Digest.of(b"entry"),
    dt.datetime(2026, 3, 1, tzinfo=dt.UTC),
    "passed",
)


@given(CHANNELS, CHANNELS)
def test_a_move_is_made_or_refused_with_the_way(now: Channel, wanted: Channel) -> None:
    if wanted in MOVES[now]:
        assert move(now, wanted) is wanted
        return
    with pytest.raises(IllegalMove) as raised:
        move(now, wanted)
    assert raised.value.exit_code == 4
    assert raised.value.hint


@given(st.lists(CHANNELS, max_size=30))
def test_only_a_candidate_becomes_stable_whatever_is_tried(wishes: list[Channel]) -> None:
    now, past = Channel.CANDIDATE, [Channel.CANDIDATE]
    for wanted in wishes:
        try:
            now = move(now, wanted)
        except IllegalMove:
            continue
        past.append(now)
    for before, after in itertools.pairwise(past):
        if after is Channel.STABLE:
            assert before is Channel.CANDIDATE
        if before in (Channel.WITHDRAWN, Channel.QUARANTINE):
            assert after not in SERVED


@pytest.mark.parametrize("now", [c for c in Channel if c is not Channel.QUARANTINE])
def test_quarantine_can_be_reached_from_any(now: Channel) -> None:
    assert move(now, Channel.QUARANTINE) is Channel.QUARANTINE


def test_a_withdrawn_image_has_the_whole_way_before_it() -> None:
    with pytest.raises(IllegalMove, match="withdrawn does not lead to stable") as raised:
        move(Channel.WITHDRAWN, Channel.STABLE)
    assert "withdrawn → quarantine → candidate → stable" in raised.value.hint


def test_a_record_is_read_back() -> None:
    assert decode(json.loads(encode(RECORD))) == RECORD


@pytest.mark.parametrize(
    "change",
    [
        {"digest": "sha256:short"},
        {"channel": "golden"},
        {"sequence": 0},
        {"sequence": True},
        {"sequence": "7"},
        {"at": "yesterday"},
        {"why": None},
        {"why": "x" * 1001},
        {"replacement": 1},
        {"ref": ""},
        {"extra": 1},
    ],
    ids=str,
)
def test_a_malformed_record_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(EvidenceRefused):
        decode({**json.loads(encode(RECORD)), **change})


def test_a_field_less_is_refused() -> None:
    value = json.loads(encode(RECORD))
    del value["entry"]
    with pytest.raises(EvidenceRefused, match="missing or unknown"):
        decode(value)


def test_the_highest_number_holds_and_a_contradiction_is_refused() -> None:
    later = replace(RECORD, sequence=9, channel=Channel.WITHDRAWN)
    other = replace(later, digest=Digest.of(b"other"), sequence=11)
    assert newest([later, RECORD, other], RECORD.digest) == later
    assert newest([other], RECORD.digest) is None
    with pytest.raises(EvidenceRefused) as raised:
        newest([later, RECORD, replace(later, why="another")], RECORD.digest)
    assert raised.value.reference == "channel-contradicts"
