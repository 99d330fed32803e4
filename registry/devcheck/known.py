"""What is known of the mirror's images: the frozen content of an exported catalogue. Pure.

An image is a line of a repository that moves (`python:3.13`); its builds are the digests that the
line had, the newest last approved one in front.
"""

from __future__ import annotations

import datetime as dt
from functools import cached_property
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from builder.model.digest import Digest

Text = Annotated[str, StringConstraints(max_length=500)]
Name = Annotated[str, StringConstraints(min_length=1, max_length=255)]
DigestText = Annotated[str, AfterValidator(lambda value: str(Digest(value)))]
Channel = Literal["candidate", "stable", "deprecated", "withdrawn", "quarantine"]
Severity = Literal["CRITICAL", "HIGH", "MEDIUM", "LOW", "UNKNOWN"]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=False)


class Vulnerability(_Frozen):
    """A finding of a scan: its identifier, the package (NAME=VERSION), and what fixes it."""

    id: Name
    package: Name
    severity: Severity
    fixed_version: Text = ""


class Build(_Frozen):
    """One digest: what is in it, as attested. `packages` are NAME=VERSION, sorted.

    `withdrawn` says why the digest was called back, empty when it was not.
    """

    digest: DigestText
    platforms: dict[Name, DigestText] = Field(default_factory=dict, description="Platform manifests.")
    layers: dict[Name, tuple[DigestText, ...]] = Field(
        default_factory=dict,
        description="By platform, the digests of the layers' tars (diff ids), from below.",
    )
    immutable_tag: Name | None = None
    created: dt.datetime | None = None
    scanned: dt.datetime | None = None
    withdrawn: Text = ""
    packages: tuple[Name, ...] = ()
    vulnerabilities: tuple[Vulnerability, ...] = ()


class Image(_Frozen):
    """A line of a repository, its newest build and the earlier ones.

    `refused` says why verification refuses the newest build, empty when it does not. `replacement`
    is another image's `ref`.
    """

    ref: Name
    repository: Name
    tags: tuple[Name, ...]
    channel: Channel
    title: Text = ""
    end_of_life: dt.date | None = None
    replacement: Name | None = None
    reason: Text = ""
    refused: Text = ""
    verdict_expires: dt.datetime | None = None
    current: Build
    previous: tuple[Build, ...] = ()


class Known(_Frozen):
    """Everything that a check needs to know; `mirror` is the registry that developers pull from."""

    schema_version: Literal[1] = Field(1, alias="schema")
    mirror: Name
    exported: dt.datetime
    valid_until: dt.datetime
    images: tuple[Image, ...]

    @cached_property
    def repositories(self) -> dict[str, tuple[Image, ...]]:
        """The images of each repository."""
        found: dict[str, tuple[Image, ...]] = {}
        for image in self.images:
            found[image.repository] = (*found.get(image.repository, ()), image)
        return found

    def image(self, ref: str | None) -> Image | None:
        """The image with that `ref`."""
        return next((i for i in self.images if i.ref == ref), None)

    def with_tag(self, repository: str, tag: str) -> tuple[Image, Build] | None:
        """The image and build that a tag of a repository names."""
        for image in self.repositories.get(repository, ()):
            if tag in image.tags or tag == image.current.immutable_tag:
                return image, image.current
            for build in image.previous:
                if tag == build.immutable_tag:
                    return image, build
        return None

    def with_digest(self, repository: str, digest: str) -> tuple[Image, Build] | None:
        """The image and build with that digest, of the index or of a platform."""
        for image in self.repositories.get(repository, ()):
            for build in (image.current, *image.previous):
                if digest == build.digest or digest in build.platforms.values():
                    return image, build
        return None
