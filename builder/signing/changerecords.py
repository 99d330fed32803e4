"""The change record as a predicate: written from a ChangeRecord, and read back strictly.

Every list and every text has a limit, for the writer and for the reader: names come from packages,
labels and advisories, and thus from anybody. What is beyond a limit is left out and counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from builder.model.change import ChangeRecord, Moved, PlatformDiff
from builder.model.digest import Digest, canonical_json
from builder.model.evidence import Finding, Severity
from builder.signing.predicates import items, parse_time, text, timestamp
from builder.signing.refusal import quoted, refuse

_FIELDS = {
    "digest",
    "ref",
    "previous",
    "sequence",
    "at",
    "why",
    "reasons",
    "platforms",
    "added",
    "removed",
    "waived",
    "noLongerWaived",
    "unknown",
}
_MOVED = ("packages", "config", "checks", "licences")
_FINDINGS = ("fixed", "new")
_NUMBERS = ("kept", "sizeBefore", "sizeAfter", "pulled", "layersNew", "layersShared", "omitted")
_PLATFORM_FIELDS = {"platform", *_MOVED, *_FINDINGS, *_NUMBERS}
_FINDING_FIELDS = ("id", "package", "installed", "fixedIn", "severity", "status", "title")
_WHAT = "change record"
_LIST_MAX = 5_000  # differences of one kind on one platform
_PLATFORMS_MAX = 16
_NAMES_MAX = 1_000  # reasons, platforms, waivers
_TEXT_MAX = 1_000  # characters
_NUMBER_MAX = 1 << 53


def encode(record: ChangeRecord) -> bytes:
    """The predicate of a record, as canonical JSON; the time is RFC 3339 UTC to the second."""
    return canonical_json(
        {
            "digest": str(record.digest),
            "ref": record.ref,
            "previous": str(record.previous) if record.previous else "",
            "sequence": record.sequence,
            "at": timestamp(record.at),
            "why": record.why,
            "reasons": list(record.reasons),
            "platforms": [_encode_platform(p) for p in record.platforms],
            "added": list(record.added),
            "removed": list(record.removed),
            "waived": list(record.waived),
            "noLongerWaived": list(record.no_longer_waived),
            "unknown": record.unknown,
        }
    )


def bounded(record: ChangeRecord) -> ChangeRecord:
    """The record within the limits of a reader; what is beyond them is cut, and counted where it is much."""
    return replace(
        record,
        why=_short(record.why),
        unknown=_short(record.unknown),
        reasons=_names(record.reasons),
        platforms=tuple(_bounded(p) for p in record.platforms[:_PLATFORMS_MAX]),
        added=_names(record.added),
        removed=_names(record.removed),
        waived=_names(record.waived),
        no_longer_waived=_names(record.no_longer_waived),
    )


def decode(predicate: Mapping[str, Any]) -> ChangeRecord:
    """Read a record back; raises EvidenceRefused for any field missing, unknown, malformed or too large."""
    _exactly(predicate, _FIELDS)
    sequence = _number(predicate, "sequence")
    if sequence < 1:
        refuse("predicate-malformed", f"the {_WHAT}'s number is malformed", context=quoted(sequence))
    previous = _text(predicate, "previous")
    return ChangeRecord(
        digest=_digest(text(predicate, "digest", _WHAT)),
        ref=text({"ref": _text(predicate, "ref")}, "ref", _WHAT),
        previous=_digest(previous) if previous else None,
        sequence=sequence,
        at=parse_time(predicate, "at", _WHAT),
        why=_text(predicate, "why"),
        reasons=_texts(predicate, "reasons", _NAMES_MAX),
        platforms=tuple(_platform(p) for p in items(predicate, "platforms", _WHAT, _PLATFORMS_MAX)),
        added=_texts(predicate, "added", _NAMES_MAX),
        removed=_texts(predicate, "removed", _NAMES_MAX),
        waived=_texts(predicate, "waived", _NAMES_MAX),
        no_longer_waived=_texts(predicate, "noLongerWaived", _NAMES_MAX),
        unknown=_text(predicate, "unknown"),
    )


def newest(records: Iterable[ChangeRecord]) -> ChangeRecord | None:
    """The record that holds; None when there is none."""
    return max(records, key=lambda r: (r.sequence, r.at, encode(r)), default=None)


def _encode_platform(one: PlatformDiff) -> dict[str, Any]:
    lists = {kind: [[m.name, m.before, m.after] for m in getattr(one, kind)] for kind in _MOVED}
    found = {kind: [list(_finding_texts(f)) for f in getattr(one, kind)] for kind in _FINDINGS}
    numbers = dict(zip(_NUMBERS, _numbers_of(one), strict=True))
    return {"platform": one.platform, **lists, **found, **numbers}


def _numbers_of(one: PlatformDiff) -> tuple[int, ...]:
    sizes = (one.size_before, one.size_after, one.pulled)
    return (one.kept, *sizes, one.layers_new, one.layers_shared, one.omitted)


def _finding_texts(found: Finding) -> tuple[str, ...]:
    versions = (found.installed_version, found.fixed_version)
    return (found.id, found.package, *versions, found.severity.value, found.status, found.title)


def _bounded(one: PlatformDiff) -> PlatformDiff:
    """Within the limits; files are no part of a record."""
    lists = [getattr(one, kind) for kind in (*_MOVED, *_FINDINGS)]
    return replace(
        one,
        packages=_short_moved(one.packages),
        config=_short_moved(one.config),
        checks=_short_moved(one.checks),
        licences=_short_moved(one.licences),
        fixed=tuple(map(_short_finding, one.fixed[:_LIST_MAX])),
        new=tuple(map(_short_finding, one.new[:_LIST_MAX])),
        files=None,
        users=None,
        omitted=sum(max(0, len(several) - _LIST_MAX) for several in lists),
    )


def _short_moved(moved: Sequence[Moved]) -> tuple[Moved, ...]:
    return tuple(Moved(_short(m.name), _short(m.before), _short(m.after)) for m in moved[:_LIST_MAX])


def _short_finding(found: Finding) -> Finding:
    name, package, installed, fixed, _, status, title = map(_short, _finding_texts(found))
    return Finding(name, package, installed, fixed, found.severity, status, title)


def _short(value: str) -> str:
    return value if len(value) <= _TEXT_MAX else value[: _TEXT_MAX - 1] + "…"


def _names(values: Sequence[str]) -> tuple[str, ...]:
    return tuple(_short(v) for v in values[:_NAMES_MAX])


def _platform(value: Mapping[str, Any]) -> PlatformDiff:
    _exactly(value, _PLATFORM_FIELDS)
    moved = {kind: tuple(Moved(*row) for row in _rows(value, kind, 3)) for kind in _MOVED}
    found = {
        kind: tuple(_finding(row) for row in _rows(value, kind, len(_FINDING_FIELDS))) for kind in _FINDINGS
    }
    kept, before, after, pulled, new, shared, omitted = (_number(value, name) for name in _NUMBERS)
    return PlatformDiff(
        platform=_text(value, "platform"),
        packages=moved["packages"],
        fixed=found["fixed"],
        new=found["new"],
        kept=kept,
        licences=moved["licences"],
        checks=moved["checks"],
        config=moved["config"],
        size_before=before,
        size_after=after,
        pulled=pulled,
        layers_new=new,
        layers_shared=shared,
        omitted=omitted,
    )


def _finding(row: Sequence[str]) -> Finding:
    try:
        return Finding(row[0], row[1], row[2], row[3], Severity(row[4]), row[5], row[6])
    except ValueError:
        refuse("predicate-malformed", f"a severity of the {_WHAT} is unknown", context=quoted(row[4]))


def _rows(parent: Mapping[str, Any], key: str, width: int) -> list[list[str]]:
    value = parent[key]
    if not isinstance(value, list) or len(value) > _LIST_MAX:
        refuse("predicate-malformed", f"the {_WHAT}'s {key} are no list of at most {_LIST_MAX}")
    for row in value:
        if not isinstance(row, list) or len(row) != width or not all(map(_is_text, row)):
            refuse("predicate-malformed", f"the {_WHAT}'s {key} are malformed", context=quoted(row))
    return value


def _texts(parent: Mapping[str, Any], key: str, count_max: int) -> tuple[str, ...]:
    value = parent[key]
    if not isinstance(value, list) or len(value) > count_max or not all(map(_is_text, value)):
        refuse("predicate-malformed", f"the {_WHAT}'s {key} are malformed", context=quoted(value))
    return tuple(value)


def _text(parent: Mapping[str, Any], key: str) -> str:
    value = parent[key]
    if not isinstance(value, str) or not _is_text(value):
        refuse("predicate-malformed", f"the {_WHAT}'s {key} is malformed", context=quoted(value))
    return value


def _is_text(value: object) -> bool:
    return isinstance(value, str) and len(value) <= _TEXT_MAX


def _number(parent: Mapping[str, Any], key: str) -> int:
    value = parent[key]
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < _NUMBER_MAX:
        refuse("predicate-malformed", f"the {_WHAT}'s {key} is no number", context=quoted(value))
    return value


def _digest(value: str) -> Digest:
    try:
        return Digest(value)
    except ValueError:
        refuse("predicate-malformed", f"a digest of the {_WHAT} is malformed", context=quoted(value))


def _exactly(value: Mapping[str, Any], fields: set[str]) -> None:
    if set(value) != fields:
        refuse(
            "predicate-malformed",
            f"the {_WHAT} has missing or unknown fields",
            context=quoted(sorted(set(value) ^ fields)),
        )
