"""The rendered Dockerfile has no remark of the level that the policy names, or a worse one."""

from __future__ import annotations

from collections.abc import Iterator

from builder.policy.rule import Case, Rule, Seen

_LEVELS = ("error", "warning", "info", "style")  # worst first


def _check(case: Case) -> Iterator[Seen]:
    counted = _LEVELS[: _LEVELS.index(case.policy.lint.level) + 1]
    for evidence, lint in case.lints:
        for finding in lint.findings:
            # A level that we do not know counts as bad.
            if finding.level in counted or finding.level not in _LEVELS:
                yield {
                    "platform": evidence.platform,
                    "line": finding.line,
                    "code": finding.code,
                    "message": finding.message,
                }


RULE = Rule(
    id="dockerfile-lint",
    title="The rendered Dockerfile is clean",
    failure="{platform}: line {line}: {code} {message}",
    solution="mend the template (`goldsmith render` shows the Dockerfile)",
    check=_check,
    needs="lint",
)
