"""What a verification found out: an image that passed, its manifests, and what trusted keys said of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from builder.model.change import ChangeRecord
from builder.model.channel import ChannelRecord
from builder.model.digest import Digest
from builder.model.platform import Platform
from builder.model.reference import Reference
from builder.model.verdict import Verdict
from builder.signing.predicates import Provenance
from builder.signing.trust import Use


@dataclass(frozen=True, slots=True)
class ManifestProof:
    """What was verified of one manifest: the forms it was found in, and the attested types.

    `provenances` and `reports` (vulnerabilities and checks, with their predicate types) are what
    trusted keys said of it.
    """

    digest: Digest
    platform: Platform | None
    forms: tuple[str, ...]
    types: tuple[str, ...]
    ignored: int
    provenances: tuple[Provenance, ...] = ()
    reports: tuple[tuple[str, Mapping[str, Any]], ...] = ()
    uses: frozenset[Use] = frozenset()


@dataclass(frozen=True, slots=True)
class Verification:
    """An image that passed: use `digest` from here on. `verdict` is the approval that governs.

    `channel` is the newest record of a decision on it, `change` that of what is new in it; None when
    there is none. `uses` are the keys that all this rests on: when trust in one of them changes, it has to
    be verified again.
    """

    reference: Reference
    digest: Digest
    verdict: Verdict
    manifests: tuple[ManifestProof, ...]
    channel: ChannelRecord | None = None
    uses: frozenset[Use] = frozenset()
    change: ChangeRecord | None = None


def named_kits(found: Verification) -> frozenset[Digest]:
    """The rebuild kits of a verified image, as its builder named them."""
    return frozenset(p.kit for m in found.manifests for p in m.provenances if p.kit is not None)
