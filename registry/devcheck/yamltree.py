"""YAML as a tree whose scalars know where they stand; nothing is built twice for an alias.

Pure. Several documents, anchors and merge keys as people write them; bounded in depth and size.
Source: YAML 1.1, as libyaml reads it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import yaml

from registry.devcheck.mention import Span, Unreadable

_DEPTH_MAX = 100
_NODES_MAX = 300_000
_MERGES_MAX = 100_000  # mappings looked through for the keys of one document
_MERGE = "<<"
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True, slots=True, eq=False)
class Scalar:
    """A plain value as text; `span` are its characters in the text, with quotes and properties."""

    value: str
    span: Span
    style: str


@dataclass(frozen=True, slots=True, eq=False)
class Sequence:
    """A list; `items` may hold a node that is elsewhere too (an alias)."""

    items: list[Node] = field(default_factory=list)


@dataclass(frozen=True, slots=True, eq=False)
class Mapping:
    """Keys and values in their order, repeated and merged ones included."""

    pairs: list[tuple[Node, Node]] = field(default_factory=list)


Node = Scalar | Sequence | Mapping


def documents(text: str) -> tuple[Node, ...]:
    """The documents of a file; raises Unreadable, with an index into `text`."""
    try:
        return tuple(_compose(text))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise Unreadable(
            f"not proper YAML: {error.problem or error.context}"[:200], mark.index if mark else 0
        ) from None
    except (yaml.YAMLError, ValueError) as error:
        if isinstance(error, Unreadable):
            raise
        raise Unreadable(f"not proper YAML: {str(error).splitlines()[0]}"[:200]) from None


class Reader:
    """Looks up keys through merge keys (`<<`), within a budget for the whole file."""

    def __init__(self) -> None:
        self._left = _MERGES_MAX

    def get(self, node: Node | None, key: str) -> Node | None:
        """The value of a key: the mapping's own, or one from what it merges; None without."""
        return self._get(node, key, set()) if isinstance(node, Mapping) else None

    def text(self, node: Node | None, key: str) -> str:
        """The value of a key when it is a scalar, else the empty text."""
        found = self.get(node, key)
        return found.value if isinstance(found, Scalar) else ""

    def entries(self, node: Node | None) -> Iterator[tuple[str, Node]]:
        """Keys and values of a mapping and of what it merges, the own ones first."""
        todo, seen = [node], set[int]()
        while todo:
            one = todo.pop(0)
            if not isinstance(one, Mapping) or id(one) in seen:
                continue
            self._spend()
            seen.add(id(one))
            for key, value in one.pairs:
                if isinstance(key, Scalar) and key.value == _MERGE:
                    todo += value.items if isinstance(value, Sequence) else [value]
                elif isinstance(key, Scalar):
                    yield key.value, value

    def _get(self, node: Mapping, key: str, seen: set[int]) -> Node | None:
        found = None
        merged: list[Node] = []
        self._spend()
        seen.add(id(node))
        for name, value in node.pairs:
            if isinstance(name, Scalar) and name.value == key:
                found = value
            elif isinstance(name, Scalar) and name.value == _MERGE:
                merged += value.items if isinstance(value, Sequence) else [value]
        for other in merged:
            if found is not None:
                break
            if isinstance(other, Mapping) and id(other) not in seen:
                found = self._get(other, key, seen)
        return found

    def _spend(self) -> None:
        self._left -= 1
        if self._left < 0:
            raise Unreadable(f"more than {_MERGES_MAX} mappings have to be looked through")


class _Composer:
    """Builds the documents from events, with a stack of its own: depth is counted, not suffered."""

    def __init__(self) -> None:
        self._stack: list[tuple[Sequence | Mapping, list[Node]]] = []
        self._anchors: dict[str, Node] = {}
        self._count = 0

    def take(self, event: yaml.Event) -> Node | None:
        """Take one event; returns a document's root when it is whole."""
        at = event.start_mark.index if event.start_mark else 0
        node: Node
        if isinstance(event, yaml.ScalarEvent):
            node = Scalar(
                event.value, Span(at, event.end_mark.index if event.end_mark else at), event.style or ""
            )
            self._name(event.anchor, node)
        elif isinstance(event, yaml.AliasEvent):
            known = self._anchors.get(event.anchor or "")
            if known is None:
                raise Unreadable(f"the alias {str(event.anchor)[:40]!r} has no anchor", at)
            node = known
        elif isinstance(event, yaml.CollectionStartEvent):
            self._open(event, at)
            return None
        elif isinstance(event, yaml.CollectionEndEvent):
            node = self._close()
        else:
            if isinstance(event, yaml.DocumentStartEvent):
                self._anchors = {}
            return None
        self._count += 1
        if self._count > _NODES_MAX:
            raise Unreadable(f"it has more than {_NODES_MAX} values", at)
        if not self._stack:
            return node
        self._stack[-1][1].append(node)
        return None

    def _open(self, event: yaml.CollectionStartEvent, at: int) -> None:
        opened = Sequence() if isinstance(event, yaml.SequenceStartEvent) else Mapping()
        self._name(event.anchor, opened)
        self._stack.append((opened, []))
        if len(self._stack) > _DEPTH_MAX:
            raise Unreadable(f"it is nested deeper than {_DEPTH_MAX}", at)

    def _close(self) -> Node:
        node, children = self._stack.pop()
        if isinstance(node, Sequence):
            node.items.extend(children)
        else:
            node.pairs.extend(zip(children[::2], children[1::2], strict=True))
        return node

    def _name(self, anchor: str | None, node: Node) -> None:
        if anchor:
            self._anchors[anchor] = node


def _compose(text: str) -> Iterator[Node]:
    composer = _Composer()
    for event in yaml.parse(text, _LOADER):
        root = composer.take(event)
        if root is not None:
            yield root
