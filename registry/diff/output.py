"""Differences as text for a terminal, as Markdown for a pull request, and as plain data.

Names and versions come from images: Markdown gets them as code, so that none becomes a link,
a mention or an image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from typing import Any

from builder.model.change import ChangeRecord, Moved, PlatformDiff
from builder.model.evidence import Finding
from builder.signing.predicates import timestamp
from registry.diff.basis import Rests, mark, notes, rests_on
from registry.diff.compare import ImageDiff, layers_of, weaker
from registry.diff.facts import Basis, ImageFacts

_SHOWN = 200  # rows of a table
_SHORT = 8  # names in a line
_MARKDOWN_MAX = 60_000  # characters; GitHub takes 65,536 in a pull request, and bots add their own
_MEBI = 1 << 20
_ALL_SIGNED = Rests()


def as_dict(diff: ImageDiff) -> dict[str, Any]:
    """The differences as plain data for `--json`."""
    return {
        "before": _side(diff.before),
        "after": _side(diff.after),
        "same": diff.same,
        "attested": diff.attested,
        "notes": notes(diff),
        "platforms": [
            asdict(p) | {"layers": [asdict(x) for x in layers_of(diff, p.platform)]} for p in diff.platforms
        ],
        "platforms_added": list(diff.added),
        "platforms_removed": list(diff.removed),
        "waived": list(diff.waived),
        "no_longer_waived": list(diff.no_longer_waived),
    }


def _side(image: ImageFacts) -> dict[str, Any]:
    evidence = {
        p.platform: {
            "findings": p.scan_by,
            "licences": p.scan_by,
            "checks": p.checks_by,
            "scanned": p.scanned,
            "database": p.database,
        }
        for p in image.platforms.values()
    }
    return {
        "reference": image.where,
        "ref": image.ref,
        "digest": image.digest,
        "evidence": {"platforms": evidence, "waivers": image.waivers_by},
    }


def record_as_dict(record: ChangeRecord) -> dict[str, Any]:
    """A change record as plain data for `--json`."""
    return asdict(record) | {"at": timestamp(record.at)}


def as_text(diff: ImageDiff) -> str:
    """The differences for people at a terminal."""
    lines = [f"{diff.before.where} {diff.before.digest}", f"→ {diff.after.where} {diff.after.digest}"]
    if diff.same:
        return "\n".join([*lines, "the same image"])
    lines += _platforms_moved(diff)
    for one in diff.platforms:
        lines += ["", *_platform_text(one, rests_on(diff, one.platform)), "  layers:"]
        lines += [f"    {x.state}: {x.digest} ({x.size:,} bytes)" for x in layers_of(diff, one.platform)]
    said = notes(diff)
    return "\n".join([*lines, *_waivers(diff), *(["", *said] if said else [])])


def record_as_text(record: ChangeRecord) -> str:
    """A change record for people at a terminal."""
    lines = [
        f"{record.ref}@{record.digest}",
        f"since {timestamp(record.at)}, before it {record.previous or 'none'}",
        *(f"why: {why}" for why in (record.why, *record.reasons) if why),
        *([f"the image before could not be compared: {record.unknown}"] if record.unknown else []),
        *_platforms_moved(record),
    ]
    for one in record.platforms:
        lines += ["", *_platform_text(one)]
    return "\n".join([*lines, *_waivers(record)])


def as_markdown(diff: ImageDiff, why: str = "") -> str:
    """The differences for a pull request or a changelog; at most as long as a pull request's text may be."""
    lines = [f"### {_code(diff.after.ref)}", ""]
    if why:
        lines += [f"Why: {_code(why)}", ""]
    lines += [f"{_code(diff.before.digest)} → {_code(diff.after.digest)}", ""]
    if diff.same:
        return "\n".join([*lines, "The same image.", ""])
    lines += [f"* {line}" for line in _platforms_moved(diff)]
    for one in diff.platforms:
        lines += _platform_markdown(one, rests_on(diff, one.platform))
        lines += ["| layer | bytes | |", "| --- | --- | --- |"]
        lines += [f"| {_code(x.digest)} | {x.size:,} | {x.state} |" for x in layers_of(diff, one.platform)]
        lines.append("")
    said = [f"* {note}" for note in notes(diff, _code)]
    return _within([*lines, *(f"* {line}" for line in _waivers(diff, _code)), *said])


def record_in_short(record: ChangeRecord) -> tuple[str, ...]:
    """A change record in a few lines, for a report that has others; platforms that say the same are one."""
    told: dict[tuple[str, ...], list[str]] = {}
    for one in record.platforms:
        lines = [f"{title}: {_listed([_change(m) for m in moved])}" for title, moved in _parts(one)]
        lines += [
            f"{title}: {_listed([_finding(f) for f in findings])}"
            for title, findings in (("fixed", one.fixed), ("new findings", one.new))
            if findings
        ]
        told.setdefault(tuple(lines), []).append(one.platform)
    before = f"before it {record.previous}" if record.previous else "the first image"
    unknown = [f"the image before could not be compared: {record.unknown}"] if record.unknown else []
    return (
        before,
        *(f"why: {why}" for why in record.reasons[:_SHORT]),
        *unknown,
        *_platforms_moved(record),
        *(f"{', '.join(on)}: {line}" for lines, on in told.items() for line in lines or ("no difference",)),
        *_waivers(record),
    )


def records_as_markdown(records: Sequence[ChangeRecord]) -> str:
    """Change records, the newest first; at most as long as the text of a pull request may be."""
    lines: list[str] = []
    for record in records:
        before = _code(record.previous) if record.previous else "the first image"
        lines += [f"### {_code(record.ref)}, {timestamp(record.at)[:10]}", ""]
        lines += [f"{before} → {_code(record.digest)}", ""]
        lines += [f"* why: {_code(why)}" for why in (record.why, *record.reasons) if why]
        if record.unknown:
            lines += [f"* the image before could not be compared: {_code(record.unknown)}"]
        lines += [f"* {line}" for line in _platforms_moved(record)]
        for one in record.platforms:
            lines += _platform_markdown(one)
        lines += [*(f"* {line}" for line in _waivers(record, _code)), ""]
    return _within(lines)


def _platform_text(one: PlatformDiff, rests: Rests = _ALL_SIGNED) -> list[str]:
    lines = [f"{one.platform}: {_size(one)}"]
    for title, findings in (("fixed", one.fixed), ("new findings", one.new)):
        if findings:
            lines += [f"  {title}{mark(rests.scan)}:", *(f"    {_finding(f)}" for f in findings)]
    for title, moved in _parts(one, rests):
        lines += [f"  {title}:", *(f"    {_change(m)}" for m in _cut(moved))]
    if rests.scan is not Basis.NONE:
        lines.append(f"  findings that stay{mark(rests.scan)}: {one.kept}")
    return lines + ([f"  and {one.omitted} differences more"] if one.omitted else [])


def _platform_markdown(one: PlatformDiff, rests: Rests = _ALL_SIGNED) -> list[str]:
    lines = ["", f"#### {_code(one.platform)}", "", _size(one), ""]
    for title, findings in (("fixed", one.fixed), ("new findings", one.new)):
        if findings:
            lines += [
                f"| {title}{mark(rests.scan)} | severity | package | fixed in |",
                "| --- | --- | --- | --- |",
            ]
            lines += [
                f"| {_code(f.id)} | {f.severity} | {_code(f'{f.package} {f.installed_version}')} "
                f"| {_code(f.fixed_version)} |"
                for f in findings[:_SHOWN]
            ]
            more = len(findings) - _SHOWN
            lines += [*([f"| and {more} more | | | |"] if more > 0 else []), ""]
    for title, moved in _parts(one, rests):
        lines += [f"| {title} | before | after |", "| --- | --- | --- |"]
        lines += [f"| {_code(m.name)} | {_code(m.before)} | {_code(m.after)} |" for m in _cut(moved)]
        lines.append("")
    if rests.scan is not Basis.NONE:
        lines += [f"{one.kept} findings stay{mark(rests.scan)}.", ""]
    return lines + (
        [f"{one.omitted} differences more were too many for the record.", ""] if one.omitted else []
    )


def _within(lines: Iterable[str]) -> str:
    """The lines that fit into a pull request's text, and a word when some do not."""
    kept, size = [], 0
    for line in lines:
        size += len(line) + 1
        if size > _MARKDOWN_MAX:
            kept += ["", "The rest is too long for a pull request; `--json` has all of it."]
            break
        kept.append(line)
    return "\n".join(kept).strip() + "\n"


def _waivers(told: ImageDiff | ChangeRecord, form: Callable[[object], str] = str) -> list[str]:
    by = (
        weaker(told.before.waivers_by, told.after.waivers_by) if isinstance(told, ImageDiff) else Basis.SIGNED
    )
    return [
        *(f"waived now{mark(by)}: {form(w)}" for w in told.waived),
        *(f"no longer waived{mark(by)}: {form(w)}" for w in told.no_longer_waived),
    ]


def _parts(one: PlatformDiff, rests: Rests = _ALL_SIGNED) -> Iterable[tuple[str, Sequence[Moved]]]:
    named = (
        ("packages", one.packages),
        ("configuration", one.config),
        (f"checks{mark(rests.checks)}", one.checks),
        (f"licences{mark(rests.scan)}", one.licences),
        ("users and groups", one.users or ()),
        ("files", one.files or ()),
    )
    return [(title, moved) for title, moved in named if moved]


def _cut(moved: Sequence[Moved]) -> list[Moved]:
    more = len(moved) - _SHOWN
    return [*moved[:_SHOWN], *([Moved(f"and {more} more", "", "")] if more > 0 else [])]


def _platforms_moved(diff: ImageDiff | ChangeRecord) -> list[str]:
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


def _listed(texts: Sequence[str]) -> str:
    more = len(texts) - _SHORT
    return ", ".join([*texts[:_SHORT], *([f"and {more} more"] if more > 0 else [])])


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
