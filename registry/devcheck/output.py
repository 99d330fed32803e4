"""What a check found, as text for people, as JSON, and as SARIF 2.1.0. Pure.

Source: OASIS SARIF 2.1.0 (run, result, fix, suppression, invocation, artifactLocation).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import PurePath
from typing import Any
from urllib.parse import quote

from registry.devcheck.check import Finding, Outcome
from registry.devcheck.known import Known
from registry.devcheck.rules import RULES

SARIF_SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/os/schemas/sarif-schema-2.1.0.json"
_ROOT = "SRCROOT"


def as_text(outcome: Outcome, fixed: Sequence[str]) -> str:
    """One paragraph for each finding, and a summary at the end."""
    lines: list[str] = []
    for finding in outcome.findings:
        lines.append(f"{finding.file}:{finding.line}:{finding.column}: {finding.rule}: {finding.message}")
        if finding.instead:
            lines.append(f"  write instead: {finding.instead}")
            lines += [f"  not fixed: {finding.fixed_by}"] if fixed and finding.fixed_by else []
        elif not finding.changes:
            lines.append(f"  what to do: {RULES[finding.rule].help}")
    lines += [f"{t.file}:{t.line}: not readable: {t.message}" for t in outcome.unreadable]
    lines += [f"fixed: {path}" for path in fixed]
    lines.append(_summary(outcome))
    return "\n".join(lines)


def as_json(outcome: Outcome, known: Known, fixed: Sequence[str]) -> dict[str, Any]:
    """The same as plain data."""
    return {
        "mirror": known.mirror,
        "catalogue_exported": known.exported.isoformat(),
        "files": outcome.files,
        "images": outcome.images,
        "findings": [f.as_dict() for f in outcome.findings],
        "ignored": [f.as_dict() for f in outcome.ignored],
        "unreadable": [t.as_dict() for t in outcome.unreadable],
        "fixed": list(fixed),
    }


def as_sarif(outcome: Outcome, version: str) -> dict[str, Any]:
    """The same as a SARIF log of one run; ignored findings are suppressed results."""
    ids = list(RULES)
    notifications = [
        {
            "level": "error",
            "message": {"text": f"not readable: {t.message}"},
            "locations": [{"physicalLocation": _place(t.file, {"startLine": max(t.line, 1)})}],
        }
        for t in outcome.unreadable
    ]
    return {
        "$schema": SARIF_SCHEMA,
        "version": "2.1.0",
        "runs": [
            {
                "tool": {
                    "driver": {
                        "name": "goldsmith check",
                        "version": version,
                        "rules": [
                            {
                                "id": r.id,
                                "shortDescription": {"text": r.title},
                                "help": {"text": r.help},
                                "defaultConfiguration": {"level": "error"},
                            }
                            for r in RULES.values()
                        ],
                    }
                },
                "columnKind": "unicodeCodePoints",
                "originalUriBaseIds": {_ROOT: {"description": {"text": "The folder that was checked from."}}},
                "invocations": [
                    {
                        "executionSuccessful": not outcome.unreadable,
                        "toolExecutionNotifications": notifications,
                    }
                ],
                "results": [_result(f, ids) for f in (*outcome.findings, *outcome.ignored)],
            }
        ],
    }


def _result(finding: Finding, ids: list[str]) -> dict[str, Any]:
    instead = f" Write instead: {finding.instead}" if finding.instead else ""
    region = {
        "startLine": finding.line,
        "startColumn": finding.column,
        "endLine": finding.end_line,
        "endColumn": finding.end_column,
    }
    result: dict[str, Any] = {
        "ruleId": finding.rule,
        "ruleIndex": ids.index(finding.rule),
        "level": "error",
        "message": {"text": f"{finding.message}.{instead}"},
        "locations": [{"physicalLocation": _place(finding.file, region)}],
    }
    if finding.edit and finding.instead:
        span = {"byteOffset": finding.edit.start, "byteLength": finding.edit.end - finding.edit.start}
        result["fixes"] = [
            {
                "description": {"text": "Write the approved digest"},
                "artifactChanges": [
                    {
                        "artifactLocation": _place(finding.file, {})["artifactLocation"],
                        "replacements": [
                            {"deletedRegion": span, "insertedContent": {"text": finding.instead}}
                        ],
                    }
                ],
            }
        ]
    if finding.ignored:
        result["suppressions"] = [{"kind": "inSource", "justification": finding.ignored}]
    return result


def _place(file: str, region: dict[str, int]) -> dict[str, Any]:
    path = PurePath(file)
    location: dict[str, Any] = (
        {"uri": "file://" + quote(bytes(path))}  # bytes: a name need not be text
        if path.is_absolute()
        else {"uri": quote(bytes(path)), "uriBaseId": _ROOT}
    )
    return {"artifactLocation": location, **({"region": region} if region else {})}


def _summary(outcome: Outcome) -> str:
    return ", ".join(
        _parts(
            (outcome.files, "file", "read"),
            (outcome.images, "image", "named"),
            (len(outcome.findings), "finding", ""),
            (len(outcome.ignored), "ignored finding", ""),
            (len(outcome.unreadable), "file", "not readable"),
        )
    )


def _parts(*counts: tuple[int, str, str]) -> Iterator[str]:
    for number, (count, noun, word) in enumerate(counts):
        if count or number < 3:
            yield f"{count} {noun}{'' if count == 1 else 's'} {word}".rstrip()
