"""The policy's data: what the rules allow. Every threshold is written down; none has a default.

A policy is one YAML file in the catalogue's `policies/`, or one that comes with the tool.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, ValidationError

from builder.errors import DefinitionError, Problem
from builder.model.definition import Name, PlainText, Strict
from builder.model.digest import Digest
from builder.model.evidence import Severity
from builder.model.extension import ExtensionIdentity
from builder.model.waiver import Waiver, WaiversDefinition
from builder.policy.exploited import KnownExploited

if TYPE_CHECKING:
    from builder.policy.rule import Rule

_WHOLE = "(whole file)"
_HINT = "registry/policies/baseline.yaml shows every key and what it means"

Limit = Annotated[int, Field(ge=0, le=1_000_000)] | None
Days = Annotated[float, Field(gt=0, le=36_500, allow_inf_nan=False)]


class Thresholds(Strict):
    """How many findings of each severity are allowed; null is no limit."""

    critical: Limit
    high: Limit
    medium: Limit
    low: Limit
    unknown: Limit

    def limit(self, severity: Severity) -> int | None:
        """The number that is allowed; None when there is no limit."""
        found: int | None = getattr(self, severity.value.lower())
        return found


class Vulnerabilities(Strict):
    """Findings for which a fixed version is published, and findings without one."""

    fixable: Thresholds
    unfixed: Thresholds


class DatabaseLimits(Strict):
    """Which vulnerability databases count."""

    age_days_max: Days
    sample: Literal["refuse", "accept"] = Field(description="The small database of the tests and the demo.")


class ScannerLimits(Strict):
    """Which scanners count: the exact versions that were looked at."""

    name: Literal["trivy"]
    versions: Annotated[tuple[PlainText, ...], Field(min_length=1)]


class LicenceLimits(Strict):
    """Which licences packages may have: SPDX names, `NAME WITH EXCEPTION`, or categories.

    Categories: public-domain, permissive, weak-copyleft, strong-copyleft, network-copyleft,
    documentation, unknown (every name that is not in the table). Of a choice (`OR`) one is enough.
    """

    denied: tuple[PlainText, ...] = Field(description="Also by the names that the scanner reports.")
    allowed: tuple[PlainText, ...] = Field(
        description="Empty: all that are not denied. Otherwise only these."
    )
    unknown: Literal["report", "refuse"] = Field(
        description="A package whose copyright file tells no licence that we can read."
    )


class CheckLimits(Strict):
    """Checks that must have been run and passed, by id; of the others, all that ran must pass."""

    required: Annotated[tuple[Name, ...], Field(min_length=1)]
    required_runtime: tuple[Name, ...] = Field(description="Further ones for runtime variants.")


class LintLimits(Strict):
    """Remarks of this level or a worse one deny."""

    level: Literal["error", "warning", "info", "style"]


class SupportLimits(Strict):
    """How many days of support a stream must have left."""

    days_left_min: Annotated[int, Field(ge=0, le=3650)]


Approvals = Annotated[int, Field(ge=0, le=10)]


class ApprovalLimits(Strict):
    """How many people, none of whom wrote it, have to approve a change before an image is stable."""

    definition: Approvals = Field(description="What is said in image.yaml and checks.yaml.")
    template: Approvals = Field(description="The templates, what they include, and builder.yaml.")
    lock: Approvals = Field(description="The locked packages.")
    first: Approvals = Field(description="An image that never was stable.")
    import_: Approvals = Field(alias="import", description="An image from elsewhere.")


class ExploitedLimits(Strict):
    """Findings that are known to be exploited, by the list `known-exploited.json` beside the policies."""

    allowed: Limit
    list: Literal["required", "optional"] = Field(
        description="Whether nothing is approved where there is no list."
    )


class WitnessLimits(Strict):
    """Who, beside the builder, has to have built an image again before it is stable."""

    count: Annotated[int, Field(ge=0, le=20)] = Field(
        description="How many witnesses, each with a key of its own."
    )
    engines: Annotated[int, Field(ge=0, le=5)] = Field(description="On how many different engines together.")


class WaiverLimits(Strict):
    """For how many days a waiver may be given."""

    days_max: Annotated[int, Field(ge=0, le=3650)]


Hours = Annotated[float, Field(gt=0, le=876_000, allow_inf_nan=False)]


class Deadlines(Strict):
    """Hours from the first scan that named a fix until an image without the finding is promoted."""

    known_exploited: Hours = Field(description="Whatever its severity; the shorter of both counts.")
    critical: Hours
    high: Hours
    medium: Hours
    low: Hours
    unknown: Hours

    def of(self, severity: Severity, known_exploited: bool = False) -> dt.timedelta:
        """How long a fix may take."""
        hours: float = getattr(self, severity.value.lower())
        return dt.timedelta(hours=min(hours, self.known_exploited) if known_exploited else hours)


class ImportLimits(Strict):
    """What is asked of images that others made. A policy with this part judges nothing else."""

    not_comparable: Literal["refuse", "accept"] = Field(
        description="An image without a package database that can be compared with the scanner's list."
    )
    no_canary: Literal["refuse", "accept"] = Field(
        description="A distribution of which no planted vulnerability is known."
    )


class PolicyData(Strict):
    """One policy file."""

    schema_version: Literal[1] = Field(alias="schema")
    name: Name
    title: PlainText
    verdict_days_valid: Annotated[int, Field(ge=1, le=90)]
    vulnerabilities: Vulnerabilities
    known_exploited: ExploitedLimits
    waivers: WaiverLimits
    secrets_max: Annotated[int, Field(ge=0)]
    licences: LicenceLimits
    database: DatabaseLimits
    scanner: ScannerLimits
    checks: CheckLimits
    lint: LintLimits
    support: SupportLimits
    approvals: ApprovalLimits
    deadlines: Deadlines
    effective: dict[Name, dt.date] = Field(
        default_factory=dict,
        description="Rules that refuse only from a day (UTC) on; before it they are announced.",
    )
    witnesses: WitnessLimits = Field(
        WitnessLimits(count=0, engines=0), description="Rebuilds by others; asked at promotion only."
    )
    imports: ImportLimits | None = Field(None, description="Only in policies for imports.")


@dataclass(frozen=True, slots=True)
class Policy:
    """A policy, the digest of its text, which a verdict names, and the list that lies beside it.

    `accepted` are the waivers of imported images by their names; those of our own are the catalogue's.
    `added` are rules of `extensions`, which the digest covers.
    """

    data: PolicyData
    digest: Digest
    exploited: KnownExploited | None = None
    accepted: Mapping[str, WaiversDefinition] = field(default_factory=dict)
    added: tuple[Rule, ...] = ()
    extensions: tuple[ExtensionIdentity, ...] = ()

    @property
    def name(self) -> str:
        """The policy's name."""
        return self.data.name

    def waivers_of(self, name: str, stream: str) -> tuple[Waiver, ...]:
        """What is accepted in an imported image."""
        listed = self.accepted[name].waivers if name in self.accepted else ()
        return tuple(
            Waiver(name, entry, inherited=False)
            for entry in listed
            if not entry.streams or stream in entry.streams
        )


def parse_policy(value: Any, digest: Digest, file: str) -> Policy:
    """The policy that a parsed file holds; raises DefinitionError with every mistake in it.

    `digest` is the digest of the file's text, `file` its name for messages.
    """
    try:
        # By way of JSON, because a strict model takes lists for tuples only from there.
        data = PolicyData.model_validate_json(json.dumps(value))
    except (ValidationError, ValueError) as error:
        mistakes = error.errors(include_url=False) if isinstance(error, ValidationError) else []
        problems = [
            Problem(file, ".".join(map(str, mistake["loc"])) or _WHOLE, mistake["msg"], _HINT)
            for mistake in mistakes
        ]
        raise DefinitionError(problems or [Problem(file, _WHOLE, str(error), _HINT)]) from None
    return Policy(data, digest)
