"""Checks of a stream or variant say what differs; what cannot be done is a mistake with its place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from builder.errors import DefinitionError, Problem
from builder.model.image import Target
from builder.model.platform import Platform
from builder.stages.define import json_schemas, load_catalogue
from tests.support.catalogue import image, stream, write

AMD64 = Platform.parse("linux/amd64")
RUNS = {"name": "it runs", "run": ["/usr/bin/it"]}
FAILS = {"name": "it fails", "run": ["/usr/bin/it", "-x"], "exit_code": 1}
ONLY_1 = {"name": "it is the first", "run": ["/usr/bin/it", "-V"], "stdout_contains": "1", "streams": ["1"]}
OWN = {
    "commands": [RUNS, FAILS, ONLY_1],
    "files": [{"path": "/usr/bin/it"}, {"path": "/bin/sh", "present": False, "variants": ["runtime"]}],
}
SECOND = {"name": "it runs otherwise", "run": ["/usr/bin/it", "--second"]}


def loaded(root: Path, own: dict[str, Any], valid: bool = True) -> dict[str, Target]:
    streams = {name: stream() for name in ("1", "2", "3")}
    write(root, image("one", streams=streams, variants=["runtime", "dev"]))
    checks = {"schema": 1, **OWN, **own}
    if valid:
        jsonschema.validate(checks, json_schemas()["checks.yaml"])
    (root / "images" / "one" / "checks.yaml").write_text(yaml.safe_dump(checks, sort_keys=False))
    return {t.tag: t for t in load_catalogue(root).targets()}


def commands(target: Target) -> list[str]:
    return [c.name for c in target.command_checks(AMD64)]


def paths(target: Target) -> list[str]:
    return [c.path for c in target.file_checks(AMD64)]


def mistakes(root: Path, own: dict[str, Any]) -> tuple[Problem, ...]:
    with pytest.raises(DefinitionError) as caught:
        loaded(root, own, valid=False)
    return caught.value.problems


def test_a_stream_adds_removes_and_replaces_and_the_others_keep_theirs(tmp_path: Path) -> None:
    added = {"name": "it is the second", "run": ["/usr/bin/it", "-V"], "variants": ["dev"]}
    operations = {"remove": ["it fails"], "replace": {"it runs": SECOND}, "add": [added]}
    found = loaded(tmp_path, {"streams": {"2": {"commands": operations}}})
    assert commands(found["1"]) == ["it runs", "it fails", "it is the first"]
    assert commands(found["3"]) == ["it runs", "it fails"]
    assert commands(found["2"]) == ["it runs otherwise"], "a replaced one keeps its place"
    assert commands(found["2-dev"]) == ["it runs otherwise", "it is the second"]
    assert paths(found["2"]) == paths(found["1"])


def test_a_variant_does_it_for_all_streams(tmp_path: Path) -> None:
    files = {
        "replace": {"/usr/bin/it": {"path": "/usr/bin/it", "kind": "link"}},
        "add": [{"path": "/bin/sh"}],
    }
    found = loaded(tmp_path, {"variants": {"dev": {"files": files, "commands": {"remove": ["it fails"]}}}})
    for number in ("1", "2"):
        assert paths(found[number]) == ["/usr/bin/it", "/bin/sh"]
        dev = found[f"{number}-dev"]
        assert [(c.path, c.kind, c.present) for c in dev.file_checks(AMD64)] == [
            ("/usr/bin/it", "link", True),
            ("/bin/sh", None, True),
        ]
        assert "it fails" not in commands(dev)


def test_a_stream_is_like_another_one_in_its_checks(tmp_path: Path) -> None:
    second = {"like": "1", "commands": {"remove": ["it runs"]}}
    found = loaded(tmp_path, {"streams": {"3": {"like": "2"}, "2": second}})
    assert commands(found["1"]) == ["it runs", "it fails", "it is the first"]
    assert commands(found["2"]) == ["it fails", "it is the first"]
    # With what the second, like the first, has of its own, and without what it removed.
    assert commands(found["3"]) == ["it fails", "it is the first"]


def test_a_plain_list_takes_the_place_of_the_images(tmp_path: Path) -> None:
    found = loaded(tmp_path, {"streams": {"2": {"commands": [SECOND]}}})
    assert commands(found["2"]) == ["it runs otherwise"]
    assert commands(found["1"]) == ["it runs", "it fails", "it is the first"]


def test_written_out_they_are_the_same_checks(tmp_path: Path) -> None:
    """Digests, approvals and reports know only the result."""
    short = loaded(tmp_path / "short", {"streams": {"2": {"commands": {"replace": {"it runs": SECOND}}}}})
    long = [{**RUNS, "streams": ["1", "3"]}, {**SECOND, "streams": ["2"]}, FAILS, ONLY_1]
    written = loaded(tmp_path / "long", {"commands": long})
    assert {t: x.declared_checks for t, x in short.items()} == {
        t: x.declared_checks for t, x in written.items()
    }


@pytest.mark.parametrize(
    ("own", "path", "message", "hint"),
    [
        ({"2": {"commands": {"remove": ["it run"]}}}, "2.commands", "it run is not there", "'it runs'"),
        ({"2": {"commands": {"remove": ["it is the first"]}}}, "2.commands", "is not there", "it fails"),
        ({"2": {"commands": {"remove": ["it runs", "it runs"]}}}, "2.commands", "named twice", ""),
        (
            {"2": {"files": {"replace": {"/usr/it": {"path": "/x"}}}}},
            "2.files",
            "is not there",
            "/usr/bin/it",
        ),
        ({"2": {"files": {"add": [{"path": "/usr/bin/it"}]}}}, "2.files.add.0", "there already", "replace"),
        (
            {"2": {"commands": {"add": [SECOND, {**SECOND, "run": ["/x"]}]}}},
            "2.commands.add.1",
            "there already",
            "",
        ),
        ({"2": {"commands": {"add": [{"name": "x"}]}}}, "2.commands.add.0.run", "missing", ""),
        ({"2": {"commands": {"add": [{**SECOND, "runs": []}]}}}, "2.commands.add.0.runs", "unknown", "run"),
        (
            {"2": {"commands": {"add": [{**SECOND, "streams": ["1"]}]}}},
            "2.commands.add.0.streams",
            "below",
            "",
        ),
        ({"2": {"commands": {"add": {"x": 1}}}}, "2.commands", "another form", "add: a list"),
        ({"2": {"commands": {"take": ["x"]}}}, "2.commands", "another form", "remove: a list"),
        ({"2": {"command": {"add": []}}}, "2.command", "unknown key", "commands"),
        ({"2": None}, "2", "not a mapping", ""),
        ({"4": {"like": "1"}}, "4", "the image has no stream '4'", "there are: 1, 2, 3"),
        ({"2": {"like": "4"}}, "2.like", "there is no stream '4'", "1, 2, 3"),
        ({"2": {"like": "3"}, "3": {"like": "2"}}, "3.like", "a cycle", ""),
        ({"2": {"like": "2"}}, "2.like", "a cycle", ""),
    ],
)
def test_what_cannot_be_done_is_a_mistake_with_its_place(
    tmp_path: Path, own: dict[str, Any], path: str, message: str, hint: str
) -> None:
    problem = mistakes(tmp_path, {"streams": own})[0]
    assert (problem.file, problem.path) == ("images/one/checks.yaml", f"streams.{path}")
    assert message in problem.message
    assert hint in problem.hint


def test_a_variant_that_is_not_there_and_sections_of_another_form_are_mistakes(tmp_path: Path) -> None:
    found = mistakes(tmp_path, {"variants": {"debug": {}, "dev": {"like": "runtime"}}, "streams": ["2"]})
    assert [(p.path, p.message) for p in found] == [
        ("streams", "not a mapping"),
        ("variants.debug", "the image has no variant 'debug'"),
        ("variants.dev.like", "unknown key"),
    ]
