"""What changed between two images, platform by platform; and the record that says so of a promoted one."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

from builder.model.digest import Digest
from builder.model.evidence import Finding


@dataclass(frozen=True, slots=True)
class Moved:
    """Something by its name, before and after; empty where there is none."""

    name: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class PlatformDiff:
    """The differences of one platform; sizes in bytes, compressed.

    `fixed` are findings that are gone, `new` those that came, `kept` how many stayed. `pulled` is
    what a client pulls that has the old image. `files` and `users` (accounts and groups) are None when
    files were not compared.
    `omitted` is how many differences were too many to be kept in a record.
    """

    platform: str
    packages: tuple[Moved, ...]
    fixed: tuple[Finding, ...]
    new: tuple[Finding, ...]
    kept: int
    licences: tuple[Moved, ...]
    checks: tuple[Moved, ...]
    config: tuple[Moved, ...]
    size_before: int
    size_after: int
    pulled: int
    layers_new: int
    layers_shared: int
    files: tuple[Moved, ...] | None = None
    omitted: int = 0
    users: tuple[Moved, ...] | None = None


@dataclass(frozen=True, slots=True)
class ChangeRecord:
    """What is new in a promoted image (`digest`, its index) against the one before it.

    `previous` is where the floating tag of `ref` pointed; None for the first image, in which everything
    is new. `unknown` says why the one before could not be looked at, and is empty when it could:
    then, too, everything is told as new. `sequence` is the number of the ledger's entry, `at` (UTC)
    its time; of two records the one with the higher number holds. `reasons` are why it was built,
    `why` is what was said at its promotion.
    """

    digest: Digest
    ref: str
    previous: Digest | None
    sequence: int
    at: dt.datetime
    why: str
    reasons: tuple[str, ...]
    platforms: tuple[PlatformDiff, ...]
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    waived: tuple[str, ...] = ()
    no_longer_waived: tuple[str, ...] = ()
    unknown: str = ""
