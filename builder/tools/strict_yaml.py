"""YAML from people, read strictly: one small document of plain values, each key once.

Source: YAML 1.1 as PyYAML's safe loader reads it, without anchors, aliases, merge keys, tags,
and without its surprises for dates: a date stays text.
"""

from __future__ import annotations

from typing import Any

import yaml

SIZE_MAX = 256 << 10  # bytes
_DEPTH_MAX = 20
_TEXT = "tag:yaml.org,2002:str"


class _Loader(yaml.SafeLoader):
    """Python's own reader: slow, with messages for people."""


class _FastLoader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """The same over libyaml, thirty times as fast."""


_Loader.yaml_implicit_resolvers = _FastLoader.yaml_implicit_resolvers = {
    first: [
        (tag, pattern) for tag, pattern in resolvers if not tag.endswith((":timestamp", ":merge", ":value"))
    ]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def parse(data: bytes) -> Any:
    """The document's value: dict, list, str, int, float, bool or None. Raises ValueError."""
    if len(data) > SIZE_MAX:
        raise ValueError(f"larger than {SIZE_MAX >> 10} KiB")
    try:
        text = data.decode("utf-8")
        try:
            return _load(text, _FastLoader)
        except (yaml.YAMLError, ValueError):
            return _load(text, _Loader)  # says what is wrong, and where
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 at byte {error.start}") from None
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise ValueError(f"{line}{error.problem or error.context}") from None
    except yaml.YAMLError as error:
        raise ValueError(str(error).splitlines()[0][:300]) from None


def _load(text: str, kind: Any) -> Any:
    loader = kind(text)
    try:
        return _Reading(loader).document()
    finally:
        loader.dispose()


class _Reading:
    """Builds the value of a document in one pass over its events; what could be a bomb is refused at once."""

    def __init__(self, loader: Any) -> None:
        self._loader = loader

    def document(self) -> Any:
        """The value of the only document; None when there is none."""
        found, documents = None, 0
        while not isinstance(event := self._loader.get_event(), yaml.StreamEndEvent):
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    raise ValueError(f"{_line(event)}: more than one document")
                found = self._value(self._next(), 0)
        return found

    def _next(self) -> Any:
        event = self._loader.get_event()
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise ValueError(f"{_line(event)}: anchors and aliases are not allowed")
        if getattr(event, "tag", None):
            raise ValueError(f"{_line(event)}: tags are not allowed")
        return event

    def _value(self, event: Any, depth: int) -> Any:
        """The value that begins with an event; `depth` is that of what holds it."""
        if isinstance(event, yaml.ScalarEvent):
            return self._scalar(event)
        if depth == _DEPTH_MAX:
            raise ValueError(f"{_line(event)}: nested deeper than {_DEPTH_MAX}")
        return (self._mapping if isinstance(event, yaml.MappingStartEvent) else self._sequence)(depth + 1)

    def _scalar(self, event: Any) -> Any:
        tag = self._tag(event)
        if tag == _TEXT:
            return event.value
        node = yaml.ScalarNode(tag, event.value, event.start_mark, event.end_mark)
        return self._loader.construct_object(node)

    def _tag(self, event: Any) -> str:
        return str(self._loader.resolve(yaml.ScalarNode, event.value, event.implicit))

    def _sequence(self, depth: int) -> list[Any]:
        found = []
        while not isinstance(event := self._next(), yaml.SequenceEndEvent):
            found.append(self._value(event, depth))
        return found

    def _mapping(self, depth: int) -> dict[str, Any]:
        """A mapping whose keys are text and different from each other."""
        found: dict[str, Any] = {}
        while not isinstance(event := self._next(), yaml.MappingEndEvent):
            if not isinstance(event, yaml.ScalarEvent):
                raise ValueError(f"{_line(event)}: a key must be plain text")
            if self._tag(event) != _TEXT:
                raise ValueError(f'{_line(event)}: write the key in quotes: "{event.value}"')
            if event.value in found:
                raise ValueError(f"{_line(event)}: the key {event.value!r} stands here twice")
            found[event.value] = self._value(self._next(), depth)
        return found


def _line(event: Any) -> str:
    return f"line {event.start_mark.line + 1 if event.start_mark else 0}"
