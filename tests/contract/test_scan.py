"""A scanner that misbehaves is never believed: no report, a reason in words, in bounded time."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path

import pytest

from builder.errors import ToolError
from builder.model.evidence import Finding, Severity
from builder.model.image import PlatformImage
from builder.stages.scan import scan
from builder.store import Store
from builder.tools import trivy as trivy_tool
from builder.tools.trivy_db import Database, open_database
from builder.tools.trivy_report import read_report
from tests.support.fake_trivy import calls, fake_trivy
from tests.support.images import add_layer, create_layout, platform_image
from tests.support.programs import program
from tests.support.vulndb import sample_database

NOW = dt.datetime(2026, 9, 1, tzinfo=dt.UTC)


@pytest.fixture
def image(tmp_path: Path) -> PlatformImage:
    layout = create_layout(tmp_path / "image")
    return platform_image(layout, [add_layer(layout, {"hello": b"hello\n"})])


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(sample_database(tmp_path_factory.mktemp("database")))


@pytest.fixture
def database(tmp_path: Path, source: str) -> Database:
    return open_database(Store(tmp_path / "state").create(), source, now=NOW, age_days_max=30)


class World:
    """One image, one database, and a scanner that misbehaves."""

    def __init__(self, tmp_path: Path, image: PlatformImage, database: Database) -> None:
        self.folder, self.image, self.database = tmp_path, image, database

    def scan(self, misbehave: str = "pass", when: str = "image", seconds: float = 30) -> tuple[Finding, ...]:
        """Scan with such a fake; returns the findings."""
        self.trivy = fake_trivy(self.folder / "fake", self.image, misbehave, when)
        work = self.folder / "work"
        work.mkdir()
        report, _ = scan(
            self.image,
            name="base:13",
            database=self.database,
            trivy=self.trivy,
            work=work,
            seconds_max=seconds,
        )
        return report.findings

    def refusal(self, misbehave: str, when: str = "image", seconds: float = 30) -> str:
        """Message and context of the ToolError of such a scan."""
        with pytest.raises(ToolError) as refused:
            self.scan(misbehave, when, seconds)
        assert refused.value.hint
        return f"{refused.value.message}: {refused.value.context}"


@pytest.fixture
def world(tmp_path: Path, image: PlatformImage, database: Database) -> World:
    return World(tmp_path, image, database)


def test_the_fake_is_believed_when_it_behaves(world: World) -> None:
    assert world.scan() == ()


WRONG_REPORTS = [
    ("answer = None", "wrote no report"),
    ("open(output, 'w').close(); answer = None", "wrote no report"),
    ("open(output, 'w').write('   '); answer = None", "is empty"),
    ("open(output, 'w').write(json.dumps(answer)[:-30]); answer = None", "not readable JSON"),
    ("open(output, 'w').write(json.dumps(answer) + '{}'); answer = None", "not readable JSON"),
    ("open(output, 'wb').write(b'{\"a\": \"\\xff\"}'); answer = None", "not readable JSON"),
    ("open(output, 'w').write('{\"a\": 1, \"a\": 2}'); answer = None", "twice"),
    ("open(output, 'w').write('{\"a\": NaN}'); answer = None", "not readable JSON"),
    ("open(output, 'w').write('[' * 200000); answer = None", "not readable JSON"),
    ("answer = [answer]", "not a JSON object"),
    ("answer = {}", "schema version"),
    ("answer['SchemaVersion'] = 1", "schema version"),
    ("answer['Results'] = 'none'", "Results is not a list"),
    ("answer['Results'] = [1]", "Results is not a list"),
    ("answer['Metadata'] = []", "Metadata is not an object"),
    ("answer['Metadata']['DiffIDs'] = 3", "DiffIDs is not a list"),
    ("answer['Metadata']['ImageID'] = 'sha256:' + 'e' * 64", "of another image"),
    ("answer['Metadata']['ImageID'] = 'sha256:../../x'", "no digest"),
    ("del answer['Metadata']['ImageID']", "of another image"),
    ("answer['ArtifactType'] = 'filesystem'", "of another image"),
    ("answer['Metadata']['DiffIDs'] = []", "of other layers"),
    ("answer['Trivy']['Version'] = '0.69.4'", "another version of Trivy"),
    ("answer['Metadata']['OS'] = {'Family': 'none'}", "did not recognise the operating system"),
    ("del answer['Metadata']['OS']", "did not recognise the operating system"),
    ("answer['Metadata']['OS']['Family'] = 'ubuntu'", "seen: ubuntu 13.1"),
    ("answer['Metadata']['OS']['Name'] = '12.11'", "seen: debian 12.11"),
    ("answer['Metadata']['OS']['Name'] = '130.1'", "seen: debian 130.1"),
    ("answer['Metadata']['OS']['EOSL'] = True", "end of life"),
    ("answer['Metadata']['OS']['EOSL'] = 'no'", "end of life"),
    ("answer['Results'] = []", "0 seen, 1 locked"),
    ("answer['Results'] = None", "0 seen, 1 locked"),
    ("answer['Results'][0]['Packages'] = []", "not seen: hello=2.10-5"),
    ("answer['Results'][0]['Packages'][0]['Version'] = '2.10-4'", "not locked: hello=2.10-4"),
    ("answer['Results'][0]['Packages'][0]['Epoch'] = 1", "not locked: hello=1:2.10-5"),
    ("answer['Results'][0]['Packages'] *= 2", "seen twice: hello=2.10-5"),
    ("answer['Results'][0]['Packages'][0]['Name'] = 'a b'", "malformed package name"),
    ("answer['Results'][0]['Packages'] += [{'Name': 'x', 'Version': '1'}]", "not locked: x=1"),
    ("answer['Results'][0]['Class'] = 'lang-pkgs'", "0 seen, 1 locked"),
    (
        "answer['Results'][0]['Vulnerabilities'] = "
        "[{'VulnerabilityID': 'CVE-1', 'PkgName': 'x', 'InstalledVersion': '1'}]",
        "findings in packages that are not locked: x",
    ),
]


@pytest.mark.parametrize(("misbehave", "reason"), WRONG_REPORTS)
def test_a_wrong_report_is_refused(world: World, misbehave: str, reason: str) -> None:
    assert reason in world.refusal(misbehave)


@pytest.mark.parametrize(
    ("misbehave", "reason"),
    [
        ("sys.exit(1)", "exit code 1"),
        ("json.dump(answer, open(output, 'w')); sys.exit(2)", "exit code 2"),
        ("print('no space left', file=sys.stderr); sys.exit(1)", "no space left"),
        ("os.kill(os.getpid(), 9)", "failed"),
        ("os.kill(os.getpid(), 11)", "failed"),
    ],
)
def test_a_failing_scanner_is_refused(world: World, misbehave: str, reason: str) -> None:
    assert reason in world.refusal(misbehave)


def test_a_scanner_that_hangs_is_stopped(world: World) -> None:
    assert "did not end within" in world.refusal("time.sleep(600)", seconds=0.7)


def test_a_child_that_is_left_behind_does_not_hang_us(world: World) -> None:
    assert "did not end within" in world.refusal("os.fork() or time.sleep(600)\ntime.sleep(600)", seconds=0.7)


@pytest.mark.parametrize(
    "noise",
    [
        "print('x' * 9_000_000)",
        "sys.stdout.buffer.write(b'\\xff\\xfe\\x00' * 1000)",
        "for _ in range(40): sys.stderr.write('line\\n' * 200_000)",
        "print('\\x1b[2J' * 100)",
    ],
    ids=["a line of 9 MB", "no UTF-8", "40 MB", "escape sequences"],
)
def test_no_output_stops_or_cuts_a_scan(world: World, noise: str) -> None:
    row = "{'VulnerabilityID': 'CVE-1', 'PkgName': 'hello', 'InstalledVersion': '2.10-5'}"
    found = world.scan(f"answer['Results'][0]['Vulnerabilities'] = [{row}]\n{noise}")
    assert [f.id for f in found] == ["CVE-1"]


@pytest.mark.parametrize("form", ["cyclonedx", "spdx-json"])
@pytest.mark.parametrize(
    ("misbehave", "reason"),
    [
        ("answer.update(components=[], packages=[])", "does not name exactly the locked packages"),
        ("for x in answer.get('components') or answer['packages']: x['name'] = 'other'", "no Debian package"),
        ("answer = None", "wrote no report"),
        ("answer = []", "not a JSON object"),
        ("answer = {'a': 1}", "cannot be trusted"),
        ("for x in answer.get('components') or answer['packages']: x['title'] = '\\ud800'", "no Unicode"),
    ],
)
def test_a_wrong_sbom_is_refused(world: World, form: str, misbehave: str, reason: str) -> None:
    wrong = "\n    ".join([f"if options['--format'] == {form!r}:", misbehave])
    assert reason in world.refusal(wrong, when="convert")


@pytest.mark.parametrize(
    "misbehave",
    [
        "answer['Results'] = []",
        "answer['Results'][0]['Vulnerabilities'].pop()",
        "for v in answer['Results'][0]['Vulnerabilities']: v['PkgName'] = 'other'",
    ],
)
def test_a_canary_that_is_not_found_is_refused(world: World, misbehave: str) -> None:
    assert "known to be vulnerable, but Trivy did not find that" in world.refusal(misbehave, when="sbom")


def test_a_full_disk_is_told(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    trivy = fake_trivy(world.folder / "fake", world.image)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(ToolError, match="cannot be read or written") as refused:
        scan(world.image, name="b", database=world.database, trivy=trivy, work=world.folder)
    assert "No space left" in refused.value.context


@pytest.mark.parametrize("when", ["image", "sbom"])
def test_a_database_that_changes_during_the_scan_is_refused(world: World, when: str) -> None:
    path = str(world.database.cache_dir / "db" / "trivy.db")
    rewrite = (
        f"s = os.stat({path!r}); d = open({path!r}, 'rb').read(); os.chmod({path!r}, 0o644)\n"
        f"open({path!r}, 'wb').write(d); os.utime({path!r}, ns=(s.st_atime_ns, s.st_mtime_ns))"
    )
    assert "database changed while it was in use" in world.refusal(rewrite, when=when)


def test_a_database_that_vanishes_is_refused(world: World) -> None:
    path = str(world.database.cache_dir / "db" / "metadata.json")
    assert "database is missing" in world.refusal(f"os.unlink({path!r})")


def test_it_runs_in_an_empty_directory_with_an_environment_of_its_own(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRIVY_SEVERITY", "CRITICAL")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("GOLDSMITH_KEY_PASSPHRASE", "secret")
    world.scan()
    seen = calls(world.trivy)
    assert [call["argv"][0] for call in seen] == ["image", "convert", "convert", "sbom"]
    for call in seen:
        assert call["directory"] == []
        assert set(call["environment"]) <= {"PATH", "HOME", "TMPDIR", "LC_ALL", "TZ", "LC_CTYPE"}
    for call in (seen[0], seen[3]):
        assert {"--skip-db-update", "--offline-scan", "--config=", "--ignorefile="} <= set(call["argv"])


def test_odd_findings_are_counted_once_at_their_worst(world: World) -> None:
    rows = [
        {"VulnerabilityID": "CVE-1", "PkgName": "hello", "InstalledVersion": "2.10-5"},
        {"VulnerabilityID": "CVE-1", "PkgName": "hello", "InstalledVersion": "2.10-5", "Severity": "HIGH"},
        {
            "VulnerabilityID": "CVE-2",
            "PkgName": "hello",
            "InstalledVersion": "2.10-5",
            "FixedVersion": "3",
            "Title": "\x1b[31m" + "x" * 999,
        },
    ]
    found = world.scan(f"answer['Results'][0]['Vulnerabilities'] = {rows!r}")
    assert [(f.id, f.severity, f.fixable) for f in found] == [
        ("CVE-1", Severity.HIGH, False),
        ("CVE-2", Severity.UNKNOWN, True),
    ]
    assert "\x1b" not in found[1].title
    assert len(found[1].title) == 300


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("VulnerabilityID", None, "without a proper id"),
        ("VulnerabilityID", "CVE-1\n", "without a proper id"),
        ("VulnerabilityID", "x" * 101, "without a proper id"),
        ("Severity", "DREADFUL", "unknown severity"),
        ("Severity", 4, "unknown severity"),
        ("Status", "perhaps", "unknown status"),
        ("PkgName", "../x y", "malformed package name"),
    ],
)
def test_a_malformed_finding_is_refused(world: World, field: str, value: object, reason: str) -> None:
    row = {"VulnerabilityID": "CVE-1", "PkgName": "hello", "InstalledVersion": "2.10-5", field: value}
    assert reason in world.refusal(f"answer['Results'][0]['Vulnerabilities'] = [{row!r}]")


@pytest.mark.parametrize("name", ["@babel/traverse", "org.log4j:core", "github.com/x/y", "git.sr.ht/~x/y"])
def test_packages_of_languages_have_names_of_their_own(tmp_path: Path, name: str) -> None:
    row = {"VulnerabilityID": "CVE-1", "PkgName": name, "InstalledVersion": "1!2.0+incompatible"}
    licence = {"PkgName": name, "Name": "MIT"}
    result = {"Class": "lang-pkgs", "Vulnerabilities": [row], "Licenses": [licence]}
    (tmp_path / "report.json").write_text(json.dumps({"SchemaVersion": 2, "Results": [result]}))
    report = read_report(tmp_path / "report.json")
    assert [f.package for f in report.findings] == [x.package for x in report.licences] == [name]


def test_the_text_of_a_secret_is_not_kept(world: World) -> None:
    row = {
        "RuleID": "aws",
        "Severity": "HIGH",
        "Match": "AKIA123",
        "Code": {"Lines": [{"Content": "AKIA123"}]},
    }
    trivy = fake_trivy(
        world.folder / "fake",
        world.image,
        f"answer['Results'].append({{'Class': 'secret', 'Target': '/k', 'Secrets': [{row!r}]}})",
    )
    (world.folder / "work").mkdir()
    report, sboms = scan(
        world.image, name="b", database=world.database, trivy=trivy, work=world.folder / "work"
    )
    assert [(s.rule, s.path) for s in report.secrets] == [("aws", "/k")]
    assert "AKIA123" not in repr(report) + repr(sboms)
    inventory = (world.folder / "work" / "inventory.json").read_text()
    assert "AKIA123" not in inventory


def test_another_version_than_the_pinned_one_must_be_named(tmp_path: Path) -> None:
    other = program(tmp_path / "bin" / "trivy", "print('Version: 0.69.4')")
    named = trivy_tool.locate(str(other), {"PATH": "/usr/bin"})
    assert named.identity.version == "0.69.4"
    assert named.identity.binary.startswith("sha256:")


def test_another_version_in_the_path_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path / "trivy", "print('Version: 0.69.4')")
    monkeypatch.setattr(trivy_tool, "own_program", lambda *_: None)
    with pytest.raises(ToolError, match=r"not the pinned 0\.76\.0"):
        trivy_tool.locate(None, {"PATH": str(tmp_path)})
    with pytest.raises(ToolError, match="not installed"):
        trivy_tool.locate(None, {"PATH": str(tmp_path / "none")})


@pytest.mark.parametrize("body", ["print('hello')", "print('Version: ' + 'x' * 99)", "print('Version: 1.2')"])
def test_a_program_without_a_version_is_refused(tmp_path: Path, body: str) -> None:
    with pytest.raises(ToolError, match="does not say its version"):
        trivy_tool.locate(str(program(tmp_path / "trivy", body)), {"PATH": "/usr/bin"})
