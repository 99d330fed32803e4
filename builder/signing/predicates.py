"""The predicates that we attest, built from evidence and parsed back strictly.

Pure. Each builder returns canonical JSON; each parser takes a predicate from a registry and
raises EvidenceRefused unless it is one that we could have written.

Sources: SLSA provenance v1.0 (slsa.dev/spec/v1.0/provenance); cosign's vulnerability predicate
(cosign, specs/COSIGN_VULN_ATTESTATION_SPEC.md); in-toto test result v0.1 (in-toto/attestation,
spec/predicates/test-result.md); package URL (purl-spec, types `deb` and `oci`).
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, cast
from urllib.parse import quote, unquote

from builder.model.digest import Digest, canonical_json
from builder.model.evidence import CheckReport, Outcome, ScanReport
from builder.model.image import BuiltImage
from builder.model.imported import ImportedFrom
from builder.model.lock import LockedPackage
from builder.model.platform import Platform
from builder.model.sources import Sources
from builder.signing import sources
from builder.signing.imports import IMPORT_TYPE, parse_import
from builder.signing.keys import BUILDER, VERDICT
from builder.signing.kits import kit_of
from builder.signing.refusal import quoted, refuse

SIGNATURE_TYPE = "https://sigstore.dev/cosign/sign/v1"
PROVENANCE_TYPE = "https://slsa.dev/provenance/v1"
CYCLONEDX_TYPE = "https://cyclonedx.org/bom"
SPDX_TYPE = "https://spdx.dev/Document"
VULNERABILITY_TYPE = "https://cosign.sigstore.dev/attestation/vuln/v1"
TEST_RESULT_TYPE = "https://in-toto.io/attestation/test-result/v0.1"
VERDICT_TYPE = "https://goldsmith.dev/attestations/verdict/v1"
CHANNEL_TYPE = "https://goldsmith.dev/attestations/channel/v1"
CHANGE_TYPE = "https://goldsmith.dev/attestations/change/v1"
VEX_TYPE = "https://openvex.dev/ns"

# What people say of a change. Nobody who verifies an image depends on it: promotion does.
APPROVAL_TYPE = "https://goldsmith.dev/attestations/approval/v1"
# What witnesses say, who built an image again: the same goes for it.
REBUILD_TYPE = "https://goldsmith.dev/attestations/rebuild/v1"

# Which role may say what. A type that is not here says nothing to us.
ROLE_OF: Mapping[str, str] = {
    SIGNATURE_TYPE: BUILDER,
    PROVENANCE_TYPE: BUILDER,
    CYCLONEDX_TYPE: BUILDER,
    SPDX_TYPE: BUILDER,
    VULNERABILITY_TYPE: BUILDER,
    TEST_RESULT_TYPE: BUILDER,
    VERDICT_TYPE: VERDICT,
    CHANNEL_TYPE: VERDICT,
    CHANGE_TYPE: VERDICT,
    VEX_TYPE: VERDICT,
}
# Where a predicate says its own time. The others say none: the same input gives the same bytes.
_TIME_OF: Mapping[str, tuple[str, ...]] = {
    VERDICT_TYPE: ("issuedAt",),
    CHANNEL_TYPE: ("at",),
    CHANGE_TYPE: ("at",),
    VULNERABILITY_TYPE: ("metadata", "scanFinishedOn"),
}
SHORT_NAMES: Mapping[str, str] = {
    SIGNATURE_TYPE: "signature",
    PROVENANCE_TYPE: "provenance",
    CYCLONEDX_TYPE: "CycloneDX",
    SPDX_TYPE: "SPDX",
    VULNERABILITY_TYPE: "vulnerabilities",
    TEST_RESULT_TYPE: "checks",
    VERDICT_TYPE: "verdict",
    CHANNEL_TYPE: "channel",
    CHANGE_TYPE: "changes",
    VEX_TYPE: "OpenVEX",
}
# What is said where an image is decided on, and stays there when it is copied.
DECIDED_TYPES = frozenset({CHANNEL_TYPE, CHANGE_TYPE})
# What an index of several platforms carries, and what a platform (or an index of one) carries.
IMAGE_TYPES = frozenset({PROVENANCE_TYPE, VERDICT_TYPE})
PLATFORM_TYPES = frozenset(ROLE_OF) - {SIGNATURE_TYPE, VEX_TYPE} - DECIDED_TYPES

BUILDER_ID = "https://goldsmith.dev/builder/v1"
BUILD_TYPE = "https://goldsmith.dev/build/v1"
_DEPENDENCIES_MAX = 20_000
_DISTRIBUTION = "debian"
_URIS_KEPT = 20_000
_TIMES_KEPT = 1000
_PURL = re.compile(r"pkg:deb/debian/([^@]+)@([^?]+)\?arch=([a-z0-9]+)&distro=[a-z]+")


@dataclass(frozen=True, slots=True)
class Provenance:
    """What verification uses of a provenance; `packages` are (architecture, NAME=VERSION)."""

    ref: str
    immutable_tag: str
    platforms: int
    packages: frozenset[tuple[str, str]]
    sources: Sources | None = None  # None: it was made before anybody asked for them
    imported: ImportedFrom | None = None  # where others' image came from; None for our own
    kit: Digest | None = None  # the rebuild kit's manifest

    def packages_of(self, platform: Platform | None) -> frozenset[str]:
        """NAME=VERSION of every package of a platform; None is the only platform."""
        if platform is None and self.platforms != 1:
            return frozenset()
        wanted = ("all", platform.debian) if platform else None
        return frozenset(p for architecture, p in self.packages if wanted is None or architecture in wanted)


def provenance(
    image: BuiltImage,
    *,
    definition: Digest,
    templates: Mapping[str, Digest],
    tools: Mapping[str, str],
    parent: tuple[str, Digest] | None = None,
    made_of: Sources | None = None,
    builder_id: str = BUILDER_ID,
) -> dict[str, Any]:
    """The SLSA v1 provenance of an image.

    `definition` is the digest of `image.yaml`, `templates` those of the templates by path,
    `tools` the versions by name (the compressor among them), `parent` the parent's catalogue
    name and index digest, `made_of` what it is made of and who wrote that. It holds no times: the
    same input gives the same provenance.
    """
    packages = {(p.name, p.version, p.architecture): p for i in image.platforms for p in i.packages}
    suite = image.target.stream.suite
    return {
        "buildDefinition": {
            "buildType": BUILD_TYPE,
            "externalParameters": {
                "ref": image.target.ref,
                "immutableTag": image.immutable_tag,
                "platforms": [str(i.platform) for i in image.platforms],
                "definition": {"sha256": definition.hex},
                "locks": {str(i.platform): {"sha256": i.lock.digest.hex} for i in image.platforms},
                "templates": {path: {"sha256": d.hex} for path, d in sorted(templates.items())},
                **({"sources": sources.encode(made_of)} if made_of else {}),
            },
            "internalParameters": {"inputHash": str(image.input_hash), "tools": dict(sorted(tools.items()))},
            "resolvedDependencies": [
                *([_parent(*parent)] if parent else []),
                *(_package(packages[key], suite) for key in sorted(packages)),
            ],
        },
        "runDetails": {"builder": {"id": builder_id, "version": {"goldsmith": tools.get("goldsmith", "")}}},
    }


def package_url(package: LockedPackage, suite: str) -> str:
    """The purl of a Debian package: `pkg:deb/debian/NAME@VERSION?arch=ARCH&distro=SUITE`."""
    name, version = quote(package.name, safe=""), quote(package.version, safe="")
    return f"pkg:deb/{_DISTRIBUTION}/{name}@{version}?arch={package.architecture}&distro={suite}"


def vulnerabilities(scan: ScanReport, at: dt.datetime) -> bytes:
    """The vulnerability report of one platform; `at` is the time of the run that scanned."""
    database, when = scan.database, timestamp(at)
    return canonical_json(
        {
            "invocation": {"parameters": [], "uri": "", "event_id": "", "builder.id": BUILDER_ID},
            "scanner": {
                "uri": f"pkg:github/aquasecurity/{quote(scan.scanner.name)}@{quote(scan.scanner.version)}",
                "version": scan.scanner.version,
                "binary": {"sha256": scan.scanner.binary.hex},
                "db": {
                    "uri": database.source,
                    "version": str(database.schema),
                    "digest": {"sha256": database.digest.hex},
                    "lastUpdate": database.updated_at,
                    "sample": database.sample,
                },
                "result": _scan_result(scan),
            },
            "metadata": {"scanStartedOn": when, "scanFinishedOn": when},
        }
    )


def test_result(report: CheckReport, configuration: Digest) -> bytes:
    """The check report of one platform; `configuration` is the digest of the checks asked for.

    A check that was not run is a warning: it has not passed, and the policy decides. One that does
    not hold for the image's variant is in `details` alone.
    """
    by = {o: [r for r in report.results if r.outcome is o] for o in Outcome}
    failed, not_run = by[Outcome.FAILED], by[Outcome.NOT_RUN]
    return canonical_json(
        {
            "result": "FAILED" if failed else "WARNED" if not_run else "PASSED",
            "configuration": [{"name": "checks.yaml", "digest": {"sha256": configuration.hex}}],
            "passedTests": [r.id for r in by[Outcome.PASSED]],
            "warnedTests": [r.id for r in not_run],
            "failedTests": [r.id for r in failed],
            "engine": report.engine,
            "platform": str(report.platform),
            "details": [r.as_dict() for r in report.results],
        }
    )


@lru_cache(maxsize=_URIS_KEPT)  # the same packages are in many images
def _package_of(uri: str) -> tuple[str, str] | None:
    """The architecture and NAME=VERSION of a package URL; None for any other address."""
    match = _PURL.fullmatch(uri)
    return (match[3], f"{unquote(match[1])}={unquote(match[2])}") if match else None


def parse_provenance(predicate: Mapping[str, Any]) -> Provenance:
    """Check a provenance: our build type, a name, and every dependency with its digest."""
    build = mapping(predicate, "buildDefinition", "provenance")
    kind = build.get("buildType")
    if kind not in (BUILD_TYPE, IMPORT_TYPE):
        refuse("predicate-malformed", "the provenance is not of our build type", context=quoted(build))
    external = mapping(build, "externalParameters", "provenance")
    details = mapping(predicate, "runDetails", "provenance")
    text(mapping(details, "builder", "provenance"), "id", "provenance")
    dependencies = items(build, "resolvedDependencies", "provenance", _DEPENDENCIES_MAX)
    for one in dependencies:
        sha256_of(one.get("digest"), "provenance")
        text(one, "uri", "provenance")
    platforms = external.get("platforms")
    if not isinstance(platforms, list) or not platforms:
        refuse("predicate-malformed", "the provenance names no platforms")
    named = (_package_of(one["uri"]) for one in dependencies)
    packages = frozenset(found for found in named if found)
    imported = None
    if kind == IMPORT_TYPE:
        imported, packages = parse_import(build)
    return Provenance(
        ref=text(external, "ref", "provenance"),
        immutable_tag=text(external, "immutableTag", "provenance"),
        platforms=len(platforms),
        sources=sources.decode(mapping(external, "sources", "provenance")) if "sources" in external else None,
        packages=packages,
        imported=imported,
        kit=kit_of(details),
    )


def parse_vulnerabilities(predicate: Mapping[str, Any]) -> None:
    """Check a vulnerability report: a scanner, a database by digest, and a result with its list."""
    what = "vulnerability report"
    scanner = mapping(predicate, "scanner", what)
    text(scanner, "version", what)
    sha256_of(mapping(scanner, "db", what).get("digest"), what)
    items(mapping(scanner, "result", what), "findings", what, 1_000_000)


def parse_test_result(predicate: Mapping[str, Any]) -> None:
    """Check a check report: nothing failed, and something passed."""
    what = "check report"
    if predicate.get("result") not in ("PASSED", "WARNED"):
        refuse("checks-failed", "the check report is not a pass", context=quoted(predicate.get("result")))
    for key in ("passedTests", "warnedTests", "failedTests"):
        names = predicate.get(key)
        if not isinstance(names, list) or not all(isinstance(n, str) for n in names):
            refuse("predicate-malformed", f"the {what} has no list {key!r}")
    if predicate["failedTests"] or not predicate["passedTests"]:
        refuse("checks-failed", "the check report contradicts its result")


def parse_cyclonedx(predicate: Mapping[str, Any]) -> frozenset[str]:
    """Check a CycloneDX document: its format and its components; returns them as NAME=VERSION."""
    if predicate.get("bomFormat") != "CycloneDX" or not isinstance(predicate.get("specVersion"), str):
        refuse("predicate-malformed", "not a CycloneDX document")
    components = items(predicate, "components", "CycloneDX document", 1_000_000)
    return frozenset(f"{c.get('name')}={c.get('version')}" for c in components)


def parse_spdx(predicate: Mapping[str, Any]) -> None:
    """Check an SPDX document: its version and its list of packages."""
    if not str(predicate.get("spdxVersion", "")).startswith("SPDX-2."):
        refuse("predicate-malformed", "not an SPDX 2 document")
    items(predicate, "packages", "SPDX document", 1_000_000)


def parse_openvex(predicate: Mapping[str, Any]) -> None:
    """Check an OpenVEX document (0.2.0): its context, and statements with a status each."""
    what = "OpenVEX document"
    if not text(predicate, "@context", what).startswith("https://openvex.dev/ns"):
        refuse("predicate-malformed", f"not an {what}")
    for statement in items(predicate, "statements", what, 100_000):
        text(statement, "status", what)


def stated_time(kind: str, predicate: Mapping[str, Any]) -> dt.datetime | None:
    """The time that a statement of this type says of itself; None for a type that says none."""
    path = _TIME_OF.get(kind)
    if path is None:
        return None
    for key in path[:-1]:
        predicate = mapping(predicate, key, SHORT_NAMES[kind])
    return parse_time(predicate, path[-1], SHORT_NAMES[kind])


def parse_time(parent: Mapping[str, Any], key: str, what: str) -> dt.datetime:
    """The time under `key`, RFC 3339 in UTC to the second; refuses anything else."""
    value = text(parent, key, what)
    try:
        return _time(value)
    except ValueError:
        refuse("predicate-malformed", f"the {what}'s {key} is malformed", context=quoted(value))


@lru_cache(maxsize=_TIMES_KEPT)  # one statement's is asked for several times, and a night's are the same
def _time(value: str) -> dt.datetime:
    return dt.datetime.strptime(value, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=dt.UTC)


def timestamp(at: dt.datetime) -> str:
    """RFC 3339 in UTC, to the second."""
    return at.astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def mapping(parent: Mapping[str, Any], key: str, what: str) -> Mapping[str, Any]:
    """The object under `key`; refuses when there is none."""
    value = parent.get(key)
    if not isinstance(value, dict):
        refuse("predicate-malformed", f"the {what} has no object {key!r}")
    return value


def text(parent: Mapping[str, Any], key: str, what: str) -> str:
    """The non-empty string under `key`; refuses when there is none."""
    value = parent.get(key)
    if not isinstance(value, str) or not value:
        refuse("predicate-malformed", f"the {what} has no text {key!r}")
    return value


def items(parent: Mapping[str, Any], key: str, what: str, count_max: int) -> list[Mapping[str, Any]]:
    """The list of objects under `key`; refuses another thing, or more than `count_max` of them."""
    value = parent.get(key)
    if not isinstance(value, list) or not all(isinstance(x, dict) for x in value):
        refuse("predicate-malformed", f"the {what} has no list of objects {key!r}")
    if len(value) > count_max:
        refuse("too-large", f"the {what} has more than {count_max} {key}")
    return cast(list[Mapping[str, Any]], value)


def sha256_of(value: Any, what: str) -> Digest:
    """The digest in a `{"sha256": HEX}`; refuses when malformed."""
    found = value.get("sha256") if isinstance(value, dict) else None
    try:
        return Digest(f"sha256:{found}")
    except ValueError:
        refuse("predicate-malformed", f"the {what} has a malformed digest", context=quoted(value))


def _package(package: LockedPackage, suite: str) -> dict[str, Any]:
    return {"uri": package_url(package, suite), "digest": {"sha256": package.sha256}, "name": package.path}


def _parent(ref: str, digest: Digest) -> dict[str, Any]:
    name, _, tag = ref.partition(":")
    uri = f"pkg:oci/{quote(name)}@{quote(str(digest), safe='')}?tag={quote(tag)}"
    return {"uri": uri, "digest": {"sha256": digest.hex}, "name": ref}


def _scan_result(scan: ScanReport) -> dict[str, Any]:
    return {
        "digest": str(scan.digest),
        "platform": str(scan.platform),
        "os": {"family": scan.os_family, "version": scan.os_version},
        "packages": list(scan.packages),
        "findings": [f.as_dict() for f in scan.findings],
        "secrets": [{"rule": s.rule, "path": s.path, "severity": s.severity.value} for s in scan.secrets],
        "licences": _licences((x.package, x.licences) for x in scan.licences),
        "expressions": [[x.package, x.expression, x.how, str(x.copyright or "")] for x in scan.expressions],
        "canary": {
            "package": scan.canary.package,
            "version": scan.canary.version,
            "found": list(scan.canary.found),
        },
        **({"further": [one.as_dict() for one in scan.further]} if scan.further else {}),
    }


def _licences(pairs: Iterable[tuple[str, tuple[str, ...]]]) -> dict[str, list[str]]:
    return {package: list(names) for package, names in pairs}
