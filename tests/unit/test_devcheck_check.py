"""The check of whole trees: fixes byte for byte, ignoring comments, hostile trees, and the three outputs."""

from __future__ import annotations

import json
import lzma
import os
from pathlib import Path

import jsonschema
import pytest

from builder.errors import ToolError
from registry.devcheck import fixer, output
from registry.devcheck.check import Outcome, check
from registry.devcheck.files import FILE_MAX
from registry.devcheck.known import Known
from tests.support.known import MIRROR, TODAY, digest, image, known, pinned

SCHEMA = Path(__file__).parents[1] / "support" / "sarif" / "schema-2.1.0.json.xz"
PIN = pinned("python:3.13").encode()
OLD = f"{MIRROR}/candidate/python:3.13@{digest('3.13.4')}".encode()


def run(*paths: Path, catalogue: Known | None = None) -> Outcome:
    return check(paths, catalogue or known(), TODAY)


def put(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("Dockerfile", b"FROM python:3.13\n"),
        ("Dockerfile", b"\xef\xbb\xbf# \xc3\xa9 # \xff\r\nFROM   python:3.13   AS x\r\nRUN y\\\r\n\r\n  z"),
        (
            "Containerfile",
            b"ARG B=python:3.13 # no comment\n".replace(b" # no comment", b"") + b"FROM $B\nFROM ${B}\n",
        ),
        (
            "app.Dockerfile",
            b'FROM a AS python\nCOPY --from="python:3.13" / /\n'.replace(
                b"FROM a AS python", b"FROM scratch AS x"
            ),
        ),
        (
            "Dockerfile.dev",
            b"# escape=`\nFROM `\n  python:3.13 `\n# c\n AS x\nRUN --mount=from=python:3.13,target=/x c:\\\n",
        ),
        ("compose.yaml", b"# \xe2\x80\x99\nservices:\n  a:   {image:   'python:3.13'  } # c\n"),
        ("docker-compose.dev.yml", b"x: &i python:3.13\nservices: {a: {image: *i}, b: {image: *i}}\r\n"),
        (
            "compose.yml",
            b"services:\n  a:\n    build:\n      dockerfile_inline: |\n        # \xc3\xa9\n\n        FROM python:3.13 AS x\n",
        ),
        (
            "k8s.yaml",
            b'\xef\xbb\xbfapiVersion: v1\nkind: Pod\nspec:\n  containers:\n  - {image: "python:3.13"} # c\n--- \n',
        ),
        (
            "pod.json",
            b'{"apiVersion": "v1", "kind": "Pod", "spec": {"containers": [{"image": "python:3.13"}]}}',
        ),
    ],
)
def test_a_fix_touches_nothing_else(tmp_path: Path, name: str, data: bytes) -> None:
    path = put(tmp_path / name, data)
    path.chmod(0o640)
    outcome = run(tmp_path)
    assert {f.rule for f in outcome.findings} == {"foreign-image"}
    assert all(f.fixable for f in outcome.findings)
    (fix,) = outcome.fixes
    assert fix.new == data.replace(b"python:3.13", PIN)
    fixer.write(fix.source.path, fix.old, fix.new)
    assert path.read_bytes() == fix.new
    assert path.stat().st_mode & 0o777 == 0o640
    assert run(tmp_path).findings == []
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_a_digest_behind_is_moved(tmp_path: Path) -> None:
    put(tmp_path / "Dockerfile", b"FROM " + OLD + b"\n")
    (fix,) = run(tmp_path).fixes
    assert fix.new == b"FROM " + PIN + b"\n"


def test_a_change_that_would_mean_something_else_is_not_made(tmp_path: Path) -> None:
    """The default of an ARG is used for two images that go different ways."""
    put(tmp_path / "Dockerfile", b"ARG V=3.13\nFROM python:$V\n")
    outcome = run(tmp_path)
    assert outcome.fixes == []
    (finding,) = outcome.findings
    assert not finding.fixable
    assert "put together from variables" in finding.fixed_by


def test_a_file_that_changed_meanwhile_is_left_alone(tmp_path: Path) -> None:
    path = put(tmp_path / "Dockerfile", b"FROM python:3.13\n")
    (fix,) = run(tmp_path).fixes
    path.write_bytes(b"FROM other\n")
    with pytest.raises(ToolError, match="was changed while it was checked"):
        fixer.write(path, fix.old, fix.new)
    assert path.read_bytes() == b"FROM other\n"


def test_a_named_link_stays_a_link(tmp_path: Path) -> None:
    real = put(tmp_path / "real" / "file", b"FROM python:3.13\n")
    link = tmp_path / "Dockerfile"
    link.symlink_to(real)
    (fix,) = run(link).fixes
    fixer.write(fix.source.path, fix.old, fix.new)
    assert link.is_symlink()
    assert real.read_bytes() == b"FROM " + PIN + b"\n"


def test_edits_may_not_overlap() -> None:
    from registry.devcheck.mention import Span

    assert fixer.apply(b"abc", {Span(1, 2): "XX", Span(0, 1): "y"}) == b"yXXc"
    with pytest.raises(ValueError, match="overlap"):
        fixer.apply(b"abc", {Span(0, 2): "x", Span(1, 3): "y"})


@pytest.mark.parametrize(
    ("name", "data", "ignored", "rules"),
    [
        ("Dockerfile", "# goldsmith: ignore[foreign-image]: agreed in T-1\nFROM nginx:1\n", 1, []),
        (
            "Dockerfile",
            "# x\n#goldsmith:ignore[foreign-image, unpinned-tag] agreed in T-1\n# y\nFROM nginx:1\n",
            1,
            [],
        ),
        (
            "Dockerfile",
            "# goldsmith: ignore[foreign-image]\nFROM nginx:1\n",
            0,
            ["foreign-image", "ignore-without-reason"],
        ),
        ("Dockerfile", "# goldsmith: ignore\nFROM nginx:1\n", 0, ["foreign-image", "ignore-without-reason"]),
        (
            "Dockerfile",
            "# goldsmith: ignore[foriegn]: agreed in T-1\nFROM nginx:1\n",
            0,
            ["foreign-image", "ignore-without-reason"],
        ),
        (
            "Dockerfile",
            "# goldsmith: ignore[unpinned-tag]: agreed in T-1\nFROM nginx:1\n",
            0,
            ["foreign-image"],
        ),
        (
            "Dockerfile",
            "# goldsmith: ignore[foreign-image]: agreed in T-1\n\nFROM nginx:1\n",
            0,
            ["foreign-image"],
        ),
        (
            "Dockerfile",
            "FROM nginx:1\n# goldsmith: ignore[foreign-image]: agreed in T-1\n",
            0,
            ["foreign-image"],
        ),
        (
            "Dockerfile",
            "# syntax=x/y\n# goldsmith: ignore[foreign-image]: agreed in T-1\nFROM scratch\n",
            1,
            [],
        ),
        (
            "compose.yaml",
            "services:\n  a:\n    image: nginx:1 # goldsmith: ignore[foreign-image]: agreed in T-1\n",
            1,
            [],
        ),
        (
            "compose.yaml",
            "services:\n  a:\n    # goldsmith: ignore[foreign-image]: agreed in T-1\n    image: nginx:1\n",
            1,
            [],
        ),
    ],
)
def test_ignoring_comments(tmp_path: Path, name: str, data: str, ignored: int, rules: list[str]) -> None:
    put(tmp_path / name, data.encode())
    outcome = run(tmp_path)
    assert len(outcome.ignored) == ignored
    assert sorted(f.rule for f in outcome.findings) == rules
    if ignored:
        assert outcome.ignored[0].ignored == "agreed in T-1"
        assert outcome.fixes == []


def test_hostile_trees_are_told_of_in_words(tmp_path: Path) -> None:
    put(tmp_path / "a" / "Dockerfile", b"FROM " + PIN + b"\n")
    put(tmp_path / "big" / "Dockerfile", b"FROM x\n" + b"#" * FILE_MAX)
    put(tmp_path / "binary" / "Dockerfile", b"\x7fELF\0")
    put(tmp_path / "chart" / "templates" / "x.yaml", b"apiVersion: v1\nkind: Pod\n{{- if .x }}\n{{ end }}\n")
    put(tmp_path / "deep" / "compose.yaml", b"services: " + b"[" * 9000)
    put(tmp_path / "other" / "x.yaml", b"{{ not ours }}")
    put(tmp_path / ".git" / "Dockerfile", b"FROM nginx\n")
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "self").symlink_to("self")
    os.mkfifo(tmp_path / "a" / "Dockerfile.pipe")
    outcome = run(tmp_path, tmp_path / "self", tmp_path / "gone", tmp_path / "a" / "Dockerfile.pipe")
    said = {t.file.removeprefix(str(tmp_path) + "/"): t.message for t in outcome.unreadable}
    assert said == {
        "big/Dockerfile": "it is larger than 4 MiB",
        "binary/Dockerfile": "it is not text in UTF-8",
        "chart/templates/x.yaml": "it is a template: check what it renders to (helm template … > FILE)",
        "deep/compose.yaml": "it is nested deeper than 100",
        "self": "its links go in a circle",
        "gone": "no such file or directory",
        "a/Dockerfile.pipe": "it is neither a file nor a folder",
    }
    assert (outcome.files, outcome.images, outcome.findings) == (1, 1, [])


def test_a_sparse_file_of_50_megabytes_is_not_read(tmp_path: Path) -> None:
    with open(tmp_path / "Dockerfile", "wb") as handle:
        handle.truncate(50 << 20)
    assert [t.message for t in run(tmp_path).unreadable] == ["it is larger than 4 MiB"]


def test_each_file_counts_once(tmp_path: Path) -> None:
    path = put(tmp_path / "Dockerfile", b"FROM nginx:1\n")
    assert len(run(path, tmp_path, tmp_path / "." / "Dockerfile").findings) == 1


def test_a_named_file_must_be_something(tmp_path: Path) -> None:
    path = put(tmp_path / "x.yaml", b"a: 1\n")
    assert run(tmp_path).unreadable == []
    assert "neither a Compose file" in run(path).unreadable[0].message
    named = put(tmp_path / "build.docker", b"FROM nginx:1\n")
    assert len(run(named).findings) == 1


def everything(folder: Path) -> Outcome:
    put(
        folder / "a b" / "Dockerfile",
        "FROM python:3.13\n# goldsmith: ignore[foreign-image]: agreed\nFROM ünix\n".encode(),
    )
    put(folder / "Dockerfile", b"FROM " + OLD + b"\n")
    put(folder / "b" / "Dockerfile", b"nothing")
    put(folder / "c" / "Dockerfile", b"# goldsmith: ignore[foreign-image]: agreed\nFROM nginx:1\n")
    return run(folder)


def test_sarif_is_valid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    schema = json.loads(lzma.decompress(SCHEMA.read_bytes()))
    validator = jsonschema.Draft4Validator(schema, format_checker=jsonschema.FormatChecker())
    monkeypatch.chdir(tmp_path)
    everything(tmp_path)
    for outcome in (run(Path()), run(tmp_path), Outcome()):
        log = output.as_sarif(outcome, "1.0")
        assert list(validator.iter_errors(log)) == []
    (one,) = output.as_sarif(run(Path()), "1.0")["runs"]
    assert len(one["results"]) == 4
    fixes = [r["fixes"] for r in one["results"] if "fixes" in r]
    region = fixes[0][0]["artifactChanges"][0]["replacements"][0]["deletedRegion"]
    assert region == {"byteOffset": 5, "byteLength": len(OLD)}
    assert [s["suppressions"][0]["justification"] for s in one["results"] if "suppressions" in s] == [
        "agreed"
    ]
    uris = {r["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] for r in one["results"]}
    assert uris == {"Dockerfile", "a%20b/Dockerfile", "c/Dockerfile"}
    assert one["invocations"][0]["executionSuccessful"] is False
    assert list(validator.iter_errors({**log, "runs": [{}]})) != []


def test_a_name_that_is_no_text_is_told_in_every_form(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path / os.fsdecode(b"a\xff") / "Dockerfile", b"FROM nginx:1\n")
    monkeypatch.chdir(tmp_path)
    for outcome, uri in ((run(Path()), "a%FF/Dockerfile"), (run(tmp_path), "/a%FF/Dockerfile")):
        log = json.loads(json.dumps(output.as_sarif(outcome, "1.0")))
        place = log["runs"][0]["results"][0]["locations"][0]["physicalLocation"]
        assert place["artifactLocation"]["uri"].endswith(uri)
        assert output.as_text(outcome, [])
        json.dumps(output.as_json(outcome, known(), []))


def test_text_and_json_say_the_same(tmp_path: Path) -> None:
    outcome = everything(tmp_path)
    text = output.as_text(outcome, [])
    data = output.as_json(outcome, known(), [])
    json.dumps(data)
    assert f"{tmp_path}/Dockerfile:1:6: digest-behind: " in text
    assert "CVE-2026-7" in text
    assert f"  write instead: {PIN.decode()}" in text
    assert "not readable: unknown instruction 'NOTHING'" in text
    assert (
        text.splitlines()[-1]
        == "3 files read, 4 images named, 3 findings, 1 ignored finding, 1 file not readable"
    )
    behind = next(f for f in data["findings"] if f["rule"] == "digest-behind")
    assert behind["changes"]["packages"] == [{"name": "openssl", "from": "3.0.1", "to": "3.0.2"}]
    assert (behind["line"], behind["column"], behind["fixable"]) == (1, 6, True)


def test_the_difference_is_shown() -> None:
    shown = fixer.difference(b"a\r\nb\xff\r\n", b"a\r\nc\r\n", "x")
    assert shown.splitlines()[:2] == ["--- a/x", "+++ b/x"]
    assert "-b\N{REPLACEMENT CHARACTER}" in shown
    assert "+c" in shown


def test_a_refused_image_is_no_help(tmp_path: Path) -> None:
    put(tmp_path / "Dockerfile", b"FROM " + PIN + b"\n")
    outcome = run(tmp_path, catalogue=known(image("python:3.13", refused="the verdict has expired")))
    assert [f.rule for f in outcome.findings] == ["not-approved"]


def test_files_are_known_by_their_names(tmp_path: Path) -> None:
    names = ["Dockerfile-prod", "Dockerfile_gpu", "Containerfile-3.13", "app.Dockerfile", "DOCKERFILE.dev"]
    others = ["dockerfile-lint.js", "Dockerfile.md", "Dockerfile-old.sh", "notdockerfile", "Dockerfiles"]
    for name in names + others:
        put(tmp_path / name, b"FROM python:3.13\n")
    assert {Path(f.file).name for f in run(tmp_path).findings} == set(names)
