"""A team's own rules of the policy, from installed Python packages; nothing of the catalogue is run.

A package names them under the entry point group `goldsmith.rules`; each is a `builder.policy.rule.Rule`,
as ours are. Who they are (package, version, digest of its code) becomes part of the policy's digest. What
raises, hangs or is no rule never counts as a pass.
"""

from __future__ import annotations

import importlib.util
import itertools
import threading
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path

from builder.errors import ToolError
from builder.model.definition import is_name
from builder.model.digest import Digest
from builder.policy.rule import Case, Rule, Seen

RULES = "goldsmith.rules"
SECONDS_MAX = 30.0  # for one rule and one image
_SEEN_MAX = 1000  # failures that are taken from a rule
_TEXT_MAX = 1000  # characters of a title, and so on


@dataclass(frozen=True, slots=True)
class Extension:
    """A rule of somebody else: where it comes from, and what it is."""

    name: str
    package: str
    version: str
    digest: Digest
    rule: Rule

    @property
    def identity(self) -> dict[str, str]:
        """What a policy's digest and the provenance say of it."""
        found = {"name": self.name, "package": self.package, "version": self.version}
        return {**found, "digest": str(self.digest)}


def rules(known: Collection[str], seconds_max: float = SECONDS_MAX) -> tuple[Extension, ...]:
    """The installed rules by name; `known` are the ids that are taken.

    Raises ToolError, naming the extension, when one cannot be loaded, is no rule, or takes an id.
    """
    found: list[Extension] = []
    taken = set(known)
    for point in sorted(metadata.entry_points(group=RULES), key=lambda p: (p.name, p.value)):
        extension = _load(point, seconds_max)
        if extension.rule.id in taken:
            raise _broken(extension.name, f"its rule {extension.rule.id!r} is there already")
        taken.add(extension.rule.id)
        found.append(extension)
    return tuple(found)


def combined(digest: Digest, extensions: Iterable[Extension]) -> Digest:
    """The digest of a policy with these extensions; its own when there are none."""
    identities = [extension.identity for extension in extensions]
    return Digest.of_json([digest, identities]) if identities else digest


def _load(point: metadata.EntryPoint, seconds_max: float) -> Extension:
    name = f"{point.name[:80]} ({point.value[:80]})"
    if point.dist is None:
        raise _broken(name, "it belongs to no installed package")
    try:
        rule = point.load()
        digest = _digest(point, point.dist)
    except Exception as error:  # noqa: BLE001 - code of others raises what it likes
        raise _broken(name, f"{type(error).__name__}: {str(error)[:300]}") from None
    if not isinstance(rule, Rule):
        raise _broken(name, f"it is a {type(rule).__name__}, not a rule")
    texts = (rule.id, rule.title, rule.failure, rule.solution)
    if not all(isinstance(t, str) and 0 < len(t) <= _TEXT_MAX for t in texts) or not callable(rule.check):
        raise _broken(name, "its id, title, failure and solution must be text, its check a function")
    if not is_name(rule.id) or rule.needs not in (None, "checks", "scan", "sboms", "lint"):
        raise _broken(
            name, f"no rule can have the id {str(rule.id)[:80]!r} and need {str(rule.needs)[:80]!r}"
        )
    bounded = replace(rule, check=_bounded(name, rule.check, seconds_max))
    return Extension(point.name, point.dist.name, point.dist.version, digest, bounded)


def _digest(point: metadata.EntryPoint, package: metadata.Distribution) -> Digest:
    """Of all code of the package, and of the module itself, which may lie elsewhere (editable installs)."""
    files = {str(f): Path(str(f.locate())) for f in package.files or () if str(f).endswith(".py")}
    spec = importlib.util.find_spec(point.module)
    if spec and spec.origin:
        files[f"module {point.module}"] = Path(spec.origin)
    return Digest.of_json({name: Digest.of(path.read_bytes()) for name, path in sorted(files.items())})


def _bounded(
    name: str, check: Callable[[Case], Iterable[Seen]], seconds_max: float
) -> Callable[[Case], list[Seen]]:
    """The check in a thread of its own: what does not end is a failure of the rule, which denies."""

    def run(case: Case) -> list[Seen]:
        answer: list[list[Seen]] = []
        wrong: list[BaseException] = []

        def act() -> None:
            try:
                answer.append(list(itertools.islice(check(case), _SEEN_MAX)))
            except BaseException as error:  # noqa: BLE001 - told below, in the thread that asked
                wrong.append(error)

        thread = threading.Thread(target=act, daemon=True, name="extension")
        thread.start()
        thread.join(seconds_max)
        if wrong:
            raise RuntimeError(f"the extension {name}: {type(wrong[0]).__name__}: {wrong[0]}")
        if not answer:
            raise TimeoutError(f"the extension {name} did not end within {seconds_max:.0f} s")
        return answer[0]

    return run


def _broken(name: str, why: str) -> ToolError:
    return ToolError(
        f"the extension {name} of {RULES} cannot be used",
        context=why,
        hint="mend the package that brings it, or uninstall it",
        reference="extension-broken",
    )
