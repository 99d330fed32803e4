"""What a comparison rests on, in words: what is signed is not told apart, everything else is named."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from registry.diff.compare import ImageDiff, weaker
from registry.diff.facts import Basis, ImageFacts, PlatformFacts


@dataclass(frozen=True, slots=True)
class Rests:
    """On what the comparison of a platform rests: its findings and licences, and its checks."""

    scan: Basis = Basis.SIGNED
    checks: Basis = Basis.SIGNED


def rests_on(diff: ImageDiff, platform: str) -> Rests:
    """On what the comparison of a platform that both images have rests."""
    old, new = (side.platforms[platform] for side in (diff.before, diff.after))
    return Rests(weaker(old.scan_by, new.scan_by), weaker(old.checks_by, new.checks_by))


def mark(basis: Basis) -> str:
    """What stands behind a title that does not rest on signatures alone."""
    return f" ({basis})" if basis is Basis.LOCAL else ""


def notes(diff: ImageDiff, form: Callable[[object], str] = str) -> list[str]:
    """A line for everything that is not signed: who says it, or that nobody does, and what makes it known."""
    lines: list[str] = []
    for side in (diff.before, diff.after):
        lines += _of_side(side, form)
        if Basis.NONE in _all(side):
            lines.append(
                f"what is not known is not compared; this makes it known: {form(f'goldsmith try {side.ref}')}"
            )
    return lines + [line for p in diff.platforms for line in _other_database(diff, p.platform, form)]


def _of_side(image: ImageFacts, form: Callable[[object], str]) -> Iterator[str]:
    grouped: dict[str, list[str]] = {}
    for platform in image.platforms.values():
        for text in _of_platform(platform, form):
            grouped.setdefault(text, []).append(platform.platform)
    for text, platforms in grouped.items():
        yield f"{form(image.where)}, {', '.join(map(form, platforms))}: {text}"
    if image.waivers_by is not Basis.SIGNED:
        yield f"{form(image.where)}: waivers {_said(image.waivers_by)}"


def _all(image: ImageFacts) -> set[Basis]:
    return {image.waivers_by} | {b for p in image.platforms.values() for b in (p.scan_by, p.checks_by)}


def _of_platform(one: PlatformFacts, form: Callable[[object], str]) -> Iterator[str]:
    if one.scan_by is Basis.LOCAL:
        database = f"with the vulnerability database {form(one.database)}"
        yield f"findings and licences {_said(one.scan_by)}: scanned {form(one.scanned)} {database}"
    elif one.scan_by is Basis.NONE:
        yield f"findings and licences {_said(one.scan_by)}"
    if one.checks_by is not Basis.SIGNED:
        yield f"checks {_said(one.checks_by)}"


def _said(basis: Basis) -> str:
    return "are not known: none were kept here" if basis is Basis.NONE else f"are {basis}"


def _other_database(diff: ImageDiff, platform: str, form: Callable[[object], str]) -> Iterator[str]:
    """Where only one of two scans is signed, another database can be all that makes the difference."""
    old, new = (side.platforms[platform] for side in (diff.before, diff.after))
    if weaker(old.scan_by, new.scan_by) is Basis.LOCAL and old.database != new.database:
        asked = f"{form(diff.before.where)} was scanned with another vulnerability database"
        yield f"{form(platform)}: {asked}, {form(old.database)}: findings may differ for that reason alone"
