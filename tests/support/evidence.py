"""Evidence, verdicts and keys for tests: complete, consistent, small."""

from __future__ import annotations

import datetime as dt
import tempfile
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from builder.checks.licences import Licences, with_licences
from builder.model.digest import Digest, canonical_json
from builder.model.evidence import (
    CanaryResult,
    CheckReport,
    CheckResult,
    DatabaseIdentity,
    Evidence,
    Finding,
    LintReport,
    Outcome,
    PackageLicence,
    PackageLicences,
    Sboms,
    ScannerIdentity,
    ScanReport,
    Severity,
)
from builder.model.image import BuiltImage, PlatformImage
from builder.model.release import SignedImage
from builder.model.sources import Origin, Sources, Tree
from builder.model.verdict import RuleResult, Verdict
from builder.signing.keys import Keys, create_keys, load_keys
from builder.signing.predicates import package_url, provenance
from builder.signing.trust import Trust
from builder.stages.sign import sign
from tests.support.images import NOW, built_image

PASSPHRASE = "correct horse battery staple"
DATABASE = DatabaseIdentity(
    Digest.of(b"database"), "mirror.example/trivy-db:2", "2026-03-01T06:00:00Z", 2, sample=False
)


def sboms(image: PlatformImage) -> Sboms:
    """Both SBOMs of a platform, naming its packages."""
    components = [
        {"type": "library", "name": p.name, "version": p.version, "purl": package_url(p, "trixie")}
        for p in image.packages
    ]
    cyclonedx = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "components": components,
        "metadata": {"component": {"name": str(image.manifest.digest)}},
    }
    spdx = {
        "spdxVersion": "SPDX-2.3",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": str(image.manifest.digest),
        "dataLicense": "CC0-1.0",
        "documentNamespace": f"https://example.org/{image.manifest.digest.hex}",
        "creationInfo": {"created": "2026-03-01T12:00:00Z", "creators": ["Tool: test"]},
        "packages": [
            {"SPDXID": f"SPDXRef-{p.name}", "name": p.name, "downloadLocation": "NONE"}
            for p in image.packages
        ],
    }
    text = "Copyright: somebody\nLicense: Expat\n"
    expressions = licensed(image)
    licences = Licences(expressions, {}, {e.copyright: text for e in expressions if e.copyright}, {})
    with_texts = with_licences(canonical_json(spdx), licences)
    return Sboms(image.manifest.digest, canonical_json(cyclonedx), with_texts)


def licensed(image: PlatformImage) -> tuple[PackageLicence, ...]:
    """Every package under the same copyright file."""
    return tuple(PackageLicence(p.name, "MIT", "declared", Digest.of(b"file")) for p in image.packages)


def evidence(image: PlatformImage) -> Evidence:
    """Good evidence about one platform."""
    digest = image.manifest.digest
    return Evidence(
        digest=digest,
        platform=image.platform,
        checks=CheckReport(
            digest, image.platform, "docker 28", (CheckResult("user", "not root", Outcome.PASSED),)
        ),
        scan=ScanReport(
            digest=digest,
            platform=image.platform,
            scanner=ScannerIdentity("trivy", "0.76.0", Digest.of(b"trivy")),
            database=DATABASE,
            os_family="debian",
            os_version="13.1",
            packages=tuple(f"{p.name}={p.version}" for p in image.packages),
            findings=(Finding("CVE-2026-1", "hello", "2.10-5", "", Severity.LOW, "affected", "a flaw"),),
            secrets=(),
            licences=(PackageLicences("hello", ("GPL-3.0-or-later",)),),
            canary=CanaryResult("openssl", "1.0", ("CVE-2014-0160",)),
            expressions=licensed(image),
        ),
        sboms=sboms(image),
        lint=LintReport("hadolint", "2.15.1", ()),
    )


def approval(image: BuiltImage, proofs: tuple[Evidence, ...], now: dt.datetime = NOW) -> Verdict:
    """The approval of an image with that evidence."""
    digests: dict[str, str] = {}
    for proof in proofs:
        if isinstance(proof.sboms, Sboms):
            digests[str(proof.digest)] = str(Digest.of(proof.sboms.cyclonedx))
    return Verdict(
        digest=image.digest,
        ref=image.target.ref,
        approved=True,
        policy="baseline",
        policy_digest=Digest.of(b"policy"),
        issued_at=now,
        expires_at=now + dt.timedelta(days=7),
        database=DATABASE,
        sboms=digests,
        rules=(RuleResult("no-critical", "No critical vulnerability", (), "update the package"),),
    )


COMMIT = "1" * 40
SOURCES = Sources(
    Digest.of(b"what is said"),
    Digest.of(b"templates"),
    Digest.of(b"locked"),
    Origin(
        Tree.CLEAN, "ann@host", COMMIT, (), ("Ann Writer <ann@example.org>",), ("Robot <ci@example.org>",)
    ),
)


def provenance_of(image: BuiltImage, made: Sources | None = SOURCES) -> dict[str, Any]:
    """A provenance of the image."""
    return provenance(
        image,
        definition=Digest.of(b"definition"),
        templates={"debian-runtime.Dockerfile.j2": Digest.of(b"template")},
        tools={"goldsmith": "0.1.0", "deflate": "0.9.0"},
        parent=("base:13", Digest.of(b"parent")),
        made_of=made,
    )


@dataclass(frozen=True)
class World:
    """One image with everything that is needed to sign it, and to change one thing before."""

    image: BuiltImage
    proofs: tuple[Evidence, ...]
    verdict: Verdict
    keys: Keys
    trust: Trust
    repository: str = "127.0.0.1:5000/candidate/python"
    made: Sources | None = SOURCES

    def signed(self, **changes: Any) -> SignedImage:
        """The signed image; `changes` replace fields of the verdict first."""
        return sign(
            self.image,
            self.proofs,
            replace(self.verdict, **changes),
            provenance_of(self.image, self.made),
            self.keys,
            self.repository,
        )


def new_keys(folder: Path) -> Keys:
    """A new key for each role."""
    create_keys(folder, {}, PASSPHRASE)
    return load_keys(folder, {}, PASSPHRASE)


@cache
def shared_keys() -> tuple[Keys, Trust]:
    """Keys of this process, and their public halves: for tests that do not change them."""
    with tempfile.TemporaryDirectory() as folder:
        keys = new_keys(Path(folder))
        return keys, Trust.load(Path(folder))


def world(folder: Path, **image: Any) -> World:
    """A new image with keys, evidence and approval below `folder`."""
    built = built_image(folder / "image", **image)
    proofs = tuple(evidence(p) for p in built.platforms)
    keys = new_keys(folder / "keys")
    return World(built, proofs, approval(built, proofs), keys, Trust.load(folder / "keys"))
