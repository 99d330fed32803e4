"""lock: definition and archive in, `ImageLock` out; later, the pinned section of a target.

Only `resolve_image` asks the archive what is newest. Everything else is offline: a build
takes what was locked and reviewed, or is refused.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Protocol

from builder.errors import DefinitionError, LockError, NoSuchPackage, Problem
from builder.model.catalogue import Catalogue
from builder.model.definition import BuilderDefinition
from builder.model.digest import Digest
from builder.model.generated import DEV_PACKAGES
from builder.model.image import Target
from builder.model.lock import ImageLock, LockedPackage, LockSection, ParentPin
from builder.model.platform import Platform
from builder.store import read_file, write_atomically

GONE = "no longer asked for"  # a section of a lock
BUILDER = "builder"  # the stream of `templates/builder.lock`
_FILE_MAX = 16 << 20  # bytes
_Packages = tuple[LockedPackage, ...]


class Resolver(Protocol):
    """What finds the closure of a request in an archive: `tools/apt.py`."""

    def resolve(self, suite: str, architecture: str, request: Sequence[str]) -> _Packages:
        """The closure of `request`, sorted by name; raises LockError."""


@dataclass(frozen=True, slots=True)
class SectionDiff:
    """How a section differs from the archive: packages as `NAME VERSION` or (name, old, new)."""

    file: str
    section: str
    reasons: tuple[str, ...]
    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: tuple[tuple[str, str, str], ...]

    def as_dict(self) -> dict[str, object]:
        """The difference as JSON data."""
        return {
            "file": self.file,
            "section": self.section,
            "reasons": list(self.reasons),
            "added": list(self.added),
            "removed": list(self.removed),
            "changed": [{"name": n, "old": old, "new": new} for n, old, new in self.changed],
        }


def intent(target: Target) -> Digest:
    """What was asked for, as a digest; the order of names does not count.

    The parent's own intent is in the parent's section, which the lock pins.
    """
    stream = target.stream
    return Digest.of_json(
        {
            "version": 1,
            "suite": stream.suite,
            "packages": sorted(request(target)),
            "omit": sorted(omitted(target)),
            "from": target.definition.parent,
        }
    )


def builder_intent(definition: BuilderDefinition) -> Digest:
    """What was asked for the assembling root file system, as a digest."""
    return Digest.of_json(
        {
            "version": 1,
            "suite": definition.suite,
            "packages": sorted(set(definition.packages)),
            "omit": sorted(set(definition.omit)),
            "from": None,
        }
    )


def request(target: Target) -> frozenset[str]:
    """The packages that a target asks for itself."""
    packages = set(target.stream.packages)
    if target.variant == "dev":
        packages |= {*target.stream.dev.packages, *(() if target.definition.parent else DEV_PACKAGES)}
    return frozenset(packages)


def omitted(target: Target) -> frozenset[str]:
    """The dependencies that a target leaves out; in a dev image apt would miss them."""
    return frozenset() if target.variant == "dev" else frozenset(target.stream.omit)


def lock_path(catalogue: Catalogue, name: str) -> Path:
    """The file of an image's lock."""
    return catalogue.directory(name) / "image.lock"


def builder_lock_path(root: Path) -> Path:
    """The file of the assembling root's lock."""
    return root / "templates" / "builder.lock"


def read(path: Path, shown: str) -> ImageLock:
    """Read a lock file; raises LockError when it is missing or malformed."""
    try:
        return ImageLock.parse(read_file(path, _FILE_MAX).decode("utf-8"), shown)
    except FileNotFoundError:
        raise LockError(
            f"{shown} is missing", hint=f"run `{_command(shown)}` and review what it writes"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise LockError(
            f"{shown} cannot be read",
            context=str(error),
            hint="restore it, or remove it and write it anew with `goldsmith lock`",
        ) from None


def read_if_any(path: Path, shown: str) -> ImageLock | None:
    """Read a lock that is about to be replaced; None when it is missing or malformed."""
    try:
        return read(path, shown)
    except LockError:
        return None


def write(path: Path, lock: ImageLock) -> bool:
    """Write a lock if its bytes changed; returns whether they did."""
    data = lock.text().encode()
    if path.is_file() and path.read_bytes() == data:
        return False
    write_atomically(path, data)
    return True


def locked_section(
    catalogue: Catalogue, target: Target, platform: Platform, known: dict[str, ImageLock] | None = None
) -> LockSection:
    """The reviewed section that a target is built of; offline. `known` collects the locks that were read.

    Raises LockError when it is missing, when the definition asks for something else by now, or
    when the parent's section is another one than this was resolved against.
    """
    shown = f"images/{target.definition.name}/image.lock"
    known = {} if known is None else known
    lock = _read_once(catalogue, target.definition.name, known)
    section = _section(lock, shown, target.stream_name, target.variant, platform)
    why = _stale(section, target.stream.suite, intent(target), _pin(catalogue, target, platform, known))
    if why:
        raise LockError(
            f"{shown} [{section.label}] is stale: {why[0]}",
            hint=f"run `goldsmith lock {target.definition.name}` and review the change",
        )
    return section


def builder_section(catalogue: Catalogue, platform: Platform) -> LockSection:
    """The packages of the assembling root file system; offline. Raises LockError."""
    if catalogue.builder is None:
        raise LockError("templates/builder.yaml is missing", hint="the Docker engine assembles images in it")
    shown = "templates/builder.lock"
    section = _section(read(builder_lock_path(catalogue.root), shown), shown, BUILDER, "runtime", platform)
    why = _stale(section, catalogue.builder.suite, builder_intent(catalogue.builder), None)
    if why:
        raise LockError(f"{shown} is stale: {why[0]}", hint="run `goldsmith lock` and review the change")
    return section


def resolve_builder(
    definition: BuilderDefinition, archive: Resolver, platforms: Sequence[Platform]
) -> ImageLock:
    """Lock the assembling root file system for every platform."""
    sections = []
    for platform in sorted(platforms):
        closure = archive.resolve(definition.suite, platform.debian, sorted(set(definition.packages)))
        kept = tuple(p for p in closure if p.name not in definition.omit)
        sections.append(
            LockSection(
                BUILDER, "runtime", platform, definition.suite, builder_intent(definition), None, kept
            )
        )
    return _agreed(ImageLock(tuple(sections)), "templates/builder.lock")


def resolve_image(
    catalogue: Catalogue,
    name: str,
    archive: Resolver,
    locks: Mapping[str, ImageLock],
    only: Collection[Target] | None = None,
    kept: ImageLock | None = None,
) -> ImageLock:
    """Lock all streams, variants and platforms of one image; `locks` holds its ancestors' locks.

    With `only`, those targets; the sections of the others are taken from `kept`, if they are there.
    Raises DefinitionError when the archive lacks a package, LockError when it cannot satisfy the rest,
    when the parent's lock does not fit today's archive, or when the platforms disagree on a version.
    """
    named = None if only is None else {t.ref for t in only}
    known = {s.label: s for s in kept.sections} if kept else {}
    sections = []
    for target in catalogue.targets():
        for platform in target.platforms if target.definition.name == name else ():
            if named is None or target.ref in named:
                sections.append(_resolve(catalogue, target, platform, archive, locks))
            elif (label := f"{target.stream_name} {target.variant} {platform}") in known:
                sections.append(known[label])
    return _agreed(ImageLock(tuple(sections)), f"images/{name}/image.lock")


def compare(old: ImageLock | None, new: ImageLock, file: str) -> tuple[SectionDiff, ...]:
    """What the archive (and the definition) would change in a lock, section by section."""
    before = {s.label: s for s in old.sections} if old else {}
    after = {s.label: s for s in new.sections}
    out = []
    for label in sorted({*before, *after}):
        one, two = before.get(label), after.get(label)
        if one != two:
            out.append(_difference(file, label, one, two))
    return tuple(out)


def _unknown(chain: Sequence[Target], platform: Platform, error: NoSuchPackage) -> Iterator[Problem]:
    """Where the packages are asked for that the archive does not have."""
    for name in error.names:
        file, path = f"images/{chain[0].definition.name}/image.yaml", f"streams.{chain[0].stream_name}"
        for target in reversed(chain):
            stream = target.stream
            for key, packages in (("packages", stream.packages), ("dev.packages", stream.dev.packages)):
                if name in packages:
                    file = f"images/{target.definition.name}/image.yaml"
                    path = f"streams.{target.stream_name}.{key}.{packages.index(name)}"
        said = f"{chain[0].stream.suite} has no package {name} for {platform}"
        yield Problem(file, path, said, error.hint)


def _resolve(
    catalogue: Catalogue,
    target: Target,
    platform: Platform,
    archive: Resolver,
    locks: Mapping[str, ImageLock],
) -> LockSection:
    ancestors = catalogue.ancestors(target)
    own = request(target)
    wanted = own.union(*(request(a) for a in ancestors))
    left_out = {name for t in (target, *ancestors) for name in omitted(t)} - own
    try:
        closure = archive.resolve(target.stream.suite, platform.debian, sorted(wanted))
    except NoSuchPackage as error:
        raise DefinitionError(_unknown((target, *ancestors), platform, error)) from None
    inherited: dict[str, LockedPackage] = {}
    for ancestor in ancestors:
        lock = locks[ancestor.definition.name]
        section = lock.section(ancestor.stream_name, ancestor.variant, platform)
        inherited.update({p.name: p for p in section.packages})
    if ancestors:
        _agree_with_parent(ancestors[0], inherited, closure)
    return LockSection(
        stream=target.stream_name,
        variant=target.variant,
        platform=platform,
        suite=target.stream.suite,
        intent=intent(target),
        parent=_pin_in(catalogue, target, platform, locks),
        packages=tuple(p for p in closure if p.name not in inherited and p.name not in left_out),
    )


def _agree_with_parent(parent: Target, inherited: Mapping[str, LockedPackage], closure: _Packages) -> None:
    resolved = {p.name: p for p in closure}
    differ = [
        f"{name}: {old.version} locked, {resolved[name].version if name in resolved else 'nothing'} now"
        for name, old in sorted(inherited.items())
        if resolved.get(name) != old
    ]
    if differ:
        raise LockError(
            f"the lock of the parent {parent.ref} does not fit today's archive",
            context="\n".join(differ),
            hint=f"lock the parent first: `goldsmith lock {parent.definition.name}`",
        )


def _pin_in(
    catalogue: Catalogue, target: Target, platform: Platform, locks: Mapping[str, ImageLock]
) -> ParentPin | None:
    parent = catalogue.parent(target)
    if parent is None:
        return None
    section = locks[parent.definition.name].section(parent.stream_name, parent.variant, platform)
    return ParentPin(f"{parent.definition.name}:{parent.stream_name}", parent.variant, section.digest)


def _pin(
    catalogue: Catalogue, target: Target, platform: Platform, known: dict[str, ImageLock]
) -> ParentPin | None:
    parent = catalogue.parent(target)
    if parent is None:
        return None
    _read_once(catalogue, parent.definition.name, known)
    return _pin_in(catalogue, target, platform, known)


def _read_once(catalogue: Catalogue, name: str, known: dict[str, ImageLock]) -> ImageLock:
    if name not in known:
        known[name] = read(lock_path(catalogue, name), f"images/{name}/image.lock")
    return known[name]


def _section(lock: ImageLock, shown: str, stream: str, variant: str, platform: Platform) -> LockSection:
    try:
        return lock.section(stream, variant, platform)
    except LockError as error:
        hint = f"run `{_command(shown)}` and review what it writes"
        raise LockError(f"{shown}: {error.message}", hint=hint) from None


def _command(shown: str) -> str:
    """What writes a lock file of the catalogue anew."""
    folder, _, name = PurePosixPath(shown).parent.as_posix().partition("/")
    return f"goldsmith lock {name}" if folder == "images" and name else "goldsmith lock"


def _stale(section: LockSection, suite: str, wanted: Digest, pin: ParentPin | None) -> tuple[str, ...]:
    why = []
    if section.suite != suite or section.intent != wanted:
        why.append("the definition asks for something else by now")
    if section.parent != pin:
        why.append("the parent's lock is another one by now")
    return tuple(why)


def _agreed(lock: ImageLock, shown: str) -> ImageLock:
    """The lock, if its platforms are made of the same sources; binary rebuilds (+b1) may differ."""
    seen: dict[tuple[str, str, str], tuple[str, Platform]] = {}
    differ = []
    for section in lock.sections:
        for p in section.packages:
            key = (section.stream, section.variant, p.name)
            version, platform = seen.setdefault(key, (p.source_version, section.platform))
            if version != p.source_version:
                differ.append(f"{p.name}: {version} on {platform}, {p.source_version} on {section.platform}")
    if differ:
        raise LockError(
            f"{shown}: the platforms disagree on versions",
            context="\n".join(differ),
            hint="an architecture lags behind in the archive; try again in a few hours",
        )
    return lock


def _difference(file: str, label: str, old: LockSection | None, new: LockSection | None) -> SectionDiff:
    before = {p.name: p for p in old.packages} if old else {}
    after = {p.name: p for p in new.packages} if new else {}
    if old is None or new is None:
        reasons: tuple[str, ...] = ("not locked yet",) if old is None else (GONE,)
    else:
        reasons = _stale(old, new.suite, new.intent, new.parent)
    return SectionDiff(
        file,
        label,
        reasons,
        tuple(f"{n} {p.version}" for n, p in sorted(after.items()) if n not in before),
        tuple(f"{n} {p.version}" for n, p in sorted(before.items()) if n not in after),
        tuple(
            (n, p.version, after[n].version)
            for n, p in sorted(before.items())
            if n in after and after[n] != p
        ),
    )
