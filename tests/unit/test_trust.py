"""The trust file: strict, signed by root, never older than before; keys hold for their periods."""

from __future__ import annotations

import base64
import datetime as dt
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from builder.errors import UsageError
from builder.model.digest import Digest, canonical_json
from builder.signing import trustfile
from builder.signing.keys import PublicKey, RoleSigner, open_signer
from builder.signing.statements import pae
from builder.signing.trust import FILE, Trust, Use, earliest
from builder.signing.trustfile import TrustContent, TrustedKey, TrustRefused, decode, encode
from tests.support.evidence import PASSPHRASE, new_keys
from tests.support.images import NOW

DAY = dt.timedelta(days=1)


def public(role: str) -> PublicKey:
    """A key that nobody signs with."""
    pem = (
        ec.generate_private_key(ec.SECP256R1())
        .public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    return PublicKey.parse(role, pem, "test")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("keys")
    new_keys(found)
    return found


@pytest.fixture(scope="module")
def root(folder: Path) -> RoleSigner:
    return open_signer(folder, "root", {}, PASSPHRASE)


@pytest.fixture(scope="module")
def content() -> TrustContent:
    old = TrustedKey(public("builder"), None, NOW)
    new = TrustedKey(public("builder"), NOW - DAY)
    gone = TrustedKey(public("verdict"), NOW - 9 * DAY, NOW, NOW - DAY, "the laptop was stolen")
    return TrustContent(
        7, (old, new, gone, TrustedKey(public("verdict"), NOW), TrustedKey(public("approver")))
    )


class Remembered(dict[str, tuple[int, str]]):
    """A memory of trust files."""

    def newest(self, root: Digest) -> tuple[int, str]:
        return self.get(root, (0, ""))

    def remember(self, root: Digest, version: int, digest: str) -> None:
        self[root] = (version, digest)


def test_what_was_written_is_read_back(content: TrustContent, root: RoleSigner) -> None:
    assert decode(encode(content, root), root.public) == content


def test_periods() -> None:
    key = TrustedKey(public("builder"), NOW, NOW + DAY, NOW + DAY / 2)
    second = dt.timedelta(seconds=1)
    assert key.flaw(NOW - second) == "key-out-of-period"
    assert key.flaw(NOW) == ""
    assert key.flaw(NOW + DAY / 2 - second) == ""
    assert key.flaw(NOW + DAY / 2) == "key-revoked"
    retired = replace(key, revoked_at=None)
    assert (retired.flaw(NOW + DAY), retired.flaw(NOW + DAY + second)) == ("", "key-out-of-period")
    # What says no time is ended by a revocation only.
    assert retired.flaw(NOW + 9 * DAY, dated=False) == ""
    assert key.flaw(NOW + 9 * DAY, dated=False) == "key-revoked"


def test_a_signature_counts_by_the_key_that_held_then(folder: Path) -> None:
    keys = new_keys(folder / "other")
    mine, next_ = keys.verdict, open_signer(folder, "verdict", {}, PASSPHRASE)
    trust = Trust(
        (
            TrustedKey(keys.builder.public),
            TrustedKey(mine.public, None, NOW),
            TrustedKey(next_.public, NOW),
        ),
        2,
    )
    for signer, before, after in ((mine, True, False), (next_, False, True)):
        signature = signer.sign(b"data")
        assert trust.verifies("verdict", signature, b"data", NOW - DAY) is before
        assert trust.verifies("verdict", signature, b"data", NOW)  # both hold at the moment of change
        assert trust.verifies("verdict", signature, b"data", NOW + DAY) is after
        assert not trust.verifies("builder", signature, b"data", NOW)
    assert trust.current("verdict") == next_.public
    trust.require(next_.public, NOW + DAY)
    with pytest.raises(UsageError, match="does not hold at this time") as raised:
        trust.require(mine.public, NOW + DAY)
    assert "goldsmith keys rotate verdict" in raised.value.hint


def test_of_many_uses_only_the_outermost_times_matter() -> None:
    uses = [Use("a", NOW + n * DAY, True) for n in range(5)] + [Use("a", NOW, False), Use("b", NOW, True)]
    assert earliest(uses) == {uses[0], uses[4], uses[5], uses[6]}


def _signed(payload: bytes, root: RoleSigner, kind: str = trustfile.PAYLOAD_TYPE) -> bytes:
    signature = base64.b64encode(root.sign(pae(kind, payload))).decode()
    return canonical_json(
        {
            "payload": base64.b64encode(payload).decode(),
            "payloadType": trustfile.PAYLOAD_TYPE,
            "signatures": [{"keyid": root.public.hint, "sig": signature}],
        }
    )


Change = Callable[[dict[str, Any]], object]
HOSTILE: dict[str, Change] = {
    "a key twice": lambda v: v["keys"].append(v["keys"][0]),
    "a key under two roles": lambda v: v["keys"].append({**v["keys"][0], "role": "verdict"}),
    "no verdict key": lambda v: v.update(keys=[k for k in v["keys"] if k["role"] != "verdict"]),
    "an unknown role": lambda v: v["keys"][0].update(role="king"),
    "a root key": lambda v: v["keys"][0].update(role="root"),
    "an id of another key": lambda v: v["keys"][0].update(id=v["keys"][1]["id"]),
    "another field": lambda v: v["keys"][0].update(extra=1),
    "a field too few": lambda v: v["keys"][0].pop("why"),
    "a period backwards": lambda v: v["keys"][0].update(
        notBefore="2026-03-02T00:00:00Z", notAfter="2026-03-01T00:00:00Z"
    ),
    "a time with a zone": lambda v: v["keys"][0].update(notAfter="2026-03-01T00:00:00+02:00"),
    "a time as a number": lambda v: v["keys"][0].update(notAfter=5),
    "a short time": lambda v: v["keys"][0].update(notAfter="2026-3-1T0:0:0Z"),
    "a key of another kind": lambda v: v["keys"][0].update(pem="-----BEGIN PUBLIC KEY-----\n"),
    "a key as a number": lambda v: v["keys"][0].update(pem=5),
    "a key that is none": lambda v: v["keys"].append(5),
    "no list": lambda v: v.update(keys={}),
    "too many keys": lambda v: v.update(keys=v["keys"] * 100),
    "another schema": lambda v: v.update(schema=2),
    "no version": lambda v: v.update(version=0),
    "a version as a text": lambda v: v.update(version="7"),
    "a version that is true": lambda v: v.update(version=True),
    "a reason without end": lambda v: v["keys"][0].update(why="x" * 10_000),
}


@pytest.mark.parametrize("change", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_file_is_refused_even_when_root_signed_it(
    content: TrustContent, root: RoleSigner, change: Change
) -> None:
    value = json.loads(base64.b64decode(json.loads(encode(content, root))["payload"]))
    change(value)
    with pytest.raises(TrustRefused, match="malformed") as raised:
        decode(_signed(canonical_json(value), root), root.public)
    assert raised.value.exit_code == 4 and raised.value.hint


def test_the_root_key_cannot_stand_for_a_role(content: TrustContent, root: RoleSigner) -> None:
    key = PublicKey.parse("builder", root.public.pem, "test")
    with pytest.raises(TrustRefused, match="malformed"):
        encode(replace(content, keys=(*content.keys, TrustedKey(key))), root)


def test_another_root_another_type_and_changed_bytes_are_refused(
    content: TrustContent, root: RoleSigner, folder: Path
) -> None:
    data = encode(content, root)
    payload = base64.b64decode(json.loads(data)["payload"])
    with pytest.raises(TrustRefused, match="not signed by root"):
        decode(data, public("root"))
    with pytest.raises(TrustRefused, match="not signed by root"):
        decode(_signed(payload, root, "application/vnd.in-toto+json"), root.public)
    with pytest.raises(TrustRefused, match="not signed by root"):
        decode(_signed(payload, open_signer(folder, "builder", {}, PASSPHRASE)), root.public)
    other = payload.replace(b'"version":7', b'"version":9')
    changed = data.replace(base64.b64encode(payload), base64.b64encode(other))
    assert changed != data
    with pytest.raises(TrustRefused, match="not signed by root"):
        decode(changed, root.public)
    for garbage in (b"", b"{", b"[]", b"null", data[:-20], data + b"x", b'{"payload":' * 5000):
        with pytest.raises(TrustRefused):
            decode(garbage, root.public)
    two = json.loads(data)
    two["signatures"] *= 2
    with pytest.raises(TrustRefused, match="malformed"):
        decode(canonical_json(two), root.public)


def test_a_huge_file_is_not_read(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "root.pub").write_bytes((folder / "root.pub").read_bytes())
    (tmp_path / FILE).write_bytes(b" " * (trustfile.FILE_MAX + 1))
    with pytest.raises(UsageError, match="cannot read"):
        Trust.load(tmp_path)


def test_an_older_file_is_refused_and_so_is_none(
    tmp_path: Path, content: TrustContent, root: RoleSigner
) -> None:
    memory = Remembered()
    (tmp_path / "root.pub").write_bytes(root.public.pem)
    newer, older = encode(content, root), encode(replace(content, version=6), root)
    (tmp_path / FILE).write_bytes(older)
    assert Trust.load(tmp_path, memory).version == 6
    (tmp_path / FILE).write_bytes(newer)
    assert Trust.load(tmp_path, memory).version == 7
    (tmp_path / FILE).write_bytes(older)
    with pytest.raises(TrustRefused, match="older one") as raised:
        Trust.load(tmp_path, memory)
    assert raised.value.reference == "trust-rolled-back"
    another = replace(content, keys=(*content.keys, TrustedKey(public("approver"))))
    (tmp_path / FILE).write_bytes(encode(another, root))
    with pytest.raises(TrustRefused, match="another one"):
        Trust.load(tmp_path, memory)
    (tmp_path / FILE).unlink()
    with pytest.raises(TrustRefused, match="is gone"):
        Trust.load(tmp_path, memory)
    (tmp_path / FILE).write_bytes(newer)
    assert Trust.load(tmp_path, memory).version == 7
    assert Trust.load(tmp_path).version == 7


def test_without_a_trust_file_single_keys_hold_for_all_times(folder: Path) -> None:
    trust = Trust.load(folder)
    assert (trust.version, [k.role for k in trust.keys]) == (0, ["builder", "verdict", "approver"])
    signature = open_signer(folder, "approver", {}, PASSPHRASE).sign(b"data")
    assert trust.verifies("approver", signature, b"data", NOW - 9999 * DAY)


def test_who_knows_no_periods_is_given_all_keys_but_the_revoked_ones(content: TrustContent) -> None:
    """What a rotated key signed in its time stays valid."""
    old, new, gone, verdict, _ = content.keys
    trust = Trust(content.keys, content.version)
    assert trust.believed("builder") == (new.key, old.key)
    assert trust.believed("verdict") == (verdict.key,) and gone.key not in trust.believed("verdict")


def test_a_file_with_an_end_is_believed_until_then(content: TrustContent, root: RoleSigner) -> None:
    ends = replace(content, expires=NOW)
    read = decode(encode(ends, root), root.public)
    assert read == ends
    trust = Trust(read.keys, read.version, read.expires)
    trust.require_current(NOW)
    with pytest.raises(TrustRefused) as refused:
        trust.require_current(NOW + dt.timedelta(seconds=1))
    assert refused.value.reference == "trust-expired" and "goldsmith keys renew" in refused.value.hint


def test_a_file_of_before_has_no_end(content: TrustContent, root: RoleSigner) -> None:
    data = encode(content, root)
    assert b"expires" not in base64.b64decode(json.loads(data)["payload"])
    assert decode(data, root.public).expires is None
    Trust(content.keys, content.version).require_current(NOW + 9999 * DAY)
