"""The rules, in the order in which they are told; a new rule is a file here and a line below."""

from __future__ import annotations

from builder.policy.rule import Rule
from builder.policy.rules import (
    checks_passed,
    database_fresh,
    database_not_sample,
    dockerfile_lint,
    evidence_complete,
    hardening,
    known_exploited,
    licences,
    scanner_identity,
    secrets,
    stream_supported,
    vulnerabilities_fixable,
    vulnerabilities_unfixed,
)

RULES: tuple[Rule, ...] = (
    evidence_complete.RULE,
    checks_passed.RULE,
    hardening.RULE,
    scanner_identity.RULE,
    database_fresh.RULE,
    database_not_sample.RULE,
    known_exploited.RULE,
    vulnerabilities_fixable.RULE,
    vulnerabilities_unfixed.RULE,
    secrets.RULE,
    licences.RULE,
    dockerfile_lint.RULE,
    stream_supported.RULE,
)
