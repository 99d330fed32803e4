"""A stream that is like another one says what differs; what cannot be done is a mistake with its place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from builder.errors import DefinitionError, Problem
from builder.model.definition import Stream
from builder.model.sources import definition_digest
from builder.stages.define import json_schemas, load_catalogue
from tests.support.catalogue import image, stream, write

OLD = stream(
    "java-21",
    "fonts",
    omit=["x11", "alsa"],
    replacement="2",
    environment={"HOME": "/", "LANG": "C"},
    links={"/usr/bin/java": "/usr/lib/21"},
    entrypoint=["/usr/bin/java"],
    dev={"packages": ["jdk-21"], "environment": {"DEBUG": "1"}},
)


def second(root: Path, **changes: Any) -> Stream:
    """The stream 2, which is like 1 but for the changes."""
    document = image("one", streams={"1": OLD, "2": {"like": "1", **changes}}, variants=["runtime", "dev"])
    write(root, document)
    jsonschema.validate(document, json_schemas()["image.yaml"])
    return load_catalogue(root).definitions["one"].streams["2"]


def mistakes(root: Path, **changes: Any) -> tuple[Problem, ...]:
    with pytest.raises(DefinitionError) as caught:
        second(root, **{"replacement": None, **changes})
    return caught.value.problems


def test_what_is_not_said_is_inherited(tmp_path: Path) -> None:
    found = second(tmp_path, replacement=None, packages=["java-25"])
    assert found.packages == ("java-25",), "a plain list takes the place of the other"
    assert found.replacement is None
    assert found.omit == ("x11", "alsa")
    assert found.dev.packages == ("jdk-21",)


def test_lists_and_mappings_are_added_to_removed_from_and_replaced_in(tmp_path: Path) -> None:
    found = second(
        tmp_path,
        replacement=None,
        packages={"replace": {"java-21": "java-25"}, "add": ["zlib1g"], "remove": ["fonts"]},
        omit={"add": ["cups"]},
        environment={"add": {"NEW": "1"}, "remove": ["HOME"], "replace": {"LANG": "C.UTF-8"}},
        links={"replace": {"/usr/bin/java": "/usr/lib/25"}},
        directories={"add": {"/data": {"owner": "nonroot"}}},
        dev={"packages": {"replace": {"jdk-21": "jdk-25"}}},
    )
    assert found.packages == ("java-25", "zlib1g"), (
        "a replaced one keeps its place: the first gives the version"
    )
    assert found.omit == ("x11", "alsa", "cups")
    assert found.environment == {"LANG": "C.UTF-8", "NEW": "1"}
    assert found.links == {"/usr/bin/java": "/usr/lib/25"}
    assert list(found.directories) == ["/data"]
    assert (found.dev.packages, found.dev.environment) == (("jdk-25",), {"DEBUG": "1"})


def test_written_out_it_is_the_same_definition(tmp_path: Path) -> None:
    for folder, definition in (
        ("short", {"like": "1", "replacement": None, "omit": {"remove": ["x11"]}}),
        ("long", {**OLD, "replacement": None, "omit": ["alsa"]}),
    ):
        streams = {"1": OLD, "2": definition}
        document = image("one", streams=streams, variants=["runtime", "dev"])
        write(tmp_path / folder, json.loads(json.dumps(document)))
    digests = {
        definition_digest([load_catalogue(tmp_path / folder).find("one:2")]) for folder in ("short", "long")
    }
    assert len(digests) == 1


@pytest.mark.parametrize(
    ("changes", "path", "message", "hint"),
    [
        ({"omit": {"remove": ["x12"]}}, "omit", "x12 is not there", "did you mean 'x11'?"),
        ({"packages": {"replace": {"java": "b"}}}, "packages", "java is not there", "java-21"),
        ({"environment": {"remove": ["HOMES"]}}, "environment", "HOMES is not there", "HOME"),
        ({"environment": {"replace": {"X": "1"}}}, "environment", "X is not there", "there are: HOME, LANG"),
        ({"omit": {"add": ["x11"]}}, "omit", "x11 is there already", "leave it out"),
        ({"omit": {"replace": {"alsa": "x11"}}}, "omit", "x11 is there already", ""),
        ({"omit": {"add": ["y", "y"]}}, "omit", "y is there already", ""),
        ({"omit": {"add": ["y"], "replace": {"x11": "y"}}}, "omit", "y is there already", ""),
        ({"environment": {"add": {"LANG": "x"}}}, "environment", "LANG is there already", "replace"),
        ({"omit": {"remove": ["x11", "x11"]}}, "omit", "named twice", ""),
        ({"omit": {"add": {"x": "y"}}}, "omit", "operations of another form", "add: a list"),
        ({"environment": {"add": ["x"]}}, "environment", "operations of another form", "add: a mapping"),
        ({"environment": {"remove": [["x"]]}}, "environment", "operations of another form", ""),
        ({"suite": {"add": ["x"]}}, "suite", "it is no list", ""),
        ({"dev": {"packages": {"remove": ["jdk"]}}}, "dev.packages", "jdk is not there", "jdk-21"),
        ({"users": {"remove": ["ci"]}}, "users", "ci is not there", "none"),
        ({"like": "3"}, "like", "there is no stream '3'", "there are: 1, 2"),
        ({"like": 1}, "like", "there is no stream 1", ""),
        ({"like": "2"}, "like", "a cycle: 2 -> 2", "write one of them out"),
    ],
)
def test_what_cannot_be_done_is_a_mistake_with_its_place(
    tmp_path: Path, changes: dict[str, Any], path: str, message: str, hint: str
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jsonschema, "validate", lambda *_: None)
        problem = mistakes(tmp_path, **changes)[0]
    assert (problem.file, problem.path) == ("images/one/image.yaml", f"streams.2.{path}")
    assert message in problem.message
    assert hint in problem.hint


def test_operations_without_a_stream_to_inherit_from_are_a_mistake(tmp_path: Path) -> None:
    write(tmp_path, image("one", streams={"1": stream(packages={"add": ["hello"]})}))
    with pytest.raises(DefinitionError) as caught:
        load_catalogue(tmp_path)
    assert caught.value.problems[0].path == "streams.1.packages"
    assert "`like:`" in caught.value.problems[0].hint


def test_a_long_chain_of_streams_is_refused_and_not_followed(tmp_path: Path) -> None:
    streams = {"0": stream(), **{str(n): {"like": str(n - 1)} for n in range(1, 2000)}}
    write(tmp_path, image("one"))
    (tmp_path / "images/one/image.yaml").write_text(yaml.safe_dump(image("one", streams=streams)))
    with pytest.raises(DefinitionError) as caught:
        load_catalogue(tmp_path)
    assert "more than" in caught.value.problems[0].message
