"""No file in the image looks like a credential."""

from __future__ import annotations

from collections.abc import Iterator

from builder.policy.rule import Case, Rule, Seen, listed


def _check(case: Case) -> Iterator[Seen]:
    for scan in case.scans:
        if len(scan.secrets) > case.policy.secrets_max:
            yield {
                "platform": scan.platform,
                "count": len(scan.secrets),
                "allowed": case.policy.secrets_max,
                "list": listed([f"{s.rule} in {s.path}" for s in scan.secrets]),
            }


RULE = Rule(
    id="secrets",
    title="No secrets in the image",
    failure="{platform}: {count} found, {allowed} allowed: {list}",
    solution="take the file out of the image, and replace the credential: it may have been seen",
    check=_check,
    needs="scan",
)
