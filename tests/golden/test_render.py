"""What `render` writes, to the byte. Regenerate: `GOLDEN_UPDATE=1 make unit`, and read the diff."""

from __future__ import annotations

import json
import os
import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from builder.errors import DefinitionError
from builder.model.digest import Digest
from builder.model.image import BuildContext, Target
from builder.model.lock import LockSection, ParentPin
from builder.model.platform import Platform
from builder.stages.define import load_catalogue
from builder.stages.render import docker_quote, render
from tests.support.debs import locked

ROOT = Path(__file__).parents[2]
RENDERED = Path(__file__).parent / "rendered"
AMD64 = Platform("linux", "amd64")
TEMPLATES = ROOT / "templates"
IMAGES = [("base:13", 0), ("python:3.13", 1), ("base:13-dev", 0), ("python:3.13-dev", 1)]


def target(ref: str) -> Target:
    return load_catalogue(ROOT).find(ref)


def section(ref: str, depth: int) -> LockSection:
    found = target(ref)
    packages = tuple(sorted([locked("hello", b"1", "hello"), locked("libssl3t64", b"2", "openssl")]))
    parent = ParentPin("base:13", found.variant, Digest.of(b"parent")) if depth else None
    return LockSection(
        found.stream_name, found.variant, AMD64, "trixie", Digest.of(b"intent"), parent, packages
    )


def rendered(ref: str, depth: int, templates: Path = TEMPLATES) -> BuildContext:
    return render(target(ref), AMD64, section(ref, depth), templates, {"LANG": "C.UTF-8"}, depth)


@pytest.mark.parametrize(("ref", "depth"), IMAGES)
def test_the_context_is_the_reviewed_one(ref: str, depth: int) -> None:
    for path, content in rendered(ref, depth).files.items():
        golden = RENDERED / ref.replace(":", "-") / path
        if os.environ.get("GOLDEN_UPDATE"):
            golden.parent.mkdir(parents=True, exist_ok=True)
            golden.write_bytes(content)
        assert content == golden.read_bytes(), f"{golden} differs"


def test_rendering_twice_gives_the_same_bytes() -> None:
    assert rendered("python:3.13", 1).files == rendered("python:3.13", 1).files


@pytest.mark.parametrize(("ref", "depth"), IMAGES)
def test_the_dockerfile_says_what_the_configuration_says(ref: str, depth: int) -> None:
    context = rendered(ref, depth)
    stage = context.files["Dockerfile"].decode().rpartition("\nFROM ")[2].splitlines()
    said: dict[str, list[str]] = {}
    for line in stage:
        word, _, rest = line.partition(" ")
        said.setdefault(word, []).append(rest)
    pairs = [shlex.split(x)[0].split("=", 1) for x in said["ENV"]]
    labels = [shlex.split(x)[0].split("=", 1) for x in said["LABEL"]]
    config = context.config
    assert (dict(pairs), dict(labels)) == (config.environment, config.labels)
    assert (said["USER"], said["WORKDIR"]) == ([config.user], [config.working_directory])
    entrypoint = [tuple(json.loads(x)) for x in said.get("ENTRYPOINT", [])]
    assert entrypoint == ([config.entrypoint] if config.entrypoint else [])


@pytest.mark.parametrize("value", ["plain", 'a "quoted" word', "back\\slash", "$HOME ${x}", "`id`", "ünï"])
def test_quoting_leaves_nothing_to_expand(value: str) -> None:
    quoted = docker_quote(value)
    bare = quoted[1:-1].replace("\\\\", "").replace('\\"', "").replace("\\$", "")
    assert "$" not in bare
    assert '"' not in bare


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("FROM {{ nothing }}", "undefined"),
        ("{{ ''.__class__.__mro__ }}", "unsafe|undefined"),
        ("{% include '../../etc/passwd' %}", "etc/passwd"),
        ("{% include '/etc/passwd' %}", "etc/passwd"),
        ("{{ lock.packages.append(1) }}", "no attribute|undefined|unsafe"),
        ("{{ range(10) }}", "undefined"),
        ("{% for %}", "syntax|Expected|unexpected"),
        ("{{ 1 // 0 }}", "zero"),
    ],
    ids=["undefined", "escape", "read-relative", "read-absolute", "mutate", "global", "syntax", "arithmetic"],
)
def test_a_template_can_only_use_what_it_is_given(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "_partials").mkdir()
    (tmp_path / "_partials" / "assemble.sh.j2").write_text("")
    (tmp_path / "debian-runtime.Dockerfile.j2").write_text(text)
    with pytest.raises(DefinitionError) as caught:
        rendered("base:13", 0, tmp_path)
    (problem,) = caught.value.problems
    assert problem.file.startswith("templates/")
    import re

    assert re.search(message, problem.message + problem.file)


def test_a_link_with_a_hostile_name_stays_one_word() -> None:
    python = target("python:3.13")
    evil = "/usr/bin/x; rm -rf $(pwd)"
    stream = python.stream.model_copy(update={"links": {evil: "/usr/bin/python3.13"}})
    definition = python.definition.model_copy(update={"streams": {"3.13": stream}})
    context = render(
        replace(python, definition=definition), AMD64, section("python:3.13", 1), TEMPLATES, {}, 1
    )
    (line,) = [
        x for x in context.files["assemble/assemble.sh"].decode().splitlines() if x.startswith("ln -sfn")
    ]
    assert shlex.split(line)[-1] == "/rootfs" + evil
