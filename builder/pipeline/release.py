"""Release: a finished image → checked, scanned, judged, signed and published, or refused."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from builder.errors import RegistryError
from builder.model.digest import Digest
from builder.model.evidence import (
    CheckReport,
    Evidence,
    LintReport,
    NotDone,
    Outcome,
    Sboms,
    ScanReport,
    Severity,
)
from builder.model.image import BuildContext, BuiltImage, PlatformImage, Target
from builder.model.kit import PackedKit
from builder.model.platform import Platform
from builder.model.release import PublishedImage, SignedImage
from builder.model.verdict import Verdict
from builder.pipeline.denied import NOTHING, Found, Known, Means, beside, recall, retain
from builder.pipeline.prepare import Prepared
from builder.pipeline.timing import Stages
from builder.signing.kits import with_kit
from builder.stages.finish import without
from builder.store import Store, disk_faults

_DAMAGED = "layout-damaged"  # what reading a layout says of one
# What is recorded of a release; a record without one of these is not whole.
_RECORDED = {
    "approved",
    "verdict",
    "sample",
    "issued_at",
    "expires_at",
    "findings",
    "reference",
    "explanation",
}


class Assayers(Protocol):
    """What evidence is gathered with; it needs no key."""

    @property
    def check(self) -> Callable[[Target, PlatformImage], CheckReport | NotDone]:
        """Checks a platform."""

    @property
    def scan(self) -> Callable[[Target, PlatformImage, Path], tuple[ScanReport | NotDone, Sboms | NotDone]]:
        """Scans it, in a folder for the files between."""

    @property
    def lint(self) -> Callable[[BuildContext], LintReport | NotDone]:
        """Lints what it was built of."""


@dataclass(frozen=True, slots=True)
class Tools:
    """What the stages of a release are done with; the command line puts it together.

    `identity` is everything about them that a verdict depends on, as JSON data: another
    database, scanner, policy or key asks for a new verdict. `means` is what evidence depends on;
    without it, none is kept of what was denied.
    """

    check: Callable[[Target, PlatformImage], CheckReport | NotDone]
    scan: Callable[[Target, PlatformImage, Path], tuple[ScanReport, Sboms]]
    lint: Callable[[BuildContext], LintReport | NotDone]
    judge: Callable[[BuiltImage, tuple[Evidence, ...]], Verdict]
    provenance: Callable[[Prepared, BuiltImage, BuiltImage | None], Mapping[str, Any]]
    sign: Callable[[BuiltImage, tuple[Evidence, ...], Verdict, Mapping[str, Any]], SignedImage]
    publish: Callable[[SignedImage], PublishedImage]
    identity: Mapping[str, Any]
    kit: Callable[[BuiltImage], PackedKit] | None = None
    means: Callable[[], Means] | None = None


@dataclass(frozen=True, slots=True)
class Release:
    """What a release came to; `published` is None when the verdict is a denial.

    `image` is what was judged: without the platforms that are `left_out`. `anew` is the evidence
    without what was known from the time when the image was denied before.
    """

    image: BuiltImage
    left_out: tuple[Platform, ...]
    verdict: Verdict
    evidence: tuple[Evidence, ...]
    published: PublishedImage | None
    anew: tuple[Evidence, ...]

    @property
    def findings(self) -> dict[str, int]:
        """The number of vulnerabilities by severity, over all platforms."""
        counts = dict.fromkeys((s.value for s in Severity), 0)
        for item in self.evidence:
            if isinstance(item.scan, ScanReport):
                for finding in item.scan.union:
                    counts[finding.severity.value] += 1
        return counts

    @property
    def checks(self) -> dict[str, list[dict[str, str]]]:
        """The results of the checks by platform, as they are attested."""
        return {
            str(e.platform): [r.as_dict() for r in e.checks.results]
            for e in self.evidence
            if isinstance(e.checks, CheckReport)
        }


def release_key(image: BuiltImage, tools: Tools) -> Digest:
    """The content key of a release: the image, its checks, and everything that judges it."""
    return release_key_of(image.digest, image.target, tools.identity)


def release_key_of(digest: Digest, target: Target, identity: Mapping[str, Any]) -> Digest:
    """The same, of an image that is known by its digest."""
    waivers = sorted(waiver.id for waiver in target.waivers)
    return Digest.of_json(
        {"image": digest, "ref": target.ref, "checks": target.declared_checks, "waivers": waivers, **identity}
    )


def verdict_holds(record: Mapping[str, Any], now: dt.datetime) -> bool:
    """Whether a release's record is whole, and the verdict still good for at least half of its time."""
    if not is_whole(record):
        return False
    try:
        issued, expires = (dt.datetime.fromisoformat(str(record[k])) for k in ("issued_at", "expires_at"))
        return issued <= now < issued + (expires - issued) / 2
    except (ValueError, TypeError):
        return False


def is_whole(record: Mapping[str, Any]) -> bool:
    """Whether a release's record has all that is recorded of one."""
    return record.keys() >= _RECORDED


def release(
    prepared: Prepared,
    image: BuiltImage,
    parent: BuiltImage | None,
    tools: Tools,
    store: Store,
    stages: Stages,
    gathered: tuple[Evidence, ...] | None = None,
) -> Release:
    """Gather the evidence, judge, and publish what was approved; raises what the tools raise.

    A platform whose programs cannot run here has no evidence, and is left out if another one has.
    `gathered` is evidence that was gathered where the image was built. What is known of an image that was
    denied may deny it again; what would be approved by that is looked at anew.
    """
    means = tools.means() if tools.means is not None and gathered is None else None
    known: Found = recall(store, prepared, image.platforms, means) if means else {}
    evidence = gathered or assay(prepared, image, tools, store, stages, known)
    judged = _judge(image, evidence, tools, stages)
    fresh = beside(evidence, known)
    if judged.verdict.approved and known:
        evidence, known = assay(prepared, image, tools, store, stages, fresh), {}
        judged, fresh = _judge(image, evidence, tools, stages), beside(evidence, known)
    if not judged.verdict.approved:
        if means:
            retain(store, prepared, image.platforms, fresh, means)
        return replace(judged, anew=tuple(known.get(e.digest, NOTHING).cut_from(e) for e in judged.evidence))
    image, verdict, evidence = judged.image, judged.verdict, judged.evidence
    origin = tools.provenance(prepared, image, parent)
    kit = None
    if tools.kit is not None:
        with stages.stage("kit"):
            kit = tools.kit(image)
        origin = with_kit(origin, kit.digest)
    with stages.stage("sign"):
        signed = tools.sign(image, evidence, verdict, origin)
    if kit is not None:
        signed = replace(signed, kit=kit)
    with stages.stage("publish"):
        published = tools.publish(signed)
    return replace(judged, published=published)


def _judge(image: BuiltImage, evidence: tuple[Evidence, ...], tools: Tools, stages: Stages) -> Release:
    """What the policy says of an image by this evidence; nothing is published yet."""
    left_out = unchecked(evidence)
    image = without(image, left_out)
    evidence = tuple(item for item in evidence if item.platform not in left_out)
    with stages.stage("judge"):
        verdict = tools.judge(image, evidence)
    return Release(image, left_out, verdict, evidence, None, evidence)


def unchecked(evidence: Sequence[Evidence]) -> tuple[Platform, ...]:
    """The platforms on which checks were not run, when on another one all of them were."""
    left_out = tuple(
        item.platform
        for item in evidence
        if isinstance(item.checks, CheckReport)
        and any(result.outcome is Outcome.NOT_RUN for result in item.checks.results)
    )
    return left_out if len(left_out) < len(evidence) else ()


def assay(
    prepared: Prepared,
    image: BuiltImage,
    tools: Assayers,
    store: Store,
    stages: Stages,
    known: Found | None = None,
) -> tuple[Evidence, ...]:
    """The evidence on every platform of an image: checks, scan, lint; what is `known` is not looked for.

    Raises what the tools raise; an image that is damaged here is built again the next time.
    """
    known = known or {}
    try:
        return tuple(
            _assay(prepared, platform, tools, store, stages, known.get(platform.manifest.digest, NOTHING))
            for platform in image.platforms
        )
    except RegistryError as error:
        if error.reference == _DAMAGED:
            store.forget("built", prepared.input_hash)
        raise


def _assay(
    prepared: Prepared,
    image: PlatformImage,
    tools: Assayers,
    store: Store,
    stages: Stages,
    known: Known,
) -> Evidence:
    """Check and scan one platform side by side: one waits for containers, the other computes."""
    with disk_faults(), ThreadPoolExecutor(1) as side, store.scratch("scan") as work:

        def scan() -> tuple[ScanReport | NotDone, Sboms | NotDone]:
            if known.scan is not None:
                return known.scan
            with stages.stage("scan"):
                return tools.scan(prepared.target, image, work)

        scanning = side.submit(scan)
        if known.checks is None:
            with stages.stage("check"):
                checks = tools.check(prepared.target, image)
        else:
            checks = known.checks
        lint = tools.lint(prepared.contexts[image.platform])
        report, sboms = scanning.result()
    return Evidence(image.manifest.digest, image.platform, checks, report, sboms, lint)
