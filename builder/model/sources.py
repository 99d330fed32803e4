"""What an image is made of, told apart by what may change by itself: definition, template, lock. Pure.

Each digest covers the image and the images below it, so that nothing comes in from below unseen.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from builder.model.digest import Digest
from builder.model.image import Target
from builder.model.lock import LockSection
from builder.model.platform import Platform

WRITERS_MAX = 200
WRITER_MAX = 200  # characters of one name with its e-mail address
COMMIT = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")  # git's SHA-1 or SHA-256


class Tree(StrEnum):
    """What git says of the files that an image was published from.

    `none` is no git at all; `unknown` is a history that git cannot tell whole.
    """

    CLEAN = "clean"
    DIRTY = "dirty"
    NONE = "none"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Origin:
    """Where the files came from: the commit, and who wrote what is new in it.

    `writers` (of definition and templates) and `lockers` (of locks) are `NAME <E-MAIL>`, as git has
    them; `since` are (image, commit) from which on they were looked for; `publisher` is who
    published.
    """

    tree: Tree
    publisher: str
    commit: str = ""
    since: tuple[tuple[str, str], ...] = ()
    writers: tuple[str, ...] = ()
    lockers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Sources:
    """What one image is made of, and where that came from."""

    definition: Digest
    template: Digest
    lock: Digest
    origin: Origin


def definition_digest(chain: Sequence[Target]) -> Digest:
    """The digest of what is said of an image and the ones below it: of its own stream and variant only."""
    return Digest.of_json([_said_of(target) for target in chain])


def template_digest(files: Mapping[str, Digest], builder: Any) -> Digest:
    """The digest of the templates by path, and of what is said in `builder.yaml` (plain data)."""
    return Digest.of_json({"files": dict(files), "builder": builder})


def lock_digest(sections: Mapping[Platform, LockSection]) -> Digest:
    """The digest of the locked packages; a section pins the one of the image below."""
    return Digest.of_json({str(platform): section.digest for platform, section in sections.items()})


def _said_of(target: Target) -> dict[str, Any]:
    # Fields that are left at their default are left out: a new one changes no digest.
    said = target.definition.model_dump(
        mode="json", by_alias=True, exclude_defaults=True, exclude={"streams", "variants"}
    )
    stream = target.stream.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    if target.variant == "runtime":
        stream.pop("dev", None)
    checks = target.checks.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    for kind, found in (("commands", target.checks.commands), ("files", target.checks.files)):
        of_variant = [c for c in found if target.variant in c.variants]
        if kind in checks:
            checks[kind] = [c.model_dump(mode="json", exclude={"variants"}) for c in of_variant]
    # What a step of an extension makes depends on its code as much as on what is said of it.
    by = {"steps": [identity.as_dict() for identity in target.made.by]} if target.made.by else {}
    return {"ref": target.ref, "definition": said, "stream": stream, "checks": checks, **by}
