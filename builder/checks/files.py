"""The files that an image's `checks.yaml` demands or forbids."""

from __future__ import annotations

from collections.abc import Iterator

from builder.checks.rule import result
from builder.model.definition import FileCheck, PathCheck
from builder.model.evidence import CheckResult
from builder.oci.filesystem import FileSystem


def check_files(files: FileSystem, checks: tuple[FileCheck, ...]) -> tuple[CheckResult, ...]:
    """The result of each file check."""
    return tuple(result(f"file:{c.path}", _title(c), path_failures(files, c)) for c in checks)


def _title(check: FileCheck) -> str:
    return f"{check.path} is {'there' if check.present else 'not there'}"


def path_failures(files: FileSystem, check: FileCheck | PathCheck) -> Iterator[str]:
    """What is wrong with the path that a check is about."""
    path = check.path.strip("/")
    # The folders on the way may be links (/bin is one); the last step is looked at itself.
    folder, _, name = path.rpartition("/")
    there = files.follow(folder)
    found = None if there is None else files.entries.get(f"{there}/{name}".lstrip("/"))
    if found is None:
        if check.present:
            yield "it is missing"
        return
    if not check.present:
        yield "it is there"
        return
    kind = "file" if found.kind == "hard link" else found.kind
    if check.kind and kind != check.kind:
        yield f"it is a {kind}, not a {check.kind}"
    if check.mode and f"{found.mode:04o}" != check.mode:
        yield f"its mode is {found.mode:04o}, not {check.mode}"
