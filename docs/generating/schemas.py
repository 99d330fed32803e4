"""The files that people write: definitions and policies, from their JSON schemas."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from typing import Any

from generating.form import cell, page, table

_LIMITS = (
    ("minimum", "≥ {}"),
    ("maximum", "≤ {}"),
    ("exclusiveMinimum", "> {}"),
    ("minLength", "at least {} characters"),
    ("maxLength", "at most {} characters"),
    ("minItems", "at least {} entries"),
    ("minProperties", "at least {} entries"),
    ("pattern", "`{}`"),
)


def definitions() -> str:
    """The files that people write, from their JSON schemas."""
    from builder.stages.define import json_schemas

    places = {
        "image.yaml": "images/NAME/image.yaml",
        "checks.yaml": "images/NAME/checks.yaml",
        "check.yaml": "checks/ID.yaml",
        "waivers.yaml": "images/NAME/waivers.yaml",
        "builder.yaml": "templates/builder.yaml",
    }
    lines = [
        "# Definition files\n",
        'Strict YAML: an unknown key is an error, and a number is not taken for a text (write `"13"`).',
        "`goldsmith schema --output schemas` writes the JSON schemas for editors. `goldsmith lint` checks all files.\n",
    ]
    for name, schema in json_schemas().items():
        lines += [f"## {places[name]}\n", *_schema(schema, name)]
    return page(lines)


def policy() -> str:
    """The keys of a policy file."""
    from builder.policy.schema import PolicyData

    lines = [
        "# Policy files\n",
        "A policy is `policies/NAME.yaml` in the catalogue, or one that comes with the tool (`registry/policies/`: `baseline`,",
        "`demo`). No key has a default: every threshold is written down. What each rule does with them:",
        "[rules](rules.md).\n",
        "## policies/NAME.yaml\n",
        *_schema(PolicyData.model_json_schema(), "policy"),
    ]
    return page(lines)


def _schema(schema: Mapping[str, Any], name: str) -> Iterator[str]:
    """A table for the schema itself, then one for each object it refers to, in order of use."""
    parts = schema.get("$defs", {})
    done: list[str] = []
    pending: list[tuple[str, Mapping[str, Any]]] = [("", schema)]
    while pending:
        title, part = pending.pop(0)
        if title:
            yield f"### {title} ({name})\n"
        yield " ".join(inspect.cleandoc(part.get("description", "")).split()) + "\n"
        required = part.get("required", [])
        rows = []
        for key, value in part.get("properties", {}).items():
            rows.append(
                (
                    f"`{key}`",
                    _type(value),
                    "required" if key in required else _default(value),
                    cell(_says(value)),
                )
            )
            for other in _references(value):
                if other not in done and other in parts:
                    done.append(other)
                    pending.append((other, parts[other]))
        yield table(("key", "type", "default", ""), rows)


def _references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if "$ref" in value:
            yield value["$ref"].rpartition("/")[2]
        for inner in value.values():
            yield from _references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _references(inner)


def _type(value: Mapping[str, Any]) -> str:
    if "$ref" in value:
        return value["$ref"].rpartition("/")[2]
    if "anyOf" in value:
        return " or ".join(_type(x) for x in value["anyOf"])
    if "const" in value:
        return f"`{value['const']}`"
    if "enum" in value:
        return " or ".join(f"`{x}`" for x in value["enum"])
    kind = value.get("type", "any")
    if kind == "array":
        return f"list of {_type(value.get('items', {}))}"
    if kind == "object":
        inner = value.get("additionalProperties") or next(
            iter(value.get("patternProperties", {}).values()), {}
        )
        return f"text → {_type(inner)}"
    if kind == "string":
        return {"date": "date"}.get(value.get("format", ""), "text")
    return {"integer": "whole number", "boolean": "`true` or `false`"}.get(kind, kind)


def _default(value: Mapping[str, Any]) -> str:
    default = value.get("default")
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    if default in (None, [], {}):
        return "none"
    return f"`{', '.join(map(str, default)) if isinstance(default, list) else default}`"


def _says(value: Mapping[str, Any]) -> str:
    said = [value["description"]] if "description" in value else []
    for part in (value, *value.get("anyOf", [])):
        said += [
            "not empty" if part[key] == 1 and "at least" in form else form.format(part[key])
            for key, form in _LIMITS
            if key in part
        ]
    return "; ".join(text.removesuffix(".") for text in said)
