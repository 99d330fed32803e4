"""Promotion, rollback and revocation against a registry that fails at any moment."""

from __future__ import annotations

import datetime as dt
import errno
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from builder.errors import PolicyDenied, RegistryError, ToolError, UsageError
from builder.model.channel import Channel
from builder.model.digest import Digest
from builder.model.image import INDEX_TYPE
from builder.model.platform import Platform
from builder.oci.client import RegistryClient
from builder.oci.manifest import index_bytes
from builder.oci.transport import Limits
from builder.policy.schema import Policy
from builder.signing.cosign_formats import signature_tag
from builder.signing.refusal import EvidenceRefused
from builder.signing.statements import parse_simple_signing
from builder.signing.verify import verify
from builder.store import StateBusy
from registry import changes
from registry.audit.ledger import Action, LedgerBroken
from registry.promotion.callback import change
from registry.promotion.changelog import read_change
from registry.promotion.channels import IllegalMove
from registry.promotion.closure import Closure
from registry.promotion.office import deciding
from registry.promotion.promote import promote, rollback
from registry.promotion.records import read_record
from tests.support import registry_simulator as reg
from tests.support.evidence import World
from tests.support.images import AMD64, NOW
from tests.support.promotion import CANDIDATE, REPO, House, Shelf, policy
from tests.support.registry_simulator import Simulator, simulator

LIMITS = Limits(connect_seconds=1, read_seconds=1, total_seconds=5, attempts=2)
DAY = dt.timedelta(days=1)


# What our own storage knows is enough, except where referrers are what a test is about.
both_forms = pytest.mark.parametrize(
    "shelf", [True, False], ids=["referrers-api", "fallback-tag"], indirect=True
)


@pytest.fixture(scope="module")
def shelf(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shelf]:
    with simulator() as sim:
        sim.referrers_api = getattr(request, "param", False)
        yield Shelf(tmp_path_factory.mktemp("shelf"), sim)


@pytest.fixture
def sim(shelf: Shelf) -> Simulator:
    """A registry with nothing in it."""
    shelf.sim.restore()
    return shelf.sim


@pytest.fixture
def house(shelf: Shelf, sim: Simulator, tmp_path: Path) -> House:
    client = RegistryClient(sim.address, limits=LIMITS, sleep=lambda _: None)
    return House(tmp_path, client, shelf)


def visible(sim: Simulator, repo: str = REPO) -> dict[str, str]:
    """The tags that a consumer of the image uses."""
    return {t: d for t, d in sim.tags.get(repo, {}).items() if not t.startswith("sha256-")}


def channel(house: House, digest: Digest, repo: str = REPO) -> Channel | None:
    """The channel as the registry alone tells it."""
    record = read_record(house.client, house.at(repo), digest, house.trust)
    return record.channel if record else None


def accepted(house: House, here: World) -> bool:
    """Whether the consumers' repository holds the image as stable, with everything."""
    try:
        found = verify(house.at(REPO, digest=here.image.digest), house.client, house.trust, house.now)
    except (PolicyDenied, RegistryError):
        return False
    return found.channel is not None and found.channel.channel is Channel.STABLE


def assert_promoted(sim: Simulator, house: House, here: World) -> None:
    image = here.image
    assert visible(sim) == {"3.13": image.digest, image.immutable_tag: image.digest}
    assert accepted(house, here)
    for tag in ("3.13", image.immutable_tag):
        assert verify(house.at(REPO, tag), house.client, house.trust, house.now).digest == image.digest
    for platform in image.platforms:
        verify(house.at(REPO, digest=platform.manifest.digest), house.client, house.trust, house.now)


# ------------------------------------------------------------------ promotion


@both_forms
@pytest.mark.parametrize("platforms", [(AMD64,), (AMD64, Platform("linux", "arm64"))], ids=["one", "two"])
def test_a_promotion_copies_everything_and_moves_the_tags_last(
    sim: Simulator, house: House, platforms: tuple[Platform, ...]
) -> None:
    here = house.candidate(platforms=platforms)
    sim.requests.clear()
    done = house.promote(here)
    assert_promoted(sim, house, here)
    assert (done.ref, done.previous, done.changed) == ("python:3.13", None, True)
    # Blobs are linked, not sent again: of the layers nothing crosses the wire.
    layers = {x.blob.digest for p in here.image.platforms for x in p.layers}
    assert not [s for s in sim.requests if s.method == "PUT" and any(d[7:] in s.path for d in layers)]
    writes = [s.path for s in sim.requests if s.method == "PUT" and f"/{REPO}/manifests/" in s.path]
    assert writes[-2:] == [f"/v2/{REPO}/manifests/{t}" for t in (here.image.immutable_tag, "3.13")]
    assert not any(f"/v2/{CANDIDATE}/" in s.path for s in sim.requests if s.method in ("PUT", "POST"))
    (entry,) = house.ledger.entries()
    assert entry == done.entry
    assert (entry.fact.who, entry.fact.what, entry.fact.why) == ("ann@host", Action.PROMOTE, "it passed")
    assert entry.fact.before == {"channel": "candidate", "tag": "3.13"}
    assert entry.fact.after["tagDigest"] == here.image.digest


def test_a_promotion_asks_for_little(sim: Simulator, house: House) -> None:
    here = house.candidate()
    sim.requests.clear()
    house.promote(here)
    # Evidence that was hashed at its source is not fetched again where it was linked to: what is
    # read there are the payloads and records that were written just now.
    assert sim.count("GET", rf"/v2/{REPO}/blobs/") <= 2 * len(here.image.platforms) + 2
    assert sim.count("HEAD", rf"/v2/{REPO}/blobs/") <= 4  # every blob of the image itself
    # ... and every manifest by its digest once at its source; at home those of the image, and the records.
    manifests = [s.path for s in sim.requests if s.method == "GET" and "/manifests/sha256:" in s.path]
    assert len(manifests) == len(set(manifests))
    assert sim.count("GET", rf"/v2/{REPO}/manifests/sha256:") <= 2 * (1 + len(here.image.platforms))
    assert len(sim.requests) <= 160


def test_the_record_names_the_ledgers_entry(house: House) -> None:
    here = house.candidate()
    done = house.promote(here)
    record = read_record(house.client, house.at(REPO), here.image.digest, house.trust)
    assert record is not None
    assert (record.sequence, record.entry) == (done.entry.sequence, done.entry.hash)
    assert (record.immutable_tag, record.why) == (here.image.immutable_tag, "it passed")


def test_promoting_again_changes_nothing(sim: Simulator, house: House) -> None:
    here = house.candidate()
    house.promoted(here)
    sim.requests.clear()
    assert not house.promote(here).changed
    assert sim.count("PUT|POST") == 0
    assert len(house.ledger.entries()) == 1


@both_forms
def test_a_newer_verdict_is_brought_along(sim: Simulator, house: House) -> None:
    here = house.candidate()
    house.promoted(here)
    house.now = NOW + 5 * DAY
    newer = house.again(here)
    house.policy = policy(database=house.policy.data.database.model_copy(update={"age_days_max": 9.0}))
    done = house.promote(newer)
    assert done.changed
    house.now = NOW + 8 * DAY  # the first verdict has expired
    assert_promoted(sim, house, newer)
    assert [e.fact.after["verdict"][:10] for e in house.ledger.entries()] == ["2026-03-01", "2026-03-06"]


def test_the_signature_is_made_for_the_new_name_and_its_hosts(house: House) -> None:
    here = house.candidate()
    house.promote(here, hosts=("mirror.example", house.client.host))
    for digest in (here.image.digest, here.image.platforms[0].manifest.digest):
        signed = Closure.read_signatures(house.client, house.at(REPO, signature_tag(digest)))
        payloads = [parse_simple_signing(p) for p, _ in signed]
        assert [p.repository for p in payloads] == ["mirror.example/python", f"{house.client.host}/python"]
        assert {p.digest for p in payloads} == {digest}
        assert all(house.keys.builder.public.verifies(s, p) for p, s in signed)


@both_forms
def test_without_links_the_blobs_are_copied(sim: Simulator, house: House) -> None:
    def no_mount(handler: reg.Handler) -> None:
        handler.path = handler.path.partition("?")[0]
        handler.serve()

    here = house.candidate()
    sim.fault("POST", r"mount=", no_mount)
    house.promote(here)
    assert_promoted(sim, house, here)
    assert list((house.folder / "work").iterdir()) == []


# ------------------------------------------------------------------ what may not be promoted


def test_an_expired_verdict_is_refused(sim: Simulator, house: House) -> None:
    here = house.candidate()
    house.now = NOW + 8 * DAY
    with pytest.raises(EvidenceRefused) as raised:
        house.promote(here)
    assert raised.value.reference == "verdict-expired"
    assert (visible(sim), house.ledger.entries()) == ({}, ())


DENIALS: dict[str, tuple[Callable[[House], None], str]] = {
    "old database": (lambda h: setattr(h, "now", NOW + 6 * DAY), "database-fresh"),
    "stricter thresholds": (
        lambda h: _stricter(h, low=0),
        "vulnerabilities-unfixed",
    ),
    "scanner no longer accepted": (
        lambda h: setattr(
            h, "policy", policy(scanner=h.policy.data.scanner.model_copy(update={"versions": ("0.77.0",)}))
        ),
        "scanner-identity",
    ),
    "a check more": (
        lambda h: setattr(
            h,
            "policy",
            policy(checks=h.policy.data.checks.model_copy(update={"required": ("user", "no-setuid")})),
        ),
        "hardening",
    ),
    "a licence denied": (
        lambda h: setattr(
            h,
            "policy",
            policy(licences=h.policy.data.licences.model_copy(update={"denied": ("GPL-3.0-or-later",)})),
        ),
        "licences",
    ),
    "longer support": (
        lambda h: setattr(
            h, "policy", policy(support=h.policy.data.support.model_copy(update={"days_left_min": 3000}))
        ),
        "stream-supported",
    ),
}


def _stricter(house: House, **limits: int) -> None:
    found = house.policy.data.vulnerabilities
    unfixed = found.unfixed.model_copy(update=limits)
    house.policy = policy(vulnerabilities=found.model_copy(update={"unfixed": unfixed}))


@pytest.mark.parametrize("name", DENIALS)
def test_todays_policy_is_asked_on_the_attested_reports(sim: Simulator, house: House, name: str) -> None:
    here = house.candidate()
    before, rule = DENIALS[name]
    before(house)
    sim.requests.clear()
    with pytest.raises(PolicyDenied) as raised:
        house.promote(here)
    assert raised.value.reference == "policy-denies-today"
    assert f"{rule}: " in raised.value.context
    assert raised.value.hint
    assert (sim.count("PUT|POST"), house.ledger.entries()) == (0, ())


def test_an_immutable_tag_is_never_given_again(sim: Simulator, house: House) -> None:
    first = house.candidate("first", input_hash=Digest.of(b"same input"))
    house.promoted(first)
    sim.tags.clear()
    sim.manifests.clear()  # the storage has lost everything
    second = house.candidate("second", input_hash=Digest.of(b"same input"))
    with pytest.raises(PolicyDenied) as raised:
        house.promote(second)
    assert raised.value.reference == "immutable-tag"
    assert visible(sim) == {}


def test_an_immutable_tag_of_the_registry_is_never_moved(sim: Simulator, house: House) -> None:
    here = house.candidate()
    other = sim.put(REPO, index_bytes([]), INDEX_TYPE, here.image.immutable_tag)
    with pytest.raises(PolicyDenied) as raised:
        house.promote(here)
    assert raised.value.reference == "immutable-tag"
    assert visible(sim) == {here.image.immutable_tag: other}


def test_one_platform_is_no_image(house: House) -> None:
    here = house.candidate(platforms=(AMD64, Platform("linux", "arm64")))
    one = house.at(CANDIDATE, digest=here.image.platforms[0].manifest.digest)
    with pytest.raises(EvidenceRefused) as raised:
        promote(house.office(), one, here.image.target, "x")
    assert raised.value.reference == "one-platform"


def test_a_ledger_that_was_reset_decides_nothing(sim: Simulator, house: House) -> None:
    here = house.candidate()
    house.promoted(here)
    for path in (house.ledger.path, house.ledger.head_path):
        path.unlink()
    with pytest.raises(LedgerBroken) as raised:
        house.promote(here)
    assert raised.value.reference == "ledger-behind"


def test_by_a_clock_that_was_set_back_nothing_is_approved(sim: Simulator, house: House) -> None:
    """An expired verdict would be valid again; what takes something back goes on."""
    old = house.candidate("old")
    house.promoted(old)
    house.now = NOW - dt.timedelta(hours=1)
    new = house.candidate("new")  # judged by the same wrong clock
    with pytest.raises(PolicyDenied) as raised:
        house.promote(new)
    assert raised.value.reference == "clock-behind"
    assert visible(sim)["3.13"] == old.image.digest
    change(house.office(), house.at(REPO, "3.13"), Channel.WITHDRAWN, "bad")
    assert channel(house, old.image.digest) is Channel.WITHDRAWN


def test_one_decision_at_a_time(tmp_path: Path) -> None:
    with deciding(tmp_path), pytest.raises(StateBusy), deciding(tmp_path):
        pass
    with deciding(tmp_path):
        pass


# ------------------------------------------------------------------ cuts


@both_forms
def test_cut_at_any_write_nothing_unapproved_is_visible_and_the_next_run_completes(
    sim: Simulator, house: House
) -> None:
    """As if the process was killed at the n-th write."""
    old, new = house.candidate("old"), house.candidate("new")
    house.promoted(old)
    published = sim.content()
    ledger = [(p, p.read_bytes()) for p in (house.ledger.path, house.ledger.head_path)]
    sim.requests.clear()
    house.promote(new)
    total = sim.count("PUT|POST") - sim.count("PUT", changes.REPOSITORY)  # the note to gates may be lost
    assert total > 20
    for n in moments(total):
        sim.restore(published)
        for path, data in ledger:
            path.write_bytes(data)
        seen = sim.fault("PUT|POST", ".*", lambda h: h.serve(), times=n)
        sim.faults.append(reg.Fault("PUT|POST", ".*", reg.status(400)))
        with pytest.raises(RegistryError):
            house.promote(new)
        assert seen.seen >= n
        sim.faults.clear()
        tags = visible(sim)
        assert tags["3.13"] == old.image.digest
        assert accepted(house, old)
        if new.image.immutable_tag in tags:
            assert accepted(house, new)
        done = house.promote(new)
        assert done.changed
        assert accepted(house, new)
        assert visible(sim)["3.13"] == visible(sim)[new.image.immutable_tag] == new.image.digest
        assert len(house.ledger.entries()) == 2, "a decision is told once"
        told = read_change(house.client, house.at(REPO, digest=new.image.digest), house.trust)
        assert told is not None and told.previous == old.image.digest


def moments(total: int) -> list[int]:
    """Each of the last writes, where things become visible, and some before; all with GOLDSMITH_TEST_EVERY_STEP."""
    if os.environ.get("GOLDSMITH_TEST_EVERY_STEP"):
        return list(range(total))
    return sorted({*range(0, total, 36), *range(max(total - 5, 0), total)})


@pytest.mark.parametrize("what", ["revoke", "rollback"])
def test_a_cut_revocation_or_rollback_is_completed(sim: Simulator, house: House, what: str) -> None:
    old, new = house.candidate("old"), house.candidate("new")
    house.promoted(old)
    house.promoted(new)
    published = sim.content()
    ledger = [(p, p.read_bytes()) for p in (house.ledger.path, house.ledger.head_path)]

    def act() -> object:
        if what == "rollback":
            return rollback(house.office(), "python:3.13", new.image.target, "bad")
        where = house.at(REPO, digest=new.image.digest)
        return change(house.office(), where, Channel.WITHDRAWN, "bad", f"python:3.13@{old.image.digest}")

    sim.requests.clear()
    act()
    total = sim.count("PUT|POST") - sim.count("PUT", changes.REPOSITORY)
    assert total >= 1
    for n in moments(total):
        sim.restore(published)
        for path, data in ledger:
            path.write_bytes(data)
        sim.fault("PUT|POST", ".*", lambda h: h.serve(), times=n)
        sim.faults.append(reg.Fault("PUT|POST", ".*", reg.status(400)))
        with pytest.raises(RegistryError):
            act()
        sim.faults.clear()
        assert visible(sim)["3.13"] in (old.image.digest, new.image.digest)
        act()
        assert visible(sim)["3.13"] == old.image.digest
        assert accepted(house, old)
        assert channel(house, new.image.digest) is (Channel.WITHDRAWN if what == "revoke" else Channel.STABLE)
        assert len(house.ledger.entries()) == 3


def _full(*_: object) -> int:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(
    ("call", "act"), [("write", lambda handle, data: 0), ("write", _full), ("fsync", _full)]
)
def test_a_ledger_that_cannot_be_written_leaves_everything_invisible(
    sim: Simulator, house: House, monkeypatch: pytest.MonkeyPatch, call: str, act: Callable[..., int]
) -> None:
    here = house.candidate()
    monkeypatch.setattr(f"registry.audit.ledger.os.{call}", act)
    with pytest.raises(ToolError):
        house.promote(here)
    assert visible(sim) == {}
    assert channel(house, here.image.digest) is None
    monkeypatch.undo()
    house.promote(here)
    assert_promoted(sim, house, here)


@both_forms
@pytest.mark.parametrize(
    ("method", "path", "act"),
    [
        ("GET", rf"{REPO}/manifests/sha256:", reg.corrupt),
        ("GET", r"/v2/python/blobs/", reg.corrupt),
        ("GET", r"/v2/python/blobs/", reg.cut_download),
        ("HEAD", r"/v2/python/blobs/", reg.status(404)),
        ("GET", r"/v2/python/referrers|/v2/python/manifests/sha256-[0-9a-f]+$", reg.status(500)),
    ],
    ids=["wrong manifest", "wrong byte", "cut blob", "lost layer", "no listing"],
)
def test_a_destination_that_cannot_be_read_gets_no_tag(
    sim: Simulator, house: House, method: str, path: str, act: Callable[[reg.Handler], None]
) -> None:
    here = house.candidate()
    sim.fault(method, path, act)
    with pytest.raises((RegistryError, EvidenceRefused)):
        house.promote(here)
    assert visible(sim) == {}
    assert house.ledger.entries() == ()
    sim.faults.clear()
    house.promote(here)
    assert_promoted(sim, house, here)


# ------------------------------------------------------------------ rollback


def test_rollback_goes_back_step_by_step_as_the_ledger_knows(sim: Simulator, house: House) -> None:
    images = [house.candidate(name) for name in ("a", "b", "c")]
    for one in images:
        house.promoted(one)
    target = images[0].image.target
    done = rollback(house.office(), "python:3.13", target, "c is bad")
    assert (visible(sim)["3.13"], done.previous) == (images[1].image.digest, images[2].image.digest)
    rollback(house.office(), "python:3.13", target, "b too")
    assert visible(sim)["3.13"] == images[0].image.digest
    with pytest.raises(EvidenceRefused, match="is still served"):
        rollback(house.office(), "python:3.13", target, "a too")
    assert [e.fact.what for e in house.ledger.entries()][-2:] == [Action.ROLLBACK, Action.ROLLBACK]
    # Immutable tags stay where they are, and the later images can still be pulled by digest.
    assert all(visible(sim)[x.image.immutable_tag] == x.image.digest for x in images)
    assert all(accepted(house, x) for x in images)


def test_rollback_passes_over_what_was_called_back(sim: Simulator, house: House) -> None:
    images = [house.candidate(name) for name in ("a", "b", "c")]
    for one in images:
        house.promoted(one)
    change(house.office(), house.at(REPO, digest=images[1].image.digest), Channel.WITHDRAWN, "bad")
    rollback(house.office(), "python:3.13", images[0].image.target, "c too")
    assert visible(sim)["3.13"] == images[0].image.digest


def test_rollback_of_what_was_never_promoted_is_told(sim: Simulator, house: House) -> None:
    here = house.candidate()
    with pytest.raises(UsageError, match="was not promoted"):
        rollback(house.office(), "python:3.13", here.image.target, "x")
    house.promoted(here)
    sim.put(REPO, index_bytes([]), INDEX_TYPE, "3.13")
    with pytest.raises(RegistryError) as raised:
        rollback(house.office(), "python:3.13", here.image.target, "x")
    assert raised.value.reference == "unknown-tag"


# ------------------------------------------------------------------ calling back


@both_forms
def test_a_revocation_is_seen_from_the_registry_alone(sim: Simulator, house: House) -> None:
    old, new = house.candidate("old"), house.candidate("new")
    house.promoted(old)
    house.promoted(new)
    done = change(
        house.office(), house.at(REPO, "3.13"), Channel.WITHDRAWN, "CVE-2026-1 is exploited",
        f"python:3.13@{old.image.digest}",
    )  # fmt: skip
    assert done.changed and done.moved == old.image.digest
    assert done.replacement == f"python:3.13@{old.image.digest}"
    assert visible(sim)["3.13"] == old.image.digest
    assert visible(sim)[new.image.immutable_tag] == new.image.digest
    for repo in (REPO, CANDIDATE):
        for digest in (new.image.digest, new.image.platforms[0].manifest.digest):
            with pytest.raises(EvidenceRefused) as raised:
                verify(house.at(repo, digest=digest), house.client, house.trust, house.now)
            assert raised.value.reference == "withdrawn"
            assert "CVE-2026-1 is exploited" in raised.value.context
            assert str(old.image.digest) in raised.value.hint
    # Neither a newer verdict nor a promotion brings it back.
    house.now = NOW + DAY
    house.again(new)
    with pytest.raises(PolicyDenied):
        house.promote(new)
    assert visible(sim)["3.13"] == old.image.digest


@both_forms
def test_a_withdrawn_image_comes_back_the_whole_way_only(sim: Simulator, house: House) -> None:
    here = house.candidate()
    house.promoted(here)
    where = house.at(REPO, digest=here.image.digest)
    change(house.office(), where, Channel.WITHDRAWN, "the wrong one")
    with pytest.raises(IllegalMove):
        change(house.office(), where, Channel.CANDIDATE, "sorry")
    change(house.office(), where, Channel.QUARANTINE, "to be looked at")
    change(house.office(), where, Channel.CANDIDATE, "it was the wrong one")
    assert not accepted(house, here)
    house.promote(here)
    assert_promoted(sim, house, here)
    assert len(house.ledger.entries()) == 5


def test_a_revocation_is_repeated_without_effect(sim: Simulator, house: House) -> None:
    here = house.candidate()
    house.promoted(here)
    where = house.at(REPO, digest=here.image.digest)
    change(house.office(), where, Channel.WITHDRAWN, "bad")
    sim.requests.clear()
    assert not change(house.office(), where, Channel.WITHDRAWN, "bad").changed
    assert sim.count("PUT|POST") == 0
    assert len(house.ledger.entries()) == 2


def test_a_revocation_works_though_the_verdict_has_expired_and_evidence_is_lost(
    sim: Simulator, house: House
) -> None:
    here = house.candidate()
    house.promoted(here)
    house.now = NOW + 30 * DAY
    for tag in list(sim.tags[REPO]):
        if tag.endswith((".sig", ".att")):
            del sim.tags[REPO][tag]
    change(house.office(), house.at(REPO, "3.13"), Channel.WITHDRAWN, "old and bad")
    assert channel(house, here.image.digest) is Channel.WITHDRAWN


def test_a_candidate_in_quarantine_cannot_be_promoted(sim: Simulator, house: House) -> None:
    here = house.candidate()
    done = change(house.office(), house.at(CANDIDATE, "3.13"), Channel.QUARANTINE, "a planted file")
    assert done.repositories == (CANDIDATE,)
    with pytest.raises(EvidenceRefused) as raised:
        house.promote(here)
    assert raised.value.reference == "quarantined"
    assert visible(sim) == {}


@both_forms
def test_a_hidden_record_does_not_help_as_long_as_the_ledger_is_there(sim: Simulator, house: House) -> None:
    here = house.candidate()
    before = sim.content()
    change(house.office(), house.at(CANDIDATE, "3.13"), Channel.QUARANTINE, "a planted file")
    sim.restore(before)
    with pytest.raises(IllegalMove):
        house.promote(here)


def test_a_deprecated_image_is_served_on(house: House) -> None:
    here = house.candidate()
    house.promoted(here)
    change(house.office(), house.at(REPO, "3.13"), Channel.DEPRECATED, "3.14 is there")
    found = verify(house.at(REPO, "3.13"), house.client, house.trust, house.now)
    assert found.channel is not None and found.channel.channel is Channel.DEPRECATED


@pytest.mark.parametrize(
    ("replacement", "message"),
    [
        ("python:3.13@{itself}", "cannot replace itself"),
        ("candidate/python:3.13@{other}", "is not stable"),
        ("not a reference", "no reference"),
    ],
)
def test_a_replacement_has_to_be_a_stable_image(house: House, replacement: str, message: str) -> None:
    here, other = house.candidate("a"), house.candidate("b")
    house.promoted(here)
    text = replacement.format(itself=here.image.digest, other=other.image.digest)
    with pytest.raises(UsageError, match=message):
        change(house.office(), house.at(REPO, "3.13"), Channel.WITHDRAWN, "bad", text)
    assert len(house.ledger.entries()) == 1


def test_a_reason_is_needed(house: House) -> None:
    house.candidate()
    with pytest.raises(UsageError, match="reason"):
        change(house.office(), house.at(CANDIDATE, "3.13"), Channel.QUARANTINE, " ")


def test_a_secret_in_a_reason_reaches_neither_ledger_nor_registry(sim: Simulator, house: House) -> None:
    here = house.candidate()
    house.promoted(here)
    change(house.office(), house.at(REPO, "3.13"), Channel.WITHDRAWN, "its password=hunter2 was in a layer")
    assert b"hunter2" not in house.ledger.path.read_bytes()
    assert not any(b"hunter2" in data for blobs in sim.blobs.values() for data in blobs.values())
    assert re.search("redacted", house.ledger.entries()[-1].fact.why)


def test_another_text_of_the_policy_is_told_in_the_ledger_once(house: House) -> None:
    first, second, third = (house.candidate(content) for content in ("one", "two", "three"))
    house.promote(first)
    before = house.policy
    house.policy = Policy(before.data, Digest.of(b"another text"))
    house.promote(second)
    house.promote(third)
    told = [e.fact for e in house.ledger.entries()]
    assert [f.what.value for f in told] == ["promote", "change-policy", "promote", "promote"]
    change_of = told[1]
    assert change_of.ref == f"policy:{before.name}"
    assert change_of.before == {"policy": f"{before.name}@{before.digest}"}
    assert change_of.after == {"policy": f"{before.name}@{house.policy.digest}"}
    house.ledger.verify()
