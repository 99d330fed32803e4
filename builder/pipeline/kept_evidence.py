"""What was found of an image on this machine, kept so that it can be told before anything is published.

It is filed under the image's digest, its checks and its waivers: another image, other checks or other
waivers have other evidence. Nobody signed it, and nothing is decided by it.
"""

from __future__ import annotations

import datetime as dt
import json

from builder.model.digest import Digest
from builder.model.evidence import CheckReport, Evidence, ScanReport
from builder.model.image import BuiltImage
from builder.model.kept_evidence import KeptEvidence
from builder.model.verdict import Verdict
from builder.pipeline.release import release_key_of
from builder.signing.predicates import test_result, vulnerabilities
from builder.store import Store

_KIND = "evidence"
_KEPT_MAX = 1000  # images; of python with two platforms it is about 100 KiB


def keep_evidence(
    store: Store,
    image: BuiltImage,
    evidence: tuple[Evidence, ...],
    verdict: Verdict | None,
    now: dt.datetime,
) -> None:
    """Keep what was found of an image, `now`; what was not done this time stays as it was kept before.

    Raises ToolError when the state directory cannot be written.
    """
    before = kept_evidence(store, image)
    scans, checks = (dict(before.scans), dict(before.checks)) if before else ({}, {})
    waivers = before.waivers if before else None
    declared = Digest.of_json(image.target.checks.model_dump(mode="json", by_alias=True))
    for one in evidence:
        if isinstance(one.scan, ScanReport):
            scans[one.digest] = json.loads(vulnerabilities(one.scan, now))
        if isinstance(one.checks, CheckReport):
            checks[one.digest] = json.loads(test_result(one.checks, declared))
    value = {
        "ref": image.target.ref,
        "digest": image.digest,
        "scans": scans,
        "checks": checks,
        "waivers": list(verdict.waivers) if verdict else waivers and list(waivers),
    }
    store.remember(_KIND, _key(image), value)
    store.keep_newest(_KIND, _KEPT_MAX)


def kept_evidence(store: Store, image: BuiltImage) -> KeptEvidence | None:
    """What was kept of this image with its checks and waivers of now; None without, or when it is damaged."""
    record = store.record(_KIND, _key(image))
    if record is None or record.get("digest") != image.digest:
        return None
    scans, checks, waivers = (record.get(name) for name in ("scans", "checks", "waivers"))
    if not (isinstance(scans, dict) and isinstance(checks, dict) and isinstance(waivers, list | None)):
        return None
    platforms = {p.manifest.digest for p in image.platforms}
    found = [{d: said[d] for d in platforms if isinstance(said.get(d), dict)} for said in (scans, checks)]
    return KeptEvidence(found[0], found[1], None if waivers is None else tuple(map(str, waivers)))


def _key(image: BuiltImage) -> Digest:
    return release_key_of(image.digest, image.target, {})
