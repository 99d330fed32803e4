"""Which package goes into which layer: a pure function of the lock.

Packages are grouped by their source package, since a fix moves all binaries of a source.
What is patched often and shared by many images has a layer of its own; everything else is
spread over two layers by the hash of its source's name, so that another package that comes
or goes never moves it. An image has at most 12 layers, those of its parents included: 6 for
an image without a parent, 4 more for its children, 2 more for theirs.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable

from builder.errors import LockError
from builder.model.lock import LockedPackage

LAYERING_VERSION = 1
LAYERS_MAX = 12
BUDGETS = (6, 4, 2)  # layers that an image may add, by the number of images below it
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
# When there is no room for all of them, these keep a layer of their own first.
_PRIORITY = ("language", "openssl", "libc", "gcc", "data")
_REST_MAX = 2


def assign(packages: Iterable[LockedPackage], depth: int) -> dict[str, str]:
    """The group of each package, by its name; `depth` is the number of images below this one.

    Raises LockError when the chain of parents is too long.
    """
    if depth >= len(BUDGETS):
        raise LockError(
            f"the chain of parents is longer than {len(BUDGETS)} images",
            hint="shorten the chain of `from:`",
        )
    # One layer is kept for what belongs to no package, one for what has no layer of its own.
    room = BUDGETS[depth] - 2
    sources = {p.name: p.source for p in packages}
    present = {_named(source) for source in sources.values()}
    kept = [name for name in _PRIORITY if name in present][:room]
    rest = min(_REST_MAX, BUDGETS[depth] - 1 - len(kept))
    return {name: _group(source, kept, rest) for name, source in sources.items()}


def order(group: str) -> tuple[int, str]:
    """The sort key of a group: its place among an image's layers."""
    names = [name for name, _ in _GROUPS]
    if group in names:
        return names.index(group), group
    return len(names) + (group == OWN), group


def _group(source: str, kept: list[str], rest: int) -> str:
    name = _named(source)
    if name in kept:
        return name
    return f"rest-{hashlib.sha256(source.encode()).digest()[0] % rest}"


def _named(source: str) -> str:
    return next((name for name, pattern in _GROUPS if re.fullmatch(pattern, source)), "")
