"""Others than the builder have built the image again, and got the same."""

from __future__ import annotations

from collections.abc import Iterator

from builder.policy.rule import Case, Rule, Seen


def _check(case: Case) -> Iterator[Seen]:
    asked = case.policy.witnesses
    keys = {one.key for one in case.witnesses}
    engines = sorted({one.rebuild.engine for one in case.witnesses})
    if len(keys) < asked.count or len(engines) < asked.engines:
        yield {
            "ref": case.image.target.ref,
            "keys": len(keys),
            "count": asked.count,
            "engines": ", ".join(engines) or "none",
            "different": asked.engines,
        }


RULE = Rule(
    id="witnessed",
    title="Enough witnesses have rebuilt the image from the registry alone (asked at promotion)",
    failure="{ref} was rebuilt by {keys} of {count} witnesses, on {engines}; {different} engines are asked",
    solution="let a witness run `goldsmith reproduce IMAGE --sign` (with `--engine`) on a machine of its own",
    check=_check,
)
