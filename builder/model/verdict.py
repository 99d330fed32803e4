"""The verdict: what the policy says of an image, and why."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

from builder.model.digest import Digest
from builder.model.evidence import DatabaseIdentity
from builder.model.extension import ExtensionIdentity


@dataclass(frozen=True, slots=True)
class RuleResult:
    """What one rule said; `failures` is empty when it passed."""

    id: str
    title: str
    failures: tuple[str, ...]
    solution: str

    @property
    def passed(self) -> bool:
        """Whether the rule has nothing against the image."""
        return not self.failures


@dataclass(frozen=True, slots=True)
class Verdict:
    """The decision on one image (its index digest), valid from `issued_at` until `expires_at`.

    `policy` is the policy's name and the digest of its text. `sboms` maps each platform
    manifest's digest to its CycloneDX document's digest. `announced` is what rules that are not yet in
    effect will refuse. `extensions` are those that were asked beside our own rules. Times are UTC.
    """

    digest: Digest
    ref: str
    approved: bool
    policy: str
    policy_digest: Digest
    issued_at: dt.datetime
    expires_at: dt.datetime
    database: DatabaseIdentity | None
    sboms: dict[str, str]
    rules: tuple[RuleResult, ...]
    waivers: tuple[str, ...] = ()
    announced: tuple[str, ...] = ()
    extensions: tuple[ExtensionIdentity, ...] = ()

    @property
    def failed(self) -> tuple[RuleResult, ...]:
        """The rules that refused."""
        return tuple(r for r in self.rules if not r.passed)
