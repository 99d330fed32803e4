"""The images that a Compose file names: of services, volumes, inline Dockerfiles, and as build contexts.

Pure. Where a service is built, its `image` is the name of the result, and not asked for.
Source: Compose specification, "Services", "Build", "Interpolation", "Fragments" and "Merge".
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from registry.devcheck import dockerfile_images
from registry.devcheck.expand import Unresolved, interpolate
from registry.devcheck.mention import Mention, Span, Unreadable
from registry.devcheck.yamlfile import YamlFile
from registry.devcheck.yamltree import Mapping, Node, Scalar, Sequence

_IMAGE_CONTEXT = "docker-image://"
_INLINE_MAX = 1 << 20  # characters
_NOT_PULLED = (
    "",
    "build",
    "never",
)  # with a build; every other policy asks a registry, too (daily, every_12h …)


def mentions(file: YamlFile) -> tuple[Mention, ...]:
    """Every image that the file names, each place once; raises Unreadable."""
    found: dict[Span, Mention] = {}
    for document in file.documents:
        for name, service in file.reader.entries(file.reader.get(document, "services")):
            for mention in _service(file, name[:60], service):
                found.setdefault(mention.span, mention)
    return tuple(sorted(found.values(), key=lambda m: m.span.start))


def _service(file: YamlFile, name: str, service: Node) -> Iterator[Mention]:
    reader = file.reader
    image, build = reader.get(service, "image"), reader.get(service, "build")
    built = build is not None and reader.text(service, "pull_policy") in _NOT_PULLED
    if image is not None and not built:
        yield _interpolated(file, image, f"image of the service {name}")
    volumes = reader.get(service, "volumes")
    for volume in volumes.items if isinstance(volumes, Sequence) else ():
        source = reader.get(volume, "source") if reader.text(volume, "type") == "image" else None
        if source is not None:
            yield _interpolated(file, source, f"image of a volume of the service {name}")
    if not isinstance(build, Mapping):
        return
    inline = reader.get(build, "dockerfile_inline")
    if isinstance(inline, Scalar):
        yield from _inline(file, inline, _arguments(file, build), name)
    for node in _contexts(file, reader.get(build, "additional_contexts")):
        mention = file.mention(node, f"build context of the service {name}")
        at = mention.text.find(_IMAGE_CONTEXT) + len(_IMAGE_CONTEXT)
        edit = (
            Span(mention.edit.start + len(mention.text[:at].encode()), mention.edit.end)
            if mention.edit
            else None
        )
        yield _resolved(replace(mention, text=mention.text[at:], edit=edit, span=edit or mention.span))


def _contexts(file: YamlFile, node: Node | None) -> Iterator[Scalar]:
    values = node.items if isinstance(node, Sequence) else [v for _, v in file.reader.entries(node)]
    for value in values:
        if isinstance(value, Scalar) and _IMAGE_CONTEXT in value.value:
            yield value


def _interpolated(file: YamlFile, node: Node, place: str) -> Mention:
    return _resolved(file.mention(node, place))


def _resolved(mention: Mention) -> Mention:
    """The same with its variables replaced by their defaults."""
    if "$" not in mention.text or mention.problem:
        return mention
    why = "the name is put together from variables: write it out, or change the default by hand"
    try:
        return replace(mention, text=interpolate(mention.text), edit=None, fixed_by=why)
    except Unresolved as error:
        return replace(mention, edit=None, fixed_by=why, problem=str(error))


def _arguments(file: YamlFile, build: Node) -> dict[str, str]:
    node = file.reader.get(build, "args")
    if isinstance(node, Sequence):
        pairs = [v.value.partition("=") for v in node.items if isinstance(v, Scalar) and "=" in v.value]
        return {name: value for name, _, value in pairs}
    return {k: v.value for k, v in file.reader.entries(node) if isinstance(v, Scalar)}


def _inline(file: YamlFile, inline: Scalar, given: dict[str, str], name: str) -> Iterator[Mention]:
    """The images of an inline Dockerfile; of a literal block (`|`) with their places in the file."""
    whole, place = file.span(inline), f"inline Dockerfile of the service {name}"
    offsets = _line_offsets(file, inline)
    try:
        text = inline.value if "$" not in inline.value else interpolate(inline.value, _INLINE_MAX)
        data = text.encode()
        found = dockerfile_images.mentions(data, given)
    except Unresolved as error:
        yield Mention("", whole, place, whole.start, None, "", str(error))
        return
    except Unreadable as error:
        raise Unreadable(f"{place}: {error}", whole.start) from None
    for mention in found:
        where = f"{mention.place} in the {place}"
        if offsets is None:
            why = "it is in an inline Dockerfile that is no literal block (|)"
            yield replace(mention, place=where, span=whole, anchor=whole.start, edit=None, fixed_by=why)
            continue
        edit = _moved(offsets, data, mention.edit) if mention.edit else None
        yield replace(
            mention,
            place=where,
            span=_moved(offsets, data, mention.span) or whole,
            anchor=(_moved(offsets, data, Span(mention.anchor, mention.anchor)) or whole).start,
            edit=edit,
        )


def _line_offsets(file: YamlFile, inline: Scalar) -> list[int] | None:
    """Offsets in the file of the lines of a literal block; None for another, or one with variables."""
    raw = file.text[inline.span.start : inline.span.end]
    if inline.style != "|" or "$" in inline.value or "\r" in raw:
        return None
    lines = inline.value.split("\n")
    source = raw.split("\n")[1:]
    offsets, at = [], inline.span.start + raw.find("\n") + 1
    for number, line in enumerate(lines):
        if number >= len(source):
            offsets.append(file.offset(inline.span.end))
            continue
        if not source[number].endswith(line):
            return None
        offsets.append(file.offset(at + len(source[number]) - len(line)))
        at += len(source[number]) + 1
    return offsets


def _moved(offsets: list[int], data: bytes, span: Span) -> Span | None:
    """A span of the inline text as one of the file; None when it goes over lines."""
    line = data.count(b"\n", 0, span.start)
    start = data.rfind(b"\n", 0, span.start) + 1
    if data.count(b"\n", span.start, span.end):
        return None
    return Span(offsets[line] + span.start - start, offsets[line] + span.end - start)
