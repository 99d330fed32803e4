"""Evidence about one digest. "Not done" is a type of its own, never an empty result."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from builder.model.digest import Digest
from builder.model.extension import ExtensionIdentity
from builder.model.platform import Platform


class Severity(StrEnum):
    """The severities that Trivy reports, worst first."""

    CRITICAL = "CRITICAL"
    HIGH = "HIGH"
    MEDIUM = "MEDIUM"
    LOW = "LOW"
    UNKNOWN = "UNKNOWN"


_SEVERITIES = tuple(Severity)


class Outcome(StrEnum):
    """What became of a check; `not-run` is not a pass, `not-applicable` is a rule for other variants."""

    PASSED = "passed"
    FAILED = "failed"
    NOT_RUN = "not-run"
    NOT_APPLICABLE = "not-applicable"


@dataclass(frozen=True, slots=True)
class NotDone:
    """A stage that could not be done, and why; the policy denies for that reason."""

    stage: str
    reason: str


@dataclass(frozen=True, slots=True)
class CheckResult:
    """One check: a stable id, what it demands, what came out, and what was seen."""

    id: str
    title: str
    outcome: Outcome
    detail: str = ""

    def as_dict(self) -> dict[str, str]:
        """The result as plain data."""
        return {"id": self.id, "title": self.title, "outcome": self.outcome.value, "detail": self.detail}


@dataclass(frozen=True, slots=True)
class CheckReport:
    """All checks of one platform manifest, and where they ran."""

    digest: Digest
    platform: Platform
    engine: str
    results: tuple[CheckResult, ...]


@dataclass(frozen=True, slots=True)
class DatabaseIdentity:
    """The vulnerability database: digest of its artefact, and what its metadata says.

    `updated_at` is RFC 3339 UTC. `sample` marks the small database of the tests, which no
    ordinary policy accepts.
    """

    digest: Digest
    source: str
    updated_at: str
    schema: int
    sample: bool


@dataclass(frozen=True, slots=True)
class ScannerIdentity:
    """The scanner's name, version, and the digest of its binary."""

    name: str
    version: str
    binary: Digest


@dataclass(frozen=True, slots=True)
class Finding:
    """One vulnerability in one package; `fixed_version` is empty when there is no fix."""

    id: str
    package: str
    installed_version: str
    fixed_version: str
    severity: Severity
    status: str
    title: str

    @property
    def fixable(self) -> bool:
        """Whether a version without the vulnerability is published."""
        return bool(self.fixed_version)

    def as_dict(self) -> dict[str, str]:
        """The finding as it is attested."""
        return {
            "id": self.id,
            "package": self.package,
            "installedVersion": self.installed_version,
            "fixedVersion": self.fixed_version,
            "severity": self.severity.value,
            "status": self.status,
            "title": self.title,
        }


@dataclass(frozen=True, slots=True)
class Secret:
    """Something that looks like a credential; the value itself is never kept."""

    rule: str
    path: str
    severity: Severity


@dataclass(frozen=True, slots=True)
class PackageLicences:
    """The licence names that a package's copyright file gives."""

    package: str
    licences: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PackageLicence:
    """A package's licence by its copyright file: an SPDX expression, and how it was found.

    `how` is `declared` (a machine-readable file), `recognised` (pointers and known texts) or
    `unknown`, then with the expression NOASSERTION. `copyright` is the digest of the file's text,
    None where there is none.
    """

    package: str
    expression: str
    how: str
    copyright: Digest | None


@dataclass(frozen=True, slots=True)
class CanaryResult:
    """The planted known-vulnerable package: what was planted, and what was found of it."""

    package: str
    version: str
    found: tuple[str, ...]


NOT_AFFECTED = "not_affected"  # the status of what a distribution has found to be no flaw of its package


@dataclass(frozen=True, slots=True)
class FurtherScan:
    """What the scanner of an extension found in the same platform."""

    scanner: ExtensionIdentity
    findings: tuple[Finding, ...]

    def as_dict(self) -> dict[str, object]:
        """The scan as it is attested."""
        return {"scanner": self.scanner.as_dict(), "findings": [f.as_dict() for f in self.findings]}


@dataclass(frozen=True, slots=True)
class ScanReport:
    """A complete scan of one platform manifest; it exists only if the scan can be trusted.

    `further` is what scanners of extensions found, beside the `findings` of ours.
    """

    digest: Digest
    platform: Platform
    scanner: ScannerIdentity
    database: DatabaseIdentity
    os_family: str
    os_version: str
    packages: tuple[str, ...]  # NAME=VERSION, sorted: exactly the locked packages
    findings: tuple[Finding, ...]
    secrets: tuple[Secret, ...]
    licences: tuple[PackageLicences, ...]
    canary: CanaryResult
    expressions: tuple[PackageLicence, ...] = ()  # read here, of every package; none for others' images
    further: tuple[FurtherScan, ...] = ()

    @property
    def union(self) -> tuple[Finding, ...]:
        """What any scanner found: of one vulnerability in one package, the gravest that is affected."""
        if not self.further:
            return self.findings
        found: dict[tuple[str, str], Finding] = {}
        for finding in (*self.findings, *(f for one in self.further for f in one.findings)):
            key = (finding.id, finding.package)
            if key not in found or _gravity(finding) < _gravity(found[key]):
                found[key] = finding
        return tuple(found.values())


def _gravity(finding: Finding) -> tuple[bool, int]:
    return finding.status == NOT_AFFECTED, _SEVERITIES.index(finding.severity)


@dataclass(frozen=True, slots=True)
class Sboms:
    """The two SBOM documents, as the bytes that are attested."""

    digest: Digest
    cyclonedx: bytes
    spdx: bytes


@dataclass(frozen=True, slots=True)
class LintFinding:
    """One remark of the Dockerfile linter."""

    code: str
    line: int
    message: str
    level: str


@dataclass(frozen=True, slots=True)
class LintReport:
    """What the linter says of the rendered Dockerfile."""

    linter: str
    version: str
    findings: tuple[LintFinding, ...]


@dataclass(frozen=True, slots=True)
class Evidence:
    """Everything known of one platform manifest when the verdict is given."""

    digest: Digest
    platform: Platform
    checks: CheckReport | NotDone
    scan: ScanReport | NotDone
    sboms: Sboms | NotDone
    lint: LintReport | NotDone
