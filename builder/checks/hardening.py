"""The hardening rules that need no container, all in one table.

A rule is data and a function (see `rule.py`); each module beside this one holds those of one
subject. What a container shows is in `probe.py`.
"""

from __future__ import annotations

from builder.checks import configuration, leftovers, modes, programs, system
from builder.checks.rule import Facts, Rule
from builder.model.evidence import CheckResult

WANTED = (*system.WANTED, *leftovers.WANTED)  # files whose content the rules read
PATTERNS = leftovers.PATTERNS  # what they look for in all files

RULES: tuple[Rule, ...] = (
    *configuration.RULES,
    *programs.RULES,
    *modes.RULES,
    *leftovers.RULES,
    *system.RULES,
)


def harden(facts: Facts, rules: tuple[Rule, ...] = RULES) -> tuple[CheckResult, ...]:
    """The result of every rule; one that does not hold for the image's variant is not applicable."""
    return tuple(rule.judge(facts) for rule in rules)
