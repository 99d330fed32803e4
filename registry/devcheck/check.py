"""The check: files → mentions → findings, and what a fix would write. Reads; never writes."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from registry.devcheck import compose, dockerfile_images, files, fixer, ignores, kubernetes
from registry.devcheck.changes import Changes
from registry.devcheck.files import Kind, Source
from registry.devcheck.known import Known
from registry.devcheck.mention import Lines, Mention, Span, Unreadable
from registry.devcheck.rules import RULES, Opinion, judge
from registry.devcheck.yamlfile import YamlFile, is_compose, is_kubernetes

_FINDINGS_MAX = 20_000
_SERVICES = re.compile(rb"^[\"']?services[\"']?\s*:", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Finding:
    """One rule broken at one place. Lines and columns are from 1, the end is exclusive.

    `fixed_by` says why --fix leaves it, empty when it does not. `ignored` is a comment's reason.
    """

    rule: str
    file: str
    line: int
    column: int
    end_line: int
    end_column: int
    place: str
    image: str
    message: str
    instead: str = ""
    fixable: bool = False
    fixed_by: str = ""
    edit: Span | None = None
    changes: Changes | None = None
    ignored: str = ""

    def as_dict(self) -> dict[str, object]:
        """The finding as plain data."""
        return {
            "rule": self.rule,
            "file": self.file,
            "line": self.line,
            "column": self.column,
            "end_line": self.end_line,
            "end_column": self.end_column,
            "place": self.place,
            "image": self.image,
            "message": self.message,
            "instead": self.instead or None,
            "fixable": self.fixable,
            **({"not_fixed_because": self.fixed_by} if self.fixed_by else {}),
            **({"changes": self.changes.as_dict()} if self.changes else {}),
            **({"ignored_because": self.ignored} if self.ignored else {}),
        }


@dataclass(frozen=True, slots=True)
class Trouble:
    """A file that could not be understood: where, and why."""

    file: str
    message: str
    line: int = 1

    def as_dict(self) -> dict[str, object]:
        """The trouble as plain data."""
        return {"file": self.file, "line": self.line, "message": self.message}


@dataclass(frozen=True, slots=True)
class Fix:
    """A file's bytes before and after."""

    source: Source
    old: bytes
    new: bytes


@dataclass(slots=True)
class Outcome:
    """What a check found; `findings` and `ignored` are in the files' order."""

    files: int = 0
    images: int = 0
    findings: list[Finding] = field(default_factory=list)
    ignored: list[Finding] = field(default_factory=list)
    unreadable: list[Trouble] = field(default_factory=list)
    fixes: list[Fix] = field(default_factory=list)


def check(paths: Sequence[Path], known: Known, today: dt.date) -> Outcome:
    """Look at every file below `paths`; nothing is raised for a file, it is in `unreadable`."""
    outcome = Outcome()
    lost: list[tuple[str, str]] = []
    for source in files.find(paths, lost):
        data = b""
        try:
            data = files.read(source.path)
            mentions = mentions_of(source, data)
        except Unreadable as error:
            line = Lines(data).position(error.offset)[0] if error.offset else 1
            outcome.unreadable.append(Trouble(source.shown, str(error), line))
            continue
        if mentions is None:
            continue
        outcome.files += 1
        outcome.images += len(mentions)
        _judge_file(source, data, mentions, known, today, outcome)
        if len(outcome.findings) > _FINDINGS_MAX:
            message = f"there are more than {_FINDINGS_MAX} findings: the rest was not looked at"
            outcome.unreadable.append(Trouble(source.shown, message))
            break
    outcome.unreadable += [Trouble(path, message) for path, message in lost]
    return outcome


def mentions_of(source: Source, data: bytes) -> tuple[Mention, ...] | None:
    """The images that a file names; None for a file of another kind. Raises Unreadable."""
    if source.kind is Kind.DOCKERFILE:
        return dockerfile_images.mentions(data)
    if source.kind is Kind.COMPOSE:
        return compose.mentions(YamlFile(data))
    if not source.named and not (b"apiVersion" in data and b"kind" in data) and not _SERVICES.search(data):
        return None
    if source.named and not source.path.name.lower().endswith((".yaml", ".yml", ".json")):
        return dockerfile_images.mentions(data)
    file = YamlFile(data)
    if is_kubernetes(file):
        return kubernetes.mentions(file)
    if is_compose(file):
        return compose.mentions(file)
    if source.named:
        raise Unreadable("it is neither a Compose file nor a Kubernetes manifest")
    return None


def _judge_file(
    source: Source, data: bytes, mentions: tuple[Mention, ...], known: Known, today: dt.date, outcome: Outcome
) -> None:
    lines: Lines | None = None
    begun = len(outcome.findings)
    commented = ignores.possible(data)
    edits: dict[Span, set[str]] = {}
    for mention in mentions:
        opinions = judge(mention, known, today)
        if not opinions:
            continue
        lines = lines or Lines(data)
        comments = (
            ignores.around(mention, lines, inline=source.kind is not Kind.DOCKERFILE, known=frozenset(RULES))
            if commented
            else ()
        )
        for opinion in opinions:
            finding = _finding(source, mention, opinion, lines)
            reason = next((c.reason for c in comments if not c.problem and opinion.rule in c.rules), "")
            if reason:
                outcome.ignored.append(replace(finding, ignored=reason))
                continue
            outcome.findings.append(finding)
            if finding.fixable and mention.edit:
                edits.setdefault(mention.edit, set()).add(opinion.instead)
        for comment in comments:
            if comment.problem:
                outcome.findings.append(_bad_comment(source, mention, comment))
    if edits and not _fix(source, data, mentions, edits, outcome):
        why = "the change would mean something else elsewhere in the file"
        outcome.findings[begun:] = [
            replace(f, fixable=False, edit=None, fixed_by=why) if f.fixable else f
            for f in outcome.findings[begun:]
        ]


def _finding(source: Source, mention: Mention, opinion: Opinion, lines: Lines) -> Finding:
    line, column = lines.position(mention.span.start)
    end_line, end_column = lines.position(mention.span.end)
    fixable = opinion.fix and mention.edit is not None
    left = (
        mention.fixed_by
        if opinion.fix
        else "moving to another image is for people"
        if opinion.instead
        else ""
    )
    return Finding(
        opinion.rule,
        source.shown,
        line,
        column,
        end_line,
        end_column,
        mention.place,
        mention.text,
        opinion.message,
        opinion.instead,
        fixable,
        "" if fixable else left,
        mention.edit if fixable else None,
        opinion.changes,
    )


def _bad_comment(source: Source, mention: Mention, comment: ignores.Ignore) -> Finding:
    message = f"the ignoring comment does not count: {comment.problem}"
    return Finding(
        "ignore-without-reason",
        source.shown,
        comment.line,
        1,
        comment.line,
        2,
        mention.place,
        mention.text,
        message,
    )


def _fix(
    source: Source,
    data: bytes,
    before: tuple[Mention, ...],
    edits: dict[Span, set[str]],
    outcome: Outcome,
) -> bool:
    """Make the fix of a file and read the result: it names what was meant, or nothing is fixed."""
    chosen = {span: next(iter(texts)) for span, texts in edits.items() if len(texts) == 1}
    try:
        new = fixer.apply(data, chosen)
        after = mentions_of(source, new) or ()
    except ValueError:
        return False
    wanted = [chosen.get(m.edit, m.text) if m.edit else m.text for m in before]
    if len(chosen) != len(edits) or [m.text for m in after] != wanted:
        return False
    outcome.fixes.append(Fix(source, data, new))
    return True
