"""Jinja2, closed and bounded: a template sees what it is given, and every rendering ends soon.

It reaches no file but the templates of its folder, no clock, no chance and no program. Whatever
repeats or grows is paid from one purse a rendering; so what has no end, or grows without a bound,
is a mistake of the template and not a full machine.
"""

from __future__ import annotations

import threading
import types
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from jinja2 import BaseLoader, StrictUndefined, TemplateNotFound, TemplateSyntaxError, Undefined, nodes
from jinja2.exceptions import SecurityError
from jinja2.loaders import split_template_path
from jinja2.runtime import BlockReference, LoopContext, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import pass_context
from jinja2.visitor import NodeTransformer

from builder.store import read_file
from builder.tools import template_filters
from builder.tools.strict_model import is_within

_COST_MAX = 1_000_000  # of one rendering: about one for a node that is run or a character that is made
_SOURCE_MAX = 1 << 16  # bytes of one template
_BITS_MAX = 128  # of a number
_ENTRY_COST = 100  # what it takes to get into a macro or block; for a whole template, ten times that
_PAID_LOOP, _PAID_BODY, _PAID_VALUE = "paid loop", "paid body", "paid value"  # no name that can be written
_METHODS = frozenset(
    {
        *("items", "keys", "values", "get", "startswith", "endswith", "removeprefix", "removesuffix"),
        *("lower", "upper", "strip", "lstrip", "rstrip", "split", "partition", "rpartition"),
    }
)


class Sandbox(ImmutableSandboxedEnvironment):
    """The environment of one folder of templates; it compiles each template once."""

    intercepted_binops = frozenset({"+", "-", "*", "/", "//", "**", "%"})

    def __init__(self, folder: Path, filters: Mapping[str, Callable[..., Any]]) -> None:
        self._folder = _Folder(folder)
        super().__init__(
            loader=self._folder,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            keep_trailing_newline=True,
            autoescape=False,
            optimized=False,  # nothing is computed before there is a purse to pay for it
            finalize=self._written,
        )
        self._purse = threading.local()
        self._referenced: dict[str, dict[str | None, int]] = {}
        self.globals.clear()
        known = {**template_filters.FILTERS, **filters}
        self.filters = {name: self._paid_filter(name, function) for name, function in known.items()}
        self.filters |= {_PAID_LOOP: self._loop, _PAID_BODY: self._body, _PAID_VALUE: self._value}

    def rendered(self, name: str, facts: Mapping[str, Any], size_max: int) -> str:
        """The text of a template. Raises what Jinja2 and Python raise; SecurityError for too much of it."""
        self._purse.left = _COST_MAX
        pieces, size = [], 0
        for piece in self.get_template(name).generate(**facts):
            size += len(piece)
            if size > size_max:
                raise SecurityError(f"it renders to more than {size_max >> 10} KiB")
            pieces.append(piece)
        return "".join(pieces)

    def source(self, name: str) -> str:
        """The text of a template as it was written; raises OSError, TemplateNotFound or ValueError."""
        return self._folder.get_source(self, name)[0]

    def referenced(self, name: str) -> Mapping[str | None, int]:
        """What a template extends, includes and imports, with its line; None for what is computed."""
        source = self.source(name)
        if source not in self._referenced:
            self._referenced[source] = dict(_referenced(self.parse(source, name)))
        return self._referenced[source]

    def spend(self, cost: int) -> None:
        """Take from the purse of this rendering; raises SecurityError when it is empty."""
        left = getattr(self._purse, "left", _COST_MAX) - cost
        self._purse.left = left
        if left < 0:
            raise SecurityError("it repeats or grows without a bound")

    def call(self, context: Any, called: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Call a macro, a block, or one of few methods; nothing else can be called."""
        if not isinstance(called, Undefined | Macro | BlockReference) and not _is_plain_method(called):
            raise SecurityError(f"a {type(called).__name__} cannot be called in a template")
        self.spend(1 + sum(template_filters.size(a) for a in args))
        return self._bounded(super().call(context, called, *args, **kwargs))

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Arithmetic with results of a bounded size."""
        self.spend(1)
        numbers = isinstance(left, int | float) and isinstance(right, int | float)
        if operator == "**" or (operator != "%" and not numbers and operator not in "+*"):
            raise SecurityError(f"{operator} is not for templates")
        if operator == "%" and isinstance(left, str):
            return self._bounded(template_filters.formatted(left, right))
        if not numbers:
            template_filters.check_size(_combined(operator, left, right))
        result = super().call_binop(context, operator, left, right)
        if isinstance(result, int) and result.bit_length() > _BITS_MAX:
            raise SecurityError("the number is too large")
        return self._bounded(result)

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree: nodes.Template = _Pricing(name).visit(super()._parse(source, name, filename))
        tree.set_environment(self)
        return tree

    def _bounded(self, value: Any) -> Any:
        size = template_filters.size(value)
        template_filters.check_size(size)
        self.spend(size)
        return value

    def _paid_filter(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @pass_context
        def run(_: Any, value: Any, *args: Any, **kwargs: Any) -> Any:
            template_filters.check_order(name, value)
            self.spend(1 + template_filters.size(value) + sum(template_filters.size(a) for a in args))
            return self._bounded(function(value, *args, **kwargs))

        return run

    @pass_context
    def _written(self, _: Any, value: Any) -> str:
        """What is written for `{{ value }}`: texts and numbers; of an object it would be its address."""
        if not isinstance(value, str | int | float | Undefined):
            raise SecurityError(f"a {type(value).__name__} is no text")
        text = str(value)
        self.spend(len(text))
        return text

    @pass_context
    def _loop(self, _: Any, values: Any, cost: int) -> Iterator[Any]:
        template_filters.check_order("for", values)
        for value in values:
            self.spend(cost)
            yield value

    @pass_context
    def _body(self, _: Any, __: Any, cost: int) -> None:
        self.spend(cost)

    @pass_context
    def _value(self, _: Any, value: Any) -> Any:
        return self._bounded(value)


class _Pricing(NodeTransformer):
    """Puts the price of each part that can be run again, or makes a new value, into the tree."""

    def __init__(self, name: str | None) -> None:
        self._name = name
        self._extends: list[nodes.Extends] = []
        self._top: list[nodes.Node] = []

    def visit_Template(self, node: nodes.Template) -> Any:
        self._top = list(node.body)
        return self._repeatable(node)

    def visit_For(self, node: nodes.For) -> nodes.For:
        if node.recursive:
            raise TemplateSyntaxError("a loop may not call itself", node.lineno, self._name)
        cost = _cost(node)
        self.generic_visit(node)
        node.iter = _filter(_PAID_LOOP, node.iter, cost)
        return node

    def visit_Extends(self, node: nodes.Extends) -> nodes.Extends:
        if not isinstance(node.template, nodes.Const) or not isinstance(node.template.value, str):
            raise TemplateSyntaxError(
                "what a template extends is named in it, in quotes", node.lineno, self._name
            )
        if self._extends or not any(node is one for one in self._top):
            said = "a template extends one other, outside of blocks and conditions"
            raise TemplateSyntaxError(said, node.lineno, self._name)
        self._extends.append(node)
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Filter:
        self.generic_visit(node)
        return _filter(_PAID_VALUE, _filter("join", nodes.Tuple(node.nodes, "load", lineno=node.lineno)))

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Expr:
        self.generic_visit(node)
        return _filter(_PAID_VALUE, node) if isinstance(node.arg, nodes.Slice) else node

    def _repeatable(self, node: Any) -> Any:
        cost = _cost(node) + _ENTRY_COST * (10 if isinstance(node, nodes.Template) else 1)
        self.generic_visit(node)
        paid = _filter(_PAID_BODY, nodes.Const(None, lineno=node.lineno), cost)
        node.body = [nodes.ExprStmt(paid, lineno=node.lineno), *node.body]
        return node

    visit_Macro = visit_CallBlock = visit_Block = _repeatable


class _Folder(BaseLoader):
    """Templates are regular files `*.j2` of a folder; a link may not lead out of it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._kept: dict[str, tuple[tuple[int, int], str]] = {}

    def get_source(self, environment: Any, template: str) -> tuple[str, str, Callable[[], bool]]:
        path = self._folder.joinpath(*split_template_path(template))
        if path.suffix != ".j2":
            raise TemplateNotFound(template)
        try:
            stamp = _stamp(path)
            kept = self._kept.get(template)
            if kept is None or kept[0] != stamp:
                if not is_within(path, self._folder):
                    raise OSError(f"{template} is a link that leads out of templates/")
                kept = self._kept[template] = (stamp, read_file(path, _SOURCE_MAX).decode())
        except FileNotFoundError:
            raise TemplateNotFound(template) from None
        return kept[1], str(path), lambda: _unchanged(path, stamp)

    def list_templates(self) -> list[str]:
        return sorted(str(p.relative_to(self._folder)) for p in self._folder.rglob("*.j2"))


def line_of(error: BaseException, folder: Path) -> tuple[str, int] | None:
    """The template below `folder`, and the line in it, in which an error arose; None outside of any."""
    if isinstance(error, TemplateSyntaxError) and error.name:
        return error.name, error.lineno
    found, trace = None, error.__traceback__
    while trace is not None:
        file = Path(trace.tb_frame.f_code.co_filename)
        if file.suffix == ".j2" and file.is_relative_to(folder):
            found = str(file.relative_to(folder)), trace.tb_lineno
        trace = trace.tb_next
    return found


def _referenced(tree: nodes.Template) -> Iterator[tuple[str | None, int]]:
    for node in tree.find_all((nodes.Extends, nodes.Include, nodes.Import, nodes.FromImport)):
        named = getattr(node, "template")  # noqa: B009 - all four have it
        parts = named.items if isinstance(named, nodes.List | nodes.Tuple) else [named]
        for part in parts:
            value = part.value if isinstance(part, nodes.Const) else None
            yield value if isinstance(value, str) else None, node.lineno


def _stamp(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_mtime_ns, status.st_size


def _unchanged(path: Path, stamp: tuple[int, int]) -> bool:
    try:
        return _stamp(path) == stamp
    except OSError:
        return False


def _is_plain_method(called: Any) -> bool:
    owner, name = getattr(called, "__self__", None), getattr(called, "__name__", "")
    if isinstance(owner, LoopContext):
        return name in ("cycle", "changed")
    return isinstance(called, types.BuiltinMethodType) and (
        isinstance(owner, str | dict | types.MappingProxyType) and name in _METHODS
    )


def _combined(operator: str, left: Any, right: Any) -> int:
    if operator == "+":
        return template_filters.size(left) + template_filters.size(right)
    times = next((x for x in (left, right) if isinstance(x, int)), 1)
    repeated = right if isinstance(left, int) else left
    return template_filters.size(repeated) * max(0, times)


def _filter(name: str, node: Any, cost: int | None = None) -> nodes.Filter:
    line = node.lineno
    arguments = [] if cost is None else [nodes.Const(cost, lineno=line)]
    return nodes.Filter(node, name, arguments, [], None, None, lineno=line)


def _cost(node: nodes.Node) -> int:
    return 1 + sum(1 + len(getattr(n, "data", "")) for n in node.find_all(nodes.Node))
