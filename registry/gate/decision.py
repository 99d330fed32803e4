"""What admission decides: an image is approved with its closure, or denied for a typed reason."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from builder.model.digest import Digest
from builder.model.image import Descriptor
from builder.signing.trust import Use


class Reason(StrEnum):
    """Why something is not served; the names are part of the interface."""

    POLICY = "policy"
    NOT_CURATED = "not-curated"
    WITHDRAWN = "withdrawn"
    EXPIRED = "expired"
    UNVERIFIABLE = "temporarily-unverifiable"


@dataclass(frozen=True, slots=True)
class Held:
    """A manifest as it will be served: its bytes, what they are, and the blobs that they name."""

    digest: Digest
    media_type: str
    data: bytes
    blobs: Mapping[Digest, int]  # digest to size in bytes


@dataclass(frozen=True, slots=True)
class Approved:
    """The closure of one approved image: all that a client may have of it, until `expires_at`.

    `repository` is its name in the storage. `manifests` are index, platforms, signature tags and
    bundles; `tags` are cosign's (`sha256-HEX.sig`); `referrers` lists bundles by their subject.
    `deprecated` says why it should not be used any more, when somebody decided so.
    `uses` are the keys that its evidence rests on.
    `envelope` is the signed verdict (payload and DER signature), so that it can be proved again
    without the storage. `mark` is the state of the evidence in the storage when it was read.
    """

    repository: str
    index: Digest
    ref: str
    issued_at: dt.datetime
    expires_at: dt.datetime
    end_of_life: dt.date | None
    manifests: tuple[Held, ...]
    tags: Mapping[str, Digest]
    referrers: Mapping[Digest, tuple[Descriptor, ...]]
    envelope: tuple[bytes, bytes]
    mark: str = ""
    deprecated: str = ""
    uses: frozenset[Use] = frozenset()

    @property
    def digests(self) -> frozenset[Digest]:
        """Its manifests."""
        return frozenset(h.digest for h in self.manifests)


@dataclass(frozen=True, slots=True)
class Denied:
    """A refusal: `cause` is one line for people, `since` when it began to hold.

    `name` is the flaw as verification names it; `digests` are the manifests that it concerns;
    `replacement` is what somebody decided to be used instead.
    """

    reason: Reason
    cause: str
    since: dt.datetime
    name: str = ""
    hint: str = ""
    digests: frozenset[Digest] = field(default_factory=frozenset)
    replacement: str = ""

    @property
    def passing(self) -> bool:
        """Whether it may be different when asked again."""
        return self.reason is Reason.UNVERIFIABLE
