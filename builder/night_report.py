"""A night on one page: Markdown for people, JSON for machines, JUnit for what shows builds. Pure."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any
from xml.etree.ElementTree import Element, SubElement, tostring

from builder.model.outcome import ImageEnd
from builder.nightly import Night, Promoted
from builder.report import plain

_DIGEST_SHOWN = 19  # characters
_ROWS_MAX = 50  # images on the page; the JSON has all
_CHANGES_MAX = 12  # lines of one promotion on the page
_CODE_MAX = 500  # characters
_QUIET = frozenset({"unchanged"})


def as_dict(night: Night) -> dict[str, Any]:
    """The night as JSON data."""
    return {
        "began": night.began.isoformat(),
        "seconds": round(night.seconds, 1),
        "exit_code": night.exit_code,
        "cut_before": night.cut or None,
        "steps": [
            {
                "name": s.name,
                "state": s.state,
                "detail": s.detail,
                "seconds": round(s.seconds, 1),
                "error": s.error.as_dict() if s.error else None,
            }
            for s in night.steps
        ],
        "images": [
            {
                **i.as_dict(),
                "digest": i.outcome.digest if i.outcome else None,
                "error": i.error.as_dict() if i.error else None,
            }
            for i in night.images
        ],
        "promotions": [
            {
                "ref": p.ref,
                "state": p.state,
                "detail": p.detail,
                "changes": list(p.changes),
                "error": p.error.as_dict() if p.error else None,
            }
            for p in night.promoted
        ],
        "deprecated": [
            {"ref": d.ref, "digest": d.digest, "replacement": d.replacement} for d in night.deprecated
        ],
        "blocked": [
            {"what": b.what, "by": b.by, "since": b.since.isoformat(), "hint": b.hint} for b in night.blocked
        ],
    }


def as_json(night: Night) -> bytes:
    """The night as a JSON file."""
    return (json.dumps(as_dict(night), indent=1) + "\n").encode()


def as_markdown(night: Night) -> str:
    """The night as a page: what is blocked first, then what happened."""
    counts = Counter(i.state.value for i in night.images)
    told = ", ".join(f"{count} {state}" for state, count in sorted(counts.items())) or "no image was tried"
    moved = sum(p.state == "promoted" for p in night.promoted)
    lines = [
        f"# Night of {night.began:%Y-%m-%d %H:%M} UTC",
        "",
        f"{told}; {moved} promoted; {len(night.blocked)} blocked; exit code {night.exit_code}.",
        "",
    ]
    if night.cut:
        lines += [
            f"The night before was cut at the step `{_cell(night.cut)}`; this one went on from there.",
            "",
        ]
    if night.blocked:
        lines += ["## Blocked", "", "| what | by | since | what to do |", "| --- | --- | --- | --- |"]
        lines += [
            f"| {_cell(b.what)} | {_cell(b.by)} | {b.since:%Y-%m-%d %H:%M} | {_cell(b.hint)} |"
            for b in night.blocked[:_ROWS_MAX]
        ]
        lines += [f"| and {len(night.blocked) - _ROWS_MAX} more | | | |"] * (len(night.blocked) > _ROWS_MAX)
        lines.append("")
    lines += ["## Steps", "", "| step | | seconds | |", "| --- | --- | --- | --- |"]
    lines += [f"| {s.name} | {s.state} | {s.seconds:.1f} | {_cell(s.detail)} |" for s in night.steps]
    changed = [i for i in night.images if i.state.value not in _QUIET]
    if changed:
        lines += ["", "## Images", "", "| image | | digest | |", "| --- | --- | --- | --- |"]
        lines += [
            f"| {_cell(i.ref)} | {i.state.value} | {_digest(i)} | {_cell(i.because)} |"
            for i in changed[:_ROWS_MAX]
        ]
        lines += [f"| and {len(changed) - _ROWS_MAX} more | | | |"] * (len(changed) > _ROWS_MAX)
    lines += _promotions(night.promoted)
    if night.deprecated:
        lines += ["", "## Deprecated", "", "| image | digest | use instead |", "| --- | --- | --- |"]
        lines += [
            f"| {_cell(d.ref)} | {d.digest[:_DIGEST_SHOWN]} | {_cell(d.replacement)} |"
            for d in night.deprecated[:_ROWS_MAX]
        ]
        lines += [f"| and {len(night.deprecated) - _ROWS_MAX} more | | |"] * (
            len(night.deprecated) > _ROWS_MAX
        )
    return "\n".join(lines) + "\n"


def _promotions(promoted: Sequence[Promoted]) -> list[str]:
    """What was promoted, with what is new in it."""
    moved = [p for p in promoted if p.state == "promoted"]
    lines = ["", "## Promoted", ""] if moved else []
    for one in moved[:_ROWS_MAX]:
        lines.append(f"* {_code(one.ref)}: {_code(one.detail)}")
        lines += [f"  * {_code(line)}" for line in one.changes[:_CHANGES_MAX]]
        lines += [f"  * and {len(one.changes) - _CHANGES_MAX} more"] * (len(one.changes) > _CHANGES_MAX)
    return lines + [f"* and {len(moved) - _ROWS_MAX} more"] * (len(moved) > _ROWS_MAX)


def as_junit(night: Night) -> bytes:
    """The night as JUnit XML: a case for each step, image and promotion."""
    suites = Element("testsuites", name="goldsmith nightly")
    for title, cases in (
        ("steps", [(s.name, s.seconds, s.error, s.state == "skipped", s.detail) for s in night.steps]),
        (
            "images",
            [
                (
                    i.ref,
                    sum(i.outcome.stages.values()) if i.outcome else 0.0,
                    i.error,
                    i.state.value in ("skipped", "held"),
                    i.because or ("denied by the policy" if i.state.value == "denied" else ""),
                )
                for i in night.images
            ],
        ),
        ("promotions", [(p.ref, 0.0, p.error, False, p.detail) for p in night.promoted]),
    ):
        denied = {i.ref for i in night.images if i.state.value == "denied"} if title == "images" else set()
        suite = SubElement(suites, "testsuite", name=title, tests=str(len(cases)))
        failures = 0
        for name, seconds, error, skipped, detail in cases:
            case = SubElement(suite, "testcase", classname=title, name=_xml(name), time=f"{seconds:.3f}")
            if skipped:
                SubElement(case, "skipped", message=_xml(detail))
            elif error is not None or name in denied:
                failures += 1
                message = error.message if error else detail
                failure = SubElement(case, "failure", message=_xml(message))
                failure.text = _xml("\n".join(x for x in (error.context, error.hint) if x) if error else "")
        suite.set("failures", str(failures))
    return b'<?xml version="1.0" encoding="utf-8"?>\n' + tostring(suites)


def _digest(end: ImageEnd) -> str:
    return end.outcome.digest[:_DIGEST_SHOWN] if end.outcome else ""


def _cell(text: str) -> str:
    """One cell of a Markdown table, whatever the text holds."""
    folded = " ".join(plain(text).split())[:300]
    return folded.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("`", "'")


def _code(text: str) -> str:
    """Text as inline code: no link, no mention, no markup, whatever it holds."""
    folded = " ".join(plain(text).split())[:_CODE_MAX]
    return "`" + (folded.replace("`", "'") or "?") + "`"


def _xml(text: str) -> str:
    return plain(text)[:2000]
