"""What is attested of each platform of a published image, of one kind: to be shown to people.

Whoever decides something uses `verify`, which demands everything and compares; this demands a
trusted key of the right role on what it returns.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from builder.model.reference import Reference
from builder.signing.attested import statements
from builder.signing.collect import Registry, manifest_at
from builder.signing.refusal import refuse
from builder.signing.trust import Trust

_PLATFORMS_MAX = 16


def platform_reports(
    reference: Reference, registry: Registry, trust: Trust, kind: str
) -> dict[str, Mapping[str, Any]]:
    """The newest predicate of that kind by platform; `reference` has a digest.

    The name of an image of a single manifest is "image". Raises EvidenceRefused where nothing of
    that kind is attested by a trusted key, RegistryError when it cannot be had.
    """
    root, digest, _ = manifest_at(registry, reference)
    children = {str(c.platform): c.digest for c in root.manifests} if root.is_index else {"image": digest}
    if len(children) > _PLATFORMS_MAX:
        refuse("index-malformed", f"the index lists more than {_PLATFORMS_MAX} platforms")
    found: dict[str, Mapping[str, Any]] = {}
    for platform, child in sorted(children.items()):
        said = statements(registry, reference.with_digest(child), trust, frozenset({kind}))
        if not said:
            refuse("unsigned", f"{kind} is not attested for {platform}", context=str(child))
        found[platform] = said[-1].predicate
    return found
