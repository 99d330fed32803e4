"""Mistakes in the catalogue's files are all reported at once, each with its place and a hint."""

from __future__ import annotations

import contextlib
import datetime as dt
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builder.errors import DefinitionError, Problem, UsageError
from builder.stages.define import end_of_life_problem, json_schemas, load_catalogue
from builder.tools import strict_yaml
from tests.support.catalogue import Document, image, stream, write

ROOT = Path(__file__).parents[2]


def problems(root: Path) -> tuple[Problem, ...]:
    with pytest.raises(DefinitionError) as caught:
        load_catalogue(root)
    return caught.value.problems


def only(root: Path) -> Problem:
    (problem,) = problems(root)
    return problem


def test_the_catalogue_of_this_repository_loads() -> None:
    catalogue = load_catalogue(ROOT)
    refs = [t.ref for t in catalogue.targets()]
    assert refs.index("base:13") < refs.index("python:3.13")
    assert catalogue.builder is not None
    python = catalogue.find("python:3.13")
    parent = catalogue.parent(python)
    assert python.ref == "python:3.13"
    assert parent is not None
    assert parent.ref == "base:13"


def test_a_catalogue_can_be_narrowed_to_one_platform() -> None:
    narrowed = load_catalogue(ROOT).only("linux/amd64")
    assert {t.definition.platforms for t in narrowed.targets()} == {("linux/amd64",)}
    (arm,) = {t.definition.platforms for t in narrowed.only("linux/arm64").targets()}
    assert arm == ("linux/amd64",), "an image keeps what it has"


def set_in(document: Document, path: str, value: Any) -> Document:
    *above, last = path.split("/")
    place = document
    for part in above:
        place = place[part]
    place[last] = value
    return document


@pytest.mark.parametrize(
    ("path", "value", "where", "message", "hint"),
    [
        ("tittle", "x", "tittle", "unknown key", "did you mean 'title'?"),
        ("parent", "base", "parent", "unknown key", "did you mean 'from'?"),
        ("schema_version", 1, "schema_version", "unknown key", "did you mean 'schema'?"),
        ("streams/1/package", ["x"], "streams.1.package", "unknown key", "did you mean 'packages'?"),
        (
            "streams/1/dev",
            {"packges": []},
            "streams.1.dev.packges",
            "unknown key",
            "did you mean 'packages'?",
        ),
        ("streams/1/zzz", 1, "streams.1.zzz", "unknown key", "known keys are"),
        ("run", ["make"], "run", "unknown key", "did you mean 'run_as'?"),
        ("schema", 2, "schema", "1", ""),
        ("schema", "1", "schema", "1", ""),
        ("name", "Hello", "name", "pattern", ""),
        ("name", "other", "name", "the folder is called 'one'", "'one'"),
        ("title", "a\x1b[31mred", "title", "control characters", ""),
        ("title", 5, "title", "string", "in quotes"),
        ("owner", "", "owner", "at least 1", ""),
        ("streams", {}, "streams", "at least 1", ""),
        ("streams/1/suite", "trixi", "streams.1.suite", "trixie", "did you mean 'trixie'?"),
        ("streams/1/packages", [], "streams.1.packages", "at least 1", ""),
        ("streams/1/packages", "hello", "streams.1.packages", "array", ""),
        ("streams/1/packages", ["a b"], "streams.1.packages.0", "not a Debian package name", ""),
        ("streams/1/packages", ["hello", "hello"], "streams.1.packages", "named twice: hello", ""),
        ("streams/1/omit", ["hello"], "streams.1.omit", "asked for and left out: hello", ""),
        ("streams/1/dev", {"packages": ["vim"]}, "streams.1.dev", "no variant dev", "variants"),
        ("streams/1/end_of_life", "soon", "streams.1.end_of_life", "date", ""),
        ("streams/1/end_of_life", "2029-02-30", "streams.1.end_of_life", "date", ""),
        ("streams/1/replacement", "1", "streams.1.replacement", "cannot replace itself", ""),
        ("streams/1/links", {"/a": "../b"}, "streams.1.links./a", "absolute path", ""),
        ("streams/1/links", {"/a/../../b": "/c"}, "streams.1.links./a/../../b.[key]", "absolute path", ""),
        ("streams/1/links", {"/a": "/a"}, "streams.1.links./a", "a link to itself", ""),
        ("streams/1/environment", {"A B": "1"}, "streams.1.environment.A B.[key]", "pattern", ""),
        ("streams/1/environment", {"A": "x\ny"}, "streams.1.environment.A", "control characters", ""),
        ("streams/1/environment", {"A": "x" * 5000}, "streams.1.environment.A", "longer than 4096", ""),
        ("streams/1/environment", {"A": True}, "streams.1.environment.A", "string", "in quotes"),
        ("variants", ["debug"], "variants.0", "runtime", ""),
        ("variants", ["dev", "dev"], "", "variants names something twice", ""),
        ("platforms", ["linux/sparc"], "platforms.0", "not a platform", ""),
        ("run_as", "root", "run_as", "nonroot", ""),
        ("template", "debian-runtim", "template", "there is no templates/", "did you mean 'debian-runtime'?"),
        ("template", "../x", "template", "pattern", ""),
        ("from", "one", "from", "a cycle: one -> one", ""),
        ("from", "noone", "from", "no image 'noone'", "`goldsmith images`"),
    ],
)
def test_a_mistake_has_its_place_and_a_hint(
    tmp_path: Path, path: str, value: object, where: str, message: str, hint: str
) -> None:
    document = set_in(image("one"), path, value)
    root = write(tmp_path, {**document, "name": "one"})
    (root / "images/one/image.yaml").write_text(_yaml(document))
    problem = only(root)
    assert problem.file == "images/one/image.yaml"
    assert problem.path == where
    assert message in problem.message
    assert hint in problem.hint


def _yaml(document: Document) -> str:
    import yaml

    return yaml.safe_dump(document, allow_unicode=False)


@pytest.mark.parametrize("key", ["schema", "name", "title", "owner", "template", "streams"])
def test_a_missing_key(tmp_path: Path, key: str) -> None:
    root = write(tmp_path, image("one"))
    document = image("one")
    del document[key]
    (root / "images/one/image.yaml").write_text(_yaml(document))
    assert (only(root).path, only(root).message) == (key, "this key is missing")


def test_a_missing_end_of_life_says_what_it_is_for(tmp_path: Path) -> None:
    broken = stream()
    del broken["end_of_life"]
    problem = only(write(tmp_path, image("one", streams={"1": broken})))
    assert problem.path == "streams.1.end_of_life"
    assert "no longer built" in problem.hint


def test_all_mistakes_of_all_files_come_at_once(tmp_path: Path) -> None:
    first = image("one", tittle="x", streams={"1": stream(suite="sid", colour="red")})
    second = image("two", **{"from": "onee"})
    root = write(tmp_path, first, second, image("three"))
    (root / "images/three/checks.yaml").write_text("schema: 1\nfiles: [{path: etc}]\n")
    (root / "images/four").mkdir()
    found = {(p.file, p.path) for p in problems(root)}
    assert found == {
        ("images/one/image.yaml", "tittle"),
        ("images/one/image.yaml", "streams.1.suite"),
        ("images/one/image.yaml", "streams.1.colour"),
        ("images/two/image.yaml", "from"),
        ("images/three/checks.yaml", "files.0.path"),
        ("images/four/image.yaml", ""),
        ("images/four/checks.yaml", ""),
    }


def _deep(levels: int) -> str:
    return "schema: " + "[" * levels + "]" * levels


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "not a mapping"),
        (b"- a\n", "not a mapping"),
        (b"name: one\nname: two\n", "line 2: the key 'name' stands here twice"),
        (b"streams:\n  3.13: {}\n", 'line 2: write the key in quotes: "3.13"'),
        (b"on: 1\n", "in quotes"),
        (b"? [a, b]\n: c\n", "a key must be plain text"),
        (b"a: &x [1]\nb: *x\n", "anchors and aliases are not allowed"),
        (b"a: &a [x, x]\nb: &b [*a, *a]\n", "anchors and aliases are not allowed"),
        (b"a: !!python/object/apply:os.system [id]\n", "tags are not allowed"),
        (b"a: 1\n---\nb: 2\n", "more than one document"),
        (b"a: [1\n", "line"),
        (b"a: \x00\n", "special characters"),
        (b"\xff\xfe\xfa", "not UTF-8"),
        (_deep(5000).encode(), "nested deeper"),
        (b"a: " + b"x" * 300_000, "larger than 256 KiB"),
    ],
)
def test_a_file_that_is_no_plain_yaml(tmp_path: Path, text: bytes, message: str) -> None:
    root = write(tmp_path, image("one"))
    (root / "images/one/image.yaml").write_bytes(text)
    problem = only(root)
    assert (problem.file, problem.path) == ("images/one/image.yaml", "")
    assert message in problem.message


@pytest.mark.parametrize(
    ("images", "file", "path", "message"),
    [
        (
            [image("a", **{"from": "b"}), image("b", **{"from": "a"})],
            "images/a/image.yaml",
            "from",
            "a cycle: a -> b -> a",
        ),
        (
            [image("a"), *(image(n, **{"from": p}) for n, p in ("ba", "cb", "dc"))],
            "images/d/image.yaml",
            "from",
            "more than 2 parents",
        ),
        (
            [image("a", streams={"1": stream(suite="bookworm")}), image("b", **{"from": "a"})],
            "images/b/image.yaml",
            "from",
            "no stream of trixie",
        ),
        (
            [image("a", streams={"1": stream(), "2": stream()}), image("b", **{"from": "a"})],
            "images/b/image.yaml",
            "from",
            "several streams of trixie",
        ),
        (
            [image("a"), image("b", **{"from": "a:7"})],
            "images/b/image.yaml",
            "from",
            "has no stream '7'",
        ),
        (
            [image("a", streams={"1": stream(suite="bookworm")}), image("b", **{"from": "a:1"})],
            "images/b/image.yaml",
            "from",
            "made of bookworm",
        ),
        (
            [image("a"), image("b", platforms=["linux/amd64", "linux/arm64"], **{"from": "a"})],
            "images/b/image.yaml",
            "platforms",
            "not built for linux/arm64",
        ),
        (
            [image("a", variants=["dev"]), image("b", **{"from": "a"})],
            "images/b/image.yaml",
            "variants",
            "no variant runtime",
        ),
    ],
    ids=["cycle", "depth", "suite", "ambiguous", "stream", "stream's suite", "platform", "variant"],
)
def test_images_that_do_not_fit_together(
    tmp_path: Path, images: list[Document], file: str, path: str, message: str
) -> None:
    found = [p for p in problems(write(tmp_path, *images)) if p.file == file]
    assert [p.path for p in found] == [path]
    assert message in found[0].message


def test_an_unknown_parent_is_guessed(tmp_path: Path) -> None:
    problem = only(write(tmp_path, image("base"), image("one", **{"from": "bsae"})))
    assert (problem.path, problem.hint) == ("from", "did you mean 'base'?")


@pytest.mark.parametrize("missing", ["image.yaml", "checks.yaml"])
def test_a_missing_file(tmp_path: Path, missing: str) -> None:
    root = write(tmp_path, image("one"))
    (root / "images/one" / missing).unlink()
    assert only(root) == Problem(
        f"images/one/{missing}", "", "the file is missing", f"every image has its {missing}"
    )


def test_checks_that_check_nothing(tmp_path: Path) -> None:
    root = write(tmp_path, image("one"))
    (root / "images/one/checks.yaml").write_text("schema: 1\n")
    assert "no check at all" in only(root).message


def _link_folder(root: Path, outside: Path) -> None:
    (root / "images/two").symlink_to(outside)


def _link_file(root: Path, outside: Path) -> None:
    (outside / "image.yaml").write_text("schema: 1\n")
    (root / "images/one/image.yaml").unlink()
    (root / "images/one/image.yaml").symlink_to(outside / "image.yaml")


@pytest.mark.parametrize("link", [_link_folder, _link_file])
def test_a_link_out_of_the_catalogue(tmp_path: Path, link: Callable[[Path, Path], None]) -> None:
    root = write(tmp_path / "catalogue", image("one"))
    (tmp_path / "catalogue-evil").mkdir()
    link(root, tmp_path / "catalogue-evil")
    assert "leads out of the catalogue" in only(root).message


def test_an_empty_catalogue(tmp_path: Path) -> None:
    assert "no image" in only(write(tmp_path)).message


def test_targets_parents_first_and_by_variant(tmp_path: Path) -> None:
    catalogue = load_catalogue(
        write(
            tmp_path,
            image("zero", variants=["runtime", "dev"]),
            image("app", variants=["runtime", "dev"], **{"from": "zero"}),
            image("slim", **{"from": "app"}),
        )
    )
    assert [t.ref for t in catalogue.targets()] == ["zero:1", "zero:1-dev", "app:1", "app:1-dev", "slim:1"]
    parents = {t.ref: p.ref for t in catalogue.targets() if (p := catalogue.parent(t))}
    assert parents == {"app:1": "zero:1", "app:1-dev": "zero:1-dev", "slim:1": "app:1"}


def test_a_variant_is_built_on_the_parents(tmp_path: Path) -> None:
    both = {"variants": ["runtime", "dev"]}
    catalogue = load_catalogue(
        write(tmp_path, image("zero", **both), image("app", variants=["dev"], **{"from": "zero"}))
    )
    parent = catalogue.parent(catalogue.find("app:1-dev"))
    assert parent is not None
    assert parent.ref == "zero:1-dev"


def test_a_variant_that_the_parent_lacks_is_a_mistake(tmp_path: Path) -> None:
    found = problems(write(tmp_path, image("zero"), image("app", variants=["dev"], **{"from": "zero"})))
    (problem,) = found
    assert (problem.file, problem.path) == ("images/app/image.yaml", "variants")
    assert "zero has no variant dev" in problem.message


def test_finding_an_image(tmp_path: Path) -> None:
    catalogue = load_catalogue(
        write(tmp_path, image("one"), image("two", streams={"1": stream(), "2": stream()}))
    )
    assert catalogue.find("one").ref == "one:1"
    with pytest.raises(UsageError, match="several streams"):
        catalogue.find("two")
    with pytest.raises(UsageError) as caught:
        catalogue.find("one:11")
    assert caught.value.hint == "did you mean one:1?"


def test_the_end_of_life_counts_from_the_next_day(tmp_path: Path) -> None:
    streams = {"1": stream(replacement="2"), "2": stream()}
    catalogue = load_catalogue(write(tmp_path, image("one", streams=streams)))
    target = catalogue.find("one:1")
    assert end_of_life_problem(target, dt.date(2030, 1, 31)) is None
    problem = end_of_life_problem(target, dt.date(2030, 2, 1))
    assert problem is not None
    assert problem.path == "streams.1.end_of_life"
    assert problem.hint == "move to one:2"


def test_the_schemas_describe_what_people_write() -> None:
    schemas = json_schemas()
    assert set(schemas) == {"image.yaml", "checks.yaml", "check.yaml", "waivers.yaml", "builder.yaml"}
    image_schema = schemas["image.yaml"]
    assert {"schema", "from", "streams"} <= set(image_schema["properties"])
    assert image_schema["additionalProperties"] is False
    assert "end_of_life" in image_schema["$defs"]["Stream"]["required"]


@pytest.mark.parametrize("name", ["image.yaml", "checks.yaml"])
def test_the_schemas_accept_this_repository(name: str) -> None:
    schema = json_schemas()[name]
    for file in (ROOT / "images").glob(f"*/{name}"):
        jsonschema.validate(strict_yaml.parse(file.read_bytes()), schema)
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({**strict_yaml.parse(file.read_bytes()), "colour": "red"}, schema)


YAML_LIKE = st.text(max_size=200, alphabet="ab:-[]{}&*!'|>#?,% \n").map(str.encode)


@settings(deadline=None)
@given(st.one_of(st.binary(max_size=200), YAML_LIKE))
def test_no_text_does_more_to_the_reader_than_a_clear_refusal(data: bytes) -> None:
    with contextlib.suppress(ValueError):
        strict_yaml.parse(data)


@pytest.mark.parametrize("kind", ["loop", "folder", "pipe", "large"])
def test_what_is_no_plain_file_is_a_mistake_and_not_a_bug(tmp_path: Path, kind: str) -> None:
    root = write(tmp_path, image("one"))
    file = root / "images" / "one" / "image.yaml"
    file.unlink()
    if kind == "loop":
        file.symlink_to("image.yaml")
    elif kind == "folder":
        file.mkdir()
    elif kind == "pipe":
        os.mkfifo(file)  # to open it would wait for a writer for ever
    else:
        file.write_bytes(b"# " + bytes(strict_yaml.SIZE_MAX))
    assert only(root).file == "images/one/image.yaml"


def test_a_stray_link_in_a_circle_is_named(tmp_path: Path) -> None:
    root = write(tmp_path, image("one"))
    (root / "images" / "two").symlink_to("two")
    assert only(root).file == "images/two"


def test_a_folder_of_images_that_cannot_be_read_is_a_mistake(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write(tmp_path, image("one"))

    def denied(path: Path) -> Iterator[Path]:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "iterdir", denied)
    assert "Permission denied" in only(root).message


def test_a_check_of_a_stream_that_is_not_there_is_a_mistake(tmp_path: Path) -> None:
    root = write(tmp_path, image("one"))
    (root / "images/one/checks.yaml").write_text(
        "schema: 1\nfiles:\n  - {path: /a, streams: ['1', '2']}\n  - {path: /b, platforms: [linux/arm64]}\n"
    )
    problem = only(root)
    assert (problem.file, problem.path) == ("images/one/checks.yaml", "files.0.streams")
    assert "no stream '2'" in problem.message
