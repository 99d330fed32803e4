"""Verification reads channel records: what was called back is refused, everywhere and by either digest."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from pathlib import Path

import pytest

from builder.model.channel import Channel, ChannelRecord
from builder.model.digest import Digest
from builder.model.platform import Platform
from builder.model.reference import Reference
from builder.signing.refusal import EvidenceRefused
from builder.signing.trust import Trust
from builder.signing.verify import verify
from registry.promotion.records import read_record, signed_record
from tests.support.evidence import World, new_keys, world
from tests.support.images import AMD64, NOW
from tests.support.memory_registry import HOST, MemoryRegistry

REPO = "python"
TAG = Reference(HOST, REPO, "3.13")


@pytest.fixture
def good(tmp_path: Path) -> World:
    return world(tmp_path, platforms=(AMD64, Platform("linux", "arm64")))


def record(here: World, channel: Channel, sequence: int = 1) -> ChannelRecord:
    image = here.image
    return ChannelRecord(
        image.digest,
        image.target.ref,
        image.immutable_tag,
        channel,
        sequence,
        Digest.of(b"entry"),
        NOW,
        "a bad compiler",
        "python:3.13@sha256:" + "0" * 64,
    )


def published(here: World, *records: ChannelRecord, by: str = "verdict") -> MemoryRegistry:
    registry = MemoryRegistry()
    registry.store_signed(REPO, here.signed())
    for one in records:
        for subject in (here.image.index, *(p.manifest for p in here.image.platforms)):
            registry.store(REPO, signed_record(one, subject, getattr(here.keys, by)))
    return registry


@pytest.mark.parametrize("channel", [Channel.WITHDRAWN, Channel.QUARANTINE])
@pytest.mark.parametrize("by", ["tag", "digest", "platform"])
def test_what_was_called_back_is_refused_with_reason_and_replacement(
    good: World, channel: Channel, by: str
) -> None:
    ref = {
        "tag": TAG,
        "digest": TAG.with_digest(good.image.digest),
        "platform": TAG.with_digest(good.image.platforms[1].manifest.digest),
    }[by]
    registry = published(good, record(good, Channel.STABLE, 1), record(good, channel, 2))
    with pytest.raises(EvidenceRefused) as raised:
        verify(ref, registry, good.trust, NOW)
    assert raised.value.reference == {"withdrawn": "withdrawn", "quarantine": "quarantined"}[channel]
    assert "a bad compiler" in raised.value.context
    assert "python:3.13@sha256:" in raised.value.hint


@pytest.mark.parametrize("channel", [Channel.CANDIDATE, Channel.STABLE, Channel.DEPRECATED])
def test_the_newest_record_holds(good: World, channel: Channel) -> None:
    registry = published(good, record(good, channel, 3), record(good, Channel.QUARANTINE, 2))
    found = verify(TAG, registry, good.trust, NOW)
    assert found.channel == record(good, channel, 3)
    assert all(m.ignored == 0 for m in found.manifests)


def test_without_a_record_there_is_no_channel(good: World) -> None:
    assert verify(TAG, published(good), good.trust, NOW).channel is None


def test_a_record_by_the_builders_key_is_refused(good: World) -> None:
    with pytest.raises(EvidenceRefused) as raised:
        verify(TAG, published(good, record(good, Channel.STABLE), by="builder"), good.trust, NOW)
    assert raised.value.reference == "wrong-role"


def test_a_record_of_another_image_says_nothing(good: World) -> None:
    other = replace(record(good, Channel.WITHDRAWN), digest=Digest.of(b"other"))
    assert verify(TAG, published(good, other), good.trust, NOW).channel is None


def test_a_record_is_read_from_the_registry_alone(good: World, tmp_path: Path) -> None:
    registry = published(good, record(good, Channel.STABLE, 1), record(good, Channel.DEPRECATED, 5))
    found = read_record(registry, TAG, good.image.digest, good.trust)
    assert found == record(good, Channel.DEPRECATED, 5)
    assert read_record(published(good), TAG, good.image.digest, good.trust) is None
    with pytest.raises(EvidenceRefused) as raised:
        read_record(registry, TAG, good.image.digest, Trust.of(new_keys(tmp_path / "other").verdict.public))
    assert raised.value.reference == "signature-invalid"


def test_a_withdrawal_has_no_end(good: World) -> None:
    """It is refused long after, too."""
    later = NOW + dt.timedelta(days=6)
    registry = published(good, record(good, Channel.WITHDRAWN))
    with pytest.raises(EvidenceRefused) as raised:
        verify(TAG, registry, good.trust, later)
    assert raised.value.reference == "withdrawn"
