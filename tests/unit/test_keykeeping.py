"""Rotation and revocation: what was signed stays valid or is denied, and a cut is completed."""

from __future__ import annotations

import datetime as dt
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from builder.errors import PolicyDenied, UsageError
from builder.model.digest import Digest
from builder.signing.keys import (
    WITNESS,
    create_keys,
    create_witness,
    load_keys,
    load_public,
    open_signer,
)
from builder.signing.trust import FILE, Trust
from registry import keykeeping
from registry.audit.facts import Action, Fact
from registry.audit.ledger import Ledger, LedgerBroken
from registry.keykeeping import PLAN, Keeper
from tests.support.evidence import PASSPHRASE, new_keys
from tests.support.images import NOW
from tests.unit.test_trust import public

HOUR = dt.timedelta(hours=1)
FACT = Fact("user:ann", Action.PROMOTE, "python:3.13", Digest.of(b"x"), {}, {"channel": "stable"}, "good")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of keys and a ledger with an entry."""
    folder = tmp_path_factory.mktemp("made")
    keys = new_keys(folder / "keys")
    Ledger(folder / "ledger", Trust.load(folder / "keys")).append(FACT, keys.verdict, NOW - HOUR)
    return folder


@pytest.fixture
def here(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "state"))


def keeper(here: Path, at: dt.datetime = NOW) -> Keeper:
    return Keeper(here / "keys", here / "ledger", {}, PASSPHRASE, "user:ann", lambda: at)


def ledger(here: Path) -> Ledger:
    return Ledger(here / "ledger", Trust.load(here / "keys"))


def test_what_was_signed_before_a_rotation_stays_valid(here: Path) -> None:
    old = load_keys(here / "keys", {}, PASSPHRASE)
    done = keeper(here).rotate("builder", HOUR, "a year has gone")
    new, trust = load_keys(here / "keys", {}, PASSPHRASE), Trust.load(here / "keys")
    assert new.builder.public.id == done.plan.new != done.plan.old == old.builder.public.id
    assert new.verdict.public == old.verdict.public
    signed = [(key, key.builder.sign(b"data")) for key in (old, new)]
    expected = {-HOUR: (True, False), HOUR: (True, True), 2 * HOUR: (False, True)}
    for after, holds in expected.items():
        assert tuple(trust.verifies("builder", s, b"data", NOW + after) for _, s in signed) == holds
    assert trust.version == done.version == 1
    entry = ledger(here).entries()[-1]
    assert entry == done.entry
    assert (entry.fact.what, entry.fact.ref) == (Action.ROTATE_KEY, f"keys/builder:{done.plan.new[:12]}")
    assert entry.fact.after["key"] == f"sha256:{done.plan.new}" and entry.fact.why == "a year has gone"
    assert not list((here / "keys").glob("*.next")) and not (here / "keys" / PLAN).exists()


def test_a_second_rotation_continues_from_the_first(here: Path) -> None:
    first = keeper(here).rotate("verdict", HOUR, "one")
    second = keeper(here, NOW + HOUR).rotate("verdict", dt.timedelta(), "two")
    assert (first.version, second.version, second.plan.old) == (1, 2, first.plan.new)
    ends = [k.not_after for k in Trust.load(here / "keys").keys if k.role == "verdict"]
    assert ends == [NOW + HOUR, NOW + HOUR, None]
    create_keys(here / "keys", {}, PASSPHRASE)  # `init` changes nothing of it
    assert load_public(here / "keys", "verdict").id == second.plan.new


def test_witnesses_hold_beside_each_other_and_are_revoked_one_by_one(here: Path, tmp_path: Path) -> None:
    """Their private keys are elsewhere, and no file of the folder is theirs; our own witness stays."""
    create_witness(here / "keys", PASSPHRASE)
    own = load_public(here / "keys", WITNESS)
    ids = []
    for name in ("ann", "bob"):
        create_witness(tmp_path / name, PASSPHRASE)
        pem = (tmp_path / name / "witness.pub").read_bytes()
        ids.append(keeper(here).rotate(WITNESS, HOUR, name, pem).plan.new)
    assert load_public(here / "keys", WITNESS) == own
    open_signer(here / "keys", WITNESS, {}, PASSPHRASE).sign(b"data")
    assert not list((here / "keys").glob("*.next"))
    keeper(here, NOW + HOUR).revoke(ids[0], None, "its machine was lost")
    held = {k.id: (k.not_after, k.revoked_at) for k in Trust.load(here / "keys").keys if k.role == WITNESS}
    assert held == {own.id: (None, None), ids[0]: (None, NOW + HOUR), ids[1]: (None, None)}


def test_init_makes_no_key_beside_a_trust_file_that_does_not_name_it(here: Path) -> None:
    keeper(here).rotate("builder", HOUR, "")
    for name in ("approver.key", "approver.pub"):
        (here / "keys" / name).unlink()
    with pytest.raises(UsageError) as raised:
        create_keys(here / "keys", {}, PASSPHRASE)
    assert "goldsmith keys rotate approver" in raised.value.hint
    keeper(here, NOW + HOUR).rotate("approver", HOUR, "")
    create_keys(here / "keys", {}, PASSPHRASE)
    Trust.load(here / "keys").require(load_public(here / "keys", "approver"), NOW + 2 * HOUR)


def test_the_ledger_is_proved_over_a_rotation_of_its_key(here: Path) -> None:
    keeper(here).rotate("verdict", dt.timedelta(), "a year has gone")
    new = load_keys(here / "keys", {}, PASSPHRASE).verdict
    ledger(here).append(replace(FACT, why="after"), new, NOW + HOUR)
    proof = ledger(here).prove()
    assert (proof.head.entries, proof.doubtful) == (3, ())


def test_a_key_outside_of_its_period_writes_no_entry(here: Path) -> None:
    old = load_keys(here / "keys", {}, PASSPHRASE).verdict
    keeper(here).rotate("verdict", HOUR, "")
    new = load_keys(here / "keys", {}, PASSPHRASE).verdict
    for signer, at in ((old, NOW + 2 * HOUR), (new, NOW - HOUR)):
        with pytest.raises(UsageError, match="does not hold at this time"):
            ledger(here).append(FACT, signer, at)
    assert len(ledger(here).entries()) == 2


def test_a_forged_entry_by_a_retired_key_is_found(here: Path) -> None:
    old = load_keys(here / "keys", {}, PASSPHRASE).verdict
    without = Trust.load(here / "keys")
    keeper(here).rotate("verdict", HOUR, "")
    Ledger(here / "ledger", Trust((*without.keys, *Trust.load(here / "keys").keys[-1:]))).append(
        FACT, old, NOW + 5 * HOUR
    )
    with pytest.raises(LedgerBroken, match="entry 3 is signed by a key that did not hold"):
        ledger(here).verify()


def test_a_revoked_key_is_denied_from_the_stated_moment_on(here: Path) -> None:
    old = load_keys(here / "keys", {}, PASSPHRASE).builder
    done = keeper(here).revoke(old.public.id[:12], NOW - HOUR, "the laptop was stolen")
    trust, signature = Trust.load(here / "keys"), old.sign(b"data")
    assert trust.verifies("builder", signature, b"data", NOW - 2 * HOUR)
    assert not trust.verifies("builder", signature, b"data", NOW - HOUR)
    assert load_public(here / "keys", "builder").id == done.plan.new != old.public.id
    assert trust.current("builder").id == done.plan.new
    (gone,) = (k for k in trust.keys if k.id == old.public.id)
    assert gone.why == "the laptop was stolen"
    assert done.entry.fact.after["revokedAt"] == "2026-03-01T11:00:00Z"
    earlier = keeper(here).revoke(old.public.id, NOW - 2 * HOUR, "it was earlier")
    assert (earlier.plan.new, earlier.version) == ("", 2)
    with pytest.raises(UsageError, match="revoked already"):
        keeper(here).revoke(old.public.id, NOW - HOUR, "back")


def test_the_ledger_goes_on_when_its_own_key_is_revoked(here: Path) -> None:
    """What it signed since then is told to be looked at; the entry of the revocation vouches for it."""
    old = load_keys(here / "keys", {}, PASSPHRASE).verdict
    keeper(here).revoke(old.public.id, NOW - 2 * HOUR, "stolen")
    proof = ledger(here).prove()
    assert (proof.head.entries, proof.doubtful) == (2, (1,))
    new = load_keys(here / "keys", {}, PASSPHRASE).verdict
    ledger(here).append(FACT, new, NOW + HOUR)
    assert ledger(here).prove().doubtful == (1,)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (lambda k: k.rotate("root", HOUR, ""), "root is what verifiers trust"),
        (lambda k: k.rotate("king", HOUR, ""), "no role"),
        (lambda k: k.revoke("ab", None, "why"), "too short|no keys"),
        (lambda k: k.revoke("0" * 64, None, "why"), "names no keys"),
        (lambda k: k.revoke("../../../etc", None, "why"), "no keys"),
        (lambda k: k.revoke(load_public(k.folder, "builder").id, None, " "), "a reason is missing"),
        (lambda k: k.revoke(load_public(k.folder, "builder").id, NOW + HOUR, "x"), "not for the future"),
        (lambda k: k.rotate("builder", HOUR, "", load_public(k.folder, "verdict").pem), "in use"),
        (lambda k: k.rotate("builder", HOUR, "", load_public(k.folder, "root").pem), "in use"),
        (lambda k: k.rotate("builder", HOUR, "", b"no key"), "not an ECDSA"),
        (lambda k: k.rotate("verdict", HOUR, "", public("verdict").pem), "signed by the new verdict key"),
    ],
)
def test_what_makes_no_sense_changes_nothing(
    here: Path, asked: Callable[[Keeper], object], message: str
) -> None:
    before = {p.name: p.read_bytes() for p in (here / "keys").iterdir()}
    with pytest.raises(UsageError, match=message):
        asked(keeper(here))
    assert {p.name: p.read_bytes() for p in (here / "keys").iterdir()} == before
    assert len(ledger(here).entries()) == 1


def test_without_root_or_with_a_broken_ledger_nothing_is_begun(here: Path) -> None:
    (here / "keys" / "root.key").rename(here / "root.key")
    with pytest.raises(UsageError, match=r"no usable root\.key"):
        keeper(here).rotate("builder", HOUR, "")
    (here / "root.key").rename(here / "keys" / "root.key")
    (here / "ledger" / "head.json").unlink()
    with pytest.raises(PolicyDenied, match="signed head is missing"):
        keeper(here).rotate("builder", HOUR, "")
    assert not (here / "keys" / FILE).exists() and not (here / "keys" / PLAN).exists()


def test_a_key_that_is_kept_elsewhere_is_replaced_by_its_public_key(here: Path) -> None:
    (here / "keys" / "approver.key").unlink()
    with pytest.raises(UsageError, match="kept elsewhere") as raised:
        keeper(here).rotate("approver", HOUR, "")
    assert "--public FILE" in raised.value.hint
    new = public("approver")
    done = keeper(here).rotate("approver", HOUR, "", new.pem)
    assert done.plan.new == new.id == load_public(here / "keys", "approver").id
    assert not (here / "keys" / "approver.key").exists()


class Killed(BaseException):
    """The process is gone."""


@pytest.mark.parametrize("role", ["builder", "verdict"])
@pytest.mark.parametrize("what", ["rotate", "revoke"])
def test_a_change_that_was_killed_anywhere_is_completed_by_the_next_run(
    made: Path, tmp_path: Path, role: str, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each write, rename and removal is a moment at which a kill may come, before or after it."""
    old = load_keys(made / "keys", {}, PASSPHRASE)
    signature = open_signer(made / "keys", role, {}, PASSPHRASE).sign(b"data")

    def change(here: Path, at: dt.datetime) -> keykeeping.Changed:
        if what == "rotate":
            return keeper(here, at).rotate(role, HOUR, "why")
        return keeper(here, at).revoke(getattr(old, role).public.id, NOW - HOUR / 2, "why")

    kills = 0
    for step in range(100):
        here = Path(shutil.copytree(made, tmp_path / str(step)))
        with monkeypatch.context() as patch:
            left = [step]
            for module, name in ((os, "replace"), (os, "link"), (os, "unlink"), (os, "write")):
                patch.setattr(module, name, _killing(getattr(module, name), left))
            try:
                change(here, NOW)
                break
            except Killed:
                kills += 1
        # Whatever the moment: what was signed before verifies, and so does the ledger's chain.
        trust = Trust.load(here / "keys")
        assert trust.verifies(role, signature, b"data", NOW - HOUR)
        done = change(here, NOW + HOUR)
        trust = Trust.load(here / "keys")
        assert trust.verifies(role, signature, b"data", NOW - HOUR)
        keys = load_keys(here / "keys", {}, PASSPHRASE)
        assert getattr(keys, role).public.id == done.plan.new != getattr(old, role).public.id
        trust.require(getattr(keys, role).public, NOW + HOUR)
        told = [e for e in ledger(here).entries() if e.fact.what is not Action.PROMOTE]
        assert len(told) == 1 and trust.version == 1
        ledger(here).verify()
        assert not list((here / "keys").glob("*.next")) and not (here / "keys" / PLAN).exists()
        shutil.rmtree(here)
    assert kills >= 8


def _killing(real: Callable[..., object], left: list[int]) -> Callable[..., object]:
    def call(*arguments: object, **options: object) -> object:
        left[0] -= 1
        if left[0] == -1:
            raise Killed
        return real(*arguments, **options)

    return call


def test_a_trust_file_is_renewed_and_its_end_outlives_rotations(here: Path) -> None:
    keeper(here).rotate("builder", HOUR, "one")
    assert Trust.load(here / "keys").expires == NOW + dt.timedelta(days=keykeeping.VALID_DAYS)
    content, entry = keeper(here).renew(30, "a short leash")
    assert content.expires == Trust.load(here / "keys").expires == NOW + dt.timedelta(days=30)
    assert (entry.fact.what, entry.fact.why) == (Action.RENEW_TRUST, "a short leash")
    assert entry.fact.after == {"trust": "2", "expires": "2026-03-31T12:00:00Z"}
    keeper(here).rotate("verdict", HOUR, "two")
    assert Trust.load(here / "keys").expires == content.expires
    late = NOW + dt.timedelta(days=31)
    keeper(here, late).rotate("builder", HOUR, "after its end")
    assert Trust.load(here / "keys").expires == late + dt.timedelta(days=keykeeping.VALID_DAYS)
    assert ledger(here).verify().entries == 5
