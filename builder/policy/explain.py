"""A verdict in words: the decision, for how long, and for each refusal what to do."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Mapping

from builder.model.evidence import Outcome
from builder.model.verdict import RuleResult, Verdict
from builder.policy.rule import NOT_JUDGED

_SHOWN = 8  # failures of one rule
_WELL = (Outcome.PASSED.value, Outcome.NOT_APPLICABLE.value)


def explain(verdict: Verdict, now: dt.datetime | None = None) -> list[str]:
    """Lines for people: decision, validity, each failed rule with its solution, the passes.

    `now` tells whether the verdict has expired; the texts may hold anything, so print them
    through `report.emit`.
    """
    decision = "approved" if verdict.approved else "denied"
    lines = [
        f"{verdict.ref} {verdict.digest}",
        f"{decision} by the policy {verdict.policy}{_age(verdict, now)}",
    ]
    if verdict.database:
        sample = " (SAMPLE: it knows few vulnerabilities)" if verdict.database.sample else ""
        lines.append(f"database: {verdict.database.source} of {verdict.database.updated_at}{sample}")
    blind = [rule for rule in verdict.failed if all(f.startswith(NOT_JUDGED) for f in rule.failures)]
    for rule in verdict.failed:
        if rule not in blind:
            lines += ["", *_refusal(rule)]
    if blind:
        lines += ["", "could not be judged, which is a denial too:"]
        lines += [f"  {rule.id}: {rule.failures[0]}" for rule in blind]
    passed = [rule.id for rule in verdict.rules if rule.passed]
    if passed:
        lines += ["", f"passed: {', '.join(passed)}"]
    if verdict.announced:
        lines += ["", "announced:", *(f"  {text}" for text in verdict.announced)]
    if verdict.extensions:
        lines += ["extensions asked: " + ", ".join(map(str, verdict.extensions))]
    if verdict.waivers:
        lines += [f"waivers used: {', '.join(verdict.waivers)}"]
    return lines


def explain_checks(reports: object, each: bool) -> list[str]:
    """Lines about the results of the checks by platform, as plain data; with `each`, one a check.

    What has failed or was not run is always told. Anything may be in `reports`.
    """
    lines: list[str] = []
    for platform, report in reports.items() if isinstance(reports, Mapping) else ():
        results = [r for r in report if isinstance(r, Mapping)] if isinstance(report, list) else []
        counts = Counter(str(r.get("outcome")) for r in results)
        lines += ["", f"checks on {platform}: {', '.join(f'{n} {o}' for o, n in counts.items())}"]
        for result in results:
            if each or result.get("outcome") not in _WELL:
                detail = f": {result['detail']}" if result.get("detail") else ""
                lines.append(f"  {result.get('outcome')} {result.get('id')} ({result.get('title')}){detail}")
    return lines


def _age(verdict: Verdict, now: dt.datetime | None) -> str:
    since, until = _time(verdict.issued_at), _time(verdict.expires_at)
    if now is not None and now >= verdict.expires_at:
        return f" on {since}; EXPIRED since {until}"
    return f" since {since}" + (f", valid until {until}" if verdict.approved else "")


def _refusal(rule: RuleResult) -> list[str]:
    lines = [f"not met: {rule.title} ({rule.id})"]
    lines += [f"  {failure}" for failure in rule.failures[:_SHOWN]]
    if len(rule.failures) > _SHOWN:
        lines.append(f"  and {len(rule.failures) - _SHOWN} more")
    return [*lines, f"  what to do: {rule.solution}"]


def _time(when: dt.datetime) -> str:
    return when.astimezone(dt.UTC).strftime("%Y-%m-%d %H:%M UTC")
