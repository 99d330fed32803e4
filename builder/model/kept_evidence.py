"""What was found of an image on one machine, unsigned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from builder.model.digest import Digest


@dataclass(frozen=True, slots=True)
class KeptEvidence:
    """By the digest of a platform's manifest: the scan's and the checks' predicate, as far as they were done.

    `waivers` are those of the last judgement, None when nobody judged.
    """

    scans: Mapping[Digest, Mapping[str, Any]]
    checks: Mapping[Digest, Mapping[str, Any]]
    waivers: tuple[str, ...] | None
