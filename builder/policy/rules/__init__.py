"""The rules, in the order in which they are told; a new rule is a file here and a line below."""

from __future__ import annotations

from builder.policy.rule import Rule
from builder.policy.rules import (
    brought,
    checks_passed,
    database_fresh,
    database_not_sample,
    dockerfile_lint,
    evidence_complete,
    hardening,
    known_exploited,
    licences,
    scanner_comparable,
    scanner_identity,
    secrets,
    stream_supported,
    vulnerabilities_fixable,
    vulnerabilities_unfixed,
    witnessed,
)
from builder.policy.schema import PolicyData

RULES: tuple[Rule, ...] = (
    evidence_complete.RULE,
    checks_passed.RULE,
    hardening.RULE,
    brought.RULE,
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

# What others made has no Dockerfile of ours; it must be told whether the scanner could be checked.
IMPORT_RULES: tuple[Rule, ...] = (
    *(rule for rule in RULES if rule is not dockerfile_lint.RULE),
    scanner_comparable.RULE,
)

# What can be asked only of an image that was published: at promotion, beside the others.
PROMOTION_RULES: tuple[Rule, ...] = (witnessed.RULE,)


def rules_for(policy: PolicyData) -> tuple[Rule, ...]:
    """The rules that a policy asks."""
    return RULES if policy.imports is None else IMPORT_RULES
