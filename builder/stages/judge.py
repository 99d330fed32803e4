"""Judge: evidence and a policy in, a verdict out: approved only when every rule agrees."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from pathlib import Path

from builder.errors import DefinitionError, Problem, UsageError
from builder.model.digest import Digest
from builder.model.evidence import Evidence, Sboms, ScanReport
from builder.model.image import BuiltImage
from builder.model.verdict import Verdict
from builder.policy.engine import evaluate
from builder.policy.rule import Case
from builder.policy.schema import Policy, parse_policy
from builder.store import read_file
from builder.tools import strict_yaml


def judge(image: BuiltImage, evidence: tuple[Evidence, ...], policy: Policy, now: dt.datetime) -> Verdict:
    """The verdict on an image: every rule's result, valid from `now` for the policy's time."""
    results = evaluate(Case(image, evidence, policy.data, now))
    scans = [e.scan for e in evidence if isinstance(e.scan, ScanReport)]
    return Verdict(
        digest=image.digest,
        ref=image.target.ref,
        approved=bool(results) and all(result.passed for result in results),
        policy=policy.name,
        policy_digest=policy.digest,
        issued_at=now,
        expires_at=now + dt.timedelta(days=policy.data.verdict_days_valid),
        database=scans[0].database if scans else None,
        sboms={
            str(e.digest): str(Digest.of(e.sboms.cyclonedx)) for e in evidence if isinstance(e.sboms, Sboms)
        },
        rules=results,
    )


def load_policy(path: Path) -> Policy:
    """The policy in a file; raises DefinitionError with every mistake in it, UsageError when missing."""
    try:
        text = read_file(path, strict_yaml.SIZE_MAX)
    except FileNotFoundError:
        raise UsageError(f"there is no policy at {path}", hint="put one there, or name another") from None
    except OSError as error:
        raise UsageError(
            f"the policy at {path} cannot be read",
            context=str(error),
            hint="it must be a regular file that you may read, of reasonable size",
        ) from None
    try:
        value = strict_yaml.parse(text)
    except ValueError as error:
        raise DefinitionError([Problem(path.name, "(whole file)", str(error), "write plain YAML")]) from None
    return parse_policy(value, Digest.of(text), path.name)


def find_policy(name: str, folders: Sequence[Path]) -> Policy:
    """The policy called `name` in the first of the folders that has it; raises as `load_policy`."""
    known = sorted({path.stem for folder in folders for path in folder.glob("*.yaml")})
    for folder in folders:
        path = folder / f"{name}.yaml"
        if name in known and path.is_file():
            policy = load_policy(path)
            if policy.name != name:
                raise UsageError(f"{path} calls itself {policy.name!r}", hint="file and name must agree")
            return policy
    raise UsageError(
        f"there is no policy called {name!r}",
        context=f"known: {', '.join(known) or 'none'}",
        hint="GOLDSMITH_POLICY names a file in the catalogue's policies/ or one that comes with goldsmith",
    )
