"""Verification: a good image passes; each single flaw is refused with its own reason."""

from __future__ import annotations

import base64
import datetime as dt
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from builder.errors import PolicyDenied, RegistryError
from builder.model.digest import Digest, canonical_json
from builder.model.image import INDEX_TYPE, Descriptor
from builder.model.platform import Platform
from builder.model.reference import Reference
from builder.model.release import SignedManifest
from builder.model.verdict import RuleResult
from builder.signing import predicates as p
from builder.signing import verdicts
from builder.signing.cosign_formats import bundle_referrer, signature_manifest
from builder.signing.refusal import EvidenceRefused
from builder.signing.statements import simple_signing
from builder.signing.trust import Trust
from builder.signing.trustfile import TrustRefused
from builder.signing.verify import published_verdict, verify
from tests.support.evidence import DATABASE, World, approval, evidence, new_keys, world
from tests.support.forge import Change, Draft, Item, draft
from tests.support.images import AMD64, NOW, built_image
from tests.support.memory_registry import HOST, MemoryRegistry

REPO = "candidate/python"
TAG = Reference(HOST, REPO, "3.13")
OTHER = Digest.of(b"another image")
FORMS = ("tags", "bundles")


@pytest.fixture
def good(tmp_path: Path) -> World:
    return world(tmp_path)


def _published(here: World) -> MemoryRegistry:
    registry = MemoryRegistry()
    registry.store_signed(REPO, here.signed())
    return registry


def _refusal(registry: MemoryRegistry, here: World, ref: Reference = TAG, **options: Any) -> EvidenceRefused:
    with pytest.raises(EvidenceRefused) as raised:
        verify(ref, registry, here.trust, options.pop("now", NOW), **options)
    assert raised.value.exit_code == PolicyDenied.exit_code
    return raised.value


# ------------------------------------------------------------------ what passes


def test_a_published_image_passes_in_both_forms(good: World) -> None:
    registry = _published(good)
    found = verify(TAG, registry, good.trust, NOW)
    assert found.digest == good.image.digest
    assert found.verdict == good.verdict
    assert [m.digest for m in found.manifests] == [good.image.digest, good.image.platforms[0].manifest.digest]
    for manifest in found.manifests:
        assert manifest.forms == ("bundles", "tags")
        assert set(manifest.types) == p.PLATFORM_TYPES
        assert manifest.ignored == 0


def test_everything_is_fetched_once(good: World) -> None:
    registry = _published(good)
    verify(TAG, registry, good.trust, NOW)
    # 2 subjects: themselves, .sig, .att, 7 bundles; blobs: 1 payload, 6 envelopes, 7 bundles.
    assert registry.asked["manifest"] == 2 * 10
    assert registry.asked["blob"] == 2 * 14


@pytest.mark.parametrize("form", FORMS)
def test_one_form_is_enough_when_it_is_complete(good: World, form: str) -> None:
    registry = _published(good)
    if form == "tags":
        registry.drop_bundles(REPO)
    else:
        registry.drop_tags(REPO, ".sig", ".att")
    assert {m.forms for m in verify(TAG, registry, good.trust, NOW).manifests} == {(form,)}


def test_an_image_of_several_platforms(tmp_path: Path) -> None:
    here = world(tmp_path, platforms=(AMD64, Platform("linux", "arm64")))
    found = verify(TAG, _published(here), here.trust, NOW)
    assert [str(m.platform) for m in found.manifests] == ["None", "linux/amd64", "linux/arm64"]
    assert set(found.manifests[0].types) == p.IMAGE_TYPES


@pytest.mark.parametrize("by", ["digest", "tag and digest", "immutable tag", "platform"])
def test_every_way_to_name_it(good: World, by: str) -> None:
    ref = {
        "digest": Reference(HOST, REPO, None, good.image.digest),
        "tag and digest": Reference(HOST, REPO, "3.13", good.image.digest),
        "immutable tag": Reference(HOST, REPO, good.image.immutable_tag),
        "platform": Reference(HOST, REPO, None, good.image.platforms[0].manifest.digest),
    }[by]
    assert verify(ref, _published(good), good.trust, NOW).verdict == good.verdict


def test_a_newer_verdict_governs(good: World) -> None:
    registry = _published(good)
    later = NOW + dt.timedelta(days=5)
    newer = replace(good, verdict=approval(good.image, good.proofs, later))
    registry.store(REPO, *newer.signed().signatures)
    assert verify(TAG, registry, good.trust, later).verdict.issued_at == later


_OTHER = "https://example.org/opinion/v1"


def test_statements_of_other_kinds_count_for_nothing(good: World) -> None:
    registry = _published(good)
    stranger = new_keys(good.image.layout.parent / "stranger").builder
    opinion = Item(_OTHER, b"{}", stranger, good.image.digest, _OTHER)
    registry.store(REPO, bundle_referrer(good.image.index, opinion.signed("bundles", ""), "hint"))
    assert verify(TAG, registry, good.trust, NOW).manifests[0].ignored == 1


def test_a_sample_database_passes_only_when_accepted(good: World) -> None:
    here = replace(good, verdict=replace(good.verdict, database=replace(DATABASE, sample=True)))
    registry = _published(here)
    refused = _refusal(registry, here)
    assert refused.reference == "sample-database"
    assert "GOLDSMITH_POLICY=demo" in refused.hint, "`promote` has no --accept-sample"
    assert verify(TAG, registry, here.trust, NOW, accept_sample=True).verdict.database.sample  # type: ignore[union-attr]


# ------------------------------------------------------------------ one flaw each, in either form


def _verdict(**changes: Any) -> Change:
    def change(here: World, d: Draft) -> Draft:
        return d.change(p.VERDICT_TYPE, predicate=verdicts.encode(replace(here.verdict, **changes)))

    return change


def _predicate(kind: str, value: Any) -> Change:
    return lambda here, d: d.change(kind, predicate=canonical_json(value))


def _drop(kind: str) -> Change:
    return lambda here, d: replace(d, items=tuple(i for i in d.items if i.kind != kind))


def _by_stranger(here: World, kind: str, d: Draft) -> Draft:
    return d.change(kind, key=new_keys(here.image.layout.parent / "stranger").builder)


def _sbom_of_another_image(here: World, d: Draft) -> Draft:
    other = built_image(here.image.layout.parent / "other", files=({"x": b"y"},))
    return d.change(p.CYCLONEDX_TYPE, predicate=evidence(other.platforms[0]).sboms.cyclonedx)  # type: ignore[union-attr]


def _incomplete_sbom(here: World, d: Draft) -> Draft:
    """Judged and attested alike, but the provenance knows better."""
    sbom = json.loads(d.of(p.CYCLONEDX_TYPE).predicate)
    data = canonical_json({**sbom, "components": []})
    judged = dict.fromkeys(here.verdict.sboms, str(Digest.of(data)))
    return _verdict(sboms=judged)(here, d).change(p.CYCLONEDX_TYPE, predicate=data)


def _contradicting(here: World, d: Draft) -> Draft:
    twin = verdicts.encode(replace(here.verdict, policy="lenient"))
    return d.add(replace(d.of(p.VERDICT_TYPE), predicate=twin))


def _newer_denial(here: World, d: Draft) -> Draft:
    denial = replace(
        here.verdict,
        approved=False,
        issued_at=NOW + dt.timedelta(minutes=1),
        rules=(RuleResult("no-critical", "No critical", ("CVE-2026-2 in hello",), "update it"),),
    )
    return d.add(replace(d.of(p.VERDICT_TYPE), predicate=verdicts.encode(denial)))


FLAWS: dict[str, tuple[Change, str]] = {
    "another digest in a valid attestation": (
        lambda here, d: d.change(p.SPDX_TYPE, subject=OTHER),
        "subject-mismatch",
    ),
    "an unknown key": (lambda here, d: _by_stranger(here, p.SPDX_TYPE, d), "signature-invalid"),
    "an unknown key approves": (lambda here, d: _by_stranger(here, p.VERDICT_TYPE, d), "signature-invalid"),
    "the builder approves": (
        lambda here, d: d.change(p.VERDICT_TYPE, key=here.keys.builder),
        "wrong-role",
    ),
    "the approver builds": (
        lambda here, d: d.change(p.PROVENANCE_TYPE, key=here.keys.verdict),
        "wrong-role",
    ),
    "the carrier promises another type": (
        lambda here, d: d.change(p.SPDX_TYPE, promised=p.CYCLONEDX_TYPE),
        "wrong-predicate-type",
    ),
    "a type that is almost right": (
        lambda here, d: d.change(p.SPDX_TYPE, kind=p.SPDX_TYPE + "/", promised=p.SPDX_TYPE + "/"),
        "attestation-missing",
    ),
    "an unparsable provenance": (_predicate(p.PROVENANCE_TYPE, {}), "predicate-malformed"),
    "an unparsable vulnerability report": (_predicate(p.VULNERABILITY_TYPE, {}), "predicate-malformed"),
    "an unparsable check report": (_predicate(p.TEST_RESULT_TYPE, {}), "checks-failed"),
    "an unparsable verdict": (_predicate(p.VERDICT_TYPE, {"approved": True}), "predicate-malformed"),
    "an unparsable SBOM": (_predicate(p.CYCLONEDX_TYPE, {"bomFormat": "none"}), "predicate-malformed"),
    "a check report that failed": (
        _predicate(
            p.TEST_RESULT_TYPE,
            {"result": "FAILED", "passedTests": [], "warnedTests": [], "failedTests": ["a"]},
        ),
        "checks-failed",
    ),
    "the SBOM of another image": (_sbom_of_another_image, "sbom-mismatch"),
    "an SBOM without a package that was put in": (_incomplete_sbom, "sbom-incomplete"),
    "no provenance": (_drop(p.PROVENANCE_TYPE), "attestation-missing"),
    "no SBOM": (_drop(p.CYCLONEDX_TYPE), "attestation-missing"),
    "no vulnerability report": (_drop(p.VULNERABILITY_TYPE), "attestation-missing"),
    "no check report": (_drop(p.TEST_RESULT_TYPE), "attestation-missing"),
    "no verdict": (_drop(p.VERDICT_TYPE), "attestation-missing"),
    "a verdict that denies": (_verdict(approved=False), "verdict-denies"),
    "a newer verdict that denies": (_newer_denial, "verdict-denies"),
    "two verdicts of one time": (_contradicting, "verdict-contradicts"),
    "an expired verdict": (
        _verdict(issued_at=NOW - dt.timedelta(days=9), expires_at=NOW),
        "verdict-expired",
    ),
    "a verdict from the future": (
        _verdict(issued_at=NOW + dt.timedelta(minutes=6)),
        "verdict-from-the-future",
    ),
    "a verdict of another image": (_verdict(digest=OTHER), "subject-mismatch"),
    "a verdict of another name": (_verdict(ref="base:13"), "other-name"),
    "a verdict of another stream": (_verdict(ref="python:3.12"), "other-name"),
    "a verdict without a database": (_verdict(database=None), "not-scanned"),
    "a verdict on another platform": (_verdict(sboms={OTHER: OTHER}), "subject-mismatch"),
    "a verdict on another SBOM": (
        lambda here, d: _verdict(sboms=dict.fromkeys(here.verdict.sboms, OTHER))(here, d),
        "sbom-mismatch",
    ),
}


def _forged(here: World, change: Change, form: str) -> MemoryRegistry:
    """A registry with one form only, the flaw in everything that is attached to index and platform."""
    registry = MemoryRegistry()
    registry.store_image(REPO, here.image, ("3.13",))
    for subject in (here.image.index, here.image.platforms[0].manifest):
        registry.store(REPO, *change(here, draft(here, subject)).carriers(here.repository)[form])
    return registry


def test_the_forge_makes_what_the_sign_stage_makes(good: World) -> None:
    """Otherwise the table below would prove little."""
    for form in FORMS:
        registry = _forged(good, lambda here, d: d, form)
        assert verify(TAG, registry, good.trust, NOW).manifests[0].forms == (form,)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("flaw", FLAWS)
def test_one_flaw_is_refused(good: World, flaw: str, form: str) -> None:
    change, reference = FLAWS[flaw]
    assert _refusal(_forged(good, change, form), good).reference == reference


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("flaw", ["an unknown key", "no SBOM", "an expired verdict", "the builder approves"])
def test_a_flaw_in_one_form_is_not_hidden_by_the_other(good: World, flaw: str, form: str) -> None:
    registry = _published(good)
    if form == "bundles":
        registry.drop_bundles(REPO)
    change, _ = FLAWS[flaw]
    for subject in (good.image.index, good.image.platforms[0].manifest):
        registry.store(REPO, *change(good, draft(good, subject)).carriers(good.repository)[form])
    _refusal(registry, good)


@pytest.mark.parametrize("flaw", ["an unknown key", "no SBOM", "the SBOM of another image"])
def test_a_flaw_on_the_platform_alone_is_refused(good: World, flaw: str) -> None:
    registry = _published(good)
    registry.drop_bundles(REPO)
    change, reference = FLAWS[flaw]
    platform = good.image.platforms[0].manifest
    registry.store(REPO, *change(good, draft(good, platform)).carriers(good.repository)["tags"])
    assert _refusal(registry, good).reference == reference


# ------------------------------------------------------------------ signatures


def _resigned(good: World, payload: bytes, signature: bytes) -> MemoryRegistry:
    registry = _published(good)
    registry.drop_bundles(REPO)
    registry.store(REPO, signature_manifest(good.image.digest, payload, signature))
    return registry


def test_a_valid_signature_of_another_digest(good: World) -> None:
    payload = simple_signing(good.repository, OTHER)
    registry = _resigned(good, payload, good.keys.builder.sign(payload))
    assert _refusal(registry, good).reference == "subject-mismatch"


def test_a_signature_for_another_repository(good: World) -> None:
    payload = simple_signing("127.0.0.1:5000/candidate/base", good.image.digest)
    registry = _resigned(good, payload, good.keys.builder.sign(payload))
    assert _refusal(registry, good).reference == "other-name"


def test_a_signature_by_the_wrong_role(good: World) -> None:
    payload = simple_signing(good.repository, good.image.digest)
    registry = _resigned(good, payload, good.keys.verdict.sign(payload))
    assert _refusal(registry, good).reference == "wrong-role"


@pytest.mark.parametrize("signature", [b"", b"\x30", b"\x30\x06\x02\x01\x00\x02\x01\x00", b"x" * 72])
def test_nonsense_signatures(good: World, signature: bytes) -> None:
    registry = _resigned(good, simple_signing(good.repository, good.image.digest), signature)
    assert _refusal(registry, good).reference == "signature-invalid"


def test_an_attestation_offered_as_signature(good: World) -> None:
    item = draft(good, good.image.index).of(p.VULNERABILITY_TYPE).signed("tags", good.repository)
    registry = _resigned(good, item.payload, item.signature)
    assert _refusal(registry, good).reference == "not-a-signature"


def test_bundles_with_attestations_but_without_a_signature(good: World) -> None:
    """cosign 3 is content with any bundle of the key; we are not."""
    registry = _forged(good, _drop(p.SIGNATURE_TYPE), "bundles")
    assert _refusal(registry, good).reference == "signature-missing"


def test_a_signature_statement_with_a_predicate(good: World) -> None:
    registry = _forged(good, _predicate(p.SIGNATURE_TYPE, {"a": 1}), "bundles")
    assert _refusal(registry, good).reference == "predicate-malformed"


def test_attestations_without_a_signature_tag(good: World) -> None:
    registry = _published(good)
    registry.drop_tags(REPO, ".sig")
    assert _refusal(registry, good).reference == "signature-missing"


def test_nothing_signed_at_all(good: World) -> None:
    registry = _published(good)
    registry.drop_bundles(REPO)
    registry.drop_tags(REPO, ".sig", ".att")
    assert _refusal(registry, good).reference == "unsigned"


def test_a_key_that_was_replaced_is_no_longer_trusted(good: World, tmp_path: Path) -> None:
    new_keys(tmp_path / "new")
    later = replace(good, trust=Trust.load(tmp_path / "new"))
    assert _refusal(_published(good), later).reference == "signature-invalid"


# ------------------------------------------------------------------ replay


def test_with_an_expired_trust_file_nothing_is_verified(good: World) -> None:
    registry = _published(good)
    verify(TAG, registry, replace(good.trust, expires=NOW), NOW)
    with pytest.raises(TrustRefused) as refused:
        verify(TAG, registry, replace(good.trust, expires=NOW - dt.timedelta(seconds=1)), NOW)
    assert refused.value.reference == "trust-expired"


@pytest.mark.parametrize("stale", FORMS)
def test_an_older_verdict_put_back_in_one_form(good: World, stale: str) -> None:
    """Both are signed and unexpired: only that the forms differ gives it away."""
    later = NOW + dt.timedelta(days=2)
    newer = replace(good, verdict=approval(good.image, good.proofs, later))
    registry = _published(good if stale == "tags" else newer)
    if stale == "bundles":
        registry.drop_bundles(REPO)
    source = newer if stale == "tags" else good
    registry.store(REPO, *(m for m in source.signed().signatures if m.subject))
    assert _refusal(registry, good, now=later).reference == "verdict-replayed"


def test_an_older_verdict_than_one_seen_before(good: World) -> None:
    registry = _published(good)
    verify(TAG, registry, good.trust, NOW, seen=lambda digest: good.verdict.issued_at)
    later = good.verdict.issued_at + dt.timedelta(seconds=1)
    assert _refusal(registry, good, seen=lambda digest: later).reference == "verdict-replayed"


def test_clocks_may_differ_a_little(good: World) -> None:
    verify(TAG, _published(good), good.trust, NOW - dt.timedelta(minutes=5))
    last = good.verdict.expires_at - dt.timedelta(seconds=1)
    verify(TAG, _published(good), good.trust, last)
    assert _refusal(_published(good), good, now=good.verdict.expires_at).reference == "verdict-expired"


# ------------------------------------------------------------------ carriers


def _edit(carrier: SignedManifest, edit: Callable[[dict[str, Any]], object]) -> SignedManifest:
    raw = json.loads(carrier.manifest)
    edit(raw)
    return replace(carrier, manifest=canonical_json(raw))


def _with_blob(carrier: SignedManifest, data: bytes) -> SignedManifest:
    """The carrier with other bytes in its (first) layer, and digests that agree with them."""

    def edit(raw: dict[str, Any]) -> None:
        raw["layers"][0] |= {"digest": str(Digest.of(data)), "size": len(data)}

    return replace(_edit(carrier, edit), blobs={**carrier.blobs, Digest.of(data): data})


def _spdx_bundle(good: World) -> SignedManifest:
    item = draft(good, good.image.index).of(p.SPDX_TYPE)
    return bundle_referrer(good.image.index, item.signed("bundles", ""), item.key.public.hint)


def _bundle_bytes(carrier: SignedManifest) -> bytes:
    return carrier.blobs[Digest(json.loads(carrier.manifest)["layers"][0]["digest"])]


def _two_signatures(data: bytes) -> bytes:
    raw = json.loads(data)
    raw["dsseEnvelope"]["signatures"] *= 2
    return canonical_json(raw)


def _with_log_entry(data: bytes) -> bytes:
    raw = json.loads(data)
    raw["verificationMaterial"]["tlogEntries"] = [{"logIndex": "1"}]
    return canonical_json(raw)


def _changed_payload(data: bytes) -> bytes:
    raw = json.loads(data)
    payload = base64.b64decode(raw["dsseEnvelope"]["payload"]).replace(b"SPDX-2.3", b"SPDX-2.2")
    raw["dsseEnvelope"]["payload"] = base64.b64encode(payload).decode()
    return canonical_json(raw)


BUNDLE_FLAWS: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "truncated": (lambda data: data[:-20], "unparsable"),
    "empty": (lambda data: b"", "unparsable"),
    "not UTF-8": (lambda data: b"\xff\xfe" + data, "unparsable"),
    "trailing data": (lambda data: data + b"{}", "unparsable"),
    "two signatures, one good": (_two_signatures, "signature-count"),
    "a log entry nobody checked": (_with_log_entry, "unparsable"),
    "one byte of the payload changed": (_changed_payload, "signature-invalid"),
    "another version": (lambda data: data.replace(b"v0.3", b"v0.4"), "unparsable"),
    "a certificate": (lambda data: data.replace(b'"publicKey"', b'"certificate"'), "unparsable"),
    "deep nesting": (lambda data: b'{"a":' * 10_000 + b"1" + b"}" * 10_000, "unparsable"),
}


@pytest.mark.parametrize("flaw", BUNDLE_FLAWS)
def test_bad_bundles(good: World, flaw: str) -> None:
    change, reference = BUNDLE_FLAWS[flaw]
    registry = _published(good)
    carrier = _spdx_bundle(good)
    registry.store(REPO, _with_blob(carrier, change(_bundle_bytes(carrier))))
    assert _refusal(registry, good).reference == reference


MANIFEST_FLAWS: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "two layers": (lambda raw: raw["layers"].append(raw["layers"][0]), "too-many"),
    "no layer": (lambda raw: raw["layers"].clear(), "unparsable"),
    "another layer type": (lambda raw: raw["layers"][0].update(mediaType="text/plain"), "unparsable"),
    "a configuration": (lambda raw: raw["config"].update(mediaType="text/plain"), "unparsable"),
    "too large": (lambda raw: raw["layers"][0].update(size=1 << 30), "too-large"),
}


@pytest.mark.parametrize("flaw", MANIFEST_FLAWS)
def test_bad_referrer_manifests(good: World, flaw: str) -> None:
    change, reference = MANIFEST_FLAWS[flaw]
    registry = _published(good)
    registry.store(REPO, _edit(_spdx_bundle(good), change))
    assert _refusal(registry, good).reference == reference


def test_a_listed_referrer_of_another_subject(good: World) -> None:
    registry = _published(good)
    other = replace(_spdx_bundle(good))
    moved = _edit(other, lambda raw: raw["subject"].update(digest=str(OTHER)))
    registry.store(REPO, moved)
    listed = registry.referrers(REPO, OTHER)[0]
    honest = registry.referrers
    registry.referrers = lambda repo, subject, artifact_type=None: (*honest(repo, subject), listed)  # type: ignore[method-assign]
    assert _refusal(registry, good).reference == "subject-mismatch"


def test_ten_thousand_signatures_are_not_even_fetched(good: World) -> None:
    registry = _published(good)
    registry.drop_bundles(REPO)
    one = next(m for m in good.signed().signatures if m.tag and m.tag.endswith(".sig"))
    registry.store(REPO, _edit(one, lambda raw: raw["layers"].extend(raw["layers"] * 400)))
    assert _refusal(registry, good).reference == "too-many"
    assert registry.asked["blob"] == 0


def test_ten_thousand_referrers_are_not_even_fetched(good: World) -> None:
    registry = _published(good)
    listed = registry.referrers(REPO, good.image.digest) * 1500
    registry.referrers = lambda repo, subject, artifact_type=None: listed  # type: ignore[method-assign]
    registry.asked.clear()
    assert _refusal(registry, good).reference == "too-many"
    assert registry.asked["blob"] == 0


# ------------------------------------------------------------------ names and the registry


def test_an_approved_image_under_another_name(good: World) -> None:
    registry = MemoryRegistry()
    registry.store_signed("candidate/base", good.signed())
    assert _refusal(registry, good, Reference(HOST, "candidate/base", "3.13")).reference == "other-name"


@pytest.mark.parametrize("tag", ["3.12", "latest", "3.13-dev", "3.13.4-aaaaaaaaaaaa"])
def test_an_approved_image_under_another_tag(good: World, tag: str) -> None:
    registry = _published(good)
    registry.tags[REPO, tag] = good.image.digest
    assert _refusal(registry, good, Reference(HOST, REPO, tag)).reference == "other-name"


def test_a_tag_that_is_not_the_digest(good: World) -> None:
    registry = _published(good)
    registry.tags[REPO, "3.13"] = good.image.platforms[0].manifest.digest
    ref = Reference(HOST, REPO, "3.13", good.image.digest)
    assert _refusal(registry, good, ref).reference == "digest-mismatch"


def test_an_index_that_lists_a_platform_nobody_judged(good: World, tmp_path: Path) -> None:
    """An index with one more platform has another digest, so its own signature would be needed."""
    other = built_image(tmp_path / "more", platforms=(AMD64, Platform("linux", "arm64")))
    registry = _published(good)
    registry.store_image(REPO, other, ("3.13",))
    assert _refusal(registry, good).reference == "unsigned"
    for subject in (other.index,):
        forged = draft(good, Descriptor(INDEX_TYPE, subject.digest, subject.size))
        forged = forged.change(
            p.VERDICT_TYPE, predicate=verdicts.encode(replace(good.verdict, digest=subject.digest))
        )
        registry.store(REPO, *forged.carriers(good.repository)["tags"])
    assert _refusal(registry, good).reference == "subject-mismatch"


def test_bytes_that_are_not_what_was_asked_for(good: World) -> None:
    """A client that does not hash: we do."""
    registry = _published(good)
    key = (REPO, good.image.digest)
    data, media_type = registry.manifests[key]
    registry.manifests[key] = (data + b" ", media_type)
    assert _refusal(registry, good).reference == "digest-mismatch"


@pytest.mark.parametrize("what", ["down", "no tag", "no layer", "no platform", "no bundle"])
def test_what_cannot_be_checked_is_not_called_bad(good: World, what: str) -> None:
    registry = _published(good)
    if what == "down":
        registry.down = True
    elif what == "no tag":
        del registry.tags[REPO, "3.13"]
    elif what == "no layer":
        del registry.blobs[REPO, good.image.platforms[0].layers[0].blob.digest]
    elif what == "no platform":
        del registry.manifests[REPO, good.image.platforms[0].manifest.digest]
    else:
        del registry.blobs[REPO, Digest.of(_bundle_bytes(_spdx_bundle(good)))]
    with pytest.raises(RegistryError):
        verify(TAG, registry, good.trust, NOW)


@pytest.mark.parametrize(
    "edit",
    [
        lambda raw: raw["manifests"].clear(),
        lambda raw: raw["manifests"].append(raw["manifests"][0]),
        lambda raw: raw["manifests"][0].pop("platform"),
        lambda raw: raw["manifests"][0]["platform"].update(os="unknown", architecture="unknown"),
        lambda raw: raw.update(manifests=raw["manifests"] * 20),
    ],
    ids=["empty", "twice", "no platform", "unknown platform", "many"],
)
def test_malformed_indexes(good: World, edit: Callable[[dict[str, Any]], object]) -> None:
    registry = _published(good)
    data, media_type = registry.manifests[REPO, good.image.digest]
    raw = json.loads(data)
    edit(raw)
    registry.tags[REPO, "3.13"] = registry.put(REPO, canonical_json(raw), media_type)
    assert _refusal(registry, good).reference == "index-malformed"


def test_attestations_that_are_too_large_together_are_not_fetched(good: World) -> None:
    registry = _published(good)
    registry.drop_bundles(REPO)
    one = next(m for m in good.signed().signatures if m.tag and m.tag.endswith(".att"))

    def enlarge(raw: dict[str, Any]) -> None:
        for layer in raw["layers"]:
            layer["size"] = 40 << 20

    registry.store(REPO, _edit(one, enlarge))
    assert _refusal(registry, good).reference == "too-large"
    assert registry.asked["blob"] == 1  # the image signature before it


def test_a_platform_with_another_verdict_than_its_index(good: World) -> None:
    """Each is signed and unexpired; together they are not one publication."""
    later = replace(good, verdict=approval(good.image, good.proofs, NOW + dt.timedelta(minutes=1)))
    registry = _published(good)
    platform = good.image.platforms[0].manifest.digest
    for manifest in later.signed().signatures:
        of = manifest.subject.digest.hex if manifest.subject else manifest.tag or ""
        if platform.hex in of:
            registry.store(REPO, manifest)
    assert _refusal(registry, good).reference == "verdict-replayed"


def test_the_published_verdict_can_be_read_for_explanation_whatever_it_says(good: World) -> None:
    registry = _forged(good, FLAWS["a verdict that denies"][0], "tags")
    assert not published_verdict(TAG, registry, good.trust).approved
    stranger = _forged(good, FLAWS["an unknown key approves"][0], "tags")
    with pytest.raises(EvidenceRefused):
        published_verdict(TAG, stranger, good.trust)
