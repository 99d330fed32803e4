"""The ledger: what is written stays, whatever is done to it shows, and no secret gets in."""

from __future__ import annotations

import datetime as dt
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from builder.errors import ToolError
from builder.model.digest import Digest, canonical_json
from builder.signing.keys import Keys
from builder.signing.trust import Trust
from registry.audit.ledger import Action, Fact, Head, Ledger, LedgerBroken, parse_head
from registry.audit.redaction import REDACTED, TEXT_MAX, redact
from tests.support.evidence import new_keys
from tests.support.images import NOW

COUNT = 6


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    return new_keys(tmp_path_factory.mktemp("keys"))


def fact(number: int = 0, why: str = "it passed", who: str = "ann@host", **after: str) -> Fact:
    return Fact(
        who,
        Action.PROMOTE,
        "python:3.13",
        Digest.of(str(number).encode()),
        {"channel": "candidate"},
        {"channel": "stable", **after},
        why,
    )


def book(folder: Path, keys: Keys) -> Ledger:
    return Ledger(folder / "ledger", Trust.of(keys.verdict.public))


def write(ledger: Ledger, keys: Keys, count: int = COUNT) -> Ledger:
    for number in range(count):
        ledger.append(fact(number), keys.verdict, NOW + dt.timedelta(minutes=number))
    return ledger


@pytest.fixture
def full(tmp_path: Path, keys: Keys) -> Ledger:
    return write(book(tmp_path, keys), keys)


def test_what_was_appended_is_read_back_in_order(full: Ledger) -> None:
    found = full.entries()
    assert [e.sequence for e in found] == list(range(1, COUNT + 1))
    assert [e.fact for e in found] == [fact(n) for n in range(COUNT)]
    assert found[1].previous == found[0].hash
    assert full.verify() == Head(COUNT, found[-1].hash)
    assert not full.torn()


def test_an_empty_ledger_is_whole(tmp_path: Path, keys: Keys) -> None:
    assert book(tmp_path, keys).verify() == Head()


# ------------------------------------------------------------------ tampering


def lines(ledger: Ledger) -> list[bytes]:
    return ledger.path.read_bytes().splitlines(keepends=True)


def rewrite(ledger: Ledger, new: list[bytes]) -> None:
    ledger.path.write_bytes(b"".join(new))


def altered(line: bytes, rehash: bool) -> bytes:
    value = json.loads(line)
    value["entry"]["why"] = "another reason"
    if rehash:
        value["hash"] = Digest.of_json(value["entry"])
    return canonical_json(value) + b"\n"


def changed(ledger: Ledger, keys: Keys) -> None:
    all_ = lines(ledger)
    rewrite(ledger, [*all_[:2], altered(all_[2], rehash=False), *all_[3:]])


def changed_and_hashed(ledger: Ledger, keys: Keys) -> None:
    all_ = lines(ledger)
    rewrite(ledger, [*all_[:2], altered(all_[2], rehash=True), *all_[3:]])


def last_changed_and_hashed(ledger: Ledger, keys: Keys) -> None:
    all_ = lines(ledger)
    rewrite(ledger, [*all_[:-1], altered(all_[-1], rehash=True)])


def removed(ledger: Ledger, keys: Keys) -> None:
    all_ = lines(ledger)
    rewrite(ledger, [*all_[:2], *all_[3:]])


def first_removed(ledger: Ledger, keys: Keys) -> None:
    rewrite(ledger, lines(ledger)[1:])


def reordered(ledger: Ledger, keys: Keys) -> None:
    all_ = lines(ledger)
    rewrite(ledger, [*all_[:2], all_[3], all_[2], *all_[4:]])


def inserted(ledger: Ledger, keys: Keys) -> None:
    all_ = lines(ledger)
    rewrite(ledger, [*all_[:2], all_[1], *all_[2:]])


def appended_by_a_stranger(ledger: Ledger, keys: Keys) -> None:
    value = json.loads(lines(ledger)[-1])
    entry = {**value["entry"], "sequence": COUNT + 1, "previous": value["hash"]}
    forged = {**value, "entry": entry, "hash": Digest.of_json(entry)}
    rewrite(ledger, [*lines(ledger), canonical_json(forged) + b"\n"])


def truncated(ledger: Ledger, keys: Keys) -> None:
    rewrite(ledger, lines(ledger)[:3])


def emptied(ledger: Ledger, keys: Keys) -> None:
    ledger.path.unlink()


def cut_in_the_last_line(ledger: Ledger, keys: Keys) -> None:
    rewrite(ledger, [ledger.path.read_bytes()[:-10]])


def head_of_a_stranger(ledger: Ledger, keys: Keys) -> None:
    rewrite(ledger, lines(ledger)[:3])
    value = json.loads(lines(ledger)[-1])
    forged = {
        "entries": 3,
        "hash": value["hash"],
        "signature": json.loads(ledger.head_path.read_bytes())["signature"],
    }
    ledger.head_path.write_bytes(canonical_json(forged))


def head_by_the_builder(ledger: Ledger, keys: Keys) -> None:
    import base64

    rewrite(ledger, lines(ledger)[:3])
    head = Head(3, Digest(json.loads(lines(ledger)[-1])["hash"]))
    signature = base64.b64encode(keys.builder.sign(head.signed_bytes)).decode()
    ledger.head_path.write_bytes(canonical_json({"entries": 3, "hash": head.hash, "signature": signature}))


def head_removed(ledger: Ledger, keys: Keys) -> None:
    ledger.head_path.unlink()


def head_garbled(ledger: Ledger, keys: Keys) -> None:
    ledger.head_path.write_bytes(b"{")


def not_canonical(ledger: Ledger, keys: Keys) -> None:
    all_ = lines(ledger)
    rewrite(ledger, [all_[0], json.dumps(json.loads(all_[1])).encode() + b"\n", *all_[2:]])


def another_field(ledger: Ledger, keys: Keys) -> None:
    value = json.loads(lines(ledger)[1])
    value["entry"]["note"] = "extra"
    value["hash"] = Digest.of_json(value["entry"])
    rewrite(ledger, [lines(ledger)[0], canonical_json(value) + b"\n", *lines(ledger)[2:]])


def unparsable(ledger: Ledger, keys: Keys) -> None:
    rewrite(ledger, [lines(ledger)[0], b"garbage\n", *lines(ledger)[1:]])


TAMPERING: list[tuple[Callable[[Ledger, Keys], None], str, str]] = [
    (changed, "ledger-changed", "entry 3 "),
    (changed_and_hashed, "ledger-forged", "entry 3 "),
    (last_changed_and_hashed, "ledger-forged", f"entry {COUNT} "),
    (removed, "ledger-out-of-order", "entry 3 "),
    (first_removed, "ledger-out-of-order", "entry 1 "),
    (reordered, "ledger-out-of-order", "entry 3 "),
    (inserted, "ledger-out-of-order", "entry 3 "),
    (appended_by_a_stranger, "ledger-forged", f"entry {COUNT + 1} "),
    (truncated, "ledger-truncated", "entry 4 "),
    (emptied, "ledger-truncated", "entry 1 "),
    (cut_in_the_last_line, "ledger-truncated", f"entry {COUNT} "),
    (head_of_a_stranger, "ledger-forged", "the head "),
    (head_by_the_builder, "ledger-forged", "the head "),
    (head_removed, "ledger-head-missing", "the signed head is missing"),
    (head_garbled, "ledger-malformed", "the head "),
    (not_canonical, "ledger-malformed", "entry 2 "),
    (another_field, "ledger-malformed", "entry 2 "),
    (unparsable, "ledger-malformed", "entry 2 "),
]


@pytest.mark.parametrize(
    ("tamper", "reference", "names"), TAMPERING, ids=lambda x: getattr(x, "__name__", "")
)
def test_tampering_is_found_and_the_first_broken_entry_named(
    full: Ledger, keys: Keys, tamper: Callable[[Ledger, Keys], None], reference: str, names: str
) -> None:
    tamper(full, keys)
    with pytest.raises(LedgerBroken) as raised:
        full.verify()
    assert raised.value.reference == reference
    assert names in raised.value.message + " "
    before = full.path.read_bytes() if full.path.exists() else None
    with pytest.raises(LedgerBroken):
        full.append(fact(), keys.verdict, NOW)
    assert (full.path.read_bytes() if full.path.exists() else None) == before


def test_another_key_verifies_nothing(full: Ledger, keys: Keys) -> None:
    with pytest.raises(LedgerBroken) as raised:
        Ledger(full.path.parent, Trust.of(keys.builder.public)).verify()
    assert raised.value.reference == "ledger-forged"


def test_an_older_state_put_back_shows_against_a_head_that_was_kept(
    full: Ledger, keys: Keys, tmp_path: Path
) -> None:
    kept, _ = parse_head(full.head_path.read_bytes())
    older = write(book(tmp_path / "older", keys), keys, 3)
    assert older.verify().entries == 3
    with pytest.raises(LedgerBroken, match="entry 4 is missing"):
        older.verify(kept)
    full.append(fact(9), keys.verdict, NOW)
    assert full.verify(kept).entries == COUNT + 1
    other = book(tmp_path / "other", keys)
    for number in range(COUNT):
        other.append(fact(number + 50), keys.verdict, NOW)
    with pytest.raises(LedgerBroken) as raised:
        other.verify(kept)
    assert raised.value.reference == "ledger-replaced"


# ------------------------------------------------------------------ kills and full disks


@pytest.mark.parametrize("cut", [1, 20, -1])
def test_a_torn_last_line_is_told_and_taken_off_by_the_next_append(
    full: Ledger, keys: Keys, cut: int
) -> None:
    line = lines(full)[-1]
    with open(full.path, "ab") as handle:
        handle.write(line[:cut])
    assert full.torn()
    assert full.verify().entries == COUNT
    entry = full.append(fact(99), keys.verdict, NOW)
    assert (entry.sequence, full.torn()) == (COUNT + 1, False)
    assert full.verify().entries == COUNT + 1


def test_a_kill_between_line_and_head_loses_nothing(full: Ledger, keys: Keys) -> None:
    head = full.head_path.read_bytes()
    full.append(fact(7), keys.verdict, NOW)
    full.head_path.write_bytes(head)
    assert full.verify().entries == COUNT + 1
    assert full.append(fact(8), keys.verdict, NOW).sequence == COUNT + 2
    assert full.verify().entries == COUNT + 2


def test_a_kill_before_the_first_line_leaves_a_ledger_that_goes_on(tmp_path: Path, keys: Keys) -> None:
    ledger = write(book(tmp_path, keys), keys, 1)
    head = ledger.head_path.read_bytes()
    ledger.path.write_bytes(b"")
    with pytest.raises(LedgerBroken):
        ledger.verify()
    ledger.head_path.unlink()
    write(ledger, keys, 1)
    assert ledger.head_path.read_bytes() == head


def test_a_full_disk_leaves_what_was_there(full: Ledger, keys: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    before = full.path.read_bytes()
    real = os.write

    def half(handle: int, data: bytes) -> int:
        return real(handle, bytes(data)[: len(data) // 2])

    monkeypatch.setattr("registry.audit.ledger.os.write", half)
    with pytest.raises(ToolError, match="cannot write"):
        full.append(fact(), keys.verdict, NOW)
    monkeypatch.undo()
    assert full.path.read_bytes() == before
    assert full.append(fact(), keys.verdict, NOW).sequence == COUNT + 1


def test_writers_at_the_same_time_lose_nothing(tmp_path: Path, keys: Keys) -> None:
    """Threads hold locks of their own: each append opens the lock file anew."""
    from concurrent.futures import ThreadPoolExecutor

    ledger = book(tmp_path, keys)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda n: ledger.append(fact(n), keys.verdict, NOW), range(20)))
    assert ledger.verify().entries == 20
    assert len({e.fact.digest for e in ledger.entries()}) == 20


def test_a_killed_writer_never_leaves_a_broken_ledger(tmp_path: Path) -> None:
    """kill -9 at some moment of a loop of appends; then the ledger is whole and goes on."""
    root = Path(__file__).parents[2]
    script = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from tests.unit.test_ledger import book, fact, new_keys
from tests.support.images import NOW
folder = Path(sys.argv[1])
keys = new_keys(folder / "keys")
ledger = book(folder, keys)
print("ready", flush=True)
for number in range(100000):
    ledger.append(fact(number), keys.verdict, NOW)
"""
    for _ in range(3):
        child = subprocess.Popen(
            [sys.executable, "-c", script, str(tmp_path), str(root)], stdout=subprocess.PIPE, cwd=root
        )
        assert child.stdout and child.stdout.readline() == b"ready\n"
        path = tmp_path / "ledger" / "entries.jsonl"
        size = path.stat().st_size if path.exists() else 0
        while not path.exists() or path.stat().st_size < size + 3000:
            assert child.poll() is None
        child.kill()
        child.wait()
        child.stdout.close()
        keys = new_keys(tmp_path / "keys")
        ledger = book(tmp_path, keys)
        count = ledger.verify().entries
        assert count >= 3
        assert ledger.append(fact(), keys.verdict, NOW).sequence == count + 1


# ------------------------------------------------------------------ secrets


PEM = "-----BEGIN EC PRIVATE KEY-----\nMHcCAQEEIBzZ\n-----END EC PRIVATE KEY-----"
SECRETS = [
    ("password=hunter2 leaked", "hunter2"),
    ("the password is hunter2", "hunter2"),
    ("Password: hunter2", "hunter2"),
    ('{"client_secret": "s3cr3t-value"}', "s3cr3t-value"),
    ("run with --token abc123", "abc123"),
    ("GOLDSMITH_KEY_PASSPHRASE=correct-horse", "correct-horse"),
    ("Authorization: Bearer abcdef.ghijkl", "ghijkl"),
    ("Basic dXNlcjpwYXNz", "dXNlcjpwYXNz"),
    ("see https://ann:pa55@host.example/x", "pa55"),
    ("eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhIn0.c2ln", "eyJzdWIi"),
    ("ghp_" + "a1B2" * 9, "a1B2a1B2"),
    ("AKIA" + "ABCDEFGH12345678", "ABCDEFGH1234"),
    ("key " + "Zm9vYmFyMTIzNDU2Nzg5MEFC", "Zm9vYmFy"),
    ("hex " + "0123456789abcdef" * 4, "0123456789abcdef"),
    (PEM, "MHcCAQEEIBzZ"),
    (PEM.partition("-----END")[0], "MHcCAQEEIBzZ"),
]


@pytest.mark.parametrize(("text", "secret"), SECRETS, ids=[s for _, s in SECRETS])
def test_no_secret_is_ever_written(tmp_path: Path, keys: Keys, text: str, secret: str) -> None:
    ledger = book(tmp_path, keys)
    entry = ledger.append(fact(why=text, who=f"ann {text}"), keys.verdict, NOW)
    written = ledger.path.read_text() + ledger.head_path.read_text()
    assert secret not in written
    assert REDACTED in entry.fact.why
    assert entry.fact == ledger.entries()[0].fact


def test_names_of_identities_stay_whatever_they_look_like(tmp_path: Path, keys: Keys) -> None:
    ledger = book(tmp_path, keys)
    for who in ("token:ci-python", "oidc:corp:auth0|5f7C8ec7c33c6c004bbaFe82"):
        assert ledger.append(fact(who=who), keys.verdict, NOW).fact.who == who
    assert ledger.append(fact(who="token:gs_abcdef_S3cret"), keys.verdict, NOW).fact.who == REDACTED


@pytest.mark.parametrize(
    "text",
    [
        "CVE-2026-12345 in openssl 3.5.1-1, fixed in python:3.13@sha256:" + "0a" * 32,
        "3.13.5-0123456789ab replaced; ask platform-team, ticket OPS-1234",
        "2026-03-01T12:00:00Z",
        "/usr/lib/x86_64-linux-gnu/libssl.so.3 is broken",
        "commit 0123456789ab",
    ],
)
def test_ordinary_words_stay(text: str) -> None:
    assert redact(text) == text


def test_texts_are_one_short_line_without_control_characters() -> None:
    assert redact("a\n\x1b[31mb\u202ec") == "a [31mb c"
    assert len(redact("word " * 1000)) == TEXT_MAX


@pytest.mark.parametrize(
    "state",
    [
        {"passphrase": "x"},
        {"replacement": "hunter2"},
        {"tagDigest": "hunter2"},
        {"policy": "the password is hunter2"},
        {"tag": "a b"},
        {"verdict": "soon"},
    ],
    ids=str,
)
def test_only_known_fields_in_their_form_can_be_written(
    tmp_path: Path, keys: Keys, state: dict[str, str]
) -> None:
    ledger = book(tmp_path, keys)
    with pytest.raises(ToolError, match="only what it has fields for"):
        ledger.append(fact(**state), keys.verdict, NOW)
    assert not ledger.path.exists()
