"""Checks that a catalogue declares for all of its images (`checks/ID.yaml`), as rules like ours."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from builder.checks.files import path_failures
from builder.checks.rule import Facts, Rule
from builder.model.definition import CatalogueCheck

_PARTS = re.compile(r"(\*\*|\*)")
_ANY = {"**": ".*", "*": "[^/]*"}


def declared(checks: Mapping[str, CatalogueCheck]) -> tuple[Rule, ...]:
    """A rule for each check, by id."""
    return tuple(_rule(identifier, check) for identifier, check in checks.items())


def _rule(identifier: str, check: CatalogueCheck) -> Rule:
    def failures(facts: Facts) -> Iterator[str]:
        for one in check.files:
            for failure in path_failures(facts.files, one):
                yield f"{one.path}: {failure}"
        for pattern in check.forbidden:
            matches = _pattern(pattern).fullmatch
            yield from (f"/{path} is there" for path in sorted(facts.files.entries) if matches(f"/{path}"))
        labels = facts.config.get("Labels")
        there = labels if isinstance(labels, dict) else {}
        yield from (f"the label {name} is missing" for name in check.labels if not there.get(name))

    return Rule(
        id=identifier,
        title=check.title,
        rationale=check.rationale,
        source=check.source,
        looks_at="files" if check.files or check.forbidden else "configuration",
        level=check.level,
        variants=check.variants,
        failures=failures,
    )


def _pattern(text: str) -> re.Pattern[str]:
    """`*` is anything but a `/`, `**` anything."""
    return re.compile("".join(_ANY.get(part) or re.escape(part) for part in _PARTS.split(text)), re.DOTALL)
