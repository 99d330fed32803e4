"""Steps that a team brings: the same operations as ours, within the same bounds, and part of the content key."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from builder import extensions
from builder.cli.main import run
from builder.errors import DefinitionError, Problem, ToolError
from builder.model.catalogue import Catalogue
from builder.model.digest import Digest
from builder.model.lock import LockSection, ParentPin
from builder.model.platform import Platform
from builder.model.sources import definition_digest
from builder.pipeline.history import Components
from builder.pipeline.prepare import prepare
from builder.stages.define import json_schemas, load_catalogue
from builder.stages.render import render
from tests.support import fleet
from tests.support.catalogue import image, stream, write
from tests.support.extensions import NAMED, Site, site

__all__ = ["site"]
ROOT = Path(__file__).parents[2]
AMD64, ARM64 = Platform("linux", "amd64"), Platform("linux", "arm64")
MODULE = """
from builder.model.definition import AbsolutePath, PlainText, Strict
from builder.model.image import GeneratedEntry
from builder.model.step import Step
class Place(Strict):
    path: AbsolutePath = "/etc/banner"
class Banner(Strict):
    text: PlainText
    place: Place = Place()
def make(values, platform):
    {body}
STEP = Step("acme-banner", "A banner", Banner, make)
"""
BODY = """yield GeneratedEntry(values.place.path, "file", 0o644, content=f"{values.text}\\n".encode())
    yield GeneratedEntry("/var/lib/banner", "directory", 0o700, owner=65532)
    yield GeneratedEntry("/usr/lib/banner", "link", 0o777, target=f"/usr/lib/{platform.debian}")"""
POINT = {"goldsmith.steps": {"banner": "acme_steps:STEP"}}
SAID = {"steps": [{"use": "acme-banner", "with": {"text": "ACME"}}]}


def install(site: Site, body: str = BODY, version: str = "1.2") -> None:
    site.install({"acme_steps": MODULE.format(body=body)}, POINT, version=version)


def catalogue(root: Path, said: dict[str, Any], allowed: tuple[str, ...] = NAMED, **more: Any) -> Catalogue:
    web = image(
        "web", **{"from": "base", "streams": {"1": stream(**said)}}, platforms=["linux/amd64", "linux/arm64"]
    )
    write(root, image("base", platforms=["linux/amd64", "linux/arm64"]), web)
    (root / "images/web/banner").write_bytes(b"ACME\n")
    return load_catalogue(root, extensions.load(allowed, **more).steps)


def problems(root: Path, said: dict[str, Any], **more: Any) -> tuple[Problem, ...]:
    with pytest.raises(DefinitionError) as caught:
        catalogue(root, said, **more)
    assert {p.file for p in caught.value.problems} == {"images/web/image.yaml"}
    return caught.value.problems


@pytest.mark.parametrize("platform", [AMD64, ARM64], ids=str)
def test_a_teams_step_gives_every_engine_what_ours_would_give(
    site: Site, tmp_path: Path, platform: Platform
) -> None:
    """Engines see nothing but the rendered context; it is the same to the byte."""
    install(site)
    ours = {
        "files": {"/etc/banner": {"source": "banner", "sha256": hashlib.sha256(b"ACME\n").hexdigest()}},
        "directories": {"/var/lib/banner": {"owner": "nonroot", "mode": "0700"}},
        "links": {"/usr/lib/banner": "/usr/lib/{architecture}"},
    }
    pin = ParentPin("base:1", "runtime", Digest.of(b"parent"))
    lock = LockSection("1", "runtime", platform, "trixie", Digest.of(b""), pin, ())
    theirs, own = (
        render(catalogue(tmp_path / n, said).find("web"), platform, lock, ROOT / "templates", {}, 1)
        for n, said in (("theirs", SAID), ("ours", ours))
    )
    assert theirs.entries == own.entries and len(own.entries) == 3
    assert theirs.files == own.files


def test_another_version_is_another_input_and_another_definition(site: Site, tmp_path: Path) -> None:
    fleet.define(tmp_path, {"base": None})
    fleet.lock(tmp_path)
    plain = prepare(load_catalogue(tmp_path), load_catalogue(tmp_path).find("base"))
    path = tmp_path / "images/base/image.yaml"
    text = yaml.safe_load(path.read_text())
    next(iter(text["streams"].values())).update(SAID)
    path.write_text(yaml.safe_dump(text))
    seen, said, tools = {plain.input_hash}, set(), []
    for version in ("1.2", "1.3"):
        install(site, version=version)
        read = load_catalogue(tmp_path, extensions.load(NAMED).steps)
        prepared = prepare(read, read.find("base"))
        seen.add(prepared.input_hash)
        said.add(definition_digest([prepared.target]))  # what people approve
        tools.append(Components(tmp_path).of(prepared)["tool"]["step acme-banner"])
    assert (len(seen), len(said)) == (3, 2)
    assert [t.partition("@")[0] for t in tools] == ["acme-extension==1.2", "acme-extension==1.3"]


@pytest.mark.parametrize(
    ("said", "path", "message"),
    [
        ({"use": "acme-baner", "with": {"text": "x"}}, "use", "there is no step"),
        ({"use": "acme-banner"}, "with.text", "this key is missing"),
        ({"use": "acme-banner", "with": {"text": "x", "txet": "y"}}, "with.txet", "unknown key"),
        ({"use": "acme-banner", "with": {"text": 7}}, "with.text", "valid string"),
        (
            {"use": "acme-banner", "with": {"text": "x", "place": {"path": "etc"}}},
            "with.place.path",
            "absolute",
        ),
    ],
)
def test_mistakes_in_a_definition_have_their_place(
    site: Site, tmp_path: Path, said: dict[str, Any], path: str, message: str
) -> None:
    install(site)
    (problem,) = problems(tmp_path, {"steps": [said]})
    assert problem.path == f"streams.1.steps.0.{path}" and message in problem.message


def test_a_step_of_a_package_that_nobody_named_is_not_there(site: Site, tmp_path: Path) -> None:
    install(site)
    (problem,) = problems(tmp_path, SAID, allowed=())
    assert problem.path == "streams.1.steps.0.use" and "GOLDSMITH_EXTENSIONS" in problem.hint


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("return ['/etc/banner']", "gives a str"),
        ("raise KeyError('x')", "KeyError"),
        ("import threading; threading.Event().wait(5)", "did not end"),
        (
            "import time; return [GeneratedEntry('/a', 'file', 0o644, content=str(time.monotonic_ns()).encode())]",
            "asked again",
        ),
        ("return [GeneratedEntry('/etc/../x', 'file', 0o644)]", "absolute path"),
        ("return [GeneratedEntry('/', 'directory', 0o755)]", "absolute path"),
        ("return [GeneratedEntry('/x', 'file', 0o4755)]", "mode"),
        ("return [GeneratedEntry('/x', 'device', 0o644)]", "device"),
        ("return [GeneratedEntry('/x', 'directory', 0o755, owner=77)]", "belong to 77"),
        ("return [GeneratedEntry('/x', 'file', 0o644, owner=65532)]", "belong to"),
        ("return [GeneratedEntry('/x', 'file', 0o644, content='text')]", "content is no bytes"),
        ("return [GeneratedEntry('/x', 'file', 0o644, content=bytes(1 << 21))]", "1 MiB"),
        ("return [GeneratedEntry('/x', 'link', 0o777, target='a\\x00')]", "cannot be"),
        ("return [GeneratedEntry('/x', 'file', 0o644, derived='appended')]", "cannot be"),
        ("return [GeneratedEntry('/x', ['file'], 0o644)]", "kind is no str"),
        ("return [GeneratedEntry('/x', 'file', 420.0)]", "mode is no int"),
        ("return [GeneratedEntry('/x', 'file', 0o644, owner=[])]", "owner is no int"),
        ("return [GeneratedEntry(7, 'file', 0o644)]", "path is no str"),
        ("return [GeneratedEntry('/etc//x', 'file', 0o644)]", "absolute path"),
        ("return [GeneratedEntry('/x\\udc80', 'file', 0o644)]", "absolute path"),
        ("return [GeneratedEntry('/x', 'link', 0o777, target='../../x')]", "cannot be"),
        ("return [GeneratedEntry(f'/x/{n}', 'file', 0o644) for n in range(1001)]", "more than 1000 entries"),
        ("return {}", "answers with a dict"),
        ("return [GeneratedEntry('/x', 'file', 0o644)] * 2", "made twice"),
        ("return [GeneratedEntry('/srv', 'file', 0o644)]", "made by two steps"),
        (
            "return [GeneratedEntry('/srv/a/b', 'file', 0o644), GeneratedEntry('/srv/a', 'link', 0o777, target='/x')]",
            "no directory",
        ),
    ],
)
def test_a_step_that_breaks_or_oversteps_is_a_mistake_of_the_definition(
    site: Site, tmp_path: Path, body: str, said: str
) -> None:
    install(site, body)
    found = problems(tmp_path, {**SAID, "directories": {"/srv": {}}}, seconds_max=0.3)
    assert any(said in p.message for p in found), found


@pytest.mark.parametrize("text", ["STEP = 7", MODULE.format(body=BODY).replace("Banner(Strict)", "Banner")])
def test_what_is_no_step_is_an_error(site: Site, text: str) -> None:
    site.install({"acme_steps": text}, POINT)
    with pytest.raises(ToolError) as caught:
        extensions.load(NAMED)
    assert caught.value.reference == "extension-broken"


def test_the_schema_for_editors_knows_them(
    site: Site, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import jsonschema

    install(site)
    monkeypatch.setenv("GOLDSMITH_EXTENSIONS", "acme-extension")
    assert run(["schema"]) == 0
    schema = json.loads(capsys.readouterr().out)["image.yaml"]
    assert schema == json_schemas(extensions.load(NAMED).steps)["image.yaml"]
    good = image("web", streams={"1": stream(**SAID)})
    jsonschema.validate(good, schema)
    for said in (
        {"use": "acme-banner"},
        {"use": "other", "with": {"text": "x"}},
        {"use": "acme-banner", "with": {"text": "x", "place": {"path": 7}}},
    ):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(image("web", streams={"1": stream(steps=[said])}), schema)
