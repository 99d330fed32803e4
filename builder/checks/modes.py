"""Hardening rules about modes, owners, attributes and kinds of files."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Iterator

from builder.checks.rule import RUNTIME, Facts, Rule, each
from builder.oci.filesystem import Entry

_STICKY = ("tmp", "var/tmp")
_LINKS = ("link", "hard link")
# Filled by the engine when a container runs; a link into them leads nowhere in an image.
_MOUNTED = ("proc", "sys", "dev", "run")
# The aliases of a merged /usr, also where nothing lies in them, and what whoever runs an image may add.
_ALIASES = ("bin", "lib", "lib64", "sbin")
_LATER = re.compile(r"etc/localtime|usr/lib/[a-z0-9_]{1,20}-linux-gnu/nodejs")


def _no_setuid(facts: Facts) -> Iterator[str]:
    return each(facts, lambda _, e: f"has mode {e.mode:04o}" if e.mode & 0o6000 else "")


def _no_world_writable(facts: Facts) -> Iterator[str]:
    def wrong(path: str, entry: Entry) -> str:
        if entry.kind in _LINKS or not entry.mode & 0o002:
            return ""
        if entry.kind == "directory" and path in _STICKY and entry.mode & 0o1000:
            return ""
        return f"has mode {entry.mode:04o}"

    return each(facts, wrong)


def _no_file_capabilities(facts: Facts) -> Iterator[str]:
    return each(facts, lambda _, e: f"has {', '.join(e.xattrs)}" if e.xattrs else "")


def _no_devices(facts: Facts) -> Iterator[str]:
    plain = ("file", "directory", *_LINKS)
    return each(facts, lambda _, e: "" if e.kind in plain else f"is of kind {e.kind}")


def _programs_of_root(facts: Facts) -> Iterator[str]:
    def wrong(_: str, entry: Entry) -> str:
        if entry.kind not in ("file", "hard link") or not entry.mode & 0o111:
            return ""
        if entry.uid != 0 or (entry.gid != 0 and entry.mode & 0o020):
            return f"belongs to {entry.uid}:{entry.gid}, mode {entry.mode:04o}"
        return ""

    return each(facts, wrong)


def _no_dangling_links(facts: Facts) -> Iterator[str]:
    files = facts.files

    def wrong(path: str, entry: Entry) -> str:
        if entry.kind == "hard link":
            return "" if entry.target in files.entries else f"is a hard link to the missing /{entry.target}"
        if entry.kind != "link":
            return ""
        end = files.follow(path)
        if end is None:
            return f"leads to {entry.target[:200]!r}, and round in a loop"
        # "" is the root itself; folders that only lie above others may have no entry of their own.
        if not end or end in files.entries or end in parents or end.partition("/")[0] in _MOUNTED:
            return ""
        if _LATER.fullmatch(end) or (path in _ALIASES and end == f"usr/{path}"):
            return ""
        return f"leads to {entry.target[:200]!r}, which is not there"

    parents = set(_parents(files.entries))
    return each(facts, wrong)


def _parents(paths: Iterable[str]) -> Iterator[str]:
    for path in paths:
        while path := posixpath.dirname(path):
            yield path


RULES = (
    Rule(
        id="no-setuid",
        title="Nothing is setuid or setgid",
        rationale="A setuid program runs with its owner's rights, whoever starts it: one flaw in it "
        "makes root.",
        source="CIS Docker Benchmark 1.6.0, 4.8",
        looks_at="files",
        failures=_no_setuid,
    ),
    Rule(
        id="no-world-writable",
        title="Nothing is world-writable but sticky /tmp",
        rationale="What everybody may write, an intruder changes for all that use it later.",
        source="CIS Debian Linux 12 Benchmark, system file permissions (world-writable files); NIST "
        "SP 800-190, 4.1.2",
        looks_at="files",
        failures=_no_world_writable,
    ),
    Rule(
        id="no-file-capabilities",
        title="No file has capabilities or other attributes",
        rationale="A capability on a file (security.capability) gives a part of root's rights as "
        "silently as a "
        "setuid bit, and most listings do not show it.",
        source="CIS Docker Benchmark 1.6.0, 4.8; capabilities(7)",
        looks_at="files",
        failures=_no_file_capabilities,
    ),
    Rule(
        id="no-devices",
        title="There are no devices, sockets or pipes",
        rationale="A device node opens the host's hardware where an engine lets it; the engine brings "
        "its own.",
        source="NIST SP 800-190, 4.1.2; OCI runtime specification 1.1, default devices",
        looks_at="files",
        failures=_no_devices,
    ),
    Rule(
        id="programs-of-root",
        title="Programs belong to root, so what runs cannot change them",
        rationale="Who owns a program can replace it; the image's user must not be able to.",
        source="NIST SP 800-190, 4.1.2 and 4.4.4",
        looks_at="files",
        level=2,
        failures=_programs_of_root,
    ),
    Rule(
        id="no-dangling-links",
        title="No link leads nowhere",
        rationale="Whoever can create the missing end decides what is read through the link; and a link into "
        "nothing is a file that was forgotten.",
        source="Goldsmith's golden path; CWE-59",
        looks_at="files",
        level=2,
        variants=(RUNTIME,),
        failures=_no_dangling_links,
    ),
)
