"""What is signed, by which key, and when nothing is signed at all."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from builder.errors import PolicyDenied
from builder.model.digest import Digest, canonical_json
from builder.model.evidence import CheckReport, Evidence, NotDone, Sboms
from builder.model.image import Descriptor
from builder.model.platform import Platform
from builder.model.release import SignedImage
from builder.model.verdict import RuleResult
from builder.signing.predicates import (
    CHANGE_TYPE,
    CHANNEL_TYPE,
    DECIDED_TYPES,
    ROLE_OF,
    SIGNATURE_TYPE,
    VERDICT_TYPE,
    VEX_TYPE,
)
from builder.signing.statements import parse_envelope, parse_statement
from builder.stages.sign import sign
from tests.support.evidence import World, approval, provenance_of, world
from tests.support.images import AMD64

BOTH = (AMD64, Platform("linux", "arm64"))

# A promotion adds the channel later.
WRITTEN = {t: role for t, role in ROLE_OF.items() if t not in (*DECIDED_TYPES, VEX_TYPE)}


def _bundles(signed: SignedImage, subject: Descriptor, world: World) -> dict[str, str]:
    """Predicate type of each bundle of a subject → the role whose key signed it."""
    out = {}
    for manifest in signed.signatures:
        if manifest.subject is None or manifest.subject.digest != subject.digest:
            continue
        (blob,) = (b for d, b in manifest.blobs.items() if d != Digest.of(b"{}"))
        bundle = json.loads(blob)
        envelope = parse_envelope(bundle["dsseEnvelope"])
        statement = parse_statement(envelope.payload)
        assert statement.subject == subject.digest
        (role,) = (
            key.role
            for key in (world.keys.builder.public, world.keys.verdict.public)
            if key.verifies(envelope.signature, envelope.signed_bytes)
        )
        assert bundle["verificationMaterial"]["publicKey"]["hint"] == world.trust.current(role).hint
        out[statement.predicate_type] = role
    return out


def test_every_subject_of_a_single_platform_carries_everything_by_the_right_key(tmp_path: Path) -> None:
    here = world(tmp_path)
    signed = here.signed()
    for subject in (here.image.index, here.image.platforms[0].manifest):
        assert _bundles(signed, subject, here) == WRITTEN
        tags = [m.tag for m in signed.signatures if m.tag and subject.digest.hex in m.tag]
        assert sorted(tags) == [f"sha256-{subject.digest.hex}.att", f"sha256-{subject.digest.hex}.sig"]


def test_an_index_of_several_platforms_carries_what_speaks_of_the_whole(tmp_path: Path) -> None:
    here = world(tmp_path, platforms=BOTH)
    signed = here.signed()
    whole = _bundles(signed, here.image.index, here)
    assert set(whole) == {SIGNATURE_TYPE, VERDICT_TYPE, "https://slsa.dev/provenance/v1"}
    for platform in here.image.platforms:
        assert _bundles(signed, platform.manifest, here) == WRITTEN


def test_the_verdict_key_signs_only_decisions() -> None:
    assert [t for t, role in ROLE_OF.items() if role == "verdict"] == [
        VERDICT_TYPE,
        CHANNEL_TYPE,
        CHANGE_TYPE,
        VEX_TYPE,
    ]


def test_the_same_input_gives_the_same_manifests(tmp_path: Path) -> None:
    here = world(tmp_path)
    assert [m.manifest for m in here.signed().signatures] == [m.manifest for m in here.signed().signatures]


def test_a_later_verdict_leaves_what_did_not_change_as_it_was(tmp_path: Path) -> None:
    here = world(tmp_path)
    later = approval(here.image, here.proofs, here.verdict.issued_at.replace(day=2))
    first = {m.digest for m in here.signed().signatures if m.subject}
    second = {m.digest for m in replace(here, verdict=later).signed().signatures if m.subject}
    # Verdict and scan have a time, on index and platform; the other five stay.
    assert len(first - second) == 4
    assert len(first & second) == 10


def _deny(here: World, **changes: object) -> PolicyDenied:
    with pytest.raises(PolicyDenied) as raised:
        here.signed(**changes)
    return raised.value


def test_a_denied_verdict_is_never_signed(tmp_path: Path) -> None:
    failed = RuleResult("no-critical", "No critical", ("CVE-2026-1 in hello",), "update hello")
    error = _deny(world(tmp_path), approved=False, rules=(failed,))
    assert "not approved" in error.message
    assert "CVE-2026-1" in error.context
    assert error.hint == "update hello"


def test_a_verdict_of_another_image_is_not_signed(tmp_path: Path) -> None:
    here = world(tmp_path)
    assert "another image" in _deny(here, digest=Digest.of(b"other")).message
    assert "another image" in _deny(here, ref="base:13").message
    assert (
        "another SBOM" in _deny(here, sboms={k: str(Digest.of(b"other")) for k in here.verdict.sboms}).message
    )
    assert "other platforms" in _deny(here, sboms={}).message


def _with(here: World, **changes: object) -> World:
    changed: Evidence = replace(here.proofs[0], **changes)  # type: ignore[arg-type]
    return replace(here, proofs=(changed,))


@pytest.mark.parametrize("part", ["checks", "scan", "sboms"])
def test_evidence_that_is_missing_is_no_evidence(tmp_path: Path, part: str) -> None:
    here = _with(world(tmp_path), **{part: NotDone(part, "no rights for the engine")})
    error = _deny(here)
    assert part in error.message
    assert error.context == "no rights for the engine"


def test_evidence_of_another_manifest_is_refused(tmp_path: Path) -> None:
    here = world(tmp_path)
    checks = here.proofs[0].checks
    assert isinstance(checks, CheckReport)
    assert "another manifest" in _deny(_with(here, checks=replace(checks, digest=Digest.of(b"x")))).message
    assert "not of this image" in _deny(_with(here, digest=Digest.of(b"x"))).message
    assert "not of this image" in _deny(replace(here, proofs=())).message


def test_an_sbom_whose_digest_could_not_be_computed_again_is_refused(tmp_path: Path) -> None:
    here = world(tmp_path)
    old = here.proofs[0].sboms
    assert isinstance(old, Sboms)
    pretty = json.dumps(json.loads(old.cyclonedx), indent=2).encode()
    assert canonical_json(json.loads(pretty)) == old.cyclonedx
    changed = _with(here, sboms=replace(old, cyclonedx=pretty))
    error = _deny(changed, sboms={str(here.proofs[0].digest): str(Digest.of(pretty))})
    assert "not canonical" in error.message


def test_the_repository_stands_in_the_signature(tmp_path: Path) -> None:
    here = world(tmp_path)
    signed = sign(here.image, here.proofs, here.verdict, provenance_of(here.image), here.keys)
    payloads = [b for m in signed.signatures if m.tag and m.tag.endswith(".sig") for b in m.blobs.values()]
    assert any(b'"docker-reference":"python"' in b for b in payloads)
