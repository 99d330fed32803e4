"""What refers to a manifest: the referrers API of a registry, and the tag that stands in for it.

Only `oci/client.py` uses this module. Source: OCI distribution specification 1.1, "Listing referrers" and
"Referrers tag schema".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from builder.errors import RegistryError
from builder.model.digest import Digest
from builder.model.image import INDEX_TYPE, Descriptor
from builder.oci.faults import RegistryRefused, unusable
from builder.oci.listing import kind_of, list_referrers
from builder.oci.manifest import INDEX_TYPES, index_bytes, parse_manifest

if TYPE_CHECKING:
    from builder.oci.client import RegistryClient
    from builder.oci.transport import Transport

NOTHING = Digest("sha256:" + "0" * 64)  # no content has this digest
_MERGE_ATTEMPTS = 4


class Referrers:
    """The listings of one registry; all operations raise RegistryError."""

    def __init__(self, client: RegistryClient, transport: Transport) -> None:
        self._client = client
        self._transport = transport
        self._api: bool | None = None

    def has_api(self, repo: str) -> bool:
        """Whether the registry has the referrers API (asked once)."""
        name = self._client.reference(repo).name
        if self._api is None:
            self._api = list_referrers(self._transport, name, NOTHING) is not None
        return self._api

    def listed(self, repo: str, subject: Digest) -> tuple[Descriptor, ...]:
        """What is listed by the API, else under the fallback tag."""
        name, found = self._client.reference(repo).name, None
        if self._api is not False:  # a registry that has no such API is asked once
            found = list_referrers(self._transport, name, subject)
        return self._under_tag(repo, subject) if found is None else found

    def put_fallback(
        self,
        repo: str,
        subject: Digest,
        descriptors: Sequence[Descriptor],
        replace_same_kind: bool,
        listed: tuple[Descriptor, ...] | None,
    ) -> None:
        """List referrers under the fallback tag `sha256-HEX`, all in one write.

        `listed` is what was listed just now, when the caller has read it. Entries of others stay.
        With `replace_same_kind`, entries of the same artifact type and annotations' predicate type
        give way to the new ones. What was written is read back: registries take the last of two
        writers, so a lost write is repeated.
        """
        ref = self._client.reference(repo, tag=f"sha256-{subject.hex}")
        for _ in range(_MERGE_ATTEMPTS):
            old = self._under_tag(repo, subject) if listed is None else listed
            listed = None
            kinds = {kind_of(d) for d in descriptors} if replace_same_kind else set()
            new = {d.digest for d in descriptors}
            kept = [d for d in old if d.digest not in new and kind_of(d) not in kinds]
            merged = (*kept, *descriptors)
            if merged == old:
                return
            self._client.put_manifest(ref, index_bytes(merged), INDEX_TYPE)
            if new <= {d.digest for d in self._under_tag(repo, subject)}:
                return
        raise RegistryError(
            f"another writer keeps changing {ref}",
            hint="let one publisher at a time write to a repository, then run the command again",
            reference="lost-update",
        )

    def _under_tag(self, repo: str, subject: Digest) -> tuple[Descriptor, ...]:
        ref = self._client.reference(repo, tag=f"sha256-{subject.hex}")
        try:
            data, media_type, _ = self._client.get_manifest(ref)
        except RegistryRefused as error:
            if error.status == 404:
                return ()
            raise
        if media_type not in INDEX_TYPES:
            raise unusable(f"the referrers tag of {subject.short} in {repo} is not an index")
        return parse_manifest(data, media_type).manifests
