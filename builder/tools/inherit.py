"""Streams that are `like:` another one of their image: written out before they are read into their type.

Only what differs is said. A list or a mapping is given anew as a whole, or as operations on the
inherited one: `add`, `remove`, `replace`. What cannot be done is a mistake, never left out in silence.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

from builder.errors import Problem

_OPERATIONS = frozenset({"add", "remove", "replace"})
_CHAIN_MAX = 8  # streams that are like each other
_Found = list[tuple[str, str, str]]  # path, message, hint


def written_out(file: str, document: Mapping[str, Any], problems: list[Problem]) -> dict[str, Any]:
    """The document of an `image.yaml` with all its streams written out; mistakes go to `problems`."""
    streams = document.get("streams")
    if not isinstance(streams, dict):
        return dict(document)
    found: _Found = []
    done = {name: _stream(name, streams, (), found) for name in streams}
    # What several streams inherit is one mistake.
    problems += [Problem(file, path, message, hint) for path, message, hint in dict.fromkeys(found)]
    return {**document, "streams": done}


def add_streams_alike(schema: dict[str, Any]) -> None:
    """Let the schema of `image.yaml` for editors know of them."""
    schema["$defs"]["StreamLike"] = {
        "description": "A stream that is like another one of the image, but for the keys that stand here: "
        "as in a Stream, or, for lists and mappings, what to `add`, `remove` and `replace` in the inherited. "
        "null takes a single value away.",
        "type": "object",
        "required": ["like"],
        "properties": {"like": {"type": "string", "description": "The other stream."}},
    }
    names = schema["properties"]["streams"]["patternProperties"]
    for pattern, stream in names.items():
        names[pattern] = {"anyOf": [stream, {"$ref": "#/$defs/StreamLike"}]}


def _stream(name: str, streams: Mapping[str, Any], heirs: tuple[str, ...], found: _Found) -> Any:
    own, path = streams[name], f"streams.{name}"
    if not isinstance(own, dict):
        return own
    if "like" not in own:
        for key, value in own.items():
            if key != "users" and _is_operation(value):
                hint = "say which stream this one is `like:`, or give the whole list"
                found.append((f"{path}.{key}", "there is nothing to add to or to remove from", hint))
        return own
    like = own["like"]
    rest = {key: value for key, value in own.items() if key != "like"}
    if not isinstance(like, str) or like not in streams:
        found.append((f"{path}.like", f"there is no stream {like!r}"[:200], near(like, streams)))
        return rest
    if like in (name, *heirs) or len(heirs) > _CHAIN_MAX:
        chain = " -> ".join([*heirs, name, like])
        said = (
            f"a cycle: {chain}"
            if like in (name, *heirs)
            else f"more than {_CHAIN_MAX} streams: {chain[:200]}"
        )
        found.append((f"{path}.like", said, "write one of them out"))
        return rest
    base = _stream(like, streams, (*heirs, name), found)
    return _merged(base, rest, path, found) if isinstance(base, dict) else rest


def _merged(base: Mapping[str, Any], own: Mapping[str, Any], path: str, found: _Found) -> dict[str, Any]:
    merged = dict(base)
    for key, value in own.items():
        inherited, where = base.get(key), f"{path}.{key}"
        if key == "dev" and isinstance(inherited, dict) and isinstance(value, dict):
            merged[key] = _merged(inherited, value, where, found)
        elif _is_operation(value):
            merged[key] = _operated(inherited, value, where, found)
        else:
            merged[key] = value
    return merged


def _is_operation(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and bool(value)
        and value.keys() <= _OPERATIONS
        and all(isinstance(x, list | dict) for x in value.values())
    )


def _operated(inherited: Any, operations: Mapping[str, Any], path: str, found: _Found) -> Any:
    added, removed, replaced = (operations.get(x) for x in ("add", "remove", "replace"))
    if inherited is None:
        inherited = {} if isinstance(added, dict) else []
    if not isinstance(inherited, list | dict):
        found.append((path, "it is no list", "give the new value"))
        return inherited
    kind = "mapping" if isinstance(inherited, dict) else "list"
    if (
        not isinstance(added, type(inherited) | None)
        or not (removed is None or (isinstance(removed, list) and all(isinstance(r, str) for r in removed)))
        or not isinstance(replaced, dict | None)
    ):
        hint = f"add: a {kind}; remove: a list; replace: a mapping from the old to the new"
        found.append((path, "operations of another form", hint))
        return inherited
    gone = [*(removed or ()), *(replaced or ())]
    for one in gone:
        if one not in inherited:
            found.append((path, f"{short(one)} is not there", near(one, inherited)))
        elif gone.count(one) > 1:
            found.append((path, f"{short(one)} is named twice", ""))
    removed, replaced = removed or [], replaced or {}
    if isinstance(inherited, dict):
        return _mapping(inherited, dict(added or {}), removed, replaced, path, found)
    return _list(inherited, list(added or []), removed, replaced, path, found)


def _list(
    inherited: list[Any],
    added: list[Any],
    removed: list[Any],
    replaced: Mapping[str, Any],
    path: str,
    found: _Found,
) -> list[Any]:
    new = [*added, *replaced.values()]
    for number, one in enumerate(new):
        if one in inherited or one in new[:number]:
            found.append((path, f"{short(one)} is there already", "leave it out here"))
    kept = [one for one in inherited if one not in removed]
    return [*(replaced.get(one, one) if isinstance(one, str) else one for one in kept), *added]


def _mapping(
    inherited: Mapping[str, Any],
    added: Mapping[str, Any],
    removed: list[Any],
    replaced: Mapping[str, Any],
    path: str,
    found: _Found,
) -> dict[str, Any]:
    for one in added:
        if one in inherited:
            found.append((path, f"{short(one)} is there already", "`replace` gives it another value"))
    return {**{key: value for key, value in inherited.items() if key not in removed}, **replaced, **added}


def near(one: Any, known: Iterable[Any]) -> str:
    """What was perhaps meant, or all that there is: a hint."""
    names = [str(k) for k in known]
    near = difflib.get_close_matches(str(one), names, 1, 0.5)
    return f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(names)[:300] or 'none'}"


def short(one: Any) -> str:
    """A name for a message, cut."""
    return str(one)[:200]
