"""Judge: evidence and a policy in, a verdict out: approved only when every rule agrees."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from builder.errors import DefinitionError, Problem, ToolError, UsageError
from builder.model.digest import Digest
from builder.model.evidence import Evidence, Sboms, ScanReport
from builder.model.image import BuiltImage
from builder.model.verdict import Verdict
from builder.model.waiver import WaiversDefinition
from builder.policy.engine import announce, evaluate
from builder.policy.exploited import FILE, KnownExploited, parse_exploited
from builder.policy.rule import Case, Rule
from builder.policy.rules import IMPORT_RULES, RULES, rules_for
from builder.policy.schema import Policy, parse_policy
from builder.store import read_file
from builder.tools import strict_yaml
from builder.tools.strict_json import parse_object
from builder.tools.strict_model import read_model

IMPORTS = "imports"  # the folder of a catalogue with what is said of imported images
_EXPLOITED_MAX = 32 << 20  # bytes


def judge(image: BuiltImage, evidence: tuple[Evidence, ...], policy: Policy, now: dt.datetime) -> Verdict:
    """The verdict on an image: every rule's result, and the waivers that were used.

    Valid from `now` for the policy's time, but no longer than any waiver that was used.
    """
    case = Case(image, evidence, policy.data, now, policy.exploited, extensions=policy.extensions)
    rules = (*rules_for(policy.data), *policy.added)
    results = evaluate(case, rules)
    scans = [e.scan for e in evidence if isinstance(e.scan, ScanReport)]
    used = {waiver.id: waiver.ends_at for scan in scans for _, waiver in case.waived(scan)}
    expires_at = now + dt.timedelta(days=policy.data.verdict_days_valid)
    return Verdict(
        digest=image.digest,
        ref=image.target.ref,
        approved=bool(results) and all(result.passed for result in results),
        policy=policy.name,
        policy_digest=policy.digest,
        issued_at=now,
        expires_at=min([expires_at, *used.values()]),
        database=scans[0].database if scans else None,
        sboms={
            str(e.digest): str(Digest.of(e.sboms.cyclonedx)) for e in evidence if isinstance(e.sboms, Sboms)
        },
        rules=results,
        waivers=tuple(sorted(used)),
        announced=announce(case, rules),
        extensions=policy.extensions,
    )


def load_policy(path: Path, added: Sequence[Rule] = ()) -> Policy:
    """The policy in a file; raises DefinitionError with every mistake in it, UsageError when missing.

    `added` are rules of extensions, which it may name, too.
    """
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
    policy = parse_policy(value, Digest.of(text), path.name)
    known = list(dict.fromkeys(rule.id for rule in (*RULES, *IMPORT_RULES, *added)))
    if unknown := [name for name in policy.data.effective if name not in known]:
        hint = f"the rules are {', '.join(known)}"
        raise DefinitionError(
            [Problem(path.name, f"effective.{n}", "there is no such rule", hint) for n in unknown]
        )
    return policy


def find_policy(name: str, folders: Sequence[Path], added: Sequence[Rule] = ()) -> Policy:
    """The policy called `name` in the first of the folders that has it; raises as `load_policy`.

    With it comes the list of known exploited vulnerabilities of the first folder that has one, and,
    for imported images, what is accepted in them by the catalogue of the first folder.
    """
    known = sorted({path.stem for folder in folders for path in folder.glob("*.yaml")})
    for folder in folders:
        path = folder / f"{name}.yaml"
        if name in known and path.is_file():
            policy = load_policy(path, added)
            if policy.name != name:
                raise UsageError(f"{path} calls itself {policy.name!r}", hint="file and name must agree")
            accepted = imported_waivers(folders[0].parent) if policy.data.imports is not None else {}
            return replace(policy, exploited=_exploited(folders), accepted=accepted)
    raise UsageError(
        f"there is no policy called {name!r}",
        context=f"known: {', '.join(known) or 'none'}",
        hint="GOLDSMITH_POLICY names a file in the catalogue's policies/ or one that comes with goldsmith",
    )


def imported_waivers(catalogue: Path) -> dict[str, WaiversDefinition]:
    """The `imports/NAME/waivers.yaml` of a catalogue by NAME; raises DefinitionError."""
    problems: list[Problem] = []
    found = {}
    for path in sorted((catalogue / IMPORTS).glob("*/waivers.yaml")):
        name = path.parent.name
        waivers = read_model(catalogue, f"{IMPORTS}/{name}/waivers.yaml", WaiversDefinition, problems)
        if waivers is not None:
            found[name] = waivers
    if problems:
        raise DefinitionError(problems)
    return found


def _exploited(folders: Sequence[Path]) -> KnownExploited | None:
    for folder in folders:
        if (folder / FILE).exists():
            return _load_exploited(folder / FILE)
    return None


def _load_exploited(path: Path) -> KnownExploited:
    try:
        text = read_file(path, _EXPLOITED_MAX)
        value = parse_object(text, size_max=_EXPLOITED_MAX, what=path.name)
        return parse_exploited(value, Digest.of(text))
    except (OSError, ToolError, ValueError) as error:
        raise DefinitionError(
            [
                Problem(
                    path.name,
                    "(whole file)",
                    f"not a list of known exploited vulnerabilities: {error}",
                    "take CISA's JSON file, or remove it",
                )
            ]
        ) from None
