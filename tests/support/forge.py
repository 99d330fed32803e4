"""Signed evidence with one thing wrong: what an enemy (or a bug) could put into a registry."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from builder.model.digest import Digest, canonical_json
from builder.model.evidence import CheckReport, Sboms, ScanReport
from builder.model.image import Descriptor
from builder.model.release import SignedManifest
from builder.signing import predicates as p
from builder.signing import verdicts
from builder.signing.cosign_formats import (
    SignedStatement,
    attestation_manifest,
    bundle_referrer,
    signature_manifest,
)
from builder.signing.keys import RoleSigner
from builder.signing.statements import (
    PAYLOAD_TYPE,
    STATEMENT_V01,
    STATEMENT_V1,
    pae,
    simple_signing,
    statement,
)
from tests.support.evidence import World, provenance_of


@dataclass(frozen=True)
class Item:
    """One statement: what it says, of whom, who signs it, and what its carrier promises."""

    kind: str
    predicate: bytes
    key: RoleSigner
    subject: Digest
    promised: str

    def signed(self, form: str, repository: str) -> SignedStatement:
        """The statement, signed, in the form `tags` or `bundles`."""
        version = STATEMENT_V01 if form == "tags" else STATEMENT_V1
        payload = statement(version, self.subject, self.kind, self.predicate, repository)
        return SignedStatement(self.promised, payload, self.key.sign(pae(PAYLOAD_TYPE, payload)))


@dataclass(frozen=True)
class Draft:
    """All that will be attached to one subject."""

    subject: Descriptor
    items: tuple[Item, ...]
    signature: bytes  # the simple-signing payload
    signer: RoleSigner

    def change(self, kind: str, /, **fields: object) -> Draft:
        """The same with fields of the statements of one predicate type replaced."""
        return replace(
            self,
            items=tuple(replace(i, **fields) if i.kind == kind else i for i in self.items),  # type: ignore[arg-type]
        )

    def add(self, item: Item) -> Draft:
        """The same with one more statement."""
        return replace(self, items=(*self.items, item))

    def of(self, kind: str) -> Item:
        """The statement of that predicate type."""
        return next(i for i in self.items if i.kind == kind)

    def carriers(self, repository: str) -> dict[str, list[SignedManifest]]:
        """The manifests of each form."""
        plain = [i for i in self.items if i.kind != p.SIGNATURE_TYPE]
        return {
            "tags": [
                signature_manifest(self.subject.digest, self.signature, self.signer.sign(self.signature)),
                attestation_manifest(self.subject.digest, [i.signed("tags", repository) for i in plain]),
            ],
            "bundles": [
                bundle_referrer(self.subject, i.signed("bundles", repository), i.key.public.hint)
                for i in self.items
            ],
        }


def draft(world: World, subject: Descriptor) -> Draft:
    """Everything as it should be (for an image of one platform)."""
    proof, keys = world.proofs[0], world.keys
    checks, scan, sboms = proof.checks, proof.scan, proof.sboms
    if not (isinstance(checks, CheckReport) and isinstance(scan, ScanReport) and isinstance(sboms, Sboms)):
        raise TypeError("incomplete evidence")
    about: Mapping[str, bytes] = {
        p.SIGNATURE_TYPE: b"{}",
        p.PROVENANCE_TYPE: canonical_json(provenance_of(world.image)),
        p.CYCLONEDX_TYPE: sboms.cyclonedx,
        p.SPDX_TYPE: sboms.spdx,
        p.VULNERABILITY_TYPE: p.vulnerabilities(scan, world.verdict.issued_at),
        p.TEST_RESULT_TYPE: p.test_result(checks, Digest.of(b"checks")),
        p.VERDICT_TYPE: verdicts.encode(world.verdict),
    }
    items = tuple(
        Item(kind, data, keys.verdict if kind == p.VERDICT_TYPE else keys.builder, subject.digest, kind)
        for kind, data in about.items()
    )
    return Draft(subject, items, simple_signing(world.repository, subject.digest), keys.builder)


Change = Callable[[World, Draft], Draft]
