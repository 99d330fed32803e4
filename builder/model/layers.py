"""Which package goes into which layer: a pure function of the lock.

Packages are grouped by their source package, since a fix moves all binaries of a source.
What is patched often and shared by many images has a layer of its own; everything else is
spread over two layers by the hash of its source's name, so that another package that comes
or goes never moves it. An image has at most 12 layers, those of its parents included.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable

from builder.errors import LockError
from builder.model.lock import LockedPackage

LAYERING_VERSION = 1
LAYERS_MAX = 12
OWN = "image"  # the group of what belongs to no package: accounts, links, directories

# Order is the order of the layers: the most stable first.
_GROUPS = (
    ("data", r"base-files|tzdata|netbase|media-types|ca-certificates"),
    ("libc", r"glibc"),
    ("gcc", r"gcc-[0-9]+"),
    ("openssl", r"openssl"),
    (
        "language",
        r"python3\.[0-9]+|nodejs|openjdk-[0-9]+|ruby[0-9.]+|php[0-9.]+|perl|golang-[0-9.]+|nginx|postgresql-[0-9]+",
    ),
)
_REST = 2


def assign(packages: Iterable[LockedPackage], parent_layers: int) -> dict[str, str]:
    """The group of each package, by its name; `parent_layers` is the number already there.

    Raises LockError when the parents leave less than two layers.
    """
    budget = LAYERS_MAX - parent_layers
    if budget < 2:
        raise LockError(
            f"the parents already have {parent_layers} of {LAYERS_MAX} layers",
            hint="shorten the chain of `from:`",
        )
    groups = {p.name: _group(p.source) for p in packages}
    named = {g for g in groups.values() if not g.startswith("rest")}
    # One layer is kept for what belongs to no package.
    rest = min(_REST, budget - 1 - len(named))
    if rest == _REST:
        return groups
    if rest == 1:
        return {name: "rest" if g.startswith("rest") else g for name, g in groups.items()}
    return dict.fromkeys(groups, "rest")


def order(group: str) -> tuple[int, str]:
    """The sort key of a group: its place among an image's layers."""
    names = [name for name, _ in _GROUPS]
    if group in names:
        return names.index(group), group
    return len(names) + (group == OWN), group


def _group(source: str) -> str:
    for name, pattern in _GROUPS:
        if re.fullmatch(pattern, source):
            return name
    return f"rest-{hashlib.sha256(source.encode()).digest()[0] % _REST}"
