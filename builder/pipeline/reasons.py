"""Why an image is due: its content keys now against those of the last time, part by part. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from builder.model.debversion import DebianVersion
from builder.model.history import History
from builder.model.plan import Cause, Reason
from builder.model.rebuild import RebuildRequest
from builder.pipeline.prepare import Prepared

_SHOWN = 5  # packages, requests or files that a reason names
_IDENTITY = {
    "policy": (Cause.POLICY, "the policy is another one"),
    "exploited": (Cause.POLICY, "the list of known exploited vulnerabilities is another one"),
    "waivers": (Cause.POLICY, "the waivers are other ones"),
    "database": (Cause.DATABASE, "the vulnerability database is another one"),
    "scanner": (Cause.TOOL, "the scanner is another one"),
    "goldsmith": (Cause.TOOL, "goldsmith is another version"),
    "provenance": (Cause.TOOL, "goldsmith attests something else"),
    "keys": (Cause.KEYS, "the keys are other ones"),
    "registry": (Cause.LOST, "the registry is another one"),
    "checks": (Cause.DEFINITION, "checks.yaml, or a check of the catalogue, changed"),
}


def build_reasons(history: History, prepared: Prepared, components: Mapping[str, Any]) -> tuple[Reason, ...]:
    """Why an input has no finished image; there is always at least one reason."""
    if history.input_hash is None:
        return (Reason(Cause.NEW, "never built here"),)
    if history.input_hash == prepared.input_hash:
        return (Reason(Cause.LOST, "its finished image is not in the state directory, or by other engines"),)
    before = history.components
    found = [
        *(
            [Reason(Cause.DEFINITION, "image.yaml changed")]
            if _differs(before, components, "definition")
            else []
        ),
        *_templates(before.get("templates"), components["templates"]),
        *_packages(before.get("packages"), components["packages"]),
        *(
            [Reason(Cause.BASE, "the image below is another one")]
            if _differs(before, components, "base")
            else []
        ),
        *_tools(before.get("tool"), components["tool"]),
    ]
    # The same parts and another key: what changed is how we make one of the other.
    return tuple(found) or (Reason(Cause.TOOL, "goldsmith renders it differently"),)


def release_reasons(
    history: History, identity: Mapping[str, Any], record: Mapping[str, Any] | None, holds: bool
) -> tuple[Reason, ...]:
    """Why a finished image has no good verdict; empty when it has one."""
    if record is not None:
        return () if holds else (Reason(Cause.VERDICT, "half of the verdict's time has passed"),)
    if not history.identity:
        return (Reason(Cause.NEW, "never released from here"),)
    found = [
        Reason(cause, said)
        for part, (cause, said) in _IDENTITY.items()
        if _differs(history.identity, identity, part)
    ]
    return tuple(found) or (Reason(Cause.VERDICT, "it was not approved, or not published to the end"),)


def request_reasons(requests: Sequence[RebuildRequest], packages: Mapping[str, str]) -> tuple[Reason, ...]:
    """What a rescan asked for: the fix that is locked by now, or what the lock still has."""
    return tuple(_shorten(Cause.REQUESTED, [_request(r, packages) for r in requests]))


def unmet(request: RebuildRequest, packages: Mapping[str, str]) -> bool:
    """Whether the lock still has a version of the package that is not the fixed one."""
    there = packages.get(request.package)
    if there is None:
        return False
    return not request.fixed_version or DebianVersion(there) < DebianVersion(request.fixed_version)


def _request(request: RebuildRequest, packages: Mapping[str, str]) -> str:
    exploited = " (known exploited)" if request.known_exploited else ""
    name = f"{request.vulnerability}{exploited} in {request.package}"
    there = packages.get(request.package)
    if not request.fixed_version:
        return f"{name}: no fix yet"
    if there is not None and unmet(request, packages):
        return f"{name}: fixed in {request.fixed_version}, the lock has {there}"
    return f"{name}: fixed in {request.fixed_version}"


def _differs(before: Mapping[str, Any], now: Mapping[str, Any], part: str) -> bool:
    return bool(before.get(part) != now.get(part))


def _templates(before: Any, now: Mapping[str, Any]) -> Iterator[Reason]:
    old = before if isinstance(before, dict) else {}
    changed = sorted(n for n in {*old, *now} if old.get(n) != now.get(n))
    yield from _shorten(Cause.TEMPLATE, [f"templates/{name}" for name in changed])


def _packages(before: Any, now: Mapping[str, Mapping[str, Any]]) -> Iterator[Reason]:
    old = before if isinstance(before, dict) else {}
    changes: dict[str, None] = {}
    for platform in sorted({*old, *now}):
        one, two = old.get(platform) or {}, now.get(platform) or {}
        for name in sorted({*one, *two}):
            if one.get(name) != two.get(name):
                changes[_change(name, one.get(name), two.get(name))] = None
    yield from _shorten(Cause.PACKAGE, list(changes))


def _change(name: str, old: Any, new: Any) -> str:
    before, after = (str(x[0]) if isinstance(x, list) and x else "" for x in (old, new))
    if not before:
        return f"+ {name} {after}"
    if not after:
        return f"- {name} {before}"
    return f"{name} {before} -> {after}" if before != after else f"{name} {before}: another file"


def _tools(before: Any, now: Mapping[str, Any]) -> Iterator[Reason]:
    old = before if isinstance(before, dict) else {}
    changed = [f"{n} {old.get(n)} -> {now.get(n)}" for n in sorted({*old, *now}) if old.get(n) != now.get(n)]
    yield from _shorten(Cause.TOOL, changed)


def _shorten(cause: Cause, details: Sequence[str]) -> Iterator[Reason]:
    for detail in details[:_SHOWN]:
        yield Reason(cause, detail)
    if len(details) > _SHOWN:
        yield Reason(cause, f"and {len(details) - _SHOWN} more")
