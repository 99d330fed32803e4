"""Images that others made: where one came from, what is installed in it, and its place among ours."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from builder.errors import ToolError
from builder.model.definition import ChecksDefinition, ImageDefinition
from builder.model.digest import Digest
from builder.model.image import Target
from builder.model.lock import LockedPackage
from builder.model.platform import Platform

TEMPLATE = "imported"  # the template of images that no template of ours made
_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+~^:_-]{0,299}")


@dataclass(frozen=True, slots=True)
class ImportedFrom:
    """Where an image came from: a source and its digest there; who brought it in, and when (UTC).

    `kind` is registry, oci-layout or docker-archive; `source` the repository, or the kind again.
    """

    kind: str
    source: str
    digest: Digest
    by: str
    at: dt.datetime
    owner: str
    end_of_life: dt.date


class InstalledPackage(LockedPackage):
    """A package of any distribution, as the image's own database names it; nothing else is known of it."""

    __slots__ = ()

    def __post_init__(self) -> None:
        """Refuse what no package database has; raises ToolError."""
        if not _PART.fullmatch(self.name) or not _PART.fullmatch(self.version):
            raise ToolError(
                "the image names a package that no distribution has", context=f"{self.name[:80]!r}"
            )


def installed_packages(names: Iterable[str], platform: Platform) -> tuple[LockedPackage, ...]:
    """Packages from NAME=VERSION, sorted."""
    pairs = (name.partition("=") for name in sorted(set(names)))
    return tuple(InstalledPackage(n, v, platform.debian, "0" * 64, 1, "", n, v) for n, _, v in pairs)


def import_target(
    name: str, tag: str, owner: str, end_of_life: dt.date, platforms: Iterable[Platform]
) -> Target:
    """An imported image as a target: a definition of one stream, without template and packages.

    Raises ValueError when name, tag or owner cannot be ones of an image.
    """
    definition = ImageDefinition.model_validate(
        {
            "schema": 1,
            "name": name,
            "title": f"{name}, imported",
            "owner": owner,
            "template": TEMPLATE,
            "streams": {tag: {"suite": "trixie", "packages": ("imported",), "end_of_life": end_of_life}},
            "platforms": tuple(str(p) for p in sorted(platforms)),
        }
    )
    # What was said of suite and packages was only said to the schema.
    stream = definition.streams[tag].model_copy(update={"suite": TEMPLATE, "packages": ()})
    definition = definition.model_copy(update={"streams": {tag: stream}})
    return Target(
        definition, ChecksDefinition.model_validate({"schema": 1}), Path("imported") / name, tag, "runtime"
    )
