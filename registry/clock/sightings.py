"""What the scans said of one version of a package over time: seen, fixed, rated, retracted. Pure.

A sighting is of a package and not of an image, as in the index: what follows for each image is
computed from it and never stored.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from builder.model.evidence import Severity

Package = tuple[str, str, str]  # release, name, version


@dataclass(frozen=True, slots=True, order=True)
class Spot:
    """A vulnerability in one version of a binary package; `release` is `debian 13`."""

    release: str
    package: str
    version: str
    vulnerability: str

    @property
    def where(self) -> Package:
        """The package."""
        return self.release, self.package, self.version


@dataclass(frozen=True, slots=True)
class Rating:
    """How urgent a finding was from a time on."""

    at: dt.datetime
    severity: Severity
    known_exploited: bool = False


@dataclass(frozen=True, slots=True)
class Said:
    """What one scan said of a spot; `database` is when its vulnerability database was updated (RFC 3339).

    `fixed_version` is empty when there is no fix. `retracted`: the finding is not there any more,
    in the same version of the package.
    """

    spot: Spot
    at: dt.datetime
    database: str
    severity: Severity = Severity.UNKNOWN
    fixed_version: str = ""
    known_exploited: bool = False
    retracted: bool = False


@dataclass(frozen=True, slots=True)
class Sighting:
    """A spot's history: first seen, since when a fix is known (None: there is none), its ratings in order."""

    spot: Spot
    seen: dt.datetime
    fix: dt.datetime | None
    fixed_version: str
    ratings: tuple[Rating, ...]
    last_at: dt.datetime
    database: str
    retracted: dt.datetime | None = None

    @property
    def rating(self) -> Rating:
        """How urgent it is now."""
        return self.ratings[-1]


def learn(known: Sighting | None, said: Said) -> Sighting:
    """A spot's history with one more word about it; what is said again after a retraction starts anew."""
    rating = Rating(said.at, said.severity, said.known_exploited)
    if known is None or (known.retracted and not said.retracted):
        fix = said.at if said.fixed_version else None
        return Sighting(said.spot, said.at, fix, said.fixed_version, (rating,), said.at, said.database)
    if said.retracted:
        return replace(known, retracted=known.retracted or said.at, last_at=said.at, database=said.database)
    now = known.rating
    same = (now.severity, now.known_exploited) == (said.severity, said.known_exploited)
    return replace(
        known,
        fix=(known.fix or said.at) if said.fixed_version else None,
        fixed_version=said.fixed_version,
        ratings=known.ratings if same else (*known.ratings, rating),
        last_at=said.at,
        database=said.database,
    )


def news(
    known: Mapping[Spot, Sighting],
    said: Iterable[Said],
    compared: Mapping[Package, str],
    now: dt.datetime,
) -> tuple[Said, ...]:
    """What has to be remembered of today's findings: what is new or other than before.

    `compared` says with which database (its update, RFC 3339) each package (release, name,
    version) was compared last. What an older database says changes nothing.
    """
    found = {one.spot: one for one in said}
    out = []
    for spot, one in sorted(found.items()):
        before = known.get(spot)
        if before is None:
            out.append(one)
        elif one.database >= before.database and _differs(before, one):
            # It cannot be older than what was remembered before, however early the scan was.
            out.append(replace(one, at=max(one.at, before.last_at)))
    for spot, before in sorted(known.items()):
        database = compared.get(spot.where, "")
        if spot not in found and not before.retracted and database > before.database:
            out.append(Said(spot, now, database, retracted=True))
    return tuple(out)


def _differs(before: Sighting, said: Said) -> bool:
    rating = (said.severity, said.known_exploited)
    if before.retracted:
        return True
    return (before.rating.severity, before.rating.known_exploited, before.fixed_version) != (
        *rating,
        said.fixed_version,
    )
