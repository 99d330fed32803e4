"""YAML from people, read strictly: one small document of plain values, each key once.

Source: YAML 1.1 as PyYAML's safe loader reads it, without anchors, aliases, merge keys, tags,
and without its surprises for dates: a date stays text.
"""

from __future__ import annotations

from typing import Any

import yaml

SIZE_MAX = 256 << 10  # bytes
_DEPTH_MAX = 20


class _Strict(yaml.constructor.SafeConstructor):
    """Safe, and refuses what a reader of the file would not expect."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """A mapping whose keys are text and different from each other."""
        seen: set[str] = set()
        for key, _ in node.value:
            where = f"line {key.start_mark.line + 1}"
            if not isinstance(key, yaml.ScalarNode):
                raise ValueError(f"{where}: a key must be plain text")
            if key.tag != "tag:yaml.org,2002:str":
                raise ValueError(f'{where}: write the key in quotes: "{key.value}"')
            if key.value in seen:
                raise ValueError(f"{where}: the key {key.value!r} stands here twice")
            seen.add(key.value)
        return super().construct_mapping(node, deep)


class _Loader(_Strict, yaml.SafeLoader):
    """Python's own reader: slow, with messages for people."""


class _FastLoader(_Strict, getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
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


def _load(text: str, loader: Any) -> Any:
    _look_over(text, loader)
    return yaml.load(text, loader)  # noqa: S506 - a safe loader, made stricter


def _look_over(text: str, loader: Any) -> None:
    """Refuse, before anything is built, what could be a bomb."""
    depth = documents = 0
    for event in yaml.parse(text, loader):
        where = f"line {event.start_mark.line + 1 if event.start_mark else 0}"
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise ValueError(f"{where}: anchors and aliases are not allowed")
        if getattr(event, "tag", None):
            raise ValueError(f"{where}: tags are not allowed")
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        elif isinstance(event, yaml.DocumentStartEvent):
            documents += 1
        if depth > _DEPTH_MAX:
            raise ValueError(f"{where}: nested deeper than {_DEPTH_MAX}")
        if documents > 1:
            raise ValueError(f"{where}: more than one document")
