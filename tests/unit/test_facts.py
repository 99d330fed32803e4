"""Recorded facts: what an input gave, what a README says of it, and whether it gives the same again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from builder.cli.facts import differs, readme
from builder.errors import DefinitionError
from builder.model.facts import BEGIN, END, ImageFacts, parse_facts, render_facts, replaced, table
from builder.model.platform import Platform
from builder.pipeline.prepare import configuration
from builder.stages.define import load_catalogue
from tests.support.catalogue import image, stream, write
from tests.support.images import AMD64, built_image

ARM64 = Platform("linux", "arm64")


@pytest.fixture
def facts(tmp_path: Path) -> ImageFacts:
    return ImageFacts.of(built_image(tmp_path / "layout", platforms=(AMD64, ARM64)))


def test_facts_come_back_as_they_went(facts: ImageFacts) -> None:
    data = render_facts({"3.13": facts})
    assert parse_facts(data, "x") == {"3.13": facts}
    assert render_facts(parse_facts(data, "x")) == data


@pytest.mark.parametrize(
    "data", [b"", b"[]", b'{"1": {}}', b'{"1": {"input": "x"}}', b"[" * 100_000, b"\xff"], ids=range(6)
)
def test_anything_else_is_named_as_a_mistake(data: bytes) -> None:
    with pytest.raises(DefinitionError) as caught:
        parse_facts(data, "images/x/facts.json")
    assert caught.value.problems[0].file == "images/x/facts.json"


def test_only_the_same_input_can_differ(facts: ImageFacts) -> None:
    other = replace(facts, digest="sha256:" + "0" * 64)
    assert differs(facts, other)
    assert not differs(facts, facts)
    assert not differs(None, facts)
    assert not differs(facts, replace(other, input="sha256:" + "1" * 64))


def test_the_table_says_what_the_definition_and_the_build_say(tmp_path: Path, facts: ImageFacts) -> None:
    streams = {"1": stream(replacement="2", entrypoint=["/usr/bin/one"]), "2": stream()}
    both = {"variants": ["runtime", "dev"], "platforms": ["linux/amd64", "linux/arm64"]}
    catalogue = load_catalogue(write(tmp_path, image("one", streams=streams, **both)))
    known = {"one:1": facts}
    rows = [(t, configuration(catalogue, t), known.get(t.ref)) for t in catalogue.targets()]
    first, *_, last = table(rows).splitlines()[3:-1]
    size = facts.platforms["linux/amd64"].size / 1e6
    assert first.startswith("| `one:1` | 13 | 2030-01-31, then `one:2` | 1 |")
    assert f"{size:.1f} MB (amd64), " in first
    assert first.endswith("| `/usr/bin/one` as 65532 |")
    assert (
        last
        == "| `one:2-dev` | 13 | 2030-01-31 | not built yet | ? (amd64), ? (arm64) | `/usr/bin/bash` as root |"
    )


def test_a_readme_keeps_what_people_wrote(tmp_path: Path) -> None:
    root = write(tmp_path, image("one"))
    file = root / "images/one/README.md"
    file.write_text("# one\n\nWhat it is.\n\nWhat else.\n")
    text = readme(load_catalogue(root), "one")
    assert text.startswith("# one\n\nWhat it is.\n\n" + BEGIN)
    assert text.endswith(END + "\n\nWhat else.\n")
    assert replaced(text, f"{BEGIN}\nnew\n{END}").count(BEGIN) == 1
    file.write_text(text)
    assert readme(load_catalogue(root), "one") == text
