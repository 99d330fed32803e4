"""The policy of today against the attested reports: what has changed since the verdict was given.

Thresholds, accepted scanners, required checks and the ends of support may be stricter now, and the
database is older. What is not attested (lint) is taken from the verdict. Rules of extensions are asked
like ours. Raises PolicyDenied.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from builder.errors import PolicyDenied
from builder.model.digest import Digest
from builder.model.evidence import (
    CanaryResult,
    CheckReport,
    CheckResult,
    DatabaseIdentity,
    Evidence,
    Finding,
    FurtherScan,
    NotDone,
    Outcome,
    PackageLicence,
    PackageLicences,
    ScannerIdentity,
    ScanReport,
    Secret,
    Severity,
)
from builder.model.extension import ExtensionIdentity
from builder.model.image import BuiltImage, Descriptor, PlatformImage, Target
from builder.model.imported import ImportedFrom, import_target, installed_packages
from builder.model.lock import LockedPackage, LockSection
from builder.model.platform import Platform
from builder.model.verdict import RuleResult, Verdict
from builder.model.witness import Witness
from builder.policy.engine import evaluate
from builder.policy.rule import Case, Rule, Seen
from builder.policy.rules import IMPORT_RULES, PROMOTION_RULES, RULES
from builder.policy.schema import Policy
from builder.signing.predicates import TEST_RESULT_TYPE, VULNERABILITY_TYPE, timestamp
from builder.signing.refusal import quoted, refuse
from builder.signing.verification import ManifestProof, Verification

# Verification has proved that the evidence is complete; lint is in the verdict only.
NOT_ATTESTED = frozenset({"evidence-complete", "dockerfile-lint"})
ATTESTED_RULES = tuple(rule for rule in RULES if rule.id not in NOT_ATTESTED)
_IMPORT_RULES = tuple(rule for rule in IMPORT_RULES if rule.id not in NOT_ATTESTED)


def recheck(
    found: Verification,
    target: Target | None,
    policy: Policy,
    now: dt.datetime,
    witnesses: tuple[Witness, ...] = (),
) -> tuple[RuleResult, ...]:
    """What today's policy says of a verified image; `target` is the image in the catalogue.

    `witnesses` are those who built it again. An image that others made is in no catalogue: its
    provenance says what has to be known of it. Returns the rules' results. Raises PolicyDenied when
    one of them fails, EvidenceRefused when a report does not say what the rules need.
    """
    case = attested_case(found, target, policy, now)
    rules = rules_again(case, policy, found.verdict, promoting=True)
    results = evaluate(replace(case, witnesses=witnesses), rules)
    failed = [r for r in results if not r.passed]
    if failed:
        raise PolicyDenied(
            f"the policy {policy.name} does not allow {found.verdict.ref} today",
            context="\n".join(f"{r.id}: {f}" for r in failed for f in r.failures),
            hint=failed[0].solution,
            reference="policy-denies-today",
        )
    return results


def rules_again(case: Case, policy: Policy, verdict: Verdict, *, promoting: bool = False) -> tuple[Rule, ...]:
    """The rules that can be asked of attested reports, ours and those of extensions.

    Of ours, those about what is not attested are left to the verdict, which verification has read; of
    extensions' such rules the verdict has to say that they passed. `promoting` adds those of promotions.
    """
    ours = _IMPORT_RULES if case.image.imported else ATTESTED_RULES
    added = [_as_judged(r, verdict) if r.needs in ("lint", "sboms") else r for r in policy.added]
    return (*ours, *added, *(PROMOTION_RULES if promoting else ()))


def _as_judged(rule: Rule, verdict: Verdict) -> Rule:
    """The rule with the answer that the verdict holds; without one it has denied."""

    def check(_: Case) -> Iterator[Seen]:
        said = [r for r in verdict.rules if r.id == rule.id]
        if not said:
            yield {"what": f"the verdict was given without it, and its {rule.needs} cannot be had any more"}
        yield from ({"what": failure} for one in said for failure in one.failures)
        # It passed as long as it was not in effect; what it had to say then was announced.
        announced = (text.partition(f" on, {rule.id}: ") for text in verdict.announced)
        yield from ({"what": failure} for day, mark, failure in announced if mark and len(day.split()) == 2)

    return replace(rule, failure="{what}", check=check, needs=None)


def attested_case(found: Verification, target: Target | None, policy: Policy, now: dt.datetime) -> Case:
    """The attested reports of a verified image as the rules look at them; raises EvidenceRefused.

    Also when the policy is for images of the other kind: imported, or our own.
    """
    platforms = [m for m in found.manifests if m.platform is not None]
    evidence = tuple(_evidence(m, found) for m in platforms)
    origin = origin_of(found)
    if origin is not None:
        target = _imported(found, origin)
        target = replace(target, waivers=policy.waivers_of(target.definition.name, target.stream_name))
    if target is None:
        refuse("other-name", f"{found.verdict.ref} is not in the catalogue", context=found.digest)
    if (origin is None) != (policy.data.imports is None):
        refuse(
            "other-policy", f"the policy {policy.name} is not for {found.verdict.ref}", context=found.digest
        )
    image = _image(found, platforms, target, origin is not None)
    return Case(image, evidence, policy.data, now, policy.exploited, extensions=policy.extensions)


def origin_of(found: Verification) -> ImportedFrom | None:
    """Where others' image came from, by its newest provenance; None for an image of our own."""
    origins = [p.imported for m in found.manifests for p in m.provenances]
    if any(o is None for o in origins) and any(o is not None for o in origins):
        refuse("predicate-malformed", "some provenances say built, some imported", context=found.digest)
    return origins[-1] if origins else None


def _imported(found: Verification, origin: ImportedFrom) -> Target:
    name, _, tag = found.verdict.ref.partition(":")
    try:
        platforms = [_platform(m) for m in found.manifests if m.platform is not None]
        return import_target(name, tag, origin.owner, origin.end_of_life, platforms)
    except ValueError as error:
        refuse("predicate-malformed", "the import's provenance names no image", context=quoted(str(error)))


def _evidence(proof: ManifestProof, found: Verification) -> Evidence:
    platform = _platform(proof)
    scans = [r for kind, r in proof.reports if kind == VULNERABILITY_TYPE]
    checks = [r for kind, r in proof.reports if kind == TEST_RESULT_TYPE]
    judged = timestamp(found.verdict.issued_at)
    # Earlier reports stay beside newer ones; the verdict was given on the one of its own time.
    of_verdict = [s for s in scans if _at(s) == judged] or sorted(scans, key=_at)[-1:]
    try:
        return Evidence(
            digest=proof.digest,
            platform=platform,
            checks=_checks(checks[-1], proof.digest, platform),
            scan=_scan(of_verdict[-1], proof.digest, platform),
            sboms=NotDone("sboms", "not read here"),
            lint=NotDone("lint", "not attested"),
        )
    except (LookupError, ValueError, TypeError, AttributeError) as error:
        refuse("predicate-malformed", "a report cannot be judged again", context=quoted(f"{error!r}"))


def _at(report: Mapping[str, Any]) -> str:
    metadata = report.get("metadata")
    return str(metadata.get("scanFinishedOn", "")) if isinstance(metadata, dict) else ""


def _scan(report: Mapping[str, Any], digest: Digest, platform: Platform) -> ScanReport:
    scanner, result = report["scanner"], report["scanner"]["result"]
    database, system, canary = scanner["db"], result["os"], result["canary"]
    name = str(scanner["uri"]).partition("@")[0].rpartition("/")[2]
    return ScanReport(
        digest=Digest(result["digest"]),
        platform=platform,
        scanner=ScannerIdentity(name, scanner["version"], Digest(f"sha256:{scanner['binary']['sha256']}")),
        database=DatabaseIdentity(
            Digest(f"sha256:{database['digest']['sha256']}"),
            database["uri"],
            database["lastUpdate"],
            int(database["version"]),
            bool(database["sample"]),
        ),
        os_family=system["family"],
        os_version=system["version"],
        packages=tuple(result["packages"]),
        findings=_findings(result["findings"]),
        secrets=tuple(Secret(s["rule"], s["path"], Severity(s["severity"])) for s in result["secrets"]),
        licences=tuple(PackageLicences(p, tuple(names)) for p, names in result["licences"].items()),
        canary=CanaryResult(canary["package"], canary["version"], tuple(canary["found"])),
        # Reports of before said nothing of it.
        expressions=tuple(
            PackageLicence(str(p), str(e), str(how), Digest(d) if d else None)
            for p, e, how, d in result.get("expressions", ())
        ),
        further=tuple(
            FurtherScan(_scanner(one["scanner"]), _findings(one["findings"]))
            for one in result.get("further", ())
        ),
    )


def _findings(found: Any) -> tuple[Finding, ...]:
    return tuple(
        Finding(
            f["id"],
            f["package"],
            f["installedVersion"],
            f["fixedVersion"],
            Severity(f["severity"]),
            f["status"],
            f["title"],
        )
        for f in found
    )


def _scanner(who: Mapping[str, str]) -> ExtensionIdentity:
    return ExtensionIdentity(who["kind"], who["id"], who["package"], who["version"], Digest(who["digest"]))


def _checks(report: Mapping[str, Any], digest: Digest, platform: Platform) -> CheckReport:
    results = tuple(
        CheckResult(d["id"], d["title"], Outcome(d["outcome"]), d["detail"]) for d in report["details"]
    )
    return CheckReport(digest, platform, report["engine"], results)


def _image(found: Verification, proofs: list[ManifestProof], target: Target, imported: bool) -> BuiltImage:
    """The image as the rules look at it: names, platforms and the packages that the provenance names."""
    nowhere = Path()
    images = []
    for proof in proofs:
        platform = _platform(proof)
        names = _packages(proof, platform)
        if imported:
            packages = installed_packages(names, platform)
        else:
            packages = tuple(_package(p, platform) for p in sorted(names))
        section = LockSection(
            target.stream_name, target.variant, platform, target.stream.suite, proof.digest, None, ()
        )
        part = Descriptor("", proof.digest, 0, platform=platform)
        images.append(PlatformImage(platform, nowhere, part, part, (), section, packages))
    index = Descriptor("", found.digest, 0)
    # Which packages came with the parent was known when the verdict was given: it names what it used.
    waivers = tuple(w for w in target.waivers if not w.inherited or w.id in found.verdict.waivers)
    target = replace(target, waivers=waivers)
    return BuiltImage(target, nowhere, index, tuple(images), found.digest, "", imported)


def _packages(proof: ManifestProof, platform: Platform) -> frozenset[str]:
    return frozenset(name for p in proof.provenances for name in p.packages_of(platform))


def _package(text: str, platform: Platform) -> LockedPackage:
    name, _, version = text.partition("=")
    # Rules read names and versions; the rest only has to be well-formed.
    return LockedPackage(name, version, platform.debian, "0" * 64, 1, f"pool/{name}.deb", name, version)


def _platform(proof: ManifestProof) -> Platform:
    if proof.platform is None:
        refuse("index-malformed", "a manifest of no platform cannot be judged", context=proof.digest)
    return proof.platform
