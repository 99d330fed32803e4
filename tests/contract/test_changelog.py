"""The change record: what a promotion says is new, who is believed, and the changelog of an image."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import pytest

from builder.model.change import ChangeRecord, Moved, PlatformDiff
from builder.model.digest import Digest, canonical_json
from builder.model.evidence import Evidence, Finding, ScanReport, Severity
from builder.model.image import MANIFEST_TYPE, PlatformImage
from builder.model.lock import LockedPackage
from builder.oci.client import RegistryClient
from builder.signing import changerecords
from builder.signing.cosign_formats import SignedStatement, bundle_referrer
from builder.signing.keys import RoleSigner
from builder.signing.predicates import CHANGE_TYPE
from builder.signing.refusal import EvidenceRefused
from builder.signing.statements import PAYLOAD_TYPE, STATEMENT_V1, pae, statement
from builder.signing.verify import verify
from registry.diff import output
from registry.gate.admission import admit
from registry.gate.decision import Approved
from registry.promotion.changelog import changelog, read_change
from registry.promotion.promote import rollback
from tests.support import evidence as proofs
from tests.support import images, promotion
from tests.support.evidence import World, new_keys
from tests.support.promotion import REPO, House
from tests.support.registry_simulator import Simulator, simulator

HOUR = dt.timedelta(hours=1)


class Story:
    """Two promotions: the second image has a newer package, without the first one's vulnerability."""

    def __init__(self, house: House, sim: Simulator, old: World, new: World) -> None:
        self.house, self.sim, self.old, self.new = house, sim, old, new
        self.content = sim.content()
        self.writes = [s.path for s in sim.requests if s.method == "PUT"]

    @property
    def records(self) -> list[ChangeRecord]:
        return list(changelog(self.house.client, self.at(self.new), self.house.trust))

    def at(self, here: World) -> Any:
        return self.house.at(REPO, digest=here.image.digest)


@pytest.fixture(scope="module", params=[True, False], ids=["referrers-api", "fallback-tag"])
def told(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    with simulator() as sim, pytest.MonkeyPatch.context() as patch:
        sim.referrers_api = request.param
        house = House(tmp_path_factory.mktemp("house"), RegistryClient(sim.address))
        old = house.candidate("old")
        house.promote(old)
        patch.setattr(promotion, "package", newer)
        patch.setattr(promotion, "evidence", without_the_flaw)
        house.now += HOUR
        new = house.candidate("new")
        sim.requests.clear()
        house.promote(new, reasons=lambda digest: ("package: hello 2.10-5 -> 2.10-6",))
        yield Story(house, sim, old, new)


@pytest.fixture
def story(told: Story) -> Story:
    told.sim.restore(told.content)
    return told


def newer() -> LockedPackage:
    return replace(images.package(), version="2.10-6")


def without_the_flaw(image: PlatformImage) -> Evidence:
    found = proofs.evidence(image)
    assert isinstance(found.scan, ScanReport)
    other = Finding("CVE-2026-2", "hello", "2.10-6", "", Severity.LOW, "affected", "another flaw")
    return replace(found, scan=replace(found.scan, findings=(other,)))


def test_of_a_first_image_everything_is_new(story: Story) -> None:
    record = read_change(story.house.client, story.at(story.old), story.house.trust)
    assert record is not None
    assert (record.previous, record.unknown, record.why) == (None, "", "it passed")
    (one,) = record.platforms
    assert one.packages == (Moved("hello", "", "2.10-5"),)
    assert [f.id for f in one.new] == ["CVE-2026-1"]
    assert (one.size_before, one.layers_shared) == (0, 0)
    assert one.size_after > 0


def test_the_next_one_says_what_it_brings_and_why(story: Story) -> None:
    new, old = story.records
    assert (new.digest, new.previous, old.previous) == (
        story.new.image.digest,
        story.old.image.digest,
        None,
    )
    assert new.reasons == ("package: hello 2.10-5 -> 2.10-6",)
    assert new.sequence > old.sequence
    (one,) = new.platforms
    assert one.packages == (Moved("hello", "2.10-5", "2.10-6"),)
    assert [f.id for f in one.fixed] == ["CVE-2026-1"]
    assert [f.id for f in one.new] == ["CVE-2026-2"]
    assert (one.layers_new, one.layers_shared) == (1, 1)
    text, markdown = output.record_as_text(new), output.records_as_markdown([new, old])
    for part in ("CVE-2026-1", "2.10-6", "package: hello 2.10-5 -> 2.10-6", str(old.digest)):
        assert part in text and part in markdown
    assert json.loads(json.dumps(output.record_as_dict(new)))["previous"] == old.digest
    short = "\n".join(output.record_in_short(new))
    for part in (
        f"before it {old.digest}",
        "packages: hello: 2.10-5 → 2.10-6",
        "fixed: CVE-2026-1",
        "CVE-2026-2",
    ):
        assert part in short
    assert "the first image" in output.record_in_short(old)


def test_it_is_attached_before_anything_moves_and_by_one_listing(story: Story) -> None:
    manifests = [p for p in story.writes if f"/v2/{REPO}/manifests/" in p]
    change = carriers_of(story, story.new)[0]
    at = next(i for i, path in enumerate(manifests) if path.endswith(change))
    tags = [i for i, path in enumerate(manifests) if path.endswith(("/3.13", story.new.image.immutable_tag))]
    assert at < min(tags)
    if not story.sim.referrers_api:
        listing = f"/v2/{REPO}/manifests/sha256-{story.new.image.digest.hex}"
        assert manifests[at:].count(listing) == 1


def test_verification_passes_it_on_and_the_gate_serves_it(story: Story) -> None:
    house, at = story.house, story.at(story.new)
    found = verify(at, house.client, house.trust, house.now)
    assert found.change == story.records[0]
    served = admit(at, house.client, house.trust, house.now, promoted=True)
    assert isinstance(served, Approved)
    attached = {d.digest for d in served.referrers[story.new.image.digest]}
    assert set(carriers_of(story, story.new)) <= attached


def test_of_what_was_promoted_before_nothing_new_is_told(story: Story) -> None:
    house = story.house
    rollback(house.office(), "python:3.13", story.old.image.target, "slow")
    house.promote(story.new)
    assert [len(carriers_of(story, one)) for one in (story.old, story.new)] == [1, 1]
    assert [r.previous for r in story.records] == [story.old.image.digest, None]


def test_an_image_before_that_nobody_vouches_for_keeps_its_successor_not_out(
    story: Story,
) -> None:
    house, sim = story.house, story.sim
    house.now += HOUR
    # Everything that was said of the image before is lost.
    sim.tags[REPO] = {t: d for t, d in sim.tags[REPO].items() if not t.startswith("sha256-")}
    subjects = {story.new.image.digest, *(p.manifest.digest for p in story.new.image.platforms)}
    sim.manifests[REPO] = {d: m for d, m in sim.manifests[REPO].items() if subject_of(m[0]) not in subjects}
    next_one = house.candidate("next")
    house.promote(next_one)
    record = read_change(house.client, story.at(next_one), house.trust)
    assert record is not None
    assert record.previous == story.new.image.digest
    assert "nobody that we trust" in record.unknown
    assert record.platforms[0].packages
    assert "could not be compared" in output.records_as_markdown([record])


HOSTILE: dict[str, tuple[Callable[[Story], tuple[RoleSigner, Any]], str]] = {
    "a stranger's key": (
        lambda s: (new_keys(s.house.folder / "strangers").verdict, said(s)),
        "signature-invalid",
    ),
    "the builder's key": (lambda s: (s.house.keys.builder, said(s)), "wrong-role"),
    "of another image": (
        lambda s: (s.house.keys.verdict, said(s, digest=str(Digest.of(b"other")))),
        "subject-mismatch",
    ),
    "of another name": (lambda s: (s.house.keys.verdict, said(s, ref="node:22")), "subject-mismatch"),
    "another field": (lambda s: (s.house.keys.verdict, said(s, more=1)), "predicate-malformed"),
    "too much": (
        lambda s: (s.house.keys.verdict, said(s, reasons=["x"] * 100_000)),
        "predicate-malformed",
    ),
    "too long": (lambda s: (s.house.keys.verdict, said(s, why="x" * 100_000)), "predicate-malformed"),
    "no number": (lambda s: (s.house.keys.verdict, said(s, sequence=True)), "predicate-malformed"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_nobody_should_believe_is_refused(story: Story, name: str) -> None:
    make, flaw = HOSTILE[name]
    key, predicate = make(story)
    house, at = story.house, story.at(story.new)
    subject = story.new.image.index
    payload = statement(STATEMENT_V1, subject.digest, CHANGE_TYPE, canonical_json(predicate))
    signed = SignedStatement(CHANGE_TYPE, payload, key.sign(pae(PAYLOAD_TYPE, payload)))
    item = bundle_referrer(subject, signed, key.public.hint)
    for digest, data in item.blobs.items():
        house.client.put_blob(REPO, data, digest)
    if not house.client.put_referrer(REPO, item.manifest, MANIFEST_TYPE):
        house.client.put_referrers_fallback(REPO, subject.digest, [item.entry])
    with pytest.raises(EvidenceRefused) as verified:
        verify(at, house.client, house.trust, house.now)
    assert verified.value.reference == flaw
    with pytest.raises(EvidenceRefused):
        read_change(house.client, at, house.trust)


def said(story: Story, **changes: Any) -> Mapping[str, Any]:
    return {**json.loads(changerecords.encode(story.records[0])), **changes}


def carriers_of(story: Story, here: World) -> list[Digest]:
    """The referrers of an image's index that carry change records."""
    return [
        Digest(digest)
        for digest, (data, _) in story.sim.manifests[REPO].items()
        if subject_of(data) == here.image.digest and CHANGE_TYPE.encode() in data
    ]


def subject_of(data: bytes) -> str:
    """What a manifest refers to."""
    return str(json.loads(data).get("subject", {}).get("digest", ""))


# Pure, from here on.


def test_what_is_too_much_is_cut_and_counted() -> None:
    evil = "](https://evil.example) @everyone `x` | <img>\n# " + "x" * 5_000
    moved = tuple(Moved(f"{n}{evil}", "", "1") for n in range(6_000))
    flaws = tuple(Finding(f"CVE-{n}", evil, "1", "", Severity.HIGH, "affected", evil) for n in range(6_000))
    one = PlatformDiff("linux/amd64", moved, (), flaws, 0, (), (), (), 0, 1, 1, 1, 0)
    now = dt.datetime(2026, 3, 1, tzinfo=dt.UTC)
    record = ChangeRecord(
        Digest.of(b"x"), "python:3.13", None, 1, now, evil, (evil,) * 2_000, (one,), waived=(evil,)
    )
    kept = changerecords.bounded(record)
    assert changerecords.decode(json.loads(changerecords.encode(kept))) == kept
    assert kept.platforms[0].omitted == 2_000
    assert any("and 4992 more" in line for line in output.record_in_short(kept))
    markdown = output.records_as_markdown([kept])
    assert len(markdown) < 65_536
    assert "too long" in markdown
    outside = [part for line in markdown.splitlines() for part in line.split("`")[::2]]
    assert not [part for part in outside if "evil" in part or "@" in part or "<" in part]
