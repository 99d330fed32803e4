"""What a Dockerfile would fetch from elsewhere; the engines that run one are given none such.

Their steps have no network, but the builder itself would fetch a foreign image, a frontend or a URL
before a step runs. Read strictly: what is not surely a stage of the file itself counts as elsewhere.
Source: the Dockerfile reference (parser directives, FROM, ADD, COPY, RUN --mount).
"""

from __future__ import annotations

import re
from collections.abc import Iterator

_DIRECTIVE = re.compile(r"#\s*(syntax|escape|check)\s*=", re.IGNORECASE)
_FROM = re.compile(r"\bfrom=([^\s,]*)", re.IGNORECASE)
_URL = re.compile(r"[a-z][a-z0-9+.-]*://|\bgit@", re.IGNORECASE)


def elsewhere(dockerfile: str) -> str:
    """The first line (at most 200 characters) that asks for something from elsewhere; empty without one."""
    if strange := {c for c in dockerfile if c.isspace()} - set(" \t\r\n"):
        return f"blanks that are none to everybody: {sorted(strange)!r}"
    stages = {"scratch"}
    for line in _lines(dockerfile):
        if _DIRECTIVE.match(line):
            return line[:200]
        words = line.split()
        instruction = words[0].upper()
        if instruction == "FROM":
            arguments = [word for word in words[1:] if not word.startswith("--")]
            if not arguments or arguments[0].lower() not in stages:
                return line[:200]
            if len(arguments) == 3 and arguments[1].upper() == "AS":
                stages.add(arguments[2].lower())
        elif instruction in ("RUN", "COPY", "ADD"):
            # What is in a here-document could look like stages.
            if "<<" in line or (instruction != "RUN" and _URL.search(line)):
                return line[:200]
            leading = _leading(words[1:])
            if any(c in flag for flag in leading for c in "\"'\\"):
                return line[:200]
            named = [name for flag in leading for name in _FROM.findall(flag)]
            if any(name.lower() not in stages for name in named):
                return line[:200]
    return ""


def _lines(dockerfile: str) -> Iterator[str]:
    """Instructions, with their continuations, in one line each; of comments only directives."""
    begun = ""
    for raw in dockerfile.split("\n"):
        line = raw.strip()
        if line.startswith("#") or not line:  # these are passed over in a continuation, too
            if _DIRECTIVE.match(line):
                yield line
        elif line.endswith("\\"):
            begun += line.removesuffix("\\") + " "
        else:
            yield begun + line
            begun = ""
    if begun.strip():
        yield begun


def _leading(words: list[str]) -> list[str]:
    """The flags of an instruction: they stand before its arguments."""
    count = next((n for n, word in enumerate(words) if not word.startswith("--")), len(words))
    return words[:count]
