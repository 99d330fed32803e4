"""Asks every rule; a rule that breaks has denied."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence

from builder.model.verdict import RuleResult
from builder.policy.rule import Case, Rule
from builder.policy.rules import rules_for

_TEXT_MAX = 500  # characters of one failure
_FAILURES_MAX = 100  # failures of one rule


def evaluate(case: Case, rules: Sequence[Rule] | None = None) -> tuple[RuleResult, ...]:
    """What each rule (of the policy, by default) says of the case, in their order; never raises.

    A rule that is not yet in effect passes; `announce` tells what it will say.
    """
    return tuple(
        RuleResult(rule.id, rule.title, (), rule.solution) if is_future(rule, case) else _ask(rule, case)
        for rule in (rules_for(case.policy) if rules is None else rules)
    )


def announce(case: Case, rules: Sequence[Rule] | None = None) -> tuple[str, ...]:
    """What rules that are not yet in effect have against the case, each with the day from which on."""
    return tuple(
        f"from {case.policy.effective[rule.id]} on, {rule.id}: {failure}"
        for rule in (rules_for(case.policy) if rules is None else rules)
        if is_future(rule, case)
        for failure in _ask(rule, case).failures
    )


def is_future(rule: Rule, case: Case) -> bool:
    """Whether the rule takes effect on a later day than the case's (UTC)."""
    day = case.policy.effective.get(rule.id)
    return day is not None and case.now.astimezone(dt.UTC).date() < day


def _ask(rule: Rule, case: Case) -> RuleResult:
    try:
        failures = rule.failures(case)
    except Exception as error:  # noqa: BLE001 - whatever breaks a rule must deny, not pass
        failures = (f"the rule itself broke: {type(error).__name__}: {error}",)
    told = [text[:_TEXT_MAX] for text in failures[:_FAILURES_MAX]]
    if len(failures) > _FAILURES_MAX:
        told.append(f"and {len(failures) - _FAILURES_MAX} more")
    return RuleResult(rule.id, rule.title, tuple(told), rule.solution)
