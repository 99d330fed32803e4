"""What a promotion leaves behind: deprecated with its replacement, cut anywhere, and given back by a rollback."""

from __future__ import annotations

from pathlib import Path

import pytest

from builder.errors import PolicyDenied
from builder.model.channel import Channel
from builder.signing.refusal import EvidenceRefused
from registry.audit.ledger import Action
from registry.promotion import callback
from registry.promotion.promote import rollback
from registry.promotion.records import read_record
from registry.promotion.replaced import Replaced, replaced, rolled_back
from registry.promotion.replacing import deprecate_replaced
from tests.support.evidence import World
from tests.support.indexes import binary
from tests.support.memory_client import MemoryClient
from tests.support.rescans import Night

BASH = binary("bash", "5.2.37-2")
REF = "python:3.13"


class Killed(BaseException):
    """What `kill -9` is to the code."""


@pytest.fixture
def night(tmp_path: Path) -> Night:
    return Night(tmp_path, MemoryClient())


def promoted(night: Night) -> World:
    here = night.image([BASH])
    night.promote(here)
    return here


def channels(night: Night, here: World, *repos: str) -> set[Channel | None]:
    """What the registry says of an image, by its index and its platform, wherever it is."""
    found = set()
    for repo in repos or ("python", "candidate/python"):
        where = night.client.reference(repo, digest=here.image.digest)
        for subject in (here.image.digest, here.image.platforms[0].manifest.digest):
            record = read_record(night.client, where, here.image.digest, night.house.trust, subject)
            found.add(record.channel if record else None)
    return found


def test_what_was_replaced_is_deprecated_and_names_the_replacement(night: Night) -> None:
    old, middle, new = (promoted(night) for _ in range(3))
    done = deprecate_replaced(night.house.office(), night.folder / "notes", "newer")
    by = new.image.digest
    assert done.deprecated == (Replaced(REF, old.image.digest, by), Replaced(REF, middle.image.digest, by))
    assert channels(night, old) == {Channel.DEPRECATED}
    assert {e.fact.after["replacement"] for e in night.house.ledger.entries()[3:]} == {f"{REF}@{by}"}
    before, writes = night.house.ledger.entries(), night.client.writes
    assert deprecate_replaced(night.house.office(), night.folder / "notes", "newer").deprecated == ()
    assert (night.house.ledger.entries(), night.client.writes) == (before, writes)


def test_cut_at_any_write_the_next_one_completes_it(night: Night) -> None:
    old, _ = promoted(night), promoted(night)
    inner, ledger = night.client.inner, night.house.ledger.path.parent
    content = dict(inner.manifests), dict(inner.tags), dict(inner.blobs)
    files = {path: path.read_bytes() for path in ledger.iterdir() if path.is_file()}
    for number in range(0, 100, 3):
        inner.manifests, inner.tags, inner.blobs = map(dict, content)
        for path, data in files.items():
            path.write_bytes(data)
        at = night.client.writes + number

        def kill(what: str, at: int = at) -> None:
            if night.client.writes >= at:
                raise Killed

        night.client.before_write = kill
        cut = False
        try:
            deprecate_replaced(night.house.office(), night.folder / "notes", "newer")
        except Killed:
            cut = True
        night.client.before_write = lambda what: None
        deprecate_replaced(night.house.office(), night.folder / "notes", "newer")
        assert channels(night, old) == {Channel.DEPRECATED}
        what = [e.fact.what for e in night.house.ledger.entries()]
        assert what == [Action.PROMOTE, Action.PROMOTE, Action.DEPRECATE]
        assert not (night.folder / "notes").exists()
        if not cut:
            break
    assert number > 3


def test_one_that_cannot_be_deprecated_stops_no_other_and_is_told(night: Night) -> None:
    old, new = promoted(night), promoted(night)

    def nobody(one: Replaced) -> None:
        raise PolicyDenied("you may not")

    done = deprecate_replaced(night.house.office(), night.folder / "notes", "newer", nobody)
    assert [(one.digest, error.message) for one, error in done.failed] == [(old.image.digest, "you may not")]
    assert replaced(night.house.ledger.entries()) == (Replaced(REF, old.image.digest, new.image.digest),)


def test_what_the_registry_lost_and_what_was_called_back_is_left_alone(night: Night) -> None:
    gone, bad, _ = (promoted(night) for _ in range(3))
    office = night.house.office()
    where = night.client.reference("python", digest=bad.image.digest)
    callback.change(office, where, Channel.WITHDRAWN, "bad")
    for repo in ("python", "candidate/python"):
        del night.client.inner.manifests[repo, gone.image.digest]
    done = deprecate_replaced(office, night.folder / "notes", "newer")
    assert (done.deprecated, done.failed) == ((), ())


@pytest.mark.parametrize("notes", ["", "7", '[["x"]]', '[["python:3.13", "sha256:no", "sha256:no"]]', "\x00"])
def test_damaged_notes_are_none(night: Night, notes: str) -> None:
    promoted(night), promoted(night)
    (night.folder / "notes").write_text(notes)
    assert len(deprecate_replaced(night.house.office(), night.folder / "notes", "newer").deprecated) == 1


def test_a_rollback_takes_a_deprecated_image_back_and_is_respected(night: Night) -> None:
    old, new = promoted(night), promoted(night)
    deprecate_replaced(night.house.office(), night.folder / "notes", "newer")
    rollback(night.house.office(), REF, night.targets[REF], "it crashes")
    assert channels(night, old, "python") == {Channel.STABLE}
    history = night.house.ledger.entries()
    assert replaced(history) == ()
    taken = rolled_back(history, REF, new.image.digest)
    assert taken is not None and taken.fact.why == "it crashes"
    assert rolled_back(history, REF, old.image.digest) is None
    better = promoted(night)
    history = night.house.ledger.entries()
    assert rolled_back(history, REF, new.image.digest) is None
    assert {one.digest for one in replaced(history)} == {old.image.digest, new.image.digest}
    assert {one.by for one in replaced(history)} == {better.image.digest}


def test_two_rollbacks_in_a_row_are_both_respected(night: Night) -> None:
    _, middle, new = (promoted(night) for _ in range(3))
    for why in ("bad", "bad too"):
        rollback(night.house.office(), REF, night.targets[REF], why)
    history = night.house.ledger.entries()
    for one, why in ((new, "bad"), (middle, "bad too")):
        taken = rolled_back(history, REF, one.image.digest)
        assert taken is not None and taken.fact.why == why


def test_what_was_withdrawn_is_not_taken_back(night: Night) -> None:
    old, _ = promoted(night), promoted(night)
    where = night.client.reference("python", digest=old.image.digest)
    callback.change(night.house.office(), where, Channel.WITHDRAWN, "bad")
    with pytest.raises(EvidenceRefused):
        rollback(night.house.office(), REF, night.targets[REF], "worse")
