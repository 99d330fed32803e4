"""A YAML file's text and its scalars as places in the file; and which kind of file it is. Pure."""

from __future__ import annotations

import re
from itertools import accumulate

from registry.devcheck.mention import Mention, Span, Unreadable
from registry.devcheck.yamltree import Mapping, Node, Reader, Scalar, documents

_STEP = 4096  # characters
_BOM = b"\xef\xbb\xbf"
_TEMPLATE = re.compile(r"\{\{|\{%")
_TEMPLATED = "it is a template: check what it renders to (helm template … > FILE)"


class YamlFile:
    """The documents of a file; offsets are bytes. Raises Unreadable."""

    def __init__(self, data: bytes) -> None:
        self._shift = len(_BOM) if data.startswith(_BOM) else 0
        try:
            self.text = data[self._shift :].decode("utf-8")
        except UnicodeDecodeError as error:
            raise Unreadable("it is not text in UTF-8", error.start) from None
        # Bytes before every STEP-th character: an offset is then found without a walk from the start.
        steps = range(0, 0 if self.text.isascii() else len(self.text), _STEP)
        self._before = [*accumulate((len(self.text[i : i + _STEP].encode()) for i in steps), initial=0)]
        try:
            self.documents = documents(self.text)
        except Unreadable as error:
            said = _TEMPLATED if _TEMPLATE.search(self.text) else str(error)
            raise Unreadable(said, self.offset(error.offset)) from None
        self.reader = Reader()

    def offset(self, index: int) -> int:
        """The offset in the file of a character of `text`."""
        if len(self._before) == 1:
            return self._shift + index
        step = index // _STEP
        return self._shift + self._before[step] + len(self.text[step * _STEP : index].encode())

    def span(self, scalar: Scalar) -> Span:
        """A scalar's bytes in the file."""
        return Span(self.offset(scalar.span.start), self.offset(scalar.span.end))

    def value_span(self, scalar: Scalar) -> Span | None:
        """The bytes that are exactly the value, without quotes or properties; None if there are none."""
        raw = self.text[scalar.span.start : scalar.span.end]
        size = len(scalar.value)
        end = scalar.span.end - (1 if scalar.style in ("'", '"') else 0)
        if not size or scalar.style in ("|", ">") or "\n" in raw:
            return None
        if self.text[end - size : end] != scalar.value:
            return None
        return Span(self.offset(end - size), self.offset(end))

    def mention(self, node: Node, place: str) -> Mention:
        """The mention of an image in a value as it stands."""
        if not isinstance(node, Scalar):
            raise Unreadable(
                f"the {place} is not a text" + f"; {_TEMPLATED}" * bool(_TEMPLATE.search(self.text))
            )
        whole, value = self.span(node), self.value_span(node)
        problem = _TEMPLATED if _TEMPLATE.search(node.value) else ""
        why = "" if value else "the value is written in a way that cannot be replaced as it stands"
        return Mention(node.value, value or whole, place, whole.start, value, why, problem)


def is_kubernetes(file: YamlFile) -> bool:
    """Whether one of the documents says its `apiVersion` and `kind`."""
    reader = file.reader
    return any(reader.text(d, "apiVersion") and reader.text(d, "kind") for d in file.documents)


def is_compose(file: YamlFile) -> bool:
    """Whether a document has services with an image or a build."""
    reader = file.reader
    return any(
        isinstance(service, Mapping) and (reader.get(service, "image") or reader.get(service, "build"))
        for document in file.documents
        if not reader.text(document, "apiVersion")
        for _, service in reader.entries(reader.get(document, "services"))
    )
