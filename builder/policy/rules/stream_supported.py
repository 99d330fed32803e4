"""The stream is still supported by those who make its software."""

from __future__ import annotations

from collections.abc import Iterator

from builder.policy.rule import Case, Rule, Seen


def _check(case: Case) -> Iterator[Seen]:
    stream = case.image.target.stream
    left = (stream.end_of_life - case.now.date()).days
    if left < case.policy.support.days_left_min:
        ends = "ended" if left < 0 else "ends"
        instead = f"; move to {stream.replacement}" if stream.replacement else ""
        yield {"ref": case.image.target.ref, "ends": ends, "day": stream.end_of_life, "instead": instead}


RULE = Rule(
    id="stream-supported",
    title="The stream is supported",
    failure="{ref}: support {ends} on {day}{instead}",
    solution="build a supported stream, and take this one out of the catalogue",
    check=_check,
)
