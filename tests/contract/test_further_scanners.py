"""Scanners of extensions: what they find counts beside ours, and one that does not answer is no scan."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from pathlib import Path

import pytest

from builder import extensions
from builder.errors import PolicyDenied, RegistryError, ToolError
from builder.model.evidence import (
    NOT_AFFECTED,
    Finding,
    FurtherScan,
    ScanReport,
    Severity,
)
from builder.model.image import PlatformImage
from builder.policy.engine import evaluate
from builder.policy.rule import Case
from builder.policy.rules import vulnerabilities_unfixed
from builder.rebuilds import waiting_rebuilds
from builder.signing.verify import verify
from builder.stages.publish import publish
from builder.stages.scan import scan
from builder.store import Store
from builder.tools.further_scan import ask_scanners
from builder.tools.trivy_db import Database, open_database
from registry.index.queries import affected
from registry.index.rebuild import reindex
from registry.promotion.recheck import attested_case
from registry.rescan.telling import exposition
from tests.support.evidence import World, evidence
from tests.support.extensions import NAMED, Site, site
from tests.support.fake_trivy import fake_trivy
from tests.support.images import NOW, add_layer, built_image, create_layout, platform_image
from tests.support.indexes import binary
from tests.support.memory_client import MemoryClient
from tests.support.promotion import policy
from tests.support.rescans import Night
from tests.support.vulndb import sample_database

__all__ = ["site"]
POINT = {"goldsmith.scanners": {"second": "acme_scanner:SCANNER"}}
MODULE = """
import json
from builder.model.evidence import Finding, Severity
from builder.model.scanner import Scanner
def finding(package="hello", **changes):
    said = {{"id": "ACME-1", "package": package, "installed_version": "2.10-5", "fixed_version": "",
             "severity": Severity.CRITICAL, "status": "affected", "title": "bad", **changes}}
    return Finding(**said)
def scan(given):
    {body}
SCANNER = Scanner("acme-scanner", "The company's own", scan)
"""
LOOK = """named = json.loads(given.cyclonedx.read_text())
    assert (given.layout / "index.json").is_file() and not list(given.work.iterdir())
    assert given.packages == ("hello=2.10-5",) and named["bomFormat"] == "CycloneDX"
    return [finding()]"""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(sample_database(tmp_path_factory.mktemp("database")))


@pytest.fixture
def image(tmp_path: Path) -> PlatformImage:
    layout = create_layout(tmp_path / "image")
    return platform_image(layout, [add_layer(layout, {"hello": b"hello\n"})])


@pytest.fixture
def database(tmp_path: Path, source: str) -> Database:
    now = dt.datetime(2026, 9, 1, tzinfo=dt.UTC)
    return open_database(Store(tmp_path / "state").create(), source, now=now, age_days_max=30)


def scanned(site: Site, image: PlatformImage, database: Database, body: str) -> ScanReport:
    site.install({"acme_scanner": MODULE.format(body=body)}, POINT)
    further = extensions.load(NAMED).scanners
    work = site.folder.parent / "work"
    work.mkdir()
    trivy = fake_trivy(site.folder.parent / "fake", image)
    report, _ = scan(image, name="base:13", database=database, trivy=trivy, work=work, further=further)
    return report


def test_a_second_scanner_reads_the_image_and_its_sbom(
    site: Site, image: PlatformImage, database: Database
) -> None:
    report = scanned(site, image, database, LOOK)
    (further,) = report.further
    assert (further.scanner.kind, further.scanner.id) == ("scanner", "acme-scanner")
    assert [f.id for f in further.findings] == ["ACME-1"]
    assert "ACME-1" in {f.id for f in report.union} and "ACME-1" not in {f.id for f in report.findings}


def test_a_scan_without_its_answer_is_none(site: Site, image: PlatformImage, database: Database) -> None:
    with pytest.raises(ToolError) as raised:
        scanned(site, image, database, "raise OSError('no engine')")
    assert "OSError: no engine" in raised.value.message and raised.value.reference == "extension-failed"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("return None", "TypeError"),
        ("return {}", "answers with a dict"),
        ("import itertools; return itertools.repeat(finding())", "more than 10000"),
        ("import threading; threading.Event().wait(5)", "did not end"),
        ("return ['ACME-1']", "gives a str"),
        ("return [finding(package='other')]", "not in the image"),
        ("return [finding(id='')]", "texts"),
        ("return [finding(title='x' * 2000)]", "texts"),
        ("return [finding(title='\\x1b')]", "texts"),
        ("return [finding(severity='HIGH')]", "no finding"),
    ],
)
def test_what_is_no_good_answer_is_none(site: Site, image: PlatformImage, body: str, said: str) -> None:
    site.install({"acme_scanner": MODULE.format(body=body)}, POINT)
    further = extensions.load(NAMED, 0.02 if "Event" in body else 3).scanners  # tenfold for scanners
    with pytest.raises(ToolError) as raised:
        ask_scanners(further, image, "base:13", image.layout, b"{}", ("hello=2.10-5",), site.folder.parent)
    assert said in raised.value.message and raised.value.hint
    assert "acme-scanner" in raised.value.message or "acme_scanner" in raised.value.message


def test_a_scanner_that_changes_what_it_looks_at_is_found_out(
    site: Site, image: PlatformImage, database: Database
) -> None:
    """The files that it is given are hard links to those that are published."""
    body = "blob = next((given.layout / 'blobs/sha256').glob('*')); blob.chmod(0o644); blob.write_bytes(b'')"
    with pytest.raises(RegistryError):
        scanned(site, image, database, f"{body}; return []")


@pytest.mark.parametrize("text", ["SCANNER = 7", MODULE.format(body="").replace("acme-scanner", "trivy")])
def test_what_is_no_scanner_is_an_error(site: Site, text: str) -> None:
    site.install({"acme_scanner": text}, POINT)
    with pytest.raises(ToolError) as raised:
        extensions.load(NAMED)
    assert raised.value.reference == "extension-broken"


def found(severity: Severity, status: str = "affected", identifier: str = "CVE-2026-1") -> Finding:
    return Finding(identifier, "hello", "2.10-5", "", severity, status, "bad")


@pytest.mark.parametrize(
    ("ours", "theirs", "counted"),
    [
        (found(Severity.LOW), found(Severity.CRITICAL), [Severity.CRITICAL]),
        (found(Severity.CRITICAL), found(Severity.LOW), [Severity.CRITICAL]),
        (found(Severity.CRITICAL, NOT_AFFECTED), found(Severity.LOW), [Severity.LOW]),
        (found(Severity.LOW), found(Severity.CRITICAL, NOT_AFFECTED), [Severity.LOW]),
        (found(Severity.LOW), found(Severity.LOW, identifier="ACME-1"), [Severity.LOW, Severity.LOW]),
    ],
)
def test_of_two_opinions_the_graver_one_counts_once(
    site: Site, tmp_path: Path, ours: Finding, theirs: Finding, counted: list[Severity]
) -> None:
    site.install({"acme_scanner": MODULE.format(body="return []")}, POINT)
    (who,) = extensions.load(NAMED).identities()
    built = built_image(tmp_path / "built")
    proof = evidence(built.platforms[0])
    assert isinstance(proof.scan, ScanReport)
    report = replace(proof.scan, findings=(ours,), further=(FurtherScan(who, (theirs,)),))
    case = Case(built, (replace(proof, scan=report),), policy().data, NOW)
    assert [f.severity for f in case.counted(report)] == counted
    (result,) = evaluate(case, [vulnerabilities_unfixed.RULE])
    assert result.passed == (Severity.CRITICAL not in counted)


# Today's findings stand in a file; each question is noted, with what was there to look at.
DAILY = """from pathlib import Path
    here = Path({folder!r})
    seen = sorted(p.stat().st_size for p in (given.layout / "blobs/sha256").iterdir())
    named = json.loads(given.cyclonedx.read_text())["bomFormat"]
    (here / "asked").open("a").write(f"{{given.name}} {{given.packages}} {{len(seen)}} {{named}}\\n")
    said = (line.partition("=") for line in (here / "today").read_text().split())
    return [finding("bash", id=name, fixed_version=fixed) for name, _, fixed in said]"""


@pytest.fixture
def night(site: Site, tmp_path: Path) -> Night:
    """A registry whose policy asks for the scanner; it finds what stands in `today`."""
    night = Night(tmp_path, MemoryClient(True))
    (tmp_path / "today").write_text("")
    take_in(night, site)
    return night


def take_in(night: Night, site: Site, version: str = "1.2") -> None:
    """Install the scanner, in that version."""
    body = DAILY.format(folder=str(night.folder))
    site.install({"acme_scanner": MODULE.format(body=body)}, POINT, version=version)
    found = extensions.load(NAMED)
    night.further = found.scanners
    digest = extensions.combined(policy().digest, found.identities())
    night.house.policy = replace(policy(), extensions=found.identities(), digest=digest)


def asked(night: Night) -> list[str]:
    """What the scanner was asked since the last time."""
    path = night.folder / "asked"
    lines = path.read_text().splitlines() if path.exists() else []
    path.unlink(missing_ok=True)
    return lines


def published(night: Night, findings: tuple[Finding, ...]) -> World:
    """A candidate that the scanner of the extension has seen, too."""
    here = night.image([binary("bash", "5.2.37-2")])
    (who,) = night.house.policy.extensions
    proofs = []
    for proof in here.proofs:
        assert isinstance(proof.scan, ScanReport)
        proofs.append(replace(proof, scan=replace(proof.scan, further=(FurtherScan(who, findings),))))
    night.client = night.house.client = MemoryClient(True)
    seen = replace(here, proofs=tuple(proofs))
    publish(seen.signed(), night.client)
    return seen


def attested(night: Night, here: World) -> list[tuple[str, list[str]]]:
    """The scanner's newest report: its version, and what it found."""
    where = night.client.reference("candidate/python", digest=here.image.digest)
    found = verify(where, night.client, night.house.trust, night.house.now)
    case = attested_case(found, here.image.target, night.house.policy, night.house.now)
    return [(f.scanner.version, [x.id for x in f.findings]) for scan in case.scans for f in scan.further]


def test_an_image_that_it_did_not_see_is_not_promoted(night: Night) -> None:
    with pytest.raises(PolicyDenied) as raised:
        night.promote(night.image([binary("bash", "5.2.37-2")]))
    assert "additions-asked: linux/amd64: the scanner acme-scanner was not asked" in raised.value.context
    assert night.promote(published(night, ())).changed


def test_an_image_that_another_version_of_it_saw_is_not_promoted(night: Night, site: Site) -> None:
    here = published(night, ())
    take_in(night, site, version="1.3")
    with pytest.raises(PolicyDenied) as raised:
        night.promote(here)
    assert "or another version of it" in raised.value.context


def test_what_it_found_is_attested_and_counts_at_promotions(night: Night) -> None:
    here = published(night, (replace(found(Severity.CRITICAL), package="bash"),))
    with pytest.raises(PolicyDenied) as raised:
        night.promote(here)
    assert "CVE-2026-1 in bash" in raised.value.context


def test_a_rescan_asks_it_before_it_renews(night: Night, site: Site) -> None:
    here = published(night, (replace(found(Severity.CRITICAL), package="bash"),))
    night.sleep()
    done = night.rescan()
    assert (done.renewed, done.coverage, done.complete) == (1, 1, True)
    # It saw the image itself: manifest, configuration and two layers.
    assert asked(night) == ["python:3.13 ('bash=5.2.37-2',) 4 CycloneDX"]
    assert attested(night, here) == [("1.2", [])]  # what it found before is gone today
    assert night.rescan().unchanged and asked(night) == []
    night.sleep(0.1)
    take_in(night, site, version="1.3")
    assert night.rescan().renewed == 1 and len(asked(night)) == 1
    assert attested(night, here) == [("1.3", [])]


def test_what_it_finds_later_lets_the_verdict_run_out(night: Night) -> None:
    published(night, ())
    (night.folder / "today").write_text("ACME-9")
    night.sleep()
    done = night.rescan()
    assert (done.renewed, done.coverage, done.complete) == (0, 1, False)
    assert "ACME-9 in bash" in done.failed[0].error.context


def test_an_image_that_it_gives_no_answer_about_was_not_scanned(night: Night) -> None:
    published(night, ())
    (night.folder / "today").unlink()
    night.sleep()
    done = night.rescan()
    assert (done.renewed, done.scanned, done.coverage) == (0, 0, 0.0)
    assert [f.what for f in done.failed] == ["scan"]
    assert b"goldsmith_rescan_coverage 0.0" in exposition(done, night.house.now)


def test_a_rescan_without_the_scanner_that_the_policy_demands_renews_nothing(night: Night) -> None:
    published(night, ())
    night.further = ()
    night.sleep()
    done = night.rescan()
    assert (done.renewed, done.coverage) == (0, 0.0)
    assert "the policy demands scanner acme-scanner" in done.failed[0].error.message


def asks(night: Night, what: str) -> list[tuple[str, str, list[tuple[str, str, str]]]]:
    """What the index answers: image, platforms, and by whom what is found in which package."""
    found = affected(night.place.require(), what, night.house.now)
    hits = [(h.scanner, f"{h.package} {h.version}", h.fixed_version) for h in found.hits]
    return [(i.ref, ",".join(i.platforms), [hits[n] for n in i.hits]) for i in found.images]


def bring_up_to_date(night: Night) -> None:
    done = reindex(night.place, night.client.host, night.client, night.house.trust, night.house.now)
    assert done.problems == ()


THEIRS = ("acme-scanner", "bash 5.2.37-2", "5.3")


def test_what_it_found_is_in_the_index_for_that_image_alone(night: Night) -> None:
    night.scanner.advisories = {"bash": {"CVE-2026-7": ("", "LOW")}}
    flaw = replace(found(Severity.LOW, identifier="ACME-7"), package="bash", fixed_version="5.3")
    published(night, (flaw, replace(flaw, id="CVE-2026-7")))
    night.image([binary("bash", "5.2.37-2")], "other")
    bring_up_to_date(night)
    assert asks(night, "acme-7") == [("python:3.13", "linux/amd64", [THEIRS])]
    # Of what both found, ours is told of all images with the package, theirs of the one that it saw.
    ours = ("", "bash 5.2.37-2", "")
    assert asks(night, "CVE-2026-7") == [
        ("other:3.13", "linux/amd64", [ours]),
        ("python:3.13", "linux/amd64", [ours, THEIRS]),
    ]
    assert affected(night.place.require(), "ACME-7", night.house.now).title == "bad"
    bring_up_to_date(night)  # what is known is taken over
    assert asks(night, "ACME-7") == [("python:3.13", "linux/amd64", [THEIRS])]


def test_the_index_takes_nothing_that_is_not_of_the_image(night: Night) -> None:
    published(night, (replace(found(Severity.LOW), package="zlib"),))
    done = reindex(night.place, night.client.host, night.client, night.house.trust, night.house.now)
    assert [p.reason for p in done.problems] == ["sbom-mismatch"]


def test_what_it_finds_later_is_asked_to_be_rebuilt_until_it_finds_it_no_more(night: Night) -> None:
    here = published(night, ())
    (night.folder / "today").write_text("ACME-9=5.3")
    night.sleep()
    began = night.house.now
    (request,) = night.rescan().asked
    assert (request.ref, request.digest, request.scanner) == (
        "python:3.13",
        here.image.digest,
        "acme-scanner",
    )
    assert (request.vulnerability, request.package, request.fixed_version) == ("ACME-9", "bash", "5.3")
    assert asks(night, "ACME-9") == [("python:3.13", "linux/amd64", [THEIRS])]
    night.sleep(0.1)
    done = night.rescan()
    assert (done.asked, done.withdrawn) == ((), ())
    assert [r.requested_at for r in waiting_rebuilds(night.store)] == [began]
    (night.folder / "today").write_text("")
    night.sleep(0.1)
    done = night.rescan()
    assert [r.vulnerability for r in done.withdrawn] == ["ACME-9"] and done.renewed == 1
    assert waiting_rebuilds(night.store) == () and asks(night, "ACME-9") == []


def test_a_request_stays_while_nobody_can_ask_the_scanner(night: Night) -> None:
    published(night, ())
    (night.folder / "today").write_text("ACME-9=5.3")
    night.sleep()
    assert night.rescan().asked
    (night.folder / "today").unlink()
    assert night.rescan().withdrawn == ()
    # Ours finds something as well: nothing is renewed, so the scanner is not asked.
    night.scanner.advisories = {"bash": {"CVE-2026-7": ("5.4", "HIGH")}}
    done = night.rescan()
    assert [r.vulnerability for r in done.asked] == ["CVE-2026-7"] and done.withdrawn == ()
    assert asked(night) and len(waiting_rebuilds(night.store)) == 2
    # Nobody demands it any more.
    night.house.policy = policy()
    assert [r.vulnerability for r in night.rescan().withdrawn] == ["ACME-9"]


@pytest.mark.parametrize("today", ["ACME-9", "ACME-9=" + "5" * 300])
def test_what_has_no_fix_that_can_be_asked_for_is_no_request(night: Night, today: str) -> None:
    published(night, ())
    (night.folder / "today").write_text(today)
    night.sleep()
    done = night.rescan()
    assert done.asked == () and "ACME-9" in done.failed[0].error.context
