"""What a check for all images is: data that says what is demanded, why, and on whose word.

`About` describes a check; `Rule` is one that needs no container, with the function from the facts
to its failures. Ids are stable: policies, waivers, attestations and documents refer to them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from builder.model.evidence import CheckResult, Outcome
from builder.oci.filesystem import Entry, FileSystem

RUNTIME, DEV = "runtime", "dev"
BOTH = (RUNTIME, DEV)
_VALUE_MAX = 4096  # bytes of one environment value or label
_SHOWN_MAX = 20  # failures that a result names
_DETAIL_MAX = 4000  # characters


@dataclass(frozen=True, slots=True)
class Facts:
    """What the rules look at: files, the OCI configuration, and what the definition asks for.

    `history` are the `created_by` texts of the image's configuration. An image that others made is
    `imported`: it counts as a runtime image, of the suite "".
    """

    files: FileSystem
    config: Mapping[str, Any]
    variant: str
    suite: str
    history: tuple[str, ...] = ()
    imported: bool = False


def told_history(document: Mapping[str, Any]) -> tuple[str, ...]:
    """The `created_by` texts of an image's configuration."""
    steps = document.get("history")
    return (
        tuple(str(s.get("created_by")) for s in steps if isinstance(s, dict))
        if isinstance(steps, list)
        else ()
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """A check in words: what it demands, why, by which source, and what it looks at.

    `level` is as in the benchmarks of CIS: 1 for what costs nobody anything, 2 for defence in
    depth. `variants` are those for which it holds; for the others it is "not applicable".
    """

    id: str
    title: str
    rationale: str
    source: str
    looks_at: Literal["files", "contents", "configuration", "history", "a running container"]
    level: Literal[1, 2] = 1
    variants: tuple[str, ...] = BOTH


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule(About):
    """A check from the files and the configuration: the function yields its failures, with paths.

    `reads` are the files whose contents it has to see, beside those that our rules read; `imports` says
    whether it holds for images that others made, too.
    """

    failures: Callable[[Facts], Iterator[str]]
    reads: tuple[str, ...] = ()
    imports: bool = True

    def judge(self, facts: Facts) -> CheckResult:
        """The result for an image: passed, failed, or not applicable to its kind."""
        if facts.imported and not self.imports:
            said = "does not hold for images that others made"
            return CheckResult(self.id, self.title, Outcome.NOT_APPLICABLE, said)
        if facts.variant not in self.variants:
            only = " and ".join(self.variants)
            return CheckResult(self.id, self.title, Outcome.NOT_APPLICABLE, f"holds for {only} images")
        return result(self.id, self.title, self.failures(facts))


def result(identifier: str, title: str, failures: Iterable[str]) -> CheckResult:
    """A check's result: failed when there is a failure; the first few are named."""
    found = list(failures)
    detail = "; ".join(found[:_SHOWN_MAX])[:_DETAIL_MAX]
    if len(found) > _SHOWN_MAX:
        detail += f"; and {len(found) - _SHOWN_MAX} more"
    return CheckResult(identifier, title, Outcome.FAILED if found else Outcome.PASSED, detail)


def each(facts: Facts, wrong: Callable[[str, Entry], str]) -> Iterator[str]:
    """What `wrong` says of each path; an empty text is no failure."""
    for path, entry in sorted(facts.files.entries.items()):
        if said := wrong(path, entry):
            yield f"/{path} {said}"


def odd_texts(where: str, texts: Iterable[tuple[str, str]]) -> Iterator[str]:
    """What is wrong with texts, each with the name by which it is told."""
    for name, text in texts:
        if any(ord(c) < 32 or 127 <= ord(c) < 160 for c in text):
            yield f"{where} {name[:60]!r} has control characters"
        if len(text.encode("utf-8", "replace")) > _VALUE_MAX:
            yield f"{where} {name[:60]!r} is longer than {_VALUE_MAX} bytes"
