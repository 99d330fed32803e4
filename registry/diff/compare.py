"""The differences between two images, platform by platform. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from builder.model.change import Moved, PlatformDiff
from builder.model.digest import Digest
from builder.model.evidence import Finding, Severity
from registry.diff.facts import Basis, ImageFacts, PlatformFacts

_ORDER = {severity: number for number, severity in enumerate(Severity)}
_NOTHING: Mapping[str, str] = {}
_Both: TypeAlias = tuple[Mapping[str, str], Mapping[str, str]]


@dataclass(frozen=True, slots=True)
class ImageDiff:
    """The differences of two images; `added` and `removed` are platforms that only one has."""

    before: ImageFacts = field(repr=False)
    after: ImageFacts = field(repr=False)
    platforms: tuple[PlatformDiff, ...]
    added: tuple[str, ...]
    removed: tuple[str, ...]
    waived: tuple[str, ...]
    no_longer_waived: tuple[str, ...]

    @property
    def attested(self) -> bool:
        """Whether findings, licences, checks and waivers of both are signed."""
        both = (self.before, self.after)
        platforms = [p for side in both for p in side.platforms.values()]
        said = {x.waivers_by for x in both} | {b for p in platforms for b in (p.scan_by, p.checks_by)}
        return said == {Basis.SIGNED}

    @property
    def same(self) -> bool:
        """Whether both are one image."""
        return self.before.digest == self.after.digest


@dataclass(frozen=True, slots=True)
class LayerShare:
    """A layer of one of two images: `shared` by both, `new` in the one after, or `gone`; size in bytes."""

    digest: Digest
    size: int
    state: str


def layers_of(diff: ImageDiff, platform: str) -> tuple[LayerShare, ...]:
    """The layers of a platform that both have: those of the image after in order, then what is gone."""
    old, new = (side.platforms[platform].layers for side in (diff.before, diff.after))
    had, has = {x.digest for x in old}, {x.digest for x in new}
    return (
        *(LayerShare(x.digest, x.size, "shared" if x.digest in had else "new") for x in new),
        *(LayerShare(x.digest, x.size, "gone") for x in old if x.digest not in has),
    )


def compare(
    before: ImageFacts,
    after: ImageFacts,
    files: Mapping[str, _Both] | None = None,
    users: Mapping[str, _Both] | None = None,
) -> ImageDiff:
    """What changed from `before` to `after`; `files` and `users` are those of both by platform, if known."""
    known = weaker(before.waivers_by, after.waivers_by) is not Basis.NONE
    both = [p for p in after.platforms if p in before.platforms]
    return ImageDiff(
        before,
        after,
        tuple(
            replace(
                _platform(before.platforms[p], after.platforms[p], before, after),
                files=_moved(*files[p]) if files and p in files else None,
                users=_moved(*users[p]) if users and p in users else None,
            )
            for p in both
        ),
        tuple(p for p in after.platforms if p not in before.platforms),
        tuple(p for p in before.platforms if p not in after.platforms),
        tuple(w for w in after.waivers if known and w not in before.waivers),
        tuple(w for w in before.waivers if known and w not in after.waivers),
    )


def weaker(one: Basis, other: Basis) -> Basis:
    """What a comparison of both rests on."""
    return max(one, other, key=[Basis.SIGNED, Basis.LOCAL, Basis.NONE].index)


def pulled_bytes(before: ImageFacts | None, after: ImageFacts, platform: str) -> int:
    """What a client of a platform pulls for `after` when it has `before`: index, manifest and blobs."""
    wanted = after.platforms[platform]
    there = _blobs(before.platforms.values()) if before else {}
    blobs = {d: size for d, size in _blobs([wanted]).items() if d not in there}
    known = {p.digest for p in before.platforms.values()} | {before.digest} if before else set()
    index = 0 if after.digest in known else after.index_size
    manifest = 0 if wanted.digest in known else wanted.manifest_size
    return sum(blobs.values()) + index + manifest


def _platform(
    old: PlatformFacts,
    new: PlatformFacts,
    before: ImageFacts,
    after: ImageFacts,
) -> PlatformDiff:
    had = {(f.id, f.package): f for f in old.findings}
    has = {(f.id, f.package): f for f in new.findings}
    if weaker(old.scan_by, new.scan_by) is Basis.NONE:  # what nobody looked for has not gone
        had, has = {}, {}
        old, new = (replace(one, licences={}) for one in (old, new))
    if weaker(old.checks_by, new.checks_by) is Basis.NONE:
        old, new = (replace(one, checks={}) for one in (old, new))
    there = {layer.digest for layer in old.layers}
    shared = sum(layer.digest in there for layer in new.layers)
    return PlatformDiff(
        platform=new.platform,
        packages=_moved(_joined(old.packages), _joined(new.packages)),
        fixed=_worst_first(f for key, f in had.items() if key not in has),
        new=_worst_first(f for key, f in has.items() if key not in had),
        kept=len(had.keys() & has.keys()),
        licences=_moved(_joined(old.licences), _joined(new.licences)),
        checks=_moved(old.checks, new.checks),
        config=_moved(old.config, new.config),
        size_before=old.size,
        size_after=new.size,
        pulled=pulled_bytes(before, after, new.platform),
        layers_new=len(new.layers) - shared,
        layers_shared=shared,
    )


def _blobs(platforms: Iterable[PlatformFacts]) -> dict[Digest, int]:
    return {d.digest: d.size for p in platforms for d in (p.config_blob, *p.layers)}


def _joined(values: Mapping[str, tuple[str, ...]]) -> dict[str, str]:
    return {name: ", ".join(several) for name, several in values.items()}


def _moved(before: Mapping[str, str], after: Mapping[str, str]) -> tuple[Moved, ...]:
    return tuple(
        Moved(name, before.get(name, ""), after.get(name, ""))
        for name in sorted({*before, *after})
        if before.get(name) != after.get(name)
    )


def _worst_first(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    return tuple(sorted(findings, key=lambda f: (_ORDER[f.severity], f.id, f.package)))
