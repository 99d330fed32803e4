"""A note in the storage of what was decided last, so that gates look there at once.

A decision takes effect by its records and tags alone; the note only tells where to look, and nobody
believes anything that it says. It is an image index that lists nothing, so that writing it takes one
request; its annotation names the repositories of the newest decisions, the newest first. A gate asks
with HEAD whether it has changed: that is all that gates on other machines have, and it is enough.
"""

from __future__ import annotations

import contextlib
import datetime as dt
from collections.abc import Iterable

from builder.errors import RegistryError
from builder.model.image import INDEX_TYPE
from builder.oci.client import RegistryClient
from builder.oci.manifest import index_bytes, parse_manifest

REPOSITORY, TAG = "goldsmith/changes", "newest"
# Repositories that hold no images: this one, and the mirrored vulnerability database.
OWN = frozenset({REPOSITORY, "goldsmith/trivy-db"})
_REPOSITORIES = "dev.goldsmith.changed"
_AT = "dev.goldsmith.changed-at"
_MAX = 8  # repositories


def announce(client: RegistryClient, repositories: Iterable[str], at: dt.datetime) -> None:
    """Note that something was decided in these repositories, the newest decision first.

    Who cannot be told finds out at the next regular look: that is no failure of the decision.
    """
    newest = list(dict.fromkeys(repositories))[:_MAX]
    data = index_bytes((), {_REPOSITORIES: " ".join(newest), _AT: at.isoformat()})
    with contextlib.suppress(RegistryError):
        client.put_manifest(client.reference(REPOSITORY, TAG), data, INDEX_TYPE)


def noted(data: bytes, media_type: str) -> tuple[str, ...]:
    """The repositories that a note names; raises RegistryError when it is no manifest."""
    return tuple(parse_manifest(data, media_type).annotations.get(_REPOSITORIES, "").split()[:_MAX])
