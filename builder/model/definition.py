"""What people write: `image.yaml` and `checks.yaml`, as strict, frozen types.

The schema of these models is published by `goldsmith schema`. A value that was
accepted here needs no further check downstream.
"""

from __future__ import annotations

import datetime as dt
import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, model_validator

from builder.model.platform import Platform

_PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.-]+")
_ABSOLUTE = re.compile(r"/(?!.*(^|/)\.\.?(/|$))(?!/|.*//)[^\x00-\x1f\x7f]*")
_ENVIRONMENT_VALUE_MAX = 4096  # bytes


class Strict(BaseModel):
    """The base of everything that is parsed from the catalogue: no extras, no coercion."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, populate_by_name=True)


def _package(value: str) -> str:
    if not _PACKAGE.fullmatch(value):
        raise ValueError("not a Debian package name")
    return value


def is_absolute(value: str) -> bool:
    """Whether it is a plain absolute path: no `..`, no control characters, no double or trailing `/`."""
    return _ABSOLUTE.fullmatch(value) is not None and (value == "/" or not value.endswith("/"))


def _absolute(value: str) -> str:
    if not is_absolute(value):
        raise ValueError(
            "not a plain absolute path (no '..', no control characters, no double or trailing '/')"
        )
    return value


def plain_text(value: str) -> str:
    """The value itself; raises ValueError when it holds control characters."""
    if any(ord(c) < 32 or 127 <= ord(c) < 160 for c in value):
        raise ValueError("control characters are not allowed")
    return value


def _environment_value(value: str) -> str:
    if len(value.encode()) > _ENVIRONMENT_VALUE_MAX:
        raise ValueError(f"longer than {_ENVIRONMENT_VALUE_MAX} bytes")
    return plain_text(value)


def _platform(value: str) -> str:
    Platform.parse(value)
    return value


_NAME = r"^[a-z0-9]+(-[a-z0-9]+)*$"
_NAME_MAX = 64  # characters
_MIRROR = r"^https?://[A-Za-z0-9._~:/%-]+,https?://[A-Za-z0-9._~:/%-]+$"
Name = Annotated[str, Field(pattern=_NAME, max_length=_NAME_MAX)]
StreamName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.]*$", max_length=32)]
PackageName = Annotated[str, AfterValidator(_package)]
AbsolutePath = Annotated[str, AfterValidator(_absolute), Field(max_length=1024)]
PlainText = Annotated[str, Field(min_length=1, max_length=500), AfterValidator(plain_text)]
EnvironmentName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", max_length=128)]
EnvironmentValue = Annotated[str, AfterValidator(_environment_value)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
UserName = Annotated[str, Field(pattern=r"^[a-z_][a-z0-9_-]*$", max_length=32)]
PlatformText = Annotated[str, AfterValidator(_platform)]
MirrorText = Annotated[str, Field(pattern=_MIRROR, max_length=1000)]
Variant = Literal["runtime", "dev"]
# A set of ranges that Docker, containerd and Kubernetes agree on; larger ids overflow in some.
UserId = Annotated[int, Field(ge=0, le=2_000_000_000)]


def is_name(text: str) -> bool:
    """Whether an image can have that name."""
    return len(text) <= _NAME_MAX and re.fullmatch(_NAME, text) is not None


class SourceFile(Strict):
    """A file that lies beside image.yaml."""

    source: Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*)*$")] = (
        Field(description="Its path inside the image's folder.")
    )
    sha256: Sha256 = Field(description="What it has to be: `sha256sum` prints it.")


class FileStep(SourceFile):
    """A file that lies beside image.yaml and is put into the image, owned by root."""

    mode: Literal["0644", "0755"] = "0644"


class UserStep(Strict):
    """An account, with a group of its own name and number; nobody can log in with it."""

    id: Annotated[int, Field(ge=1000, le=2_000_000_000)]
    home: AbsolutePath = Field("/nonexistent", description="Its home; `directories` makes one.")


class MadeFile(Strict):
    """What a program has to write, so that a build gives the same bytes everywhere."""

    sha256: Sha256 = Field(description="What the file has to be.")
    mode: Literal["0644", "0755"] = "0644"


class RunStep(Strict):
    """A program of the image that is run when it is built, as root, without a network or a shell."""

    command: Annotated[tuple[PlainText, ...], Field(min_length=1)] = Field(
        description="An absolute path, and its arguments."
    )
    reason: Annotated[str, Field(min_length=10, max_length=300), AfterValidator(plain_text)] = Field(
        description="Why none of the other steps will do; it is shown wherever the image is."
    )
    makes: Annotated[dict[AbsolutePath, MadeFile], Field(min_length=1)] = Field(
        description="The files that it writes, with what they have to be. It may change nothing else."
    )


class DirectoryStep(Strict):
    """A directory that no package brings."""

    owner: UserName = Field("root", description="root, nonroot, or one of `users`.")
    mode: Literal["0755", "0750", "0700"] = "0755"


class AddedStep(Strict):
    """A step that an extension brings; `goldsmith doctor` lists them."""

    use: Name = Field(description="Its id.")
    with_: dict[str, JsonValue] = Field(
        default_factory=dict, alias="with", description="What it asks for: `goldsmith schema` tells."
    )


class DevVariant(Strict):
    """What the dev variant adds to the stream; without an own entrypoint and command, the stream's count."""

    packages: tuple[PackageName, ...] = ()
    without: tuple[AbsolutePath, ...] = Field(
        default=(),
        description="Files and directories of this image's packages that the dev variant leaves out, with "
        "all below: keys for tests, for example. `dpkg --verify` misses them then.",
    )
    links: dict[AbsolutePath, AbsolutePath] = Field(
        default_factory=dict, description="Symbolic links: path to target."
    )
    environment: dict[EnvironmentName, EnvironmentValue] = Field(default_factory=dict)
    entrypoint: tuple[PlainText, ...] | None = None
    command: tuple[PlainText, ...] | None = None
    mirror: MirrorText | None = Field(
        default=None,
        description="The Debian mirror that apt uses, MAIN,SECURITY. Without it, whoever builds with the "
        "image names one.",
    )


class Stream(Strict):
    """One version line of an image; it gives the floating tag."""

    suite: Literal["bookworm", "trixie"]
    packages: Annotated[tuple[PackageName, ...], Field(min_length=1)] = Field(
        description="What is asked for; the resolver adds the dependencies. The first names the version."
    )
    omit: tuple[PackageName, ...] = Field(
        (), description="Dependencies that are resolved but left out of the image."
    )
    end_of_life: dt.date = Field(description="After this day the stream is no longer built.")
    replacement: StreamName | None = Field(None, description="The stream to move to.")
    dev: DevVariant = Field(default=DevVariant(), description="What the dev variant adds.")
    links: dict[AbsolutePath, AbsolutePath] = Field(
        default_factory=dict,
        description="Symbolic links: path to target. `{architecture}` is Debian's name of it: amd64, arm64.",
    )
    files: dict[AbsolutePath, FileStep] = Field(
        default_factory=dict, description="Files of the image's folder, by their path in the image."
    )
    directories: dict[AbsolutePath, DirectoryStep] = Field(
        default_factory=dict, description="Directories that no package brings."
    )
    users: dict[UserName, UserStep] = Field(
        default_factory=dict, description="Accounts beside root, nobody and nonroot."
    )
    certificates: tuple[SourceFile, ...] = Field(
        (), description="Certificate authorities (PEM) that are trusted beside those of the image below."
    )
    steps: tuple[AddedStep, ...] = Field((), description="Steps that extensions bring.")
    run: tuple[RunStep, ...] = Field(
        (), description="The last resort, for the engine docker only: programs that are run at the end."
    )
    without: tuple[AbsolutePath, ...] = Field(
        (),
        description="Files and directories of this image's packages that the runtime variant leaves out, "
        "with all below; the packages stay listed. `{architecture}` as in `links`; `{multiarch}` is the "
        "folder of libraries: x86_64-linux-gnu, aarch64-linux-gnu.",
    )
    keep: tuple[AbsolutePath, ...] = Field((), description="Of what `without` names, this stays.")
    java_trust_store: AbsolutePath | None = Field(
        None, description="Where to write the parent's certificate authorities for Java (a JKS file)."
    )
    environment: dict[EnvironmentName, EnvironmentValue] = Field(default_factory=dict)
    entrypoint: tuple[PlainText, ...] | None = None
    command: tuple[PlainText, ...] | None = None


class ImageDefinition(Strict):
    """`images/NAME/image.yaml`: the intent of one image, with all its streams and variants."""

    schema_version: Literal[1] = Field(alias="schema")
    name: Name
    title: PlainText
    description: PlainText | None = None
    owner: PlainText
    parent: str | None = Field(
        None,
        alias="from",
        pattern=r"^[a-z0-9]+(-[a-z0-9]+)*(:[a-z0-9][a-z0-9.]*)?$",
        description="Another image of this catalogue: NAME or NAME:STREAM. Without a stream, the "
        "stream of the same suite is taken.",
    )
    template: Annotated[str, Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$", max_length=64)]
    streams: Annotated[dict[StreamName, Stream], Field(min_length=1)]
    variants: Annotated[tuple[Variant, ...], Field(min_length=1)] = ("runtime",)
    platforms: Annotated[tuple[PlatformText, ...], Field(min_length=1)] = ("linux/amd64",)
    run_as: Literal["nonroot"] = "nonroot"
    working_directory: AbsolutePath = "/"
    licences: PlainText | None = Field(None, description="An SPDX expression, when one is known.")

    @model_validator(mode="after")
    def _no_repeats(self) -> ImageDefinition:
        for field in ("variants", "platforms"):
            values = getattr(self, field)
            if len(set(values)) != len(values):
                raise ValueError(f"{field} names something twice")
        return self


class Scoped(Strict):
    """What may be said of some of an image's variants, streams and platforms only; none named is all."""

    variants: tuple[Variant, ...] = ("runtime", "dev")
    streams: tuple[StreamName, ...] = ()
    platforms: tuple[PlatformText, ...] = ()

    def applies(self, variant: str, stream: str, platform: Platform) -> bool:
        """Whether it is said of this one."""
        return (
            variant in self.variants
            and (not self.streams or stream in self.streams)
            and (not self.platforms or str(platform) in self.platforms)
        )


class CommandCheck(Scoped):
    """A command that is run in the locked-down container; no shell is involved."""

    name: PlainText
    run: Annotated[tuple[str, ...], Field(min_length=1)]
    exit_code: int = 0
    stdout: str | None = Field(None, description="The exact expected output.")
    stdout_contains: str | None = None
    timeout_seconds: Annotated[int, Field(ge=1, le=600)] = 30


class FileCheck(Scoped):
    """A file that must be there (of that type and mode), or must not."""

    path: AbsolutePath
    present: bool = True
    kind: Literal["file", "directory", "link"] | None = None
    mode: Annotated[str, Field(pattern=r"^[0-7]{4}$")] | None = None


class PathCheck(Strict):
    """A path that every image must have (of that type and mode), or must not."""

    path: AbsolutePath
    present: bool = True
    kind: Literal["file", "directory", "link"] | None = None
    mode: Annotated[str, Field(pattern=r"^[0-7]{4}$")] | None = None


class CatalogueCheck(Strict):
    """`checks/ID.yaml`: a check for all images of the catalogue, beside those that come with goldsmith."""

    schema_version: Literal[1] = Field(alias="schema")
    title: PlainText
    rationale: PlainText = Field(description="Why it is demanded.")
    source: PlainText = Field(description="On whose word.")
    level: Literal[1, 2] = 1
    variants: Annotated[tuple[Variant, ...], Field(min_length=1)] = ("runtime", "dev")
    files: tuple[PathCheck, ...] = ()
    forbidden: tuple[Annotated[str, Field(pattern=r"^/", max_length=1024)], ...] = Field(
        (), description="Paths that nothing may have: `*` is anything but a `/`, `**` anything."
    )
    labels: tuple[PlainText, ...] = Field((), description="Labels that must be there, and not empty.")

    @model_validator(mode="after")
    def _asks_something(self) -> CatalogueCheck:
        if not (self.files or self.forbidden or self.labels):
            raise ValueError("no check at all: say `files`, `forbidden` or `labels`")
        return self


class ChecksDefinition(Strict):
    """`images/NAME/checks.yaml`: what this image, beyond the rules for all, has to show."""

    schema_version: Literal[1] = Field(alias="schema")
    commands: tuple[CommandCheck, ...] = ()
    files: tuple[FileCheck, ...] = ()


class BuilderDefinition(Strict):
    """`templates/builder.yaml`: the root file system in which the Docker engine assembles images.

    It is never part of an image; it needs dpkg-deb, a shell and the usual small tools.
    """

    schema_version: Literal[1] = Field(alias="schema")
    suite: Literal["bookworm", "trixie"]
    packages: Annotated[tuple[PackageName, ...], Field(min_length=1)]
    omit: tuple[PackageName, ...] = ()
