"""Sign: an approved image with its evidence → the image with all signatures and attestations.

Who says what: the builder key signs the image signature, the provenance, the SBOMs, and the
vulnerability and check reports; the verdict key signs decisions (the verdict; later, channel
records, OpenVEX) and nothing else. So no statement of the builder can stand for an approval. cosign 3
takes any bundle of a key for a signature of that key, and is content when one of several bundles
verifies (seen with 3.1): with the builder's key it always finds the builder's own bundles,
whatever the verdict key adds. With the verdict's key it is content too; who wants to know that an
image was *approved* asks for the verdict by its type, or uses `goldsmith verify`, which reads what
the verdict says.

What is attached to what: every platform manifest gets everything about itself. The index of a
single platform gets the same documents with its own digest as subject. The index of several
platforms gets the signature, the provenance and the verdict, which speak of the whole image;
SBOMs, scans and checks are of one platform and stay there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from builder.errors import PolicyDenied
from builder.model.digest import Digest, canonical_json
from builder.model.evidence import CheckReport, Evidence, NotDone, Sboms, ScanReport
from builder.model.image import BuiltImage, Descriptor
from builder.model.release import SignedImage, SignedManifest
from builder.model.verdict import Verdict
from builder.policy.vex import openvex
from builder.signing import predicates, verdicts
from builder.signing.cosign_formats import (
    SignedStatement,
    attestation_manifest,
    bundle_referrer,
    signature_manifest,
)
from builder.signing.keys import Keys, RoleSigner
from builder.signing.predicates import ROLE_OF, SIGNATURE_TYPE, VERDICT_TYPE
from builder.signing.statements import (
    PAYLOAD_TYPE,
    STATEMENT_V01,
    STATEMENT_V1,
    canonical,
    pae,
    simple_signing,
    statement,
)

_Report = TypeVar("_Report", CheckReport, ScanReport, Sboms)


def sign(
    image: BuiltImage,
    evidence: tuple[Evidence, ...],
    verdict: Verdict,
    provenance: Mapping[str, Any],
    keys: Keys,
    repository: str | None = None,
) -> SignedImage:
    """Sign everything about an image; nothing is sent anywhere.

    `repository` (`HOST/NAME`) is what the signature is made for, by default the image's name.
    With keys in files the result is a function of the arguments. Raises PolicyDenied when the
    verdict is no approval, is of another image, or the evidence is not what was judged; ToolError
    when a key's keeper fails.
    """
    documents = _documents(image, evidence, verdict)
    name = repository or image.target.definition.name
    shared = {
        predicates.PROVENANCE_TYPE: canonical_json(provenance),
        VERDICT_TYPE: verdicts.encode(verdict),
        **({predicates.VEX_TYPE: openvex(image, verdict.waivers)} if verdict.waivers else {}),
    }
    on_index = documents[image.platforms[0].manifest.digest] if len(image.platforms) == 1 else {}
    subjects: list[tuple[Descriptor, dict[str, bytes]]] = [(image.index, {**shared, **on_index})]
    subjects += [(p.manifest, {**shared, **documents[p.manifest.digest]}) for p in image.platforms]
    created = predicates.timestamp(verdict.issued_at)
    signatures = [m for subject, about in subjects for m in _attach(subject, about, name, keys, created)]
    return SignedImage(image, verdict, tuple(signatures))


def _documents(
    image: BuiltImage, evidence: tuple[Evidence, ...], verdict: Verdict
) -> dict[Digest, dict[str, bytes]]:
    """The predicates of each platform, once it is certain that the verdict is about them."""
    if not verdict.approved:
        raise PolicyDenied(
            f"{verdict.ref} was not approved, so it is not signed",
            context="\n".join(f"{r.id}: {f}" for r in verdict.failed for f in r.failures),
            hint=next((r.solution for r in verdict.failed), ""),
        )
    if verdict.digest != image.digest or verdict.ref != image.target.ref:
        raise _mismatch("the verdict is of another image", f"{verdict.ref}@{verdict.digest}")
    by_digest = {e.digest: e for e in evidence}
    if set(by_digest) != {p.manifest.digest for p in image.platforms} or len(by_digest) != len(evidence):
        raise _mismatch("the evidence is not of this image's platforms", ", ".join(by_digest))
    if set(verdict.sboms) != {str(d) for d in by_digest}:
        raise _mismatch("the verdict names other platforms", ", ".join(verdict.sboms))
    configuration = Digest.of_json(image.target.checks.model_dump(mode="json", by_alias=True))
    return {d: _platform_documents(e, verdict, configuration) for d, e in by_digest.items()}


def _platform_documents(evidence: Evidence, verdict: Verdict, configuration: Digest) -> dict[str, bytes]:
    checks = _done(evidence, evidence.checks)
    scan = _done(evidence, evidence.scan)
    sboms = _done(evidence, evidence.sboms)
    if verdict.sboms[str(evidence.digest)] != Digest.of(sboms.cyclonedx):
        raise _mismatch("the verdict is about another SBOM", str(evidence.digest))
    return {
        predicates.CYCLONEDX_TYPE: _attestable(sboms.cyclonedx, "CycloneDX document"),
        predicates.SPDX_TYPE: _attestable(sboms.spdx, "SPDX document"),
        predicates.VULNERABILITY_TYPE: predicates.vulnerabilities(scan, verdict.issued_at),
        predicates.TEST_RESULT_TYPE: predicates.test_result(checks, configuration),
    }


def _done(evidence: Evidence, part: _Report | NotDone) -> _Report:
    if isinstance(part, NotDone):
        raise PolicyDenied(f"{part.stage} was not done, so nothing is signed", context=part.reason)
    if part.digest != evidence.digest:
        raise _mismatch("a report is of another manifest", f"{part.digest}, not {evidence.digest}")
    return part


def _attach(
    subject: Descriptor, documents: Mapping[str, bytes], repository: str, keys: Keys, created: str
) -> list[SignedManifest]:
    signer = {k.role: k for k in (keys.builder, keys.verdict)}
    payload = simple_signing(repository, subject.digest)
    attested: list[SignedStatement] = []
    bundles: list[SignedManifest] = []
    for predicate_type, predicate in {SIGNATURE_TYPE: b"{}", **dict(sorted(documents.items()))}.items():
        key = signer[ROLE_OF[predicate_type]]
        if predicate_type != SIGNATURE_TYPE:
            old = statement(STATEMENT_V01, subject.digest, predicate_type, predicate, repository)
            attested.append(_signed(predicate_type, old, key))
        new = _signed(predicate_type, statement(STATEMENT_V1, subject.digest, predicate_type, predicate), key)
        # Only a verdict changes with time: the other documents are the same however often they are sent.
        when = created if predicate_type == VERDICT_TYPE else None
        bundles.append(bundle_referrer(subject, new, key.public.hint, when))
    return [
        signature_manifest(subject.digest, payload, keys.builder.sign(payload)),
        attestation_manifest(subject.digest, attested),
        *bundles,
    ]


def _signed(predicate_type: str, payload: bytes, key: RoleSigner) -> SignedStatement:
    return SignedStatement(predicate_type, payload, key.sign(pae(PAYLOAD_TYPE, payload)))


def _attestable(document: bytes, what: str) -> bytes:
    if canonical(document, what) != document:
        raise _mismatch(f"the {what} is not canonical JSON", "a verifier could not compute its digest again")
    return document


def _mismatch(message: str, context: str) -> PolicyDenied:
    return PolicyDenied(
        message,
        context=context,
        hint="run the image's pipeline anew, so that one run builds, scans and judges it",
        reference="evidence-mismatch",
    )
