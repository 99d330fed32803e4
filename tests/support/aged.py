"""Package sets as images of earlier days have them: sources with advisories, at versions around the fix.

Epochs, revisions of binary rebuilds, source versions that differ from the binary's, architectures.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from builder.model.lock import LockedPackage
from tests.support.images import package

_SOURCES = 40
_FLAWS_MAX = 60  # of a source: a browser or a kernel is in no base image


def aged_sets(data: Mapping[str, Any], release: str, count: int) -> list[tuple[LockedPackage, ...]]:
    """`count` sets of packages of a release, each at other versions; the same for the same arguments."""
    advisories = data["releases"][release]
    fixes = {
        source: sorted({a["fixed"] for a in of_it.values() if a.get("fixed")})
        for source, of_it in sorted(advisories.items())
    }
    few = [s for s, versions in fixes.items() if versions and len(advisories[s]) <= _FLAWS_MAX]
    sources = few[:: max(1, len(few) // _SOURCES)][:_SOURCES]
    chance = random.Random(release)
    return [tuple(sorted(p for s in sources for p in _binaries(s, fixes[s], chance))) for _ in range(count)]


def _binaries(source: str, fixes: list[str], chance: random.Random) -> list[LockedPackage]:
    """One or two binaries of a source: at a fixed version, or just before one."""
    fixed = chance.choice(fixes)
    built_from = fixed if chance.random() < 0.4 else fixed + "~0"
    version = built_from + chance.choice(("", "", "+b1"))
    names = [f"{source}-bin", f"lib{source.removeprefix('lib')}9"][: chance.randint(1, 2)]
    return [
        replace(
            package(name, version.rpartition(":")[2]),
            version=version,
            source=source,
            source_version=built_from,
            architecture=chance.choice(("amd64", "all")),
        )
        for name in names
    ]
