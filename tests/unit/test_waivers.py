"""Waivers: what is accepted, until when, by whom; and everything that ends one."""

from __future__ import annotations

import datetime as dt
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from builder.cli import main as command_line
from builder.errors import DefinitionError, PolicyDenied
from builder.model.digest import Digest
from builder.model.evidence import Finding, ScanReport, Severity
from builder.model.image import BuiltImage
from builder.model.waiver import Waiver, WaiverEntry, WaiversDefinition
from builder.policy.exploited import KnownExploited
from builder.policy.rules import known_exploited, vulnerabilities_fixable, vulnerabilities_unfixed
from builder.policy.vex import openvex, opinions, waiver_ids
from builder.stages.define import load_catalogue
from builder.stages.judge import find_policy, judge
from tests.support.catalogue import image as definition
from tests.support.catalogue import write
from tests.support.evidence import evidence
from tests.support.images import NOW, built_image

POLICIES = Path(__file__).parents[2] / "registry" / "policies"
BASELINE = find_policy("baseline", [POLICIES])
CVE = "CVE-2026-4711"
DAY = dt.timedelta(days=1)


def entry(**changes: Any) -> WaiverEntry:
    value = {
        "vulnerability": CVE,
        "packages": ["hello"],
        "justification": "vulnerable_code_not_in_execute_path",
        "statement": "The parser is never called: no command reads a file of a stranger.",
        "owner": "Ann <ann@example.com>",
        "approver": "Bob <bob@example.com>",
        "approved": "2026-02-20",
        "expires": "2026-03-20",
        **changes,
    }
    return WaiverEntry.model_validate_json(json.dumps(value))


def own(**changes: Any) -> Waiver:
    return Waiver("python", entry(**changes), inherited=False)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> BuiltImage:
    return built_image(tmp_path_factory.mktemp("image"))


def told(
    image: BuiltImage,
    *waivers: Waiver,
    now: dt.datetime = NOW,
    fixed: str = "",
    exploited: tuple[str, ...] = (),
    severity: Severity = Severity.CRITICAL,
) -> tuple[dict[str, tuple[str, ...]], tuple[str, ...], dt.timedelta]:
    """What the vulnerability rules say of one finding in `hello`, the waivers used, the validity."""
    proof = evidence(image.platforms[0])
    assert isinstance(proof.scan, ScanReport)
    finding = Finding(CVE, "hello", "2.10-5", fixed, severity, "affected", "a flaw")
    proof = replace(proof, scan=replace(proof.scan, findings=(finding,)))
    known = KnownExploited(frozenset(exploited), NOW, Digest.of(b"list")) if exploited else None
    waived = replace(image, target=replace(image.target, waivers=waivers))
    verdict = judge(waived, (proof,), replace(BASELINE, exploited=known), now)
    rules = {r.RULE.id for r in (known_exploited, vulnerabilities_fixable, vulnerabilities_unfixed)}
    failures = {r.id: r.failures for r in verdict.failed if r.id in rules}
    return failures, verdict.waivers, verdict.expires_at - verdict.issued_at


def test_without_a_waiver_it_is_refused_and_with_one_it_is_not(image: BuiltImage) -> None:
    assert "vulnerabilities-unfixed" in told(image)[0]
    waiver = own()
    failures, used, _ = told(image, waiver)
    assert (failures, used) == ({}, (waiver.id,))


def test_a_verdict_ends_with_the_first_waiver_that_it_used(image: BuiltImage) -> None:
    assert told(image, own(expires="2026-03-20"))[2] == 7 * DAY
    ends = dt.datetime(2026, 3, 3, tzinfo=dt.UTC)
    assert told(image, own(expires="2026-03-02"))[2] == ends - NOW
    # One that was not used decides nothing.
    assert told(image, own(), own(vulnerability="CVE-2026-1000", expires="2026-03-02"))[2] == 7 * DAY


LAST = dt.datetime(2026, 3, 20, 23, 59, 59, tzinfo=dt.UTC)
FIRST = dt.datetime(2026, 2, 20, tzinfo=dt.UTC)


@pytest.mark.parametrize(
    ("now", "why"),
    [
        (FIRST, ""),
        (FIRST - dt.timedelta(seconds=1), "counts from 2026-02-20 on"),
        (LAST, ""),
        (LAST + dt.timedelta(seconds=1), "expired on 2026-03-20"),
        # The same moments, as a clock elsewhere shows them.
        (LAST.astimezone(dt.timezone(dt.timedelta(hours=9))), ""),
        (
            (LAST + dt.timedelta(seconds=1)).astimezone(dt.timezone(dt.timedelta(hours=-11))),
            "expired on 2026-03-20",
        ),
    ],
)
def test_it_counts_from_its_first_to_its_last_second(image: BuiltImage, now: dt.datetime, why: str) -> None:
    failures, used, _ = told(image, own(), now=now)
    assert bool(used) == (not why)
    assert why in "".join(failures.get("vulnerabilities-unfixed", ()))


def test_it_lapses_when_a_fix_is_published(image: BuiltImage) -> None:
    failures, used, _ = told(image, own(), fixed="2.11-1")
    assert "has lapsed: a fix is published" in failures["vulnerabilities-fixable"][0]
    assert used == ()


def test_it_lapses_when_the_vulnerability_is_exploited_and_nothing_else_lets_it_pass(
    image: BuiltImage,
) -> None:
    failures, used, _ = told(image, own(), exploited=(CVE,), severity=Severity.LOW)
    assert "has lapsed: this is known to be exploited" in failures["known-exploited"][0]
    assert used == ()
    assert told(image, own(), exploited=("CVE-2020-1000",))[1] != ()


@pytest.mark.parametrize(
    "other",
    [{"vulnerability": "CVE-2026-47110"}, {"packages": ["hello-dev"]}, {"expires": "2026-12-31"}],
)
def test_another_vulnerability_package_or_too_long_a_time_is_not_waived(
    image: BuiltImage, other: dict[str, Any]
) -> None:
    assert told(image, own(**other))[1] == ()


def test_the_parents_waiver_counts_for_the_parents_packages_only(image: BuiltImage) -> None:
    parents = replace(own(), image="base", inherited=True)
    # Here the image added the package itself.
    failures, used, _ = told(image, parents)
    assert "is the parent's, and this package is not" in failures["vulnerabilities-unfixed"][0]
    (platform,) = image.platforms
    inherits = replace(platform, lock=replace(platform.lock, packages=()))
    assert told(replace(image, platforms=(inherits,)), parents)[1] == (parents.id,)
    assert used == ()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"approver": "ANN <Ann@example.com>"}, "somebody else has to agree"),
        ({"owner": "ann@example.com", "approver": "Somebody Else <ann@EXAMPLE.com>"}, "somebody else"),
        ({"owner": "\N{FULLWIDTH LATIN SMALL LETTER A}nn", "approver": "ann"}, "somebody else"),
        ({"owner": " ann ", "approver": "Ann"}, "somebody else"),
        ({"approver": ""}, "at least 1 character"),
        ({"statement": ""}, "at least 20 characters"),
        ({"statement": "fine"}, "at least 20 characters"),
        ({"statement": "x" * 20 + "\x1b[2J"}, "control characters"),
        ({"vulnerability": "CVE-*"}, "match pattern"),
        ({"vulnerability": ".*"}, "match pattern"),
        ({"vulnerability": "CVE-2026-" + "1" * 5000}, ""),
        ({"packages": []}, "at least 1 item"),
        ({"packages": ["*"]}, "not a Debian package name"),
        ({"packages": ["hello", "hello"]}, "names something twice"),
        ({"justification": "we like it"}, "component_not_present"),
        ({"expires": "2026-02-19"}, "expires before it was approved"),
        ({"expires": "never"}, "date"),
        ({"reason": "x"}, "Extra inputs"),
    ],
)
def test_an_unsound_waiver_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError) as refused:
        entry(**changes)
    assert said in str(refused.value)


@pytest.mark.parametrize(
    ("one", "other", "overlap"),
    [
        ({}, {}, True),
        ({}, {"packages": ["hello", "world"]}, True),
        ({"streams": ["1"]}, {}, True),
        ({"streams": ["1"]}, {"streams": ["2"]}, False),
        ({"variants": ["dev"]}, {"variants": ["runtime"]}, False),
        ({}, {"packages": ["world"]}, False),
    ],
)
def test_of_two_that_overlap_neither_is_taken(
    one: dict[str, Any], other: dict[str, Any], overlap: bool
) -> None:
    both = [entry(**one), entry(**other)]
    assert both[0].overlaps(both[1]) is overlap
    text = json.dumps({"schema": 1, "waivers": [e.model_dump(mode="json") for e in both]})
    if overlap:
        with pytest.raises(ValueError, match="overlap"):
            WaiversDefinition.model_validate_json(text)
    else:
        assert WaiversDefinition.model_validate_json(text).waivers == tuple(both)


def test_a_changed_text_has_another_id() -> None:
    assert own().id != own(statement="The parser is never called: nothing reads files of anybody.").id


def test_the_exported_document_names_the_image_by_digest_and_the_package(image: BuiltImage) -> None:
    waiver = own()
    waived = replace(
        image, target=replace(image.target, waivers=(waiver, own(vulnerability="CVE-2026-1000")))
    )
    document = json.loads(openvex(waived, [waiver.id]))
    (statement,) = document["statements"]
    assert statement["vulnerability"] == {"name": CVE}
    assert (statement["status"], statement["justification"]) == ("not_affected", waiver.entry.justification)
    assert any(image.digest.hex in p["@id"] for p in statement["products"])
    assert statement["products"][0]["subcomponents"] == [{"@id": "pkg:deb/debian/hello@2.10-5"}]
    assert waiver_ids(document) == {waiver.id}
    assert openvex(waived, [waiver.id]) == openvex(waived, [waiver.id])


def foreign(**changes: Any) -> dict[str, Any]:
    statement = {
        "vulnerability": {"name": CVE},
        "products": [
            {"@id": "pkg:oci/x", "subcomponents": [{"@id": "pkg:deb/debian/hello@2.10-5?arch=amd64"}]}
        ],
        "status": "not_affected",
        "justification": "vulnerable_code_not_present",
        **changes,
    }
    return {"@context": "https://openvex.dev/ns/v0.2.0", "author": "Upstream", "statements": [statement]}


def test_a_strangers_document_is_read_for_what_is_not_affected() -> None:
    found, left = opinions(foreign())
    assert [(o.vulnerability, o.packages, o.justification) for o in found] == [
        (CVE, ("hello",), "vulnerable_code_not_present")
    ]
    assert left == ()


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"status": "affected"}, "its status is 'affected'"),
        ({"justification": ""}, "no justification"),
        ({"products": [{"@id": "pkg:npm/left-pad@1"}]}, "not the purl of a system package"),
        ({"products": [{"@id": 7}]}, "statement 1"),
        ({"vulnerability": None}, "statement 1"),
    ],
)
def test_what_a_strangers_document_says_otherwise_is_left_out(changes: dict[str, Any], why: str) -> None:
    found, left = opinions(foreign(**changes))
    assert found == ()
    assert why in left[0]


@pytest.mark.parametrize(
    "document", [{}, {"@context": "https://example.org"}, {"@context": "https://openvex.dev/ns"}]
)
def test_what_is_no_openvex_document_is_refused(document: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"OpenVEX|statements"):
        opinions(document)


# In a catalogue, and on the command line.


@pytest.fixture
def catalogue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    streams = {n: {"suite": "trixie", "packages": ["hello"], "end_of_life": "2030-01-31"} for n in ("1", "2")}
    root = write(
        tmp_path / "catalogue",
        definition("base"),
        definition("child", **{"from": "base:1"}, streams=streams),
    )
    monkeypatch.chdir(root)
    monkeypatch.setenv("GOLDSMITH_STATE", str(tmp_path / "state"))
    monkeypatch.delenv("GOLDSMITH_CATALOGUE", raising=False)
    return root


def waive(*more: str) -> int:
    return command_line.run(
        [
            *("waive", "child", CVE, "--package", "hello", "--owner", "ann", "--approver", "bob"),
            *(
                "--justification",
                "component_not_present",
                "--statement",
                "The component is not in the image.",
            ),
            *more,
        ]
    )


def test_waive_writes_reviewed_text_that_keeps_what_was_there(catalogue: Path) -> None:
    file = catalogue / "images" / "child" / "waivers.yaml"
    assert waive("--stream", "1") == 0
    file.write_text("# looked at by the team\n" + file.read_text())
    assert waive("--stream", "2") == 0
    assert file.read_text().startswith("# looked at by the team\n")
    found = load_catalogue(catalogue)
    assert [w.entry.streams for w in found.find("child:1").waivers] == [("1",)]
    assert [w.entry.streams for w in found.find("child:2").waivers] == [("2",)]


def test_a_child_inherits_what_concerns_its_parent(catalogue: Path) -> None:
    text = json.dumps({"schema": 1, "waivers": [entry(streams=["1"]).model_dump(mode="json")]})
    (catalogue / "images" / "base" / "waivers.yaml").write_text(text)
    found = load_catalogue(catalogue)
    assert [(w.image, w.inherited) for w in found.find("base").waivers] == [("base", False)]
    assert [(w.image, w.inherited) for w in found.find("child:2").waivers] == [("base", True)]


def test_an_overlapping_waiver_is_not_written(catalogue: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = catalogue / "images" / "child" / "waivers.yaml"
    assert waive() == 0
    before = file.read_bytes()
    assert waive("--stream", "1") == 1
    assert "overlap" in capsys.readouterr().err
    assert file.read_bytes() == before


def test_an_unknown_stream_is_a_mistake_in_the_catalogue(catalogue: Path) -> None:
    text = json.dumps({"schema": 1, "waivers": [entry(streams=["3"]).model_dump(mode="json")]})
    (catalogue / "images" / "child" / "waivers.yaml").write_text(text)
    with pytest.raises(DefinitionError) as refused:
        load_catalogue(catalogue)
    (problem,) = refused.value.problems
    assert (problem.file, problem.path) == ("images/child/waivers.yaml", "waivers.0.streams")


def test_who_may_not_waive_is_refused(catalogue: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (catalogue / "access.yaml").write_text("schema: 1\npeople: []\n")
    assert waive() == PolicyDenied.exit_code
    assert "denied" in capsys.readouterr().err
    assert not (catalogue / "images" / "child" / "waivers.yaml").exists()


def test_waivers_lists_what_ends_first(catalogue: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert waive("--stream", "1", "--days", "90") == 0
    assert waive("--stream", "2", "--days", "3") == 0
    capsys.readouterr()
    assert command_line.run(["waivers", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["waivers"]
    assert [r["streams"] for r in rows] == [["2"], ["1"]]
    assert command_line.run(["waivers", "--within", "7", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["waivers"]) == 1


def test_a_foreign_document_becomes_waivers_of_ours(
    catalogue: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    document = tmp_path / "vex.json"
    document.write_text(json.dumps(foreign()))
    arguments = ["waive", "child", "--from-openvex", str(document), "--owner", "ann"]
    assert command_line.run([*arguments, "--approver", "Ann"]) == 2
    assert "somebody else" in capsys.readouterr().err
    assert command_line.run([*arguments, "--approver", "bob"]) == 0
    (waiver,) = load_catalogue(catalogue).find("child:1").waivers
    assert waiver.entry.statement.startswith("Stated by Upstream")


# The list of known exploited vulnerabilities.


def test_the_list_beside_the_policies_is_heeded(tmp_path: Path) -> None:
    listed = {"dateReleased": "2026-02-28T15:00:00.1234Z", "vulnerabilities": [{"cveID": CVE}]}
    (tmp_path / "known-exploited.json").write_text(json.dumps(listed))
    policy = find_policy("baseline", [tmp_path, POLICIES])
    assert policy.exploited is not None
    assert CVE in policy.exploited


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "[]",
        '{"dateReleased": "2026-02-28", "vulnerabilities": []}',
        '{"dateReleased": "2026-02-28", "vulnerabilities": [{"cveID": "*"}]}',
        '{"dateReleased": "soon", "vulnerabilities": [{"cveID": "CVE-2026-4711"}]}',
        '{"vulnerabilities": [{"cveID": "CVE-2026-4711"}]}',
    ],
)
def test_a_list_that_is_none_stops_everything(tmp_path: Path, text: str) -> None:
    (tmp_path / "known-exploited.json").write_text(text)
    with pytest.raises(DefinitionError) as refused:
        find_policy("baseline", [tmp_path, POLICIES])
    assert "known exploited" in refused.value.problems[0].message
