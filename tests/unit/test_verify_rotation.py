"""Keys change between two publications of one digest, and every old statement stays listed.

As in a registry with the referrers API: nothing has to be deleted, and the newest valid evidence
governs.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, replace

import pytest

from builder.model.channel import Channel
from builder.model.platform import Platform
from builder.signing.keys import Keys
from builder.signing.refusal import EvidenceRefused
from builder.signing.trust import Trust
from builder.signing.trustfile import TrustedKey
from builder.signing.verification import Verification
from builder.signing.verify import verify
from registry.promotion.records import read_record, signed_record
from tests.support.evidence import World, approval, new_keys, world
from tests.support.images import AMD64, NOW
from tests.support.memory_registry import MemoryRegistry
from tests.unit.test_verify_channels import REPO, TAG, record

DAY = dt.timedelta(days=1)
ROTATED, LATER = NOW + DAY, NOW + 2 * DAY


@dataclass(frozen=True)
class Story:
    """An image that was published by old keys at NOW, and by new keys LATER."""

    old: World
    new: World

    def trust(self, revoked: Mapping[str, dt.datetime] | None = None) -> Trust:
        """Both rings of keys, rotated at ROTATED; `revoked` old keys from a moment on."""
        keys = []
        for role in ("builder", "verdict"):
            mine, next_ = (getattr(w.keys, role).public for w in (self.old, self.new))
            keys += [TrustedKey(mine, None, ROTATED, (revoked or {}).get(role), "stolen")]
            keys += [TrustedKey(next_, ROTATED)]
        return Trust(tuple(keys), 2)

    def registry(self, *worlds: World) -> MemoryRegistry:
        registry = MemoryRegistry()
        for one in worlds or (self.old, self.new):
            registry.store_signed(REPO, one.signed())
        return registry


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Story:
    folder = tmp_path_factory.mktemp("story")
    old = world(folder, platforms=(AMD64, Platform("linux", "arm64")))
    keys = new_keys(folder / "new")
    return Story(old, replace(old, keys=keys, verdict=approval(old.image, old.proofs, LATER)))


def refused(registry: MemoryRegistry, trust: Trust, now: dt.datetime = LATER) -> EvidenceRefused:
    with pytest.raises(EvidenceRefused) as raised:
        verify(TAG, registry, trust, now)
    return raised.value


def governs(found: Verification, here: World) -> bool:
    return found.verdict == here.verdict


def test_what_the_old_keys_said_stays_valid_after_the_rotation(story: Story) -> None:
    found = verify(TAG, story.registry(story.old), story.trust(), LATER)
    assert governs(found, story.old)
    assert {u.key for u in found.uses} == {
        story.old.keys.builder.public.id,
        story.old.keys.verdict.public.id,
    }


def test_after_a_second_publication_the_newest_evidence_governs(story: Story) -> None:
    assert governs(verify(TAG, story.registry(), story.trust(), LATER), story.new)


def test_with_the_new_keys_alone_the_old_statements_are_a_strangers(story: Story) -> None:
    trust = Trust.of(story.new.keys.builder.public, story.new.keys.verdict.public)
    assert refused(story.registry(), trust).reference == "signature-invalid"


def test_a_verdict_after_the_end_of_its_key_counts_for_nothing(story: Story) -> None:
    late = replace(story.old, verdict=approval(story.old.image, story.old.proofs, LATER))
    error = refused(story.registry(late), story.trust())
    assert error.reference == "key-out-of-period"
    assert story.old.keys.verdict.public.id in error.context or (
        story.old.keys.builder.public.id in error.context
    )


def test_a_verdict_before_the_beginning_of_its_key_counts_for_nothing(story: Story) -> None:
    early = replace(story.new, verdict=story.old.verdict)
    assert refused(story.registry(early), story.trust(), NOW).reference == "key-out-of-period"


@pytest.mark.parametrize("role", ["builder", "verdict"])
def test_a_revoked_keys_statements_are_denied_from_the_stated_moment_on(story: Story, role: str) -> None:
    registry = story.registry(story.old)
    after = story.trust({role: NOW + dt.timedelta(seconds=1)})
    assert governs(verify(TAG, registry, after, LATER), story.old)
    error = refused(registry, story.trust({role: NOW}))
    assert error.reference == "key-revoked"
    assert role in error.message and "2026-03-01T12:00:00Z" in error.message
    assert "stolen" in error.context and error.hint


@pytest.mark.parametrize("role", ["builder", "verdict"])
def test_new_evidence_beside_that_of_a_revoked_key_governs_alone(story: Story, role: str) -> None:
    trust = story.trust({role: NOW - DAY})
    found = verify(TAG, story.registry(), trust, LATER)
    assert governs(found, story.new)
    assert getattr(story.old.keys, role).public.id not in {u.key for u in found.uses}


def test_a_builders_key_that_was_revoked_supports_no_newer_verdict(story: Story) -> None:
    """A thief's evidence, approved unwittingly after the theft: only dates before it are believed."""
    mixed = replace(
        story.old,
        keys=Keys(story.old.keys.builder, story.new.keys.verdict),
        verdict=approval(story.old.image, story.old.proofs, LATER),
    )
    assert refused(story.registry(mixed), story.trust({"builder": ROTATED})).reference == "key-revoked"


def test_a_backdated_verdict_ends_with_the_longest_life_that_there_is(story: Story) -> None:
    """Who stole a key can date back, before the revocation, but not for longer than a verdict lives."""
    forged = replace(story.old, verdict=replace(story.old.verdict, expires_at=NOW + 1000 * DAY))
    trust = story.trust({"verdict": NOW + dt.timedelta(hours=1)})
    assert refused(story.registry(forged), trust).reference == "verdict-too-long"


def test_what_calls_an_image_back_counts_whenever_it_was_signed(story: Story) -> None:
    """A revocation of a key brings nothing to life again."""
    trust = story.trust({"verdict": NOW - DAY})
    registry = story.registry()
    for channel, number in ((Channel.STABLE, 1), (Channel.WITHDRAWN, 2), (Channel.STABLE, 3)):
        for subject in (story.old.image.index, *(p.manifest for p in story.old.image.platforms)):
            one = record(story.old, channel, number)
            registry.store(REPO, signed_record(one, subject, story.old.keys.verdict))
    assert refused(registry, trust).reference == "withdrawn"
    found = read_record(registry, TAG, story.old.image.digest, trust)
    assert found is not None and (found.channel, found.sequence) == (Channel.WITHDRAWN, 2)
