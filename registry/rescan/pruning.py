"""What a renewal leaves behind where the registry lists referrers by itself: older reports and verdicts.

Verification reads at most so many referrers of a manifest; a renewal each night would fill that in
some months. So the older ones are taken away, once the newer ones were read back and verified. By
then all of them are known to be ours: with one by another key nothing would verify.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from builder.errors import RegistryError
from builder.model.digest import Digest
from builder.oci.client import RegistryClient
from builder.signing.cosign_formats import BUNDLE_PREDICATE_ANNOTATION
from builder.signing.cosign_parse import REFERRERS_MAX
from registry.promotion.closure import Closure


def superseded(closure: Closure, kinds: Mapping[Digest, Iterable[str]]) -> dict[Digest, tuple[Digest, ...]]:
    """The bundles of each subject that say what new ones of these kinds will say."""
    return {
        subject: tuple(
            digest
            for digest in closure.bundles(subject)
            if closure.manifest(digest).annotations.get(BUNDLE_PREDICATE_ANNOTATION) in set(wanted)
        )
        for subject, wanted in kinds.items()
    }


def require_room(closure: Closure, kinds: Mapping[Digest, Iterable[str]]) -> None:
    """Pass when new bundles of these kinds still fit.

    Raises RegistryError: with more of them nobody could verify the image.
    """
    if not closure.client.supports_referrers(closure.repo):
        return  # in a listing of our own the older ones give way
    for subject, wanted in kinds.items():
        listed = len(closure.listed.get(subject, ()))
        if listed + len(set(wanted)) > REFERRERS_MAX:
            raise RegistryError(
                f"{listed} referrers are on one manifest; more than {REFERRERS_MAX} are not read",
                context=f"{closure.repo}@{subject}",
                hint="let the registry delete manifests, so that older reports can be taken away",
                reference="referrers-pile-up",
            )


def prune(client: RegistryClient, repo: str, old: Mapping[Digest, tuple[Digest, ...]]) -> int:
    """Take older bundles away; returns how many. Where the registry does not delete, they stay."""
    if not client.supports_referrers(repo):
        return 0
    removed = 0
    for digest in (d for bundles in old.values() for d in bundles):
        if not client.delete_manifest(client.reference(repo, digest=digest)):
            break
        removed += 1
    return removed
