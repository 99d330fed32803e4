"""How a provenance names the rebuild kit: as a by-product of the build, by digest. Pure.

The builder's signature of the provenance is what makes a kit believed; the kit itself carries none.
Source: SLSA provenance v1.0, `runDetails.byproducts`; in-toto resource descriptor v1.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from builder.model.digest import Digest
from builder.model.image import MANIFEST_TYPE
from builder.signing.refusal import quoted, refuse

_NAME = "rebuild-kit"
_BYPRODUCTS_MAX = 16


def with_kit(provenance: Mapping[str, Any], kit: Digest) -> dict[str, Any]:
    """The provenance, naming the manifest of the image's kit."""
    named = {"name": _NAME, "mediaType": MANIFEST_TYPE, "digest": {"sha256": kit.hex}}
    return {**provenance, "runDetails": {**provenance["runDetails"], "byproducts": [named]}}


def kit_of(details: Mapping[str, Any]) -> Digest | None:
    """The kit that the `runDetails` of a provenance name; None where there is none.

    Raises EvidenceRefused when it is malformed, or named twice.
    """
    listed = details.get("byproducts", [])
    if not isinstance(listed, list) or len(listed) > _BYPRODUCTS_MAX:
        _malformed(listed)
    kits = [one for one in listed if isinstance(one, dict) and one.get("name") == _NAME]
    if not kits:
        return None
    digest = kits[0].get("digest")
    try:
        if len(kits) == 1 and isinstance(digest, dict) and set(digest) == {"sha256"}:
            return Digest(f"sha256:{digest['sha256']}")
    except ValueError:
        pass
    return _malformed(kits)


def _malformed(value: object) -> Digest:
    refuse(
        "predicate-malformed", "the provenance names its rebuild kit in no proper way", context=quoted(value)
    )
