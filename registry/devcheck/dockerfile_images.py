"""The images that a Dockerfile names: FROM, COPY --from, RUN --mount=from, # syntax=, also in ONBUILD.

Pure. Arguments have their defaults, as in a build without --build-arg. Stages are no images, nor
is `scratch`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from registry.devcheck.dockerfile import Dockerfile, Instruction, Word, parse, words
from registry.devcheck.expand import Unresolved, expand, plain
from registry.devcheck.mention import Mention, Span, Unreadable

_VARIABLE = re.compile(r"\$(?:([A-Za-z_][A-Za-z0-9_]*)|\{([A-Za-z_][A-Za-z0-9_]*)\})")
_USED = re.compile(r"\$\{?([A-Za-z_][A-Za-z0-9_]*)")
_STAGES_MAX = 10_000
# What BuildKit knows by itself, different from build to build.
_AUTOMATIC = frozenset(
    f"{side}{part}" for side in ("TARGET", "BUILD") for part in ("PLATFORM", "OS", "ARCH", "VARIANT")
)
_COMPOSED = "the name is put together from variables: write it out, or change the ARG by hand"


@dataclass(slots=True)
class _Argument:
    """A global ARG: its value, and where its default stands when that may be rewritten."""

    value: str | None
    edit: Span | None = None
    why: str = ""


@dataclass(slots=True)
class _Scope:
    escape: str
    arguments: dict[str, _Argument] = field(default_factory=dict)
    stages: set[str] = field(default_factory=set)
    count: int = 0
    shared: set[str] = field(default_factory=set)  # arguments whose default is used for more than FROM

    def lookup(self, name: str) -> str | None:
        found = self.arguments.get(name)
        return found.value if found else None


def mentions(data: bytes, given: Mapping[str, str] | None = None) -> tuple[Mention, ...]:
    """Every image that the file names, in its order; raises Unreadable.

    `given` are build arguments that override defaults (what a Compose file passes).
    """
    text = data.decode("latin-1")
    if text.startswith(("\xff\xfe", "\xfe\xff")) or "\0" in text:
        raise Unreadable("it is not text in UTF-8", max(text.find("\0"), 0))
    return tuple(_mentions(text, parse(text), given or {}))


def _mentions(text: str, file: Dockerfile, given: Mapping[str, str]) -> Iterator[Mention]:
    if file.syntax:
        for word in words(text[file.syntax.start : file.syntax.end]):
            span = Span(file.syntax.start + word.at, file.syntax.start + word.at + len(word.text))
            yield Mention(_utf8(word.text), span, "syntax directive", span.start, edit=span)
            break
    scope = _Scope(file.escape)
    scope.shared = _shared(file)
    names: set[str] | None = None
    for instruction in file.instructions:
        if instruction.keyword == "FROM":
            yield from _from(instruction, scope)
            continue
        if instruction.keyword == "ARG" and scope.count == 0:
            _declare(instruction, scope, given)
            continue
        inner = instruction.onbuild() if instruction.keyword == "ONBUILD" else instruction
        if inner.keyword in ("COPY", "RUN") and inner.text.startswith("--"):
            names = _stage_names(file) if names is None else names
            yield from _sources(inner, scope, names)


def _stage_names(file: Dockerfile) -> set[str]:
    found: set[str] = set()
    count = 0
    for instruction in file.instructions:
        if instruction.keyword == "FROM":
            found.add(str(count))
            count += 1
            tokens = _from_words(instruction, file.escape)
            if len(tokens) == 3:
                found.add(tokens[2].text.lower())
    return found


def _shared(file: Dockerfile) -> set[str]:
    """Arguments that something else than a whole FROM depends on."""
    found: set[str] = set()
    before = True
    for instruction in file.instructions:
        if instruction.keyword == "FROM":
            before = False
            tokens = _from_words(instruction, file.escape) if "$" in instruction.text else []
            if tokens and not _VARIABLE.fullmatch(tokens[0].text.strip('"')):
                found.update(_USED.findall(tokens[0].text))
        elif instruction.keyword == "ARG":
            for word in words(instruction.text, file.escape):
                name, _, value = word.text.partition("=")
                found.update(_USED.findall(value) if before else [name])
    return found


def _declare(instruction: Instruction, scope: _Scope, given: Mapping[str, str]) -> None:
    for word in words(instruction.text, scope.escape):
        name, equals, raw = word.text.partition("=")
        value: str | None = None
        edit = None
        if name in given:
            value = given[name]
        elif equals:
            inner = _inner(Word(raw, word.at + len(name) + 1))
            if raw and plain(inner.text) and instruction.unbroken(inner):
                edit = instruction.span(inner)
            try:
                value = expand(raw, scope.lookup, escape=scope.escape)
            except Unresolved:
                value = None
        elif name in scope.arguments:
            continue
        why = f"the ARG {name} is used for other things too" if name in scope.shared else _COMPOSED
        scope.arguments[name] = _Argument(value, None if name in scope.shared else edit, why)


def _from(instruction: Instruction, scope: _Scope) -> Iterator[Mention]:
    tokens = _from_words(instruction, scope.escape)
    if len(tokens) not in (1, 3) or (len(tokens) == 3 and tokens[1].text.upper() != "AS"):
        raise Unreadable("FROM wants an image, or: image AS name", instruction.start)
    found = _mention(instruction, tokens[0], "FROM", scope)
    if found.problem or (found.text != "scratch" and found.text.lower() not in scope.stages):
        yield found
    scope.count += 1
    if scope.count > _STAGES_MAX:
        raise Unreadable(f"it has more than {_STAGES_MAX} stages", instruction.start)
    if len(tokens) == 3:
        scope.stages.add(tokens[2].text.lower())


def _from_words(instruction: Instruction, escape: str) -> list[Word]:
    _, at = instruction.flags(escape)
    return list(words(instruction.text, escape, at))


def _sources(instruction: Instruction, scope: _Scope, stages: set[str]) -> Iterator[Mention]:
    """COPY --from=X and RUN --mount=…,from=X where X is no stage."""
    for flag in instruction.flags(scope.escape)[0]:
        for word, place in _flag_sources(instruction.keyword, flag):
            found = _mention(instruction, word, place, scope)
            if found.problem or (found.text.lower() not in stages and found.text != "scratch"):
                yield found


def _flag_sources(keyword: str, flag: Word) -> Iterator[tuple[Word, str]]:
    name, equals, value = flag.text.partition("=")
    at = flag.at + len(name) + 1
    if not equals:
        return
    if keyword == "COPY" and name.lower() == "--from" and value:
        yield Word(value, at), "COPY --from"
    elif keyword == "RUN" and name.lower() == "--mount":
        inner = _inner(Word(value, at))
        at = inner.at
        for part in inner.text.split(","):
            key, _, source = part.partition("=")
            if key.strip('"').lower() == "from" and source.strip('"'):
                yield Word(source.rstrip('"'), at + len(key) + 1), "RUN --mount"
            at += len(part) + 1


def _mention(instruction: Instruction, word: Word, place: str, scope: _Scope) -> Mention:
    span, problem, edit, why = instruction.span(word), "", None, ""
    inner = _inner(word)
    if plain(inner.text):
        value = inner.text
        edit = instruction.span(inner) if instruction.unbroken(inner) else None
        why = "" if edit else "the name goes over two lines: write it on one"
    else:
        try:
            value = expand(word.text, scope.lookup, escape=scope.escape)
        except Unresolved as error:
            value, problem = inner.text, str(error)
        edit, why = _argument_edit(inner.text, scope)
        if problem and set(_USED.findall(inner.text)) & _AUTOMATIC:
            problem = "it depends on the platform: name an image of several platforms instead"
    return Mention(_utf8(value), span, place, instruction.start, edit, why, problem)


def _argument_edit(text: str, scope: _Scope) -> tuple[Span | None, str]:
    """When the word is exactly one variable, the place of its default is where to fix it."""
    match = _VARIABLE.fullmatch(text)
    found = scope.arguments.get(match[1] or match[2]) if match else None
    return (found.edit, found.why) if found else (None, _COMPOSED)


def _inner(word: Word) -> Word:
    """The word without quotes around it."""
    text = word.text
    if len(text) >= 2 and text[0] == text[-1] and text[0] in "\"'" and text[0] not in text[1:-1]:
        return Word(text[1:-1], word.at + 1)
    return word


def _utf8(text: str) -> str:
    return text.encode("latin-1").decode("utf-8", "replace")
