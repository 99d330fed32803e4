"""Differences as text for a terminal, as Markdown for a pull request, and as plain data.

Names and versions come from images: Markdown gets them as code, so that none becomes a link,
a mention or an image.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

from builder.model.evidence import Finding
from registry.diff.compare import ImageDiff, Moved, PlatformDiff

_FILES_SHOWN = 200
_MEBI = 1 << 20


def as_dict(diff: ImageDiff) -> dict[str, Any]:
    """The differences as plain data for `--json`."""
    return {
        "before": {"reference": diff.before.where, "ref": diff.before.ref, "digest": diff.before.digest},
        "after": {"reference": diff.after.where, "ref": diff.after.ref, "digest": diff.after.digest},
        "same": diff.same,
        "platforms": [asdict(p) for p in diff.platforms],
        "platforms_added": list(diff.added),
        "platforms_removed": list(diff.removed),
        "waived": list(diff.waived),
        "no_longer_waived": list(diff.no_longer_waived),
    }


def as_text(diff: ImageDiff) -> str:
    """The differences for people at a terminal."""
    lines = [f"{diff.before.where} {diff.before.digest}", f"→ {diff.after.where} {diff.after.digest}"]
    if diff.same:
        return "\n".join([*lines, "the same image"])
    lines += _platforms_moved(diff)
    for one in diff.platforms:
        lines += ["", f"{one.platform}: {_size(one)}"]
        for title, moved in _parts(one):
            lines += [f"  {title}:", *(f"    {_change(m)}" for m in _cut(moved))]
        for title, findings in (("fixed", one.fixed), ("new findings", one.new)):
            if findings:
                lines += [f"  {title}:", *(f"    {_finding(f)}" for f in findings)]
        lines.append(f"  findings that stay: {one.kept}")
    lines += [f"waived now: {w}" for w in diff.waived]
    lines += [f"no longer waived: {w}" for w in diff.no_longer_waived]
    return "\n".join(lines)


def as_markdown(diff: ImageDiff, why: str = "") -> str:
    """The differences for a pull request or a changelog."""
    lines = [f"### {_code(diff.after.ref)}", ""]
    if why:
        lines += [f"Why: {_code(why)}", ""]
    lines += [f"{_code(diff.before.digest)} → {_code(diff.after.digest)}", ""]
    if diff.same:
        return "\n".join([*lines, "The same image.", ""])
    lines += [f"* {line}" for line in _platforms_moved(diff)]
    for one in diff.platforms:
        lines += [f"#### {_code(one.platform)}", "", _size(one), ""]
        for title, moved in _parts(one):
            lines += [f"| {title} | before | after |", "| --- | --- | --- |"]
            lines += [f"| {_code(m.name)} | {_code(m.before)} | {_code(m.after)} |" for m in _cut(moved)]
            lines.append("")
        for title, findings in (("fixed", one.fixed), ("new findings", one.new)):
            if findings:
                lines += [f"| {title} | severity | package | fixed in |", "| --- | --- | --- | --- |"]
                lines += [
                    f"| {_code(f.id)} | {f.severity} | {_code(f'{f.package} {f.installed_version}')} "
                    f"| {_code(f.fixed_version)} |"
                    for f in findings
                ]
                lines.append("")
        lines += [f"{one.kept} findings stay.", ""]
    lines += [f"* waived now: {_code(w)}" for w in diff.waived]
    lines += [f"* no longer waived: {_code(w)}" for w in diff.no_longer_waived]
    return "\n".join(lines).rstrip() + "\n"


def _parts(one: PlatformDiff) -> Iterable[tuple[str, Sequence[Moved]]]:
    named = (
        ("packages", one.packages),
        ("configuration", one.config),
        ("checks", one.checks),
        ("licences", one.licences),
        ("files", one.files or ()),
    )
    return [(title, moved) for title, moved in named if moved]


def _cut(moved: Sequence[Moved]) -> list[Moved]:
    more = len(moved) - _FILES_SHOWN
    return [*moved[:_FILES_SHOWN], *([Moved(f"and {more} more", "", "")] if more > 0 else [])]


def _platforms_moved(diff: ImageDiff) -> list[str]:
    return [
        *(f"platform added: {p}" for p in diff.added),
        *(f"platform removed: {p}" for p in diff.removed),
    ]


def _size(one: PlatformDiff) -> str:
    change = one.size_after - one.size_before
    return (
        f"{one.size_after / _MEBI:.2f} MiB ({change:+,} bytes); with the old one at hand {one.pulled:,} "
        f"bytes are pulled; {one.layers_new} layers new, {one.layers_shared} shared"
    )


def _change(moved: Moved) -> str:
    if not moved.before and not moved.after:
        return moved.name
    return f"{moved.name}: {moved.before or 'none'} → {moved.after or 'none'}"


def _finding(finding: Finding) -> str:
    fixed = f", fixed in {finding.fixed_version}" if finding.fixable else ""
    return f"{finding.id} {finding.severity} in {finding.package} {finding.installed_version}{fixed}"


def _code(text: object) -> str:
    """Text as inline code; a backtick or line end in it ends neither code nor table."""
    plain = "".join(c if c.isprintable() else " " for c in str(text)).replace("`", "'").replace("|", "¦")
    return f"`{plain[:500]}`" if plain.strip() else ""
