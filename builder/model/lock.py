"""The lock: exactly which packages an image is made of, as reviewed text.

The format is line based, so that a review reads one package a line:

    # goldsmith lock 1: written by `goldsmith lock`, reviewed, never edited
    [3.13 runtime linux/amd64]
    suite trixie
    intent sha256:...           what was asked for; differs when the definition changed
    parent base:13 runtime sha256:...   the parent's section, by its content
    package NAME VERSION ARCH SHA256 SIZE POOL-PATH SOURCE SOURCE-VERSION

Sections are sorted by stream, variant and platform, packages by name. Pool paths are
relative to the mirror, so no mirror's address is ever in a lock.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from builder.errors import LockError
from builder.model.digest import Digest
from builder.model.platform import Platform

HEADER = "# goldsmith lock 1: written by `goldsmith lock`, reviewed, never edited"

_NAME = re.compile(r"[a-z0-9][a-z0-9+.-]+")
_VERSION = re.compile(r"[A-Za-z0-9.+~:-]+")
_HEX = re.compile(r"[0-9a-f]{64}")
_SECTION = re.compile(r"\[(\S+) (\S+) (\S+)\]")
_POOL_PATH = re.compile(r"[A-Za-z0-9][A-Za-z0-9+._~%-]*(/[A-Za-z0-9][A-Za-z0-9+._~%-]*)+\.deb")


@dataclass(frozen=True, slots=True, order=True)
class LockedPackage:
    """One binary package; `size` is in bytes. Raises LockError when a field is malformed."""

    name: str
    version: str
    architecture: str
    sha256: str
    size: int
    path: str
    source: str
    source_version: str

    def __post_init__(self) -> None:
        wrong = [
            field
            for field, good in (
                ("name", _NAME.fullmatch(self.name)),
                ("version", _VERSION.fullmatch(self.version)),
                ("architecture", self.architecture in ("all", "amd64", "arm64")),
                ("sha256", _HEX.fullmatch(self.sha256)),
                ("size", self.size > 0),
                ("path", _POOL_PATH.fullmatch(self.path)),
                ("source", _NAME.fullmatch(self.source)),
                ("source version", _VERSION.fullmatch(self.source_version)),
            )
            if not good
        ]
        if wrong:
            raise LockError(
                f"package {self.name[:80]!r} has a malformed {', '.join(wrong)}",
                hint="write the lock anew with `goldsmith lock`",
            )

    def line(self) -> str:
        """The package as its line in the lock."""
        return (
            f"package {self.name} {self.version} {self.architecture} {self.sha256} "
            f"{self.size} {self.path} {self.source} {self.source_version}"
        )


@dataclass(frozen=True, slots=True)
class ParentPin:
    """The parent's section that this one was resolved against: `base:13`, variant, content."""

    image: str
    variant: str
    section: Digest


@dataclass(frozen=True, slots=True)
class LockSection:
    """The packages of one stream, variant and platform, without those of the parent."""

    stream: str
    variant: str
    platform: Platform
    suite: str
    intent: Digest
    parent: ParentPin | None
    packages: tuple[LockedPackage, ...]

    def __post_init__(self) -> None:
        names = [p.name for p in self.packages]
        if names != sorted(names):
            raise LockError(f"{self.label}: the packages are not sorted", hint="run `goldsmith lock`")
        twice = sorted({n for n in names if names.count(n) > 1})
        if twice:
            raise LockError(
                f"{self.label}: two versions of {', '.join(twice)}",
                hint="a lock names each package once; write it anew with `goldsmith lock`",
            )

    @property
    def label(self) -> str:
        """The section's name, as in its heading."""
        return f"{self.stream} {self.variant} {self.platform}"

    @property
    def digest(self) -> Digest:
        """The identity of the section: its text."""
        return Digest.of(self.text().encode())

    def text(self) -> str:
        """The section as it stands in the lock."""
        lines = [f"[{self.label}]", f"suite {self.suite}", f"intent {self.intent}"]
        if self.parent:
            lines.append(f"parent {self.parent.image} {self.parent.variant} {self.parent.section}")
        lines += [p.line() for p in self.packages]
        return "\n".join(lines) + "\n"


@dataclass(frozen=True, slots=True)
class ImageLock:
    """All sections of one image: the content of `images/NAME/image.lock`."""

    sections: tuple[LockSection, ...]

    def section(self, stream: str, variant: str, platform: Platform) -> LockSection:
        """The section for a target; raises LockError when there is none."""
        for section in self.sections:
            if (section.stream, section.variant, section.platform) == (stream, variant, platform):
                return section
        raise LockError(f"nothing is locked for {stream} {variant} {platform}", hint="run `goldsmith lock`")

    def text(self) -> str:
        """The whole file."""
        ordered = sorted(self.sections, key=lambda s: (s.stream, s.variant != "runtime", s.platform))
        return HEADER + "\n" + "".join("\n" + s.text() for s in ordered)

    @classmethod
    def parse(cls, text: str, file: str = "image.lock") -> ImageLock:
        """Parse a lock file; raises LockError that names the file and the line."""
        lines = text.splitlines()
        if not lines or lines[0] != HEADER:
            raise LockError(f"{file}:1: not a lock of this version", hint="run `goldsmith lock`")
        chunks: list[tuple[int, list[str]]] = []
        for number, line in enumerate(lines[1:], 2):
            if line.startswith("["):
                chunks.append((number, [line]))
            elif line.strip() and chunks:
                chunks[-1][1].append(line)
            elif line.strip():
                raise LockError(f"{file}:{number}: a line outside a section", hint="run `goldsmith lock`")
        return cls(tuple(_parse_section(chunk, file, number) for number, chunk in chunks))


def _parse_section(lines: Iterable[str], file: str, number: int) -> LockSection:
    heading, *body = lines
    where = f"{file}:{number}"
    match = _SECTION.fullmatch(heading)
    if not match:
        raise LockError(f"{where}: malformed heading {heading[:100]!r}", hint="run `goldsmith lock`")
    fields: dict[str, list[str]] = {}
    packages: list[LockedPackage] = []
    try:
        platform = Platform.parse(match[3])
        for offset, line in enumerate(body, 1):
            where = f"{file}:{number + offset}"
            word, *rest = line.split(" ")
            if word == "package" and len(rest) == 8:
                name, version, architecture, sha256, size, path, source, source_version = rest
                packages.append(
                    LockedPackage(
                        name, version, architecture, sha256, int(size), path, source, source_version
                    )
                )
            elif word in ("suite", "intent", "parent") and word not in fields:
                fields[word] = rest
            else:
                raise ValueError(f"malformed line {line[:100]!r}")
        (suite,), (intent,) = fields["suite"], fields["intent"]
        parent = None
        if "parent" in fields:
            image, variant, section = fields["parent"]
            parent = ParentPin(image, variant, Digest(section))
        return LockSection(match[1], match[2], platform, suite, Digest(intent), parent, tuple(packages))
    except KeyError as error:
        raise LockError(
            f"{where}: the section has no line {error.args[0]!r}", hint="run `goldsmith lock`"
        ) from None
    except ValueError as error:
        raise LockError(f"{where}: {error}", hint="run `goldsmith lock`") from None
