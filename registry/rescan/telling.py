"""What a rescan tells: plain data for programs, and metrics in Prometheus' text format."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from typing import Any

from prometheus_client import CollectorRegistry, Gauge, generate_latest

from registry.rescan.judging import Outcome
from registry.rescan.run import Rescan


def as_dict(done: Rescan) -> dict[str, Any]:
    """A rescan as plain data for `--json`."""
    return {
        "unchanged": done.unchanged,
        "complete": done.complete,
        "images": done.images,
        "served": done.served,
        "scanned": done.scanned,
        "coverage": done.coverage,
        "packages": done.packages,
        "renewed": done.renewed,
        "outcomes": [
            {
                "ref": j.image.ref,
                "digest": j.image.digest,
                "channel": j.image.channel.value,
                "outcome": j.outcome.value,
                "reason": j.reason,
                "against": [
                    {
                        "vulnerability": f.id,
                        "package": f.package,
                        "version": f.installed_version,
                        "fixed_version": f.fixed_version,
                        "severity": f.severity.value,
                    }
                    for f in j.against
                ],
            }
            for j in done.judged
        ],
        "rebuilds_asked": [r.as_dict() for r in done.asked],
        "rebuilds_withdrawn": [r.as_dict() for r in done.withdrawn],
        "unverified": [
            {"repository": p.repository, "digest": p.digest, "reason": p.reason, "message": p.message}
            for p in done.unverified
        ],
        "failed": [
            {"ref": f.ref, "digest": f.digest, "what": f.what, **f.error.as_dict()} for f in done.failed
        ],
    }


def exposition(done: Rescan, now: dt.datetime) -> bytes:
    """The rescan as metrics, for a collector that reads files."""
    registry = CollectorRegistry()

    def gauge(name: str, text: str, value: float) -> None:
        Gauge(f"goldsmith_rescan_{name}", text, registry=registry).set(value)

    gauge("coverage", "Scanned share of the served images; must be 1", done.coverage)
    gauge("complete", "Whether all was scanned and all that follows was done", done.complete)
    gauge("unchanged", "Whether there was nothing to do", done.unchanged)
    gauge("timestamp_seconds", "When the rescan was", now.timestamp())
    if not done.unchanged:
        counts = Counter(j.outcome for j in done.judged)
        images = Gauge("goldsmith_rescan_images", "Images by outcome", ("outcome",), registry=registry)
        for outcome in Outcome:
            images.labels(outcome.value).set(counts[outcome])
        gauge("unverified", "Images that could not be verified", len(done.unverified))
        gauge("failed", "Decisions that could not be carried out", len(done.failed))
        gauge("packages", "Packages that were compared with the database", done.packages)
    return bytes(generate_latest(registry))
