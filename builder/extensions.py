"""What teams bring without a fork: rules, checks, steps, scanners, in packages that are named.

Being installed loads nothing: `GOLDSMITH_EXTENSIONS` names the packages, and nothing else is looked
at. A package names its parts under the entry point groups of `GROUPS`; each is of the type that ours
have. Who they are (package, version, digest of the package's files) becomes part of what is judged by.
What raises, hangs or answers with something else never counts as a pass.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from builder.errors import ToolError, UsageError
from builder.guard import SETTING, Guard, NoAnswer, answer, broken, several, told
from builder.model.digest import Digest
from builder.model.extension import NAME, VERSION, ExtensionIdentity
from builder.store import file_digest

if TYPE_CHECKING:
    from importlib import metadata

    from builder.checks import rule as checks
    from builder.model.image import GeneratedEntry
    from builder.model.platform import Platform
    from builder.model.scanner import Scanner
    from builder.model.step import Step
    from builder.policy.rule import Case, Rule, Seen

SECONDS_MAX = 30.0  # for one question to an extension
_PACKAGES_MAX = 16
_SCANNER_PATIENCE = 10  # times SECONDS_MAX
_FILES_MAX = 10_000  # of a package
_SEEN_MAX = 1000  # failures that are taken from one answer, entries that a step may make
_STEP_MAX = 16 << 20  # bytes that a step may make
_FINDINGS_MAX = 10_000
_OUR_SCANNER = "trivy"
_SAID_MAX = 1000  # characters of one failure

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Extension:
    """One part that somebody else brought: who it is, and what it is, guarded."""

    identity: ExtensionIdentity
    value: Any


@dataclass(frozen=True, slots=True)
class Extensions:
    """All parts that are loaded, in the order of the groups and of their ids."""

    parts: tuple[Extension, ...] = ()

    @property
    def rules(self) -> tuple[Rule, ...]:
        """The rules of the policy."""
        return tuple(self.of("rule"))

    @property
    def checks(self) -> tuple[checks.Rule, ...]:
        """The checks for all images."""
        return tuple(self.of("check"))

    @property
    def scanners(self) -> tuple[Scanner, ...]:
        """The scanners beside ours."""
        return tuple(self._named("scanner"))

    @property
    def steps(self) -> dict[str, Step]:
        """The typed steps, by id."""
        return {step.id: step for step in self._named("step")}

    def _named(self, kind: str) -> Iterator[Any]:
        known = (part for part in self.parts if part.identity.kind == kind)
        return (replace(part.value, identity=part.identity) for part in known)

    def of(self, kind: str) -> Iterator[Any]:
        """The parts of one kind."""
        return (part.value for part in self.parts if part.identity.kind == kind)

    def identities(self, *kinds: str) -> tuple[ExtensionIdentity, ...]:
        """Who the parts of these kinds are; of all kinds when none is named."""
        return tuple(p.identity for p in self.parts if not kinds or p.identity.kind in kinds)


def load(allowed: Sequence[str], seconds_max: float = SECONDS_MAX) -> Extensions:
    """What the packages of `allowed` bring: `NAME`, or `NAME==VERSION` for that version alone.

    Raises UsageError for what is no such text, ToolError that names package and part when one is not
    installed, of another version, brings nothing, cannot be loaded, is of another type or takes an id.
    """
    if not allowed:
        return Extensions()
    if len(allowed) > _PACKAGES_MAX:
        raise UsageError(f"{SETTING} names more than {_PACKAGES_MAX} packages", hint="name fewer")
    found = [part for text in dict.fromkeys(allowed) for part in _parts(text, seconds_max)]
    kinds = [group.kind for group in GROUPS.values()]
    found.sort(key=lambda part: (kinds.index(part.identity.kind), part.identity.id))
    for one, two in itertools.pairwise(found):
        if (one.identity.kind, one.identity.id) == (two.identity.kind, two.identity.id):
            broken(str(two.identity), f"{one.identity} is there already")
    return Extensions(tuple(found))


def combined(digest: Digest, identities: Iterable[ExtensionIdentity]) -> Digest:
    """The digest of what is judged by together with extensions; its own when there are none."""
    known = [identity.as_dict() for identity in identities]
    return Digest.of_json([digest, known]) if known else digest


def not_named(allowed: Sequence[str]) -> tuple[str, ...]:
    """Installed packages with parts for us that nobody named; none of them is loaded."""
    from importlib import metadata

    named = {_plain(text.partition("==")[0]) for text in allowed}
    points = (point for group in GROUPS for point in metadata.entry_points(group=group))
    there = {_plain(point.dist.name) for point in points if point.dist is not None}
    return tuple(sorted(there - named))


def _parts(text: str, seconds_max: float) -> Iterator[Extension]:
    from importlib import metadata

    name, pinned, version = text.partition("==")
    if not re.fullmatch(NAME, name) or (pinned and not re.fullmatch(VERSION, version)):
        hint = "NAME or NAME==VERSION, separated by commas"
        raise UsageError(f"{SETTING} names no package: {text[:80]!r}", hint=hint)
    try:
        package = metadata.distribution(name)
    except metadata.PackageNotFoundError:
        raise ToolError(
            f"the extension {name} is not installed",
            hint=f"install it beside goldsmith, or take it out of {SETTING}",
            reference="extension-missing",
        ) from None
    if pinned and package.version != version:
        raise ToolError(
            f"the extension {name} is of version {package.version}, not {version}",
            hint=f"install {text}, or review the new version and name it in {SETTING}",
            reference="extension-other-version",
        )
    points = _understood(name, lambda: _points(package), seconds_max)
    if not points:
        broken(name, f"it has no entry point in {', '.join(GROUPS)}")
    for point in points:
        if point.group not in GROUPS:
            broken(f"{point.name[:80]} of {name}", f"there is no group {point.group[:80]!r}")
    # The digest is that of what is loaded, not of what an installer puts there meanwhile.
    before = _understood(name, lambda: _digest(points, package), seconds_max)
    values = [_understood(_named(point), point.load, seconds_max) for point in points]
    if _understood(name, lambda: _digest(points, package), seconds_max) != before:
        broken(name, "its files changed while it was loaded")
    for point, value in zip(points, values, strict=True):
        yield _part(point, value, package, before, seconds_max)


def _points(package: metadata.Distribution) -> list[metadata.EntryPoint]:
    return sorted(p for p in package.entry_points if p.group.startswith("goldsmith."))


def _named(point: metadata.EntryPoint) -> str:
    return f"{point.name[:80]} ({point.value[:80]})"


def _understood(name: str, question: Callable[[], T], seconds_max: float) -> T:
    """What is said by a package's metadata, files and modules, which run when they are imported."""
    try:
        return answer(question, seconds_max)
    except NoAnswer as error:
        broken(name, str(error))


def _part(
    point: metadata.EntryPoint,
    value: object,
    package: metadata.Distribution,
    digest: Digest,
    seconds_max: float,
) -> Extension:
    group, name = GROUPS[point.group], _named(point)
    try:
        guarded = group.guard(Guard(name, seconds_max), value)
        identity = ExtensionIdentity(group.kind, guarded.id, package.name, package.version, digest)
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        broken(name, told(error))
    return Extension(identity, guarded)


def _digest(points: Sequence[metadata.EntryPoint], package: metadata.Distribution) -> Digest:
    """Of all files of the package; where its code lies elsewhere (editable installs), of that, too."""
    import importlib.util

    inside = (f for f in package.files or () if ".." not in f.parts and not f.parts[0].endswith(".dist-info"))
    files = {str(f): Path(str(f.locate())) for f in inside if "__pycache__" not in f.parts}
    known = {path.resolve() for path in files.values()}
    for module in sorted({point.module for point in points}):
        spec = importlib.util.find_spec(module)
        origin = Path(spec.origin).resolve() if spec and spec.origin else None
        if origin and origin not in known:
            # The folder of the outermost package that the module is in, or the module's file.
            depth = module.count(".") + (origin.name == "__init__.py")
            root = origin.parents[depth - 1] if depth else origin
            found = (p for p in sorted(root.rglob("*")) if p.is_file()) if depth else iter([root])
            files |= {
                f"{module}: {p.relative_to(root.parent)}": p for p in found if "__pycache__" not in p.parts
            }
    if not 0 < len(files) <= _FILES_MAX:
        raise ValueError(f"the package has {len(files)} files; 1 to {_FILES_MAX} can be")
    odd = [path.name for path in files.values() if not path.is_file()]
    if odd:
        raise ValueError(f"{odd[0][:80]} is missing, or no regular file")
    return Digest.of_json({name: file_digest(path) for name, path in sorted(files.items())})


@dataclass(frozen=True, slots=True)
class Group:
    """One entry point group: the kind of its parts, and what makes one that can be asked without harm."""

    kind: str
    guard: Callable[[Guard, object], Any]


def _rule(guard: Guard, value: object) -> Rule:
    from builder.policy.rule import Rule
    from builder.policy.rules import IMPORT_RULES, PROMOTION_RULES, RULES

    rule = guard.need(value, Rule)
    guard.texts(rule.id, rule.title, rule.failure, rule.solution)
    guard.free(rule.id, (ours.id for ours in (*RULES, *IMPORT_RULES, *PROMOTION_RULES)))
    if not callable(rule.check) or rule.needs not in (None, "checks", "scan", "sboms", "lint"):
        broken(guard.name, f"its check must be a function, and {str(rule.needs)[:80]!r} is no evidence")

    def check(case: Case) -> list[Seen]:
        # In words at once: the objects that a failure tells of are code of others as well.
        def words() -> list[Seen]:
            seen = itertools.islice(several(rule.check(case)), _SEEN_MAX)
            return [{"said": rule.failure.format_map(one)[:_SAID_MAX]} for one in seen]

        return guard.ask(words)

    return replace(rule, failure="{said}", check=check)


def _check(guard: Guard, value: object) -> checks.Rule:
    from builder.checks import imported
    from builder.checks.listing import CHECKS
    from builder.checks.rule import BOTH, Facts
    from builder.checks.rule import Rule as Check

    check = guard.need(value, Check)
    guard.texts(check.id, check.title, check.rationale, check.source, check.looks_at)
    guard.free(check.id, (*(ours.id for ours in CHECKS), *imported.RULES))
    if not callable(check.failures) or not set(check.variants) <= set(BOTH) or check.level not in (1, 2):
        broken(guard.name, "its failures must be a function, its level 1 or 2, its variants runtime or dev")
    paths = check.reads if isinstance(check.reads, tuple) else ("",)
    if not check.variants or not all(isinstance(p, str) and p and not p.startswith("/") for p in paths):
        broken(guard.name, 'its variants are none, or its reads no tuple of paths such as "etc/motd"')

    def failures(facts: Facts) -> Iterator[str]:
        def words() -> list[str]:
            found = itertools.islice(several(check.failures(facts)), _SEEN_MAX)
            return [str.__getitem__(one, slice(_SAID_MAX)) for one in found]

        try:
            found = guard.ask(words)
        except ToolError as error:
            found = [error.message]
        yield from found

    return replace(check, failures=failures)


def _step(guard: Guard, value: object) -> Step:
    from builder.model.definition import Strict
    from builder.model.step import Step

    step = guard.need(value, Step)
    guard.texts(step.id, step.title)
    if not (isinstance(step.schema, type) and issubclass(step.schema, Strict) and callable(step.make)):
        broken(guard.name, "its schema must be a Strict model, its make a function")

    def make(values: Any, platform: Platform) -> list[GeneratedEntry]:
        return guard.ask(lambda: list(_bounded(several(step.make(values, platform)))))

    return replace(step, make=make)


def _bounded(entries: Iterator[GeneratedEntry]) -> Iterator[GeneratedEntry]:
    size = 0
    for number, entry in enumerate(entries, 1):
        size += len(getattr(entry, "content", b""))
        if number > _SEEN_MAX or size > _STEP_MAX:
            raise ValueError(f"it makes more than {_SEEN_MAX} entries, or {_STEP_MAX >> 20} MiB")
        yield entry


def _scanner(guard: Guard, value: object) -> Scanner:
    from builder.model.evidence import Finding
    from builder.model.scanner import Scanned, Scanner

    scanner = guard.need(value, Scanner)
    guard.texts(scanner.id, scanner.title)
    guard.free(scanner.id, (_OUR_SCANNER,))
    if not callable(scanner.scan):
        broken(guard.name, "its scan must be a function")
    patient = replace(guard, seconds_max=guard.seconds_max * _SCANNER_PATIENCE)

    def scan(given: Scanned) -> list[Finding]:
        def found() -> list[Finding]:
            findings = list(itertools.islice(several(scanner.scan(given)), _FINDINGS_MAX + 1))
            if len(findings) > _FINDINGS_MAX:
                raise ValueError(f"it finds more than {_FINDINGS_MAX} flaws in one image")
            return findings

        return patient.ask(found)

    return replace(scanner, scan=scan)


# All that can be brought; the type of each kind is the one that ours have.
GROUPS: Mapping[str, Group] = {
    "goldsmith.rules": Group("rule", _rule),
    "goldsmith.checks": Group("check", _check),
    "goldsmith.steps": Group("step", _step),
    "goldsmith.scanners": Group("scanner", _scanner),
}


def _plain(name: str) -> str:
    """A distribution's name as all its spellings are compared."""
    return re.sub(r"[-_.]+", "-", name).lower()
