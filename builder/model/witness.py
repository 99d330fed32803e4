"""That somebody who did not build an image built it again, and got the same."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass

from builder.model.digest import Digest
from builder.model.platform import Platform


@dataclass(frozen=True, slots=True)
class Rebuild:
    """A rebuild that gave every published digest: of the image with the index `digest`, by one engine.

    `tools` are the versions by name, `platforms` the digests of the manifests that came out.
    """

    digest: Digest
    ref: str
    kit: Digest
    input_hash: Digest
    engine: str
    tools: Mapping[str, str]
    platforms: Mapping[Platform, Digest]
    at: dt.datetime


@dataclass(frozen=True, slots=True)
class Witness:
    """A rebuild that a witness signed; `key` is the id of the witness's key."""

    key: str
    rebuild: Rebuild
