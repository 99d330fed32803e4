"""The index: made from the registry alone, verified, whole or not at all, and it answers."""

from __future__ import annotations

import datetime as dt
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from builder.errors import RegistryError, ToolError, UsageError
from builder.model.channel import Channel
from builder.model.digest import Digest, canonical_json
from builder.model.evidence import Sboms, ScanReport
from builder.model.platform import Platform
from builder.signing.trust import Trust
from registry.index import schema
from registry.index.queries import Answer, affected, consumers, findings_of
from registry.pulls import Pull
from registry.sqlite import reader
from tests.support.evidence import approval, new_keys
from tests.support.images import AMD64, NOW
from tests.support.indexes import Fleet, binary, database, finding

LIBSSL = binary("libssl3t64", "3.5.1-1", "openssl")
OPENSSL = binary("openssl", "3.5.1-1")
BASH = binary("bash", "5.2.37-2+b5", "bash", "5.2.37-2")
CVE = "CVE-2025-15467"
FIXED = "3.5.4-1~deb13u2"
DAY = dt.timedelta(days=1)


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    return Fleet(tmp_path)


def ask(fleet: Fleet, what: str = CVE) -> Answer:
    return affected(fleet.place.require(), what, NOW)


def test_each_image_of_a_long_answer_is_told_in_full(fleet: Fleet) -> None:
    """Images are made when they are looked at: by number, in parts, and all of them are the same."""
    for n in range(3):
        here = fleet.image([LIBSSL, OPENSSL], name=f"java{n}", repository=f"candidate/java{n}")
        fleet.decide(here, Channel.STABLE if n == 2 else Channel.DEPRECATED)
    fleet.reindex()
    images = ask(fleet, "pkg:deb/debian/openssl").images
    assert [i.ref for i in images] == ["java2:3.13", "java0:3.13", "java1:3.13"]
    assert [images[0], *images[1:3]] == list(images)
    assert (images[-1].repositories, images[-1].hits) == (("candidate/java1",), (0, 1))
    with pytest.raises(IndexError):
        images[3]
    first = affected(fleet.place.require(), "pkg:deb/debian/openssl", NOW, 2)
    assert (list(first.images), first.total) == (list(images[:2]), 3)


def test_a_vulnerability_names_images_packages_and_the_fix(fleet: Fleet) -> None:
    bad = fleet.image([LIBSSL, BASH], [finding(CVE, LIBSSL, FIXED)])
    fleet.image([BASH], name="base", repository="candidate/base")
    done = fleet.reindex()
    assert (done.images, done.read, done.problems) == (2, 2, ())
    found = ask(fleet)
    assert [(i.ref, i.digest, i.channel) for i in found.images] == [
        ("python:3.13", bad.image.digest, "candidate")
    ]
    assert found.images[0].repositories == ("candidate/python",)
    assert "candidate/python:3.13" in found.images[0].tags
    assert [(h.package, h.fixed_version, h.severity) for h in found.hits] == [("libssl3t64", FIXED, "HIGH")]
    assert ask(fleet, CVE.lower()) == replace(found, asked=CVE.lower())
    assert ask(fleet, "CVE-1999-1").images == ()


def test_a_name_with_small_letters_is_found_as_it_is_written(fleet: Fleet) -> None:
    fleet.image([LIBSSL], [finding("GHSA-jfh8-c2jp-5v3q", LIBSSL)])
    fleet.reindex()
    assert [h.vulnerability for h in ask(fleet, "GHSA-jfh8-c2jp-5v3q").hits] == ["GHSA-jfh8-c2jp-5v3q"]


def test_the_findings_of_an_image_are_those_of_the_newest_scan(fleet: Fleet) -> None:
    bad = fleet.image([LIBSSL, BASH], [finding(CVE, LIBSSL, FIXED)])
    good = fleet.image([BASH], name="base", repository="candidate/base")
    fleet.reindex()
    path = fleet.place.require()
    known = findings_of(path, bad.image.digest)
    assert known is not None
    for platform in bad.image.platforms:
        assert known[str(platform.platform)] == (finding(CVE, LIBSSL, FIXED),)
    assert findings_of(path, good.image.digest) == {str(p.platform): () for p in good.image.platforms}
    assert findings_of(path, Digest.of(b"another")) is None


def test_a_package_is_found_by_binary_and_by_source_name(fleet: Fleet) -> None:
    here = fleet.image([LIBSSL, OPENSSL, BASH])
    fleet.reindex()
    by_source = ask(fleet, "pkg:deb/debian/openssl")
    assert [h.package for h in by_source.hits] == ["libssl3t64", "openssl"]
    assert [i.digest for i in by_source.images] == [here.image.digest]
    assert [h.package for h in ask(fleet, "pkg:deb/debian/libssl3t64@3.5.1-1?arch=amd64").hits] == [
        "libssl3t64"
    ]
    assert ask(fleet, "pkg:deb/debian/libssl3t64@3.5.2-1").images == ()
    assert ask(fleet, "pkg:deb/debian/libssl3t64?arch=arm64").images == ()
    assert [h.version for h in ask(fleet, "pkg:deb/debian/bash@5.2.37-2%2Bb5").hits] == ["5.2.37-2+b5"]


@pytest.mark.parametrize(
    "asked", ["", "openssl", "pkg:npm", "pkg:deb/debian/", "CVE", "CVE-2025-1; DROP TABLE images", "'"]
)
def test_other_questions_are_refused(fleet: Fleet, asked: str) -> None:
    fleet.image([BASH])
    fleet.reindex()
    with pytest.raises(UsageError):
        ask(fleet, asked)


def test_the_newest_database_counts_for_a_package_in_every_image(fleet: Fleet) -> None:
    old, new = database("2026-03-01T00:00:00Z"), database("2026-03-02T00:00:00Z")
    first = fleet.image([LIBSSL], of_database=old)
    fleet.image(
        [LIBSSL, BASH],
        [finding(CVE, LIBSSL, FIXED)],
        of_database=new,
        name="base",
        repository="candidate/base",
    )
    fleet.reindex()
    assert first.image.digest in {i.digest for i in ask(fleet).images}
    later = database("2026-03-03T00:00:00Z")  # the advisory was withdrawn
    fleet.image([LIBSSL], of_database=later, name="java", repository="candidate/java")
    fleet.reindex()
    assert ask(fleet).images == ()


def test_what_tells_packages_apart(fleet: Fleet) -> None:
    """The same name and version on another release, architecture, or from another source version."""
    here = fleet.image([LIBSSL], [finding(CVE, LIBSSL, FIXED)])
    fleet.image([LIBSSL], point="12.5", name="old", repository="candidate/old")
    other = replace(LIBSSL, source_version="3.5.9-1")
    fleet.image([other], name="rebuilt", repository="candidate/rebuilt")
    arm = replace(LIBSSL, architecture="arm64")
    fleet.image([arm], name="arm", repository="candidate/arm", platforms=(Platform("linux", "arm64"),))
    fleet.reindex()
    assert [i.digest for i in ask(fleet).images] == [here.image.digest]
    assert len(ask(fleet, "pkg:deb/debian/openssl").images) == 4


def test_several_platforms_are_one_image(fleet: Fleet) -> None:
    libssl = replace(LIBSSL, architecture="all")
    here = fleet.image([libssl], [finding(CVE, libssl)], platforms=(AMD64, Platform("linux", "arm64")))
    done = fleet.reindex()
    assert done.problems == ()
    assert [(i.digest, i.platforms) for i in ask(fleet).images] == [
        (here.image.digest, ("linux/amd64", "linux/arm64"))
    ]


def test_an_image_that_is_described_twice_is_what_was_said_last(fleet: Fleet) -> None:
    """The same bytes under two names, each with an SBOM of its own."""
    first = fleet.image([LIBSSL])
    fleet.made -= 1
    second = fleet.image([BASH], name="base", repository="candidate/base", folder="again")
    assert first.image.digest == second.image.digest
    fleet.reindex()
    assert len(ask(fleet, "pkg:deb/debian/libssl3t64").images) == 1
    assert ask(fleet, "pkg:deb/debian/bash").images == ()


def test_channels_and_replacements_are_known(fleet: Fleet) -> None:
    here = fleet.image([LIBSSL], [finding(CVE, LIBSSL, FIXED)])
    instead = f"python:3.13@{Digest.of(b'new')}"
    fleet.decide(here, Channel.STABLE, 1)
    fleet.decide(here, Channel.WITHDRAWN, 2, instead)
    fleet.reindex()
    image = ask(fleet).images[0]
    assert (image.channel, image.replacement) == ("withdrawn", instead)


def test_waivers_and_expiry_come_from_the_newest_verdict_of_all_places(fleet: Fleet) -> None:
    here = fleet.image([LIBSSL], [finding(CVE, LIBSSL)])
    moved = replace(here, repository="127.0.0.1:5000/python")
    fleet.registry.store_signed(
        "python", moved.signed(waivers=("W-1",), issued_at=NOW + DAY, expires_at=NOW + 5 * DAY)
    )
    fleet.reindex()
    image = ask(fleet).images[0]
    assert (image.repositories, image.waivers) == (("candidate/python", "python"), ("W-1",))
    assert image.expires_at == "2026-03-06T12:00:00Z"


def test_who_pulled_an_image_lately_is_told_once_for_index_and_platform(fleet: Fleet) -> None:
    here = fleet.image([LIBSSL], [finding(CVE, LIBSSL)])
    index, platform = here.image.digest, here.image.platforms[0].manifest.digest

    def pull(days: float, who: str, digest: Digest, count: int = 1) -> Pull:
        return Pull(NOW - days * DAY, who, "python", digest, "", count)

    journal = [
        *(pull(2, "user:ann", digest, 3) for digest in (index, platform)),
        pull(1, "user:ann", platform),
        pull(29, "robot:ci", platform, 7),
        pull(31, "user:old", index),
        pull(1, "user:bob", Digest.of(b"another image")),
    ]
    fleet.reindex(journal=journal)
    found = ask(fleet).images[0].pulls
    assert [(p.who, p.count, p.last_at[:10]) for p in found] == [
        ("user:ann", 4, "2026-02-28"),
        ("robot:ci", 7, "2026-01-31"),
    ]
    assert consumers(fleet.place.require(), NOW) == {"python:3.13": 2}
    later = affected(fleet.place.require(), CVE, NOW + 2 * DAY).images[0].pulls
    assert [(p.who, p.count) for p in later] == [("user:ann", 4)]
    fleet.reindex(journal=journal[:1])
    assert [p.who for p in ask(fleet).images[0].pulls] == ["user:ann"]


def test_unchanged_images_are_not_read_again(fleet: Fleet) -> None:
    fleet.image([LIBSSL], [finding(CVE, LIBSSL, FIXED)])
    fleet.reindex()
    before, blobs = ask(fleet), fleet.registry.asked["blob"]
    fleet.image([BASH], name="base", repository="candidate/base")
    done = fleet.reindex()
    assert (done.images, done.read) == (2, 1)
    assert fleet.registry.asked["blob"] == 2 * blobs
    assert ask(fleet) == before
    assert fleet.reindex(afresh=True).read == 2
    assert ask(fleet) == before


def test_of_an_image_everything_is_of_one_moment(fleet: Fleet) -> None:
    """Evidence that comes while an image is read is not what its mark stands for: it is read next time."""
    here = fleet.image([LIBSSL])
    registry, renewed = fleet.registry, here.signed(issued_at=NOW + DAY, waivers=("W-2",))
    listed = registry.referrers

    def referrers(*question: Any) -> Any:
        found = listed(*question)
        registry.store_signed("candidate/python", renewed)
        return found

    registry.referrers = referrers  # type: ignore[method-assign]
    fleet.reindex()
    registry.referrers = listed  # type: ignore[method-assign]
    assert fleet.reindex().read == 1
    assert ask(fleet, "pkg:deb/debian/openssl").images[0].waivers == ("W-2",)
    fleet.registry.asked.clear()
    fleet.reindex(afresh=True)
    assert (registry.asked["referrers"], registry.asked["manifest"]) == (1, 2)


def test_renewed_evidence_is_read_again(fleet: Fleet) -> None:
    here = fleet.image([LIBSSL])
    fleet.reindex()
    fleet.registry.store_signed("candidate/python", here.signed(issued_at=NOW + DAY, waivers=("W-2",)))
    assert fleet.reindex().read == 1
    assert ask(fleet, "pkg:deb/debian/openssl").images[0].waivers == ("W-2",)


def test_other_keys_take_nothing_over(fleet: Fleet, tmp_path: Path) -> None:
    fleet.image([LIBSSL])
    fleet.reindex()
    new_keys(tmp_path / "other")
    fleet.trust = Trust.load(tmp_path / "other")
    done = fleet.reindex()
    assert (done.images, [p.reason for p in done.problems]) == (0, ["signature-invalid"])


def test_images_that_are_gone_are_forgotten(fleet: Fleet) -> None:
    here = fleet.image([LIBSSL], [finding(CVE, LIBSSL)])
    fleet.image([BASH], name="base", repository="candidate/base")
    fleet.reindex()
    fleet.registry.tags = {k: d for k, d in fleet.registry.tags.items() if d != here.image.digest}
    assert fleet.reindex().images == 1
    assert ask(fleet).hits == () == ask(fleet, "pkg:deb/debian/openssl").hits


@pytest.mark.parametrize(
    ("flaw", "reason"),
    [("unsigned", "attestation-missing"), ("foreign", "signature-invalid"), ("other-name", "other-name")],
)
def test_what_cannot_be_verified_is_named_and_not_taken(
    fleet: Fleet, tmp_path: Path, flaw: str, reason: str
) -> None:
    good = fleet.image([BASH], name="base", repository="candidate/base")
    bad = fleet.image([LIBSSL], [finding(CVE, LIBSSL)])
    registry = fleet.registry
    if flaw == "unsigned":
        registry.drop_bundles("candidate/python")
        registry.drop_tags("candidate/python", ".att")
    elif flaw == "foreign":
        registry.store_signed("candidate/python", replace(bad, keys=new_keys(tmp_path / "thief")).signed())
    else:
        registry.store_signed("candidate/java", bad.signed())
        registry.tags = {k: d for k, d in registry.tags.items() if k[0] != "candidate/python"}
    done = fleet.reindex()
    where = "candidate/java" if flaw == "other-name" else "candidate/python"
    assert [(p.repository, p.digest, p.reason) for p in done.problems] == [(where, bad.image.digest, reason)]
    found = ask(fleet)
    assert (found.images, found.unverified) == ((), 1)
    assert [i.digest for i in ask(fleet, "pkg:deb/debian/bash").images] == [good.image.digest]


def test_what_is_no_image_is_counted_and_is_no_problem(fleet: Fleet) -> None:
    here = fleet.image([BASH])
    registry = fleet.registry
    data, media_type = registry.manifests["candidate/python", here.image.platforms[0].manifest.digest]
    registry.tags["trivy-db", "2"] = registry.put("trivy-db", data, media_type)
    done = fleet.reindex()
    assert (done.images, done.problems, done.others) == (1, (), 1)


def test_bundles_alone_are_enough(fleet: Fleet) -> None:
    fleet.image([LIBSSL], [finding(CVE, LIBSSL)])
    fleet.registry.drop_tags("candidate/python", ".att", ".sig")
    assert fleet.reindex().problems == ()
    assert len(ask(fleet).images) == 1


def test_a_report_that_lists_other_packages_than_the_sbom_is_refused(fleet: Fleet) -> None:
    here = fleet.image([LIBSSL, BASH])
    proof = here.proofs[0]
    short = replace(proof, scan=replace(proof.scan, packages=("bash=5.2.37-2+b5",)))  # type: ignore[type-var]
    fleet.registry.store_signed("candidate/python", replace(here, proofs=(short,)).signed())
    assert [p.reason for p in fleet.reindex().problems] == ["sbom-mismatch"]


def test_packages_of_languages_are_known_beside_those_of_the_system(fleet: Fleet) -> None:
    here = fleet.image([BASH])
    proof = here.proofs[0]
    assert isinstance(proof.sboms, Sboms) and isinstance(proof.scan, ScanReport)
    document = json.loads(proof.sboms.cyclonedx)
    document["components"] += [
        {"type": "application", "name": "usr/bin/server", "properties": []},
        *(
            {"type": "library", "name": name, "version": version, "purl": purl, **group}
            for name, version, purl, group in (
                ("Jinja2", "2.4.1", "pkg:pypi/jinja2@2.4.1", {}),
                ("traverse", "7.0.0", "pkg:npm/%40babel/traverse@7.0.0", {"group": "@babel"}),
                ("core", "2.14.1", "pkg:maven/org.log4j/core@2.14.1", {"group": "org.log4j"}),
            )
        ),
    ]
    known = {
        "CVE-1": ("Jinja2", "2.4.1"),
        "CVE-2": ("@babel/traverse", "7.0.0"),
        "CVE-3": ("org.log4j:core", "2.14.1"),
    }
    found = tuple(
        replace(finding(v, BASH), package=name, installed_version=version)
        for v, (name, version) in known.items()
    )
    proof = replace(
        proof,
        sboms=replace(proof.sboms, cyclonedx=canonical_json(document)),
        scan=replace(proof.scan, findings=found),
    )
    told = replace(here, proofs=(proof,), verdict=approval(here.image, (proof,), NOW))
    fleet.registry.store_signed("candidate/python", told.signed())
    assert fleet.reindex().problems == ()
    for vulnerability, (name, version) in known.items():
        answer = ask(fleet, vulnerability)
        assert [(h.package, h.version) for h in answer.hits] == [(name, version)]
        assert [i.digest for i in answer.images] == [here.image.digest]
    assert [h.package for h in ask(fleet, "pkg:pypi/jinja2").hits] == ["Jinja2"]
    assert [h.package for h in ask(fleet, "pkg:npm/%40babel/traverse@7.0.0").hits] == ["@babel/traverse"]
    assert ask(fleet, "pkg:pypi/jinja").hits == ask(fleet, "pkg:npm/jinja2").hits == ()
    assert ask(fleet, "pkg:deb/ubuntu/bash").hits == (), "it is Debian's"


def test_a_registry_that_goes_away_leaves_the_index_as_it_was(fleet: Fleet) -> None:
    fleet.image([LIBSSL], [finding(CVE, LIBSSL)])
    fleet.reindex()
    before = ask(fleet)
    fleet.registry.down = True
    with pytest.raises(RegistryError):
        fleet.reindex()
    assert ask(fleet) == before


def test_a_missing_blob_is_a_problem_of_that_image_alone(fleet: Fleet) -> None:
    fleet.image([LIBSSL], [finding(CVE, LIBSSL)])
    fleet.image([BASH], name="base", repository="candidate/base")
    registry = fleet.registry
    registry.blobs = {k: d for k, d in registry.blobs.items() if k[0] != "candidate/python"}
    done = fleet.reindex()
    assert (done.images, len(done.problems)) == (1, 1)


def test_a_first_rebuild_that_failed_leaves_no_index_rather_than_a_damaged_one(fleet: Fleet) -> None:
    fleet.registry.down = True
    with pytest.raises(RegistryError):
        fleet.reindex()
    with pytest.raises(ToolError, match="there is no index"):
        ask(fleet)


def test_without_an_index_the_answer_says_what_to_do(fleet: Fleet) -> None:
    with pytest.raises(ToolError) as refused:
        ask(fleet)
    assert refused.value.hint == "goldsmith reindex"


@pytest.mark.parametrize("damage", [b"", b"SQLite format 3\0rubbish", b"text"])
def test_a_damaged_file_is_made_anew(fleet: Fleet, damage: bytes) -> None:
    fleet.image([LIBSSL], [finding(CVE, LIBSSL)])
    fleet.reindex().path.write_bytes(damage)
    assert fleet.place.current() is None
    assert fleet.reindex().read == 1
    assert len(ask(fleet).images) == 1


def test_an_index_of_another_version_is_made_anew(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    fleet.image([LIBSSL])
    fleet.reindex()
    monkeypatch.setattr(schema, "VERSION", "999")
    assert fleet.place.current() is None
    with pytest.raises(ToolError, match="made by another version") as refused:
        ask(fleet)
    assert refused.value.hint == "goldsmith reindex"
    assert fleet.reindex().read == 1


def test_a_cut_rebuild_leaves_the_index_as_it_was(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    fleet.image([LIBSSL], [finding(CVE, LIBSSL)])
    first = fleet.reindex().path
    monkeypatch.setattr(schema.Place, "publish", lambda self, path: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        fleet.reindex()
    monkeypatch.undo()
    assert fleet.place.current() == first
    assert fleet.reindex().images == 1
    assert len(list(fleet.place.folder.glob("index-*.db"))) == 1


def test_a_reader_goes_on_while_the_index_is_made_anew(fleet: Fleet) -> None:
    fleet.image([LIBSSL], [finding(CVE, LIBSSL)])
    path = fleet.reindex().path
    with reader(path).connect() as connection:
        connection.exec_driver_sql("BEGIN")
        count = "SELECT count(*) FROM images"
        assert connection.exec_driver_sql(count).scalar() == 1
        fleet.image([BASH], name="base", repository="candidate/base")
        fleet.reindex()
        assert connection.exec_driver_sql(count).scalar() == 1
    assert len(ask(fleet, "pkg:deb/debian/bash").images) == 1
