"""All checks that every image has to show, wherever they look: for lists, documents and people."""

from __future__ import annotations

from typing import Any

from builder.checks import hardening, probe
from builder.checks.cis import SECTION_4
from builder.checks.rule import About

CHECKS: tuple[About, ...] = (*hardening.RULES, *probe.RULES)


def as_dict(check: About) -> dict[str, Any]:
    """A check as plain data."""
    return {
        "id": check.id,
        "title": check.title,
        "rationale": check.rationale,
        "source": check.source,
        "level": check.level,
        "looks_at": check.looks_at,
        "variants": list(check.variants),
    }


def cis() -> list[dict[str, Any]]:
    """Section 4 of the CIS Docker Benchmark as plain data."""
    return [
        {
            "number": one.number,
            "title": one.title,
            "checks": list(one.checks),
            "policy_rules": list(one.policy),
            "note": one.note,
        }
        for one in SECTION_4
    ]
