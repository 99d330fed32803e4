"""On which of our images something runs, and what is wrong with that. Pure.

The base is found by the digest itself; else by the digest that the image names as its base; else
by its layers: an image stands on ours when its lowest layers are all of ours. The longest stack
wins, so a child is found before its parent.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from builder.model.digest import Digest
from registry.devcheck.changes import between
from registry.devcheck.known import Build, Image, Known
from registry.devcheck.rules import pinned, status
from registry.inventory.running import Running


@dataclass(frozen=True, slots=True)
class Placed:
    """A running image and its base; `states` is empty when nothing is wrong.

    `by` is digest, annotation or layers. `fixed` are the vulnerabilities that the replacement has
    not, `instead` what to run on.
    """

    running: Running
    ref: str = ""
    digest: str = ""
    by: str = ""
    states: tuple[str, ...] = ()
    fixed: tuple[str, ...] = ()
    instead: str = ""


@dataclass(frozen=True)
class Bases:
    """All builds that are known, by digest and by layers."""

    known: Known
    by_digest: Mapping[str, tuple[Image, Build]] = field(repr=False)
    by_layers: Mapping[tuple[str, ...], tuple[Image, Build]] = field(repr=False)

    @classmethod
    def of(cls, known: Known) -> Bases:
        """Prepared for many questions; of two images with the same build, the approved line counts."""
        by_digest: dict[str, tuple[Image, Build]] = {}
        by_layers: dict[tuple[str, ...], tuple[Image, Build]] = {}
        for image in known.images:
            for build in (image.current, *image.previous):
                for digest in (build.digest, *build.platforms.values()):
                    by_digest.setdefault(digest, (image, build))
                for layers in build.layers.values():
                    if layers:
                        by_layers.setdefault(tuple(layers), (image, build))
        return cls(known, by_digest, by_layers)

    def find(self, running: Running) -> tuple[Image, Build, str] | None:
        """The line and build that something runs on, and how that is known."""
        for digest in running.digests:
            if found := self.by_digest.get(digest):
                return *found, "digest"
        if running.base is not None and (found := self.by_digest.get(running.base)):
            return *found, "annotation"
        for count in range(len(running.layers), 0, -1):
            if found := self.by_layers.get(tuple(running.layers[:count])):
                return *found, "layers"
        return None


def place(running: Iterable[Running], known: Known, today: dt.date) -> tuple[Placed, ...]:
    """What each runs on, those with something wrong first, otherwise in their order."""
    bases = Bases.of(known)
    found = [_placed(one, bases, today) for one in running]
    return tuple(sorted(found, key=lambda p: not p.states))


def _placed(running: Running, bases: Bases, today: dt.date) -> Placed:
    found = bases.find(running)
    if found is None:
        unknown = "foreign" if running.digests or running.layers else "unknown"
        return Placed(running, states=(unknown,))
    image, build, by = found
    states = []
    line = status(image, bases.known, today)
    if build.withdrawn:
        states.append("withdrawn")
    if line is not None:
        states.append(line.rule.removesuffix("-image"))
    changes = between(build, image.current)
    if build.digest != image.current.digest:
        states.append("outdated")
    fixable = [v.id for v in build.vulnerabilities if v.fixed_version]
    fixed = tuple(dict.fromkeys([*(v.id for v in changes.gone), *fixable]))
    if fixed:
        states.append("vulnerable")
    move = pinned(bases.known, image, None) if states else ""
    instead = move if line is None else line.instead
    return Placed(running, image.ref, build.digest, by, tuple(dict.fromkeys(states)), fixed, instead)


def counted(found: Iterable[Placed]) -> dict[str, int]:
    """How many run in each state; `current` are those with nothing wrong."""
    counts: dict[str, int] = {}
    for one in found:
        for state in one.states or ("current",):
            counts[state] = counts.get(state, 0) + 1
    return dict(sorted(counts.items()))


def running_digests(found: Iterable[Placed]) -> frozenset[Digest]:
    """The digests of ours that something runs on."""
    return frozenset(Digest(one.digest) for one in found if one.digest)
