"""Checks of one stream or variant, said as what differs from those of the image.

    streams:
      "3.11": {commands: {remove: [NAME], replace: {NAME: CHECK}, add: [CHECK]}}
      "3.12": {like: "3.11"}
    variants:
      dev: {files: {remove: [PATH]}}

They are written out, each check with its streams and variants, before they are read into their type.
What cannot be done is a mistake with its place, never left out in silence.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from builder.errors import Problem
from builder.model.definition import CommandCheck, FileCheck, ImageDefinition, Scoped
from builder.tools.inherit import near, short
from builder.tools.strict_model import read_value

_KINDS: Mapping[str, tuple[str, type[Scoped]]] = {
    "commands": ("name", CommandCheck),
    "files": ("path", FileCheck),
}
_AXES = ("streams", "variants")


@dataclass(frozen=True)
class _Check:
    """A check as it was written, and where it applies: by axis, the names."""

    said: Mapping[str, Any]
    where: Mapping[str, frozenset[str]]

    def on(self, axis: str, names: Collection[str]) -> _Check:
        return replace(self, where={**self.where, axis: frozenset(names)})


def checks_written_out(
    definition: ImageDefinition | None, file: str, document: Mapping[str, Any], problems: list[Problem]
) -> dict[str, Any]:
    """The document of a `checks.yaml` with the checks of each stream and variant written out.

    Without a definition nobody knows what there is: then only what is said of all is looked at.
    """
    rest = {key: value for key, value in document.items() if key not in _AXES}
    if definition is None or rest.keys() == document.keys():
        return rest
    known = {"streams": tuple(definition.streams), "variants": tuple(definition.variants)}
    if not all(_is_list_of_checks(rest.get(kind, []), key) for kind, (key, _) in _KINDS.items()):
        return rest  # which is told when it is read into its type
    found = {kind: [_check(said, known) for said in rest.get(kind, [])] for kind in _KINDS}
    writer = _Writer(file, known, found, problems)
    for axis in _AXES:
        writer.change(axis, document.get(axis, {}))
    return {**rest, **{kind: [_said(c, known) for c in checks] for kind, checks in found.items() if checks}}


def add_changed_checks(schema: dict[str, Any]) -> None:
    """Let the schema of `checks.yaml` for editors know of them."""
    parts = schema["$defs"]
    kinds: dict[str, Any] = {}
    for kind, (_, model) in _KINDS.items():
        item, name = {"$ref": f"#/$defs/{model.__name__}"}, f"{kind.capitalize()}Changes"
        gone = {"type": "array", "items": {"type": "string"}, "description": "By name or path."}
        parts[name] = _object(
            f"What differs from the image's `{kind}`; a plain list takes their place.",
            {
                "add": {"type": "array", "items": item, "description": "Further checks."},
                "remove": gone,
                "replace": {
                    "type": "object",
                    "additionalProperties": item,
                    "description": "From old to new.",
                },
            },
        )
        kinds[kind] = {"anyOf": [{"$ref": f"#/$defs/{name}"}, {"type": "array", "items": item}]}
    like = {"like": {"type": "string", "description": "The stream whose checks this one has, too."}}
    for axis, keys in (("streams", {**like, **kinds}), ("variants", kinds)):
        name, one = f"{axis[:-1].capitalize()}Checks", axis[:-1]
        parts[name] = _object(f"What is checked of one {one} otherwise than of the image.", keys)
        schema["properties"][axis] = {
            "type": "object",
            "additionalProperties": {"$ref": f"#/$defs/{name}"},
            "description": f"By {one}, what differs there.",
        }


def _object(description: str, properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "description": description,
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
    }


@dataclass(frozen=True)
class _Writer:
    """Changes the lists of checks; mistakes go to `problems`."""

    file: str
    known: Mapping[str, tuple[str, ...]]
    found: dict[str, list[_Check]]
    problems: list[Problem]

    def change(self, axis: str, sections: Any) -> None:
        """Change what is said of all names of an axis."""
        if not isinstance(sections, dict):
            return self._mistake(axis, "not a mapping", f"from a {axis[:-1]} to what differs there")
        for name in sections:
            if name not in self.known[axis]:
                hint = near(name, self.known[axis])
                self._mistake(f"{axis}.{short(name)}", f"the image has no {axis[:-1]} {short(name)!r}", hint)
        done: set[str] = set()
        for name in self.known[axis]:
            if name in sections:
                self._section(axis, name, sections, done, ())
        return None

    def _section(
        self, axis: str, name: str, sections: Mapping[str, Any], done: set[str], heirs: tuple[str, ...]
    ) -> None:
        """Change one name of an axis, once; what it is `like` comes first."""
        section, path = sections.get(name, {}), f"{axis}.{name}"
        if name in done:
            return
        done.add(name)
        if not isinstance(section, dict):
            return self._mistake(path, "not a mapping", "commands and files")
        like = section.get("like") if axis == "streams" else None
        keys = [*_KINDS, *(["like"] if axis == "streams" else [])]
        for key in section:
            if key not in keys:
                self._mistake(f"{path}.{short(key)}", "unknown key", near(key, keys))
        if like is not None:
            if like in (name, *heirs) or like not in self.known[axis]:
                what = "a cycle" if like in (name, *heirs) else f"there is no stream {short(like)!r}"
                return self._mistake(f"{path}.like", what, near(like, self.known[axis]))
            self._section(axis, like, sections, done, (*heirs, name))
            for checks in self.found.values():
                checks[:] = [_alike(c, axis, name, like) for c in checks]
        for kind in _KINDS:
            if kind in section:
                self._operate(axis, name, kind, section[kind])
        return None

    def _operate(self, axis: str, name: str, kind: str, value: Any) -> None:
        key, path = _KINDS[kind][0], f"{axis}.{name}.{kind}"
        here = [c.said[key] for c in self.found[kind] if name in c.where[axis]]
        value = {"add": value, "remove": list(dict.fromkeys(here))} if isinstance(value, list) else value
        forms = {"add": list, "remove": list, "replace": dict}
        if not (
            isinstance(value, dict)
            and value.keys() <= forms.keys()
            and all(isinstance(value[k], forms[k]) for k in value)
        ):
            hint = "add: a list; remove: a list; replace: a mapping from the old to the new"
            return self._mistake(path, "operations of another form", hint)
        removed, replaced = value.get("remove", []), value.get("replace", {})
        gone = [*removed, *replaced]
        for one in gone:
            if one not in here:
                self._mistake(path, f"{short(one)} is not there", near(one, here))
            elif gone.count(one) > 1:
                self._mistake(path, f"{short(one)} is named twice", "")
        there = {x for x in here if x not in gone}
        news = {
            old: self._new(axis, name, kind, f"replace.{old}", one, there) for old, one in replaced.items()
        }
        added = [
            self._new(axis, name, kind, f"add.{n}", x, there) for n, x in enumerate(value.get("add", []))
        ]
        changed = list(
            _taken(self.found[kind], axis, name, key, {**dict.fromkeys(map(str, removed)), **news})
        )
        self.found[kind][:] = [*changed, *(one for one in added if one is not None)]
        return None

    def _new(self, axis: str, name: str, kind: str, at: str, said: Any, there: set[str]) -> _Check | None:
        key, model = _KINDS[kind]
        path = f"{axis}.{name}.{kind}.{at}"
        before = len(self.problems)
        read_value(said, self.file, path, model, self.problems)
        if len(self.problems) > before:
            return None
        if axis in said:
            self._mistake(f"{path}.{axis}", f"it stands below {axis}.{name} already", "leave it out here")
        if said[key] in there:
            self._mistake(path, f"{short(said[key])} is there already", "`replace` gives it another form")
        there.add(said[key])
        return _check(said, self.known).on(axis, {name})

    def _mistake(self, path: str, message: str, hint: str) -> None:
        self.problems.append(Problem(self.file, path, message, hint))


def _taken(
    checks: Sequence[_Check], axis: str, name: str, key: str, gone: Mapping[str, _Check | None]
) -> Iterator[_Check]:
    """The checks without those that are gone here; what comes instead stands in the place of the first."""
    left = dict(gone)
    for check in checks:
        if name not in check.where[axis] or check.said[key] not in gone:
            yield check
            continue
        if others := check.where[axis] - {name}:
            yield check.on(axis, others)
        if (instead := left.pop(check.said[key], None)) is not None:
            yield instead


def _alike(check: _Check, axis: str, name: str, like: str) -> _Check:
    """The check where `name` has all that `like` has, and what names it."""
    own = name in (check.said.get(axis) or ())
    others = check.where[axis] - {name}
    return check.on(axis, others | {name} if like in others or own else others)


def _is_list_of_checks(value: Any, key: str) -> bool:
    return isinstance(value, list) and all(isinstance(x, dict) and isinstance(x.get(key), str) for x in value)


def _check(said: Mapping[str, Any], known: Mapping[str, tuple[str, ...]]) -> _Check:
    where = {}
    for axis in _AXES:
        named = said.get(axis)
        where[axis] = (
            frozenset(map(str, named)) if isinstance(named, list) and named else frozenset(known[axis])
        )
    return _Check(said, where)


def _said(check: _Check, known: Mapping[str, tuple[str, ...]]) -> dict[str, Any]:
    """The check as it is written without sections; what holds for all is not said."""
    said = dict(check.said)
    if check == _check(said, known):
        return said
    for axis in _AXES:
        said.pop(axis, None)
        if not check.where[axis] >= set(known[axis]):
            said[axis] = [name for name in known[axis] if name in check.where[axis]]
    return said
