"""What a role may do, and the patterns that say on which images. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum
from functools import lru_cache
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from builder.model.definition import Name, PlainText, Strict

EVERYTHING = "*"  # the pattern that stands for all images
_PATTERN = re.compile(r"[a-z0-9*][a-z0-9._/*-]{0,254}")
_COMPILED_MAX = 4096
_PLACES = ("candidate/", "quarantine/")  # what images come into


class Permission(StrEnum):
    """What can be allowed on images; `registry/access/roles.yaml` says what each means."""

    SEE = "see"
    PULL = "pull"
    PUBLISH = "publish"
    PROMOTE = "promote"
    ROLLBACK = "rollback"
    DEPRECATE = "deprecate"
    QUARANTINE = "quarantine"
    RELEASE = "release"
    REVOKE = "revoke"
    APPROVE = "approve"
    WAIVE = "waive"
    IMPORT = "import"
    EXPORT = "export"
    READ_AUDIT = "read-audit"
    MANAGE_TOKENS = "manage-tokens"
    MANAGE_KEYS = "manage-keys"


def pattern_problem(value: str) -> str:
    """What is wrong with a pattern; empty when nothing is."""
    if value.startswith(_PLACES):
        return "write the image's name: it covers the candidates of that name, too"
    if not _PATTERN.fullmatch(value) or "**" in value:
        return "not an image name, or one with * in it (which stands for anything)"
    return ""


def _pattern(value: str) -> str:
    if problem := pattern_problem(value):
        raise ValueError(problem)
    return value


Pattern = Annotated[str, AfterValidator(_pattern)]
Patterns = Annotated[tuple[Pattern, ...], Field(min_length=1, max_length=100)]


class Role(Strict):
    """One role: what those who have it may do."""

    title: PlainText
    may: Annotated[tuple[Permission, ...], Field(min_length=1, description="What it allows.")]


class RolesFile(Strict):
    """The roles that there are."""

    schema_version: Literal[1] = Field(alias="schema")
    roles: Annotated[Mapping[Name, Role], Field(min_length=1, description="The roles by their names.")]


Roles = Mapping[str, frozenset[Permission]]


def table(file: RolesFile) -> Roles:
    """What each role of a file allows."""
    return {name: frozenset(role.may) for name, role in file.roles.items()}


def image_of(repository: str) -> str:
    """The image that a repository holds: what is no release yet is in one of its own."""
    for place in _PLACES:
        repository = repository.removeprefix(place)
    return repository


def covers(pattern: str, image: str) -> bool:
    """Whether a pattern holds for an image; or for all that another pattern (`image`) holds for.

    No name has a `*` in it, so a `*` of the other pattern can only be taken up by one of this.
    """
    return pattern == EVERYTHING or _compiled(pattern).fullmatch(image) is not None


@lru_cache(maxsize=_COMPILED_MAX)
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(".*".join(map(re.escape, pattern.split("*"))), re.DOTALL)
