"""Which findings of an image are over a policy's limits: counted by package, and not by image. Pure.

Thousands of images have the same few thousand packages. So each finding is put in its place of a scan
report, and looked at by the limits, once; of an image only the numbers of its packages are added up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

from builder.model.evidence import Finding, Severity
from registry.rescan.union import Matched

_SEVERITIES = tuple(Severity)

# Which findings, and how many of them are allowed; None for any number.
Limit = tuple[Callable[[Finding], bool], int | None]


def report_order(finding: Finding) -> tuple[int, str, str]:
    """What the findings of a scan report are sorted by."""
    return _SEVERITIES.index(finding.severity), finding.id, finding.package


@dataclass(frozen=True, slots=True)
class Ranked:
    """All findings of a rescan in the order of a report, and the places of each package's, by release."""

    findings: tuple[Finding, ...]
    places: Mapping[str, Mapping[int, tuple[int, ...]]]

    @classmethod
    def of(cls, releases: Mapping[str, Matched]) -> Ranked:
        """Rank what was found; what is equal in two packages has one place."""
        everything = (f for matched in releases.values() for some in matched.findings.values() for f in some)
        findings = tuple(sorted(dict.fromkeys(everything), key=report_order))
        place = {finding: number for number, finding in enumerate(findings)}
        return cls(
            findings,
            {
                release: {n: tuple(place[f] for f in some) for n, some in matched.findings.items()}
                for release, matched in releases.items()
            },
        )


class Counter:
    """Counts the findings that `counts` and that one of the limits is about."""

    def __init__(self, ranked: Ranked, limits: Sequence[Limit], counts: Callable[[Finding], bool]) -> None:
        self._ranked, self._counts = ranked, counts
        self._limits = [(kind, limit) for kind, limit in limits if limit is not None]
        self._limits_of: dict[int, tuple[int, ...]] = {}
        self._of_package: dict[tuple[str, int], tuple[tuple[int, tuple[int, ...]], ...]] = {}

    def over(self, release: str, packages: Iterable[int]) -> tuple[int, ...]:
        """The places of the findings over the limits: limit by limit, each in the order of a report.

        Raises KeyError for a package that was not scanned.
        """
        counted: list[list[tuple[int, ...]]] = [[] for _ in self._limits]
        for package in packages:
            for number, places in self._package(release, package):
                counted[number].append(places)
        over: dict[int, None] = {}
        for (_, limit), found in zip(self._limits, counted, strict=True):
            if sum(map(len, found)) > (limit or 0):
                over |= dict.fromkeys(sorted(chain.from_iterable(found)))
        return tuple(over)

    def _package(self, release: str, package: int) -> tuple[tuple[int, tuple[int, ...]], ...]:
        """The places of a package's findings, by the number of the limit that is about them."""
        known = self._of_package.get((release, package))
        if known is None:
            by_limit: dict[int, list[int]] = {}
            for place in self._ranked.places[release][package]:
                for number in self._about(place):
                    by_limit.setdefault(number, []).append(place)
            known = tuple((number, tuple(places)) for number, places in by_limit.items())
            self._of_package[release, package] = known
        return known

    def _about(self, place: int) -> tuple[int, ...]:
        """The limits that a finding counts for."""
        known = self._limits_of.get(place)
        if known is None:
            finding = self._ranked.findings[place]
            about = (n for n, (kind, _) in enumerate(self._limits) if kind(finding))
            known = self._limits_of[place] = tuple(about) if self._counts(finding) else ()
        return known
