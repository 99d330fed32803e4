"""What was found of an image that was denied, kept so that the next night need not look again.

It can deny, and never approve: what would be approved by it is looked at again in the same run. So of
checks only those are kept that all passed (a program that failed may have failed by chance), and of scans
only ours, whose findings follow from the image, the scanner and the database; scanners of others may look
at anything. The policy is asked anew each time. What is kept counts as long as all that it follows from is
the same; what is damaged is as if it were not there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from pydantic import TypeAdapter, ValidationError

from builder.model.digest import Digest, canonical_json, is_digest_of_json
from builder.model.evidence import CheckReport, Evidence, NotDone, Outcome, Sboms, ScanReport
from builder.model.image import PlatformImage
from builder.pipeline.prepare import Prepared
from builder.store import Store

Scan = tuple[ScanReport, Sboms]
Found = Mapping[Digest, "Known"]  # by the digest of a platform's manifest

_KIND = "denied"
_TYPES: Mapping[str, Any] = {"checks": CheckReport, "scan": Scan}
_GOOD = frozenset({Outcome.PASSED, Outcome.NOT_APPLICABLE})


@dataclass(frozen=True, slots=True)
class Means:
    """By what is checked and by what is scanned, as JSON data."""

    checks: Mapping[str, Any]
    scan: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Known:
    """What need not be looked for again on one platform; None for what must be."""

    checks: CheckReport | None = None
    scan: Scan | None = None

    @classmethod
    def of(cls, evidence: Evidence) -> Known:
        """All that was found on a platform."""
        checks, report, sboms = evidence.checks, evidence.scan, evidence.sboms
        scan = (report, sboms) if isinstance(report, ScanReport) and isinstance(sboms, Sboms) else None
        return cls(checks if isinstance(checks, CheckReport) else None, scan)

    def cut_from(self, evidence: Evidence) -> Evidence:
        """The evidence of a platform without what is known here."""
        if self.checks:
            evidence = replace(evidence, checks=NotDone("check", "it was known before"))
        if self.scan:
            before = NotDone("scan", "it was known before")
            evidence = replace(evidence, scan=before, sboms=before)
        return evidence


NOTHING = Known()


def recall(
    store: Store, prepared: Prepared, images: Iterable[PlatformImage], by: Means
) -> dict[Digest, Known]:
    """What was kept of the platforms of an input, as far as it still counts."""
    found = {}
    for image in images:
        known = Known(
            _read(store, prepared, image, "checks", by.checks), _read(store, prepared, image, "scan", by.scan)
        )
        if known != NOTHING:
            found[image.manifest.digest] = known
    return found


def beside(evidence: Iterable[Evidence], known: Found) -> dict[Digest, Known]:
    """What was found that was not known before."""
    found = {}
    for one in evidence:
        all_of_it, before = Known.of(one), known.get(one.digest, NOTHING)
        found[one.digest] = Known(
            None if before.checks else all_of_it.checks, None if before.scan else all_of_it.scan
        )
    return found


def retain(
    store: Store, prepared: Prepared, images: Iterable[PlatformImage], found: Found, by: Means
) -> None:
    """Keep of an image that was denied what can be kept; raises ToolError when that cannot be written."""
    for image in images:
        known = found.get(image.manifest.digest, NOTHING)
        if known.checks and all(result.outcome in _GOOD for result in known.checks.results):
            _write(store, prepared, image, "checks", by.checks, known.checks)
        if known.scan and not known.scan[0].further:
            _write(store, prepared, image, "scan", by.scan, known.scan)


def _read(store: Store, prepared: Prepared, image: PlatformImage, part: str, by: Mapping[str, Any]) -> Any:
    record = store.record(_KIND, _place(prepared, image, part)) or {}
    value = record.get("value")
    if record.get("of") != _content_key(prepared, image, part, by):
        return None
    try:
        if not is_digest_of_json(str(record.get("sum")), value):
            return None
        found = _form(part).validate_json(canonical_json(value), strict=True)
    except (ValidationError, ValueError, RecursionError):
        return None
    said = {one.digest for one in (found if isinstance(found, tuple) else (found,))}
    return found if said == {image.manifest.digest} else None


def _write(
    store: Store, prepared: Prepared, image: PlatformImage, part: str, by: Mapping[str, Any], found: object
) -> None:
    of, value = _content_key(prepared, image, part, by), _form(part).dump_python(found, mode="json")
    record = {"of": of, "sum": Digest.of_json(value), "value": value}
    store.remember(_KIND, _place(prepared, image, part), record)


def _place(prepared: Prepared, image: PlatformImage, part: str) -> Digest:
    """One record for each part of each platform of an image: a newer one takes its place."""
    return Digest.of_json([prepared.target.ref, str(image.platform), part])


def _content_key(prepared: Prepared, image: PlatformImage, part: str, by: Mapping[str, Any]) -> Digest:
    """Everything that a part follows from."""
    about = {"input": prepared.input_hash, "manifest": image.manifest.digest, "by": dict(by)}
    return Digest.of_json(
        {**about, "declared": prepared.target.declared_checks} if part == "checks" else about
    )


@cache
def _form(part: str) -> TypeAdapter[Any]:
    return TypeAdapter(_TYPES[part])
