"""What lies between two builds of an image: packages that moved, and vulnerabilities that went. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from registry.devcheck.known import Build, Vulnerability

_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Changes:
    """`moved` are (name, old version, new version); a version is empty where there is none."""

    moved: tuple[tuple[str, str, str], ...]
    gone: tuple[Vulnerability, ...]

    def sentence(self) -> str:
        """The changes in a few words for people."""
        parts = []
        if self.moved:
            names = [f"{n} {old or 'new'} → {new or 'gone'}" for n, old, new in self.moved[:_SHOWN]]
            parts.append(f"{_count(self.moved, 'package')} moved: {_listed(names, len(self.moved))}")
        if self.gone:
            ids = list(dict.fromkeys(v.id for v in self.gone))
            parts.append(f"{_count(ids, 'vulnerability')} less: {_listed(ids[:_SHOWN], len(ids))}")
        return "; ".join(parts) or "no package moved"

    def as_dict(self) -> dict[str, object]:
        """The changes as plain data."""
        return {
            "packages": [{"name": n, "from": old, "to": new} for n, old, new in self.moved],
            "vulnerabilities": [v.model_dump() for v in self.gone],
        }


def between(old: Build, new: Build) -> Changes:
    """The changes from `old` to `new`, worst vulnerabilities first.

    Vulnerabilities are those of the old build's last scan that the new build's scan has not: one
    that was found since then on the old packages is not known here.
    """
    before, after = _versions(old), _versions(new)
    moved = tuple(
        (name, ", ".join(sorted(before.get(name, ()))), ", ".join(sorted(after.get(name, ()))))
        for name in sorted({*before, *after})
        if before.get(name) != after.get(name)
    )
    order = {"CRITICAL": 0, "HIGH": 1, "MEDIUM": 2, "LOW": 3}
    still = {(v.id, v.package.partition("=")[0]) for v in new.vulnerabilities}
    gone = [v for v in old.vulnerabilities if (v.id, v.package.partition("=")[0]) not in still]
    return Changes(moved, tuple(sorted(gone, key=lambda v: (order.get(v.severity, 4), v.id, v.package))))


def _versions(build: Build) -> dict[str, frozenset[str]]:
    found: dict[str, frozenset[str]] = {}
    for package in build.packages:
        name, _, version = package.partition("=")
        found[name] = found.get(name, frozenset()) | {version}
    return found


def _listed(texts: list[str], count: int) -> str:
    return ", ".join(texts) + (f" and {count - len(texts)} more" if count > len(texts) else "")


def _count(items: object, noun: str) -> str:
    count = len(items) if isinstance(items, list | tuple) else 0
    plural = noun[:-1] + "ies" if noun.endswith("y") else noun + "s"
    return f"{count} {noun if count == 1 else plural}"
