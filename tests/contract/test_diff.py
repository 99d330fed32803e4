"""What changed between two images: read from a registry, compared, and told without letting text escape."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from builder.errors import RegistryError
from builder.model.definition import FileCheck
from builder.model.digest import Digest
from builder.model.evidence import Finding, NotDone, Severity
from builder.model.image import Descriptor
from builder.oci.client import RegistryClient
from builder.pipeline.kept_evidence import keep_evidence, kept_evidence
from builder.signing.refusal import EvidenceRefused
from builder.signing.trust import Trust
from builder.store import Store
from registry.diff import output
from registry.diff.accounts import account_texts, accounts, group_texts
from registry.diff.compare import ImageDiff, compare, pulled_bytes
from registry.diff.facts import Basis, ImageFacts, PlatformFacts, read_image
from registry.diff.files import trees
from registry.diff.local import built_accounts, built_image, built_trees
from tests.support.evidence import approval, evidence, new_keys
from tests.support.images import NOW
from tests.support.images import built_image as image_of
from tests.support.promotion import CANDIDATE, House
from tests.support.registry_simulator import Simulator, simulator

AMD64 = "linux/amd64"


@pytest.fixture(scope="module")
def sim() -> Iterator[Simulator]:
    with simulator() as running:
        yield running


@pytest.fixture(scope="module")
def house(sim: Simulator, tmp_path_factory: pytest.TempPathFactory) -> House:
    return House(tmp_path_factory.mktemp("house"), RegistryClient(sim.address))


@pytest.fixture(scope="module")
def both(house: House) -> tuple[ImageFacts, ImageFacts]:
    made = [house.candidate("hello"), house.candidate("hello, world")]
    first, second = (
        read_image(house.client, house.at(CANDIDATE, digest=one.image.digest), house.trust) for one in made
    )
    return first, second


def test_what_is_attested_of_an_image_is_read_back(both: tuple[ImageFacts, ImageFacts]) -> None:
    facts = both[0].platforms[AMD64]
    assert facts.packages == {"hello": ("2.10-5",)}
    assert [f.id for f in facts.findings] == ["CVE-2026-1"]
    assert facts.licences == {"hello": ("GPL-3.0-or-later",)}
    assert facts.checks == {"user": "passed"}
    assert facts.size == sum(x.size for x in facts.layers) + facts.config_blob.size + facts.manifest_size


def test_one_changed_layer_is_what_is_pulled(both: tuple[ImageFacts, ImageFacts]) -> None:
    old, new = both
    (one,) = compare(old, new).platforms
    assert (one.layers_new, one.layers_shared) == (1, 1)
    facts = new.platforms[AMD64]
    changed = [x for x in facts.layers if x.digest not in {y.digest for y in old.platforms[AMD64].layers}]
    expected = sum(x.size for x in changed) + facts.config_blob.size + facts.manifest_size + new.index_size
    assert one.pulled == expected
    assert pulled_bytes(None, new, AMD64) == facts.size + new.index_size
    assert pulled_bytes(new, new, AMD64) == 0


def test_layers_are_listed_with_who_has_them(both: tuple[ImageFacts, ImageFacts]) -> None:
    diff = compare(*both)
    (platform,) = output.as_dict(diff)["platforms"]
    old, new = ([x.digest for x in side.platforms[AMD64].layers] for side in both)
    told = {x["digest"]: (x["state"], x["size"]) for x in platform["layers"]}
    sizes = {x.digest: x.size for side in both for x in side.platforms[AMD64].layers}
    assert told == {
        d: ("gone" if d not in new else "shared" if d in old else "new", sizes[d]) for d in {*old, *new}
    }
    assert {"new", "gone"} <= {state for state, _ in told.values()}
    for digest, (state, size) in told.items():
        assert f"{state}: {digest} ({size:,} bytes)" in output.as_text(diff)
        assert f"| `{digest}` | {size:,} | {state} |" in output.as_markdown(diff)


def test_files_are_compared_by_content(
    house: House, both: tuple[ImageFacts, ImageFacts], tmp_path: Path
) -> None:
    first, second = (trees(house.client, CANDIDATE, one, tmp_path) for one in both)
    diff = compare(*both, {AMD64: (first[AMD64], second[AMD64])})
    assert diff.platforms[0].files is not None
    assert [m.name for m in diff.platforms[0].files] == ["/hello"]


def test_users_and_groups_are_compared_by_name() -> None:
    old = account_texts(b"root:*:0:0:root:/root:/bin/sh\nold:x:1000:1000::/home/old:/bin/sh\n")
    old |= group_texts(b"root:*:0:\nwheel:*:10:\n")
    new = account_texts(b"root::0:0:root:/root:/bin/sh\napp:x:1001:1001::/nonexistent:/usr/sbin/nologin\n")
    new |= group_texts(b"root:*:0:\nwheel:*:10:app\nodd line\n")
    both = facts("old"), facts("new")
    (one,) = compare(*both, None, {AMD64: (old, new)}).platforms
    assert [(m.name, m.before, m.after) for m in one.users or ()] == [
        ("group wheel", "gid 10", "gid 10, members app"),
        ("group, line 3", "", "odd line"),
        ("user app", "", "uid 1001, gid 1001, home /nonexistent, shell /usr/sbin/nologin"),
        ("user old", "uid 1000, gid 1000, home /home/old, shell /bin/sh", ""),
        (
            "user root",
            "uid 0, gid 0, home /root, shell /bin/sh",
            "uid 0, gid 0, home /root, shell /bin/sh, NO PASSWORD",
        ),
    ]
    diff = compare(*both, None, {AMD64: (old, new)})
    for text in (output.as_text(diff), output.as_markdown(diff), json.dumps(output.as_dict(diff))):
        assert "user app" in text
        assert "members app" in text
    assert compare(*both).platforms[0].users is None, "nobody looked"


def test_a_name_that_stands_twice_is_told_twice() -> None:
    said = account_texts(b"a:x:1:1::/:/bin/sh\na:x:0:0::/:/bin/sh\n")
    assert list(said) == ["user a", "user a (2)"]


def test_users_are_read_from_the_layers_the_last_one_counts(tmp_path: Path) -> None:
    layers = [
        {"etc/passwd": b"old:x:1:1::/:/bin/sh\n", "etc/group": b"one:*:1:\n"},
        {"etc/passwd": b"app:x:2:2::/:/bin/sh\n"},
    ]
    image = image_of(tmp_path, files=layers)
    said = {"user app": "uid 2, gid 2, home /, shell /bin/sh", "group one": "gid 1"}
    assert built_accounts(image)[AMD64] == said
    (platform,) = built_image(image).platforms.values()
    work = image.platforms[0].layout
    assert accounts(replace(built_image(image), platforms={AMD64: platform}), work)[AMD64] == said


def test_an_expired_image_can_be_compared_too(house: House, both: tuple[ImageFacts, ImageFacts]) -> None:
    # Whether it is approved today was not asked: the facts of the past stay facts.
    assert compare(both[0], both[0]).same


def test_what_no_trusted_key_signed_is_refused(
    house: House, both: tuple[ImageFacts, ImageFacts], tmp_path: Path
) -> None:
    new_keys(tmp_path / "others")
    with pytest.raises(EvidenceRefused):
        read_image(house.client, house.at(CANDIDATE, digest=both[0].digest), Trust.load(tmp_path / "others"))
    with pytest.raises(RegistryError, match="not in the registry"):
        read_image(house.client, house.at(CANDIDATE, digest=Digest.of(b"none")), house.trust)


# Pure, from here on.


def facts(name: str, **changes: object) -> ImageFacts:
    blob = Descriptor("application/octet-stream", Digest.of(name.encode()), 100)
    platform = PlatformFacts(AMD64, Digest.of(name.encode() + b"m"), (blob,), blob, 10, {"User": "65532"})
    platform = replace(platform, **changes)
    return ImageFacts(
        f"mirror.example/{name}", "python:3.13", Digest.of(name.encode()), 20, {AMD64: platform}
    )


def flaw(name: str, severity: Severity = Severity.HIGH, package: str = "openssl") -> Finding:
    return Finding(name, package, "3.0.1", "3.0.2", severity, "fixed", "a flaw")


def test_every_kind_of_difference_is_told() -> None:
    old = facts(
        "old",
        packages={"openssl": ("3.0.1",), "gone": ("1",)},
        findings=(flaw("CVE-2026-1000"), flaw("CVE-2026-2000"), flaw("CVE-2026-3000", Severity.CRITICAL)),
        checks={"no-shell": "passed"},
        licences={"openssl": ("OpenSSL",)},
    )
    new = facts(
        "new",
        packages={"openssl": ("3.0.2",), "came": ("2",)},
        findings=(flaw("CVE-2026-2000"), flaw("CVE-2026-4000", Severity.LOW)),
        checks={"no-shell": "failed"},
        licences={"openssl": ("Apache-2.0",)},
        config={"User": "0", "Env PATH": "/usr/bin"},
    )
    diff = compare(old, replace(new, waivers=("base/CVE-2026-4000@1",)))
    (one,) = diff.platforms
    assert [(m.name, m.before, m.after) for m in one.packages] == [
        ("came", "", "2"),
        ("gone", "1", ""),
        ("openssl", "3.0.1", "3.0.2"),
    ]
    assert [f.id for f in one.fixed] == ["CVE-2026-3000", "CVE-2026-1000"], "worst first"
    assert [f.id for f in one.new] == ["CVE-2026-4000"]
    assert one.kept == 1
    assert [(m.before, m.after) for m in one.checks] == [("passed", "failed")]
    assert {m.name for m in one.config} == {"User", "Env PATH"}
    assert diff.waived == ("base/CVE-2026-4000@1",)
    for text in (output.as_text(diff), output.as_markdown(diff), json.dumps(output.as_dict(diff))):
        for part in ("openssl", "CVE-2026-3000", "no-shell", "Apache-2.0", "65532", "base/CVE-2026-4000@1"):
            assert part in text


def test_platforms_come_and_go() -> None:
    old, new = facts("old"), facts("new")
    arm = replace(new.platforms[AMD64], platform="linux/arm64")
    diff = compare(old, replace(new, platforms={"linux/arm64": arm}))
    assert (diff.added, diff.removed, diff.platforms) == (("linux/arm64",), (AMD64,), ())
    assert "platform removed: linux/amd64" in output.as_text(diff)


@pytest.mark.parametrize(
    "hostile",
    [
        "](https://evil.example)",
        "`code`\n# heading",
        "<img src=x>",
        "@everyone",
        "a | b | c",
        "\x1b[31mred",
        "![x](y)",
    ],
)
def test_names_of_strangers_stay_text_in_markdown(hostile: str) -> None:
    diff: ImageDiff = compare(facts("old"), facts("new", packages={hostile: ("1",)}))
    row = next(
        line for line in output.as_markdown(diff).splitlines() if line.startswith("| `") and "`1`" in line
    )
    assert row.count("|") == 4, "a name cannot make further columns"
    assert row.count("`") == 4, "a name cannot end the code that it stands in"
    assert "\x1b" not in output.as_markdown(diff)


def test_what_was_built_here_is_compared_without_what_nobody_looked_at(
    house: House, both: tuple[ImageFacts, ImageFacts], tmp_path: Path
) -> None:
    built = house.candidate("built here").image
    new = built_image(built)
    files = (trees(house.client, CANDIDATE, both[0], tmp_path)[AMD64], built_trees(built)[AMD64])
    diff = compare(both[0], new, {AMD64: files})
    (one,) = diff.platforms
    assert (one.packages, one.config) == ((), ())
    assert (one.fixed, one.licences, one.checks) == ((), (), ()), "what was not looked for has not gone"
    assert (one.layers_new, one.layers_shared) == (1, 1)
    assert one.files is not None
    assert [m.name for m in one.files] == ["/hello"]
    assert "0644 0:0" in one.files[0].after
    assert output.as_dict(diff)["attested"] is False
    for text in (output.as_text(diff), output.as_markdown(diff)):
        assert "checks are not known" in text
        assert "goldsmith try python:3.13" in text
        assert "findings stay" not in text
        assert "findings that stay" not in text


def looked_at(house: House, text: str, store: Store, **changes: object) -> ImageFacts:
    """An image that was built here, with what a trial found of it."""
    built = house.candidate(text).image
    proofs = tuple(evidence(p) for p in built.platforms)
    found = (Finding("CVE-2026-7", "hello", "2.10-5", "2.10-6", Severity.HIGH, "fixed", "a flaw"),)
    proofs = tuple(replace(e, scan=replace(e.scan, findings=found), **changes) for e in proofs)
    keep_evidence(store, built, proofs, approval(built, proofs), NOW)
    return built_image(built, kept_evidence(store, built))


def test_what_a_trial_found_is_compared_and_told_as_local_and_unsigned(
    house: House, both: tuple[ImageFacts, ImageFacts], tmp_path: Path
) -> None:
    new = looked_at(house, "looked at", Store(tmp_path).create())
    diff = compare(both[0], new)
    (one,) = diff.platforms
    assert [f.id for f in one.fixed] == ["CVE-2026-1"]
    assert [f.id for f in one.new] == ["CVE-2026-7"]
    assert new.platforms[AMD64].checks == {"user": "passed"}
    told = output.as_dict(diff)
    assert told["attested"] is False
    assert told["before"]["evidence"]["platforms"][AMD64]["findings"] == "signed"
    assert told["after"]["evidence"]["platforms"][AMD64]["findings"] == "local, unsigned"
    assert told["after"]["evidence"]["platforms"][AMD64]["checks"] == "local, unsigned"
    for text in (output.as_text(diff), output.as_markdown(diff)):
        assert "new findings (local, unsigned)" in text
        assert "CVE-2026-7" in text
        assert "checks are local, unsigned" in text
        assert "not known" not in text
        assert f"sha256:{Digest.of(b'database').hex}" in text, "which database was asked"
        assert "another vulnerability database" not in text


def test_findings_of_another_database_are_told_as_that(
    house: House, both: tuple[ImageFacts, ImageFacts], tmp_path: Path
) -> None:
    new = looked_at(house, "other database", Store(tmp_path).create())
    platform = replace(new.platforms[AMD64], database="sha256:1 of 2026-10-01")
    diff = compare(both[0], replace(new, platforms={AMD64: platform}))
    for text in (output.as_text(diff), output.as_markdown(diff), *output.as_dict(diff)["notes"][-1:]):
        assert "another vulnerability database" in text


def test_a_part_that_was_not_done_is_not_known_and_the_others_are_compared(
    house: House, both: tuple[ImageFacts, ImageFacts], tmp_path: Path
) -> None:
    new = looked_at(house, "in part", Store(tmp_path).create(), checks=NotDone("check", "no engine"))
    diff = compare(both[0], new)
    assert [f.id for f in diff.platforms[0].new] == ["CVE-2026-7"]
    assert diff.platforms[0].checks == ()
    for text in (output.as_text(diff), output.as_markdown(diff)):
        assert "checks are not known" in text
        assert "goldsmith try python:3.13" in text


@pytest.mark.parametrize(
    "damage",
    [
        {"scans": [], "checks": {}},
        {"scans": {}, "checks": None},
        {"digest": "another"},
        {"scans": {"*": {}}, "checks": {"*": {}}},
        {"scans": {"*": {"scanner": {"version": "1", "db": 1}}}, "checks": {"*": {"details": [{"id": 1}]}}},
    ],
)
def test_damaged_kept_evidence_is_as_good_as_none(
    house: House, tmp_path: Path, damage: dict[str, Any]
) -> None:
    store = Store(tmp_path).create()
    built = house.candidate("hello").image
    keep_evidence(store, built, tuple(evidence(p) for p in built.platforms), None, NOW)
    (file,) = (store.records / "evidence").iterdir()
    digest = built.platforms[0].manifest.digest
    file.write_text(json.dumps({**json.loads(file.read_text()), **damage}).replace('"*"', f'"{digest}"'))
    found = built_image(built, kept_evidence(store, built)).platforms[AMD64]
    assert (found.scan_by, found.checks_by, found.findings) == (Basis.NONE, Basis.NONE, ())


def test_other_checks_or_waivers_ask_for_other_evidence(house: House, tmp_path: Path) -> None:
    store = Store(tmp_path).create()
    built = house.candidate("hello").image
    keep_evidence(store, built, tuple(evidence(p) for p in built.platforms), None, NOW)
    assert kept_evidence(store, built) is not None
    checks = built.target.checks.model_copy(update={"files": (FileCheck(path="/x", present=False),)})
    edited = replace(built, target=replace(built.target, checks=checks))
    assert kept_evidence(store, edited) is None


def test_a_trial_of_one_stage_leaves_what_others_found_and_old_evidence_goes(
    house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path).create()
    built = house.candidate("hello").image
    proofs = tuple(evidence(p) for p in built.platforms)
    keep_evidence(store, built, proofs, approval(built, proofs), NOW)
    only = tuple(replace(e, scan=NotDone("scan", "not asked for")) for e in proofs)
    keep_evidence(store, built, only, None, NOW)
    kept = kept_evidence(store, built)
    assert kept is not None
    assert (len(kept.scans), len(kept.checks), kept.waivers) == (1, 1, ())
    monkeypatch.setattr("builder.pipeline.kept_evidence._KEPT_MAX", 1)
    other = house.candidate("hello, world").image
    keep_evidence(store, other, tuple(evidence(p) for p in other.platforms), None, NOW)
    assert kept_evidence(store, built) is None
    assert kept_evidence(store, other) is not None
