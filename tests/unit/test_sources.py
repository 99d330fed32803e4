"""What an image is made of: digests that move with what matters, and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from builder.errors import DefinitionError
from builder.model.digest import Digest
from builder.model.platform import Platform
from builder.model.sources import Origin, Sources, Tree, definition_digest, lock_digest, template_digest
from builder.signing import sources as coding
from builder.signing.predicates import parse_provenance
from builder.signing.refusal import EvidenceRefused
from builder.stages.define import load_catalogue
from builder.stages.render import used_templates
from tests.support import catalogue as files
from tests.support.evidence import SOURCES, provenance_of
from tests.support.images import AMD64, built_image, section


def digest_of(folder: Path, *documents: dict[str, Any], ref: str, checks: str | None = None) -> Digest:
    folder.mkdir()
    root = files.write(folder, *documents)
    if checks:
        (root / "images" / ref.partition(":")[0] / "checks.yaml").write_text(checks)
    catalogue = load_catalogue(root)
    target = catalogue.find(ref)
    return definition_digest((target, *catalogue.ancestors(target)))


BOTH = {"variants": ["runtime", "dev"]}
BASE, APP = files.image("base"), {"from": "base", "streams": {"1": files.stream(), "2": files.stream()}}


@pytest.mark.parametrize(
    ("base", "app", "checks", "same"),
    [
        ({}, {}, None, True),
        ({}, {"streams": {"1": files.stream(), "2": files.stream("other")}}, None, True),
        (BOTH, {"streams": {"1": files.stream(dev={"packages": ["xz-utils"]})}, **BOTH}, None, True),
        ({}, {"working_directory": "/"}, None, True),
        ({}, {}, "# words\nschema: 1\nfiles: [{path: /etc/os-release}]\n", True),
        ({}, {}, "schema: 1\nfiles: [{path: /etc/os-release}, {path: /x, variants: [dev]}]\n", True),
        ({}, {"title": "another"}, None, False),
        ({}, {"working_directory": "/app"}, None, False),
        ({}, {"streams": {"1": files.stream("hello", "netcat")}}, None, False),
        ({}, {"streams": {"1": files.stream(environment={"A": "b"})}}, None, False),
        ({}, {}, "schema: 1\nfiles: [{path: /etc/passwd}]\n", False),
        ({"streams": {"1": files.stream("hello", "netcat")}}, {}, None, False),
    ],
    ids=[
        "nothing", "another stream", "the dev variant", "a default said", "a comment", "a check of dev",
        "the title", "the folder", "a package", "the environment", "a check", "the image below",
    ],
)  # fmt: skip
def test_the_definition_is_what_is_said_of_this_image_and_below(
    tmp_path: Path, base: dict[str, Any], app: dict[str, Any], checks: str | None, same: bool
) -> None:
    before = digest_of(tmp_path / "a", BASE, files.image("app", **APP), ref="app:1")
    after = digest_of(
        tmp_path / "b", {**BASE, **base}, files.image("app", **{**APP, **app}), ref="app:1", checks=checks
    )
    assert (before == after) is same


def test_streams_of_one_content_are_two_definitions(tmp_path: Path) -> None:
    documents = (BASE, files.image("app", **APP))
    first = digest_of(tmp_path / "a", *documents, ref="app:1")
    assert first != digest_of(tmp_path / "b", *documents, ref="app:2")


def test_the_lock_is_all_platforms_sections() -> None:
    arm = Platform("linux", "arm64")
    one = {AMD64: section(), arm: section(platform=arm)}
    assert lock_digest(one) == lock_digest(dict(reversed(one.items())))
    assert lock_digest(one) != lock_digest({**one, arm: section(platform=arm, packages=())})


# ------------------------------------------------------------------ templates


def templates(folder: Path, **texts: str) -> Path:
    (folder / "_partials").mkdir()
    texts = {"_partials__assemble.sh": "true\n", "go.Dockerfile": "FROM scratch\n", **texts}
    for name, text in texts.items():
        (folder / (name.replace("__", "/") + ".j2")).write_text(text)
    return folder


def test_a_template_is_followed_to_everything_that_it_includes(tmp_path: Path) -> None:
    folder = templates(
        tmp_path,
        **{
            "app.Dockerfile": '{% extends "base.Dockerfile.j2" %}{% import "_partials/m.j2" as m %}',
            "base.Dockerfile": '{% include "odd.j2" %}',
            "odd": "x",
            "_partials__m": "",
            "_partials__unused": "",
        },
    )
    used = used_templates(folder, ["app"])
    names = [
        "_partials/assemble.sh.j2",
        "_partials/m.j2",
        "app.Dockerfile.j2",
        "base.Dockerfile.j2",
        "odd.j2",
    ]
    assert list(used) == names
    assert used_templates(folder, ["go"]) == ("_partials/assemble.sh.j2", "go.Dockerfile.j2")


def test_a_template_that_may_include_anything_depends_on_all(tmp_path: Path) -> None:
    folder = templates(tmp_path, **{"app.Dockerfile": "{% include image.name %}", "odd": ""})
    assert len(used_templates(folder, ["app"])) == 4


@pytest.mark.parametrize("text", ["{% include 'gone.j2' %}", "{% if %}"])
def test_a_template_that_cannot_be_read_is_a_mistake(tmp_path: Path, text: str) -> None:
    with pytest.raises(DefinitionError):
        used_templates(templates(tmp_path, **{"app.Dockerfile": text}), ["app"])


def test_templates_count_with_what_is_said_of_the_builder() -> None:
    files_, said = {"a.j2": Digest.of(b"a")}, {"packages": ["dash"]}
    one = template_digest(files_, said)
    assert one == template_digest(dict(files_), dict(said))
    assert len({one, template_digest({"b.j2": Digest.of(b"a")}, said), template_digest(files_, None)}) == 3


# ------------------------------------------------------------------ in the provenance

FULL = Sources(
    SOURCES.definition,
    SOURCES.template,
    SOURCES.lock,
    Origin(Tree.DIRTY, "ann@host", "a" * 40, (("base:13", "b" * 40),), ("Ann <a@x>",), ("<>",)),
)


def test_the_provenance_holds_them(tmp_path: Path) -> None:
    image = built_image(tmp_path / "image")
    assert parse_provenance(provenance_of(image, FULL)).sources == FULL
    assert parse_provenance(provenance_of(image, None)).sources is None


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("definition", {"sha256": "x"}),
        ("definition", "sha256:" + "0" * 64),
        ("lock", None),
        ("tree", "green"),
        ("tree", 1),
        ("publisher", ""),
        ("publisher", "x" * 201),
        ("commit", "main"),
        ("commit", None),
        ("since", {"base:13": ""}),
        ("since", ["base:13"]),
        ("since", {str(n): "a" * 40 for n in range(65)}),
        ("writers", "Ann"),
        ("writers", [""]),
        ("writers", ["x" * 201]),
        ("writers", ["x"] * 201),
        ("lockers", [1]),
        ("more", ""),
    ],
)
def test_malformed_sources_are_refused(field: str, value: object) -> None:
    with pytest.raises(EvidenceRefused) as raised:
        coding.decode({**coding.encode(FULL), field: value})
    assert raised.value.reference == "predicate-malformed"
    assert coding.decode(coding.encode(FULL)) == FULL
